//! SenML packs (RFC 8428) as the body of a data frame: base fields are resolved here, once, and
//! what goes on are plain readings.
//!
//! - A record's key is base name and name put together; its time base time plus time, in seconds.
//!   Below 2^28 a time is relative to the moment the front received the pack; 0 and none at all mean
//!   "about now" and leave the reading without a time of its own.
//! - A base value is added to numeric values. Integer plus integer stays an integer if it fits.
//! - A sum becomes a reading of its own, directly after the value of its record: key `<name>.sum`,
//!   unit `<unit>.s` (it is a value integrated over seconds).
//! - A data value (`vd`) is stored as text in base64url without padding.
//! - A record with nothing but base fields sets them and makes no reading; `ut` is passed over.
//! - Labels that are not in the RFC are passed over, except those ending in `_`, which must be
//!   understood (section 4.4) and are refused; so is a version above 10.

use std::borrow::Cow;

use forebay_model::{Invalid, Reading, Timestamp, Value, limits};

use super::Fault;
use super::encoding::{Flaw, Key, Reader, Scalar, flaw, skip, text, uint, under, wrong};
use crate::base64;

/// The version of SenML that RFC 8428 describes.
const VERSION_MAX: u64 = 10;
/// Times below it are relative to now (RFC 8428 section 4.5.3).
const ABSOLUTE_SECONDS_MIN: f64 = 268_435_456.0;

/// A number that keeps whether it was written as an integer.
#[derive(Debug, Clone, Copy)]
enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    fn as_float(self) -> f64 {
        match self {
            Self::Int(number) => number as f64,
            Self::Float(number) => number,
        }
    }

    /// The sum with a base, if there is one.
    fn plus(self, base: Option<Self>) -> Self {
        match (self, base) {
            (number, None) => number,
            (Self::Int(number), Some(Self::Int(base))) => {
                number.checked_add(base).map_or(Self::Float(number as f64 + base as f64), Self::Int)
            }
            (number, Some(base)) => Self::Float(number.as_float() + base.as_float()),
        }
    }
}

impl From<Number> for Value<'_> {
    fn from(number: Number) -> Self {
        match number {
            Number::Int(number) => Self::Int(number),
            Number::Float(number) => Self::Float(number),
        }
    }
}

/// The labels of one record as they stand in it.
#[derive(Default)]
struct Record<'b> {
    base_name: Option<Cow<'b, str>>,
    base_time: Option<Number>,
    base_unit: Option<Cow<'b, str>>,
    base_value: Option<Number>,
    base_sum: Option<Number>,
    version: Option<u64>,
    name: Option<Cow<'b, str>>,
    unit: Option<Cow<'b, str>>,
    value: Option<Number>,
    text: Option<Cow<'b, str>>,
    on: Option<bool>,
    bytes: Option<String>,
    sum: Option<Number>,
    time: Option<Number>,
    update_time: Option<Number>,
}

/// Base fields as they hold from the last record that set them.
#[derive(Default)]
struct Bases<'b> {
    name: Option<Cow<'b, str>>,
    time: Option<Number>,
    unit: Option<Cow<'b, str>>,
    value: Option<Number>,
    sum: Option<Number>,
}

/// Reads a pack and resolves it to readings within the bounds of the model.
pub(super) fn read<'b, R: Reader<'b>>(
    reader: &mut R,
    received: Timestamp,
) -> Result<Vec<Reading<'b>>, Flaw> {
    let begin = reader.at();
    let mut items = reader.array("an array of SenML records")?;
    let mut bases = Bases::default();
    let mut readings = Vec::new();
    let mut index = 0;
    while reader.more(&mut items)? {
        let at = reader.at();
        record(reader)
            .and_then(|record| {
                bases.resolve(record, received, &mut readings).map_err(|fault| flaw(at, fault))
            })
            .map_err(|mut flaw| {
                flaw.place.index = Some(index);
                flaw
            })?;
        index += 1;
    }
    if readings.is_empty() {
        return Err(flaw(begin, Invalid::NoReadings.into()));
    }
    Ok(readings)
}

/// The label of a key: its text in JSON, its number in CBOR (section 6), by which we also know it.
fn label<'k>(key: &'k Key<'_>) -> &'k [u8] {
    match key {
        Key::Text(text) => text,
        Key::Label(label) => match label {
            -1 => b"bver",
            -2 => b"bn",
            -3 => b"bt",
            -4 => b"bu",
            -5 => b"bv",
            -6 => b"bs",
            0 => b"n",
            1 => b"u",
            2 => b"v",
            3 => b"vs",
            4 => b"vb",
            5 => b"s",
            6 => b"t",
            7 => b"ut",
            8 => b"vd",
            _ => b"",
        },
    }
}

fn record<'b, R: Reader<'b>>(reader: &mut R) -> Result<Record<'b>, Flaw> {
    let mut record = Record::default();
    let mut items = reader.map("a map for a SenML record")?;
    while reader.more(&mut items)? {
        let at = reader.at();
        let key = reader.key()?;
        match label(&key) {
            b"n" => once(&mut record.name, "n", at, text(reader))?,
            b"u" => once(&mut record.unit, "u", at, text(reader))?,
            b"v" => once(&mut record.value, "v", at, number(reader))?,
            b"vs" => once(&mut record.text, "vs", at, text(reader))?,
            b"vb" => once(&mut record.on, "vb", at, boolean(reader))?,
            b"vd" => once(&mut record.bytes, "vd", at, data(reader))?,
            b"s" => once(&mut record.sum, "s", at, number(reader))?,
            b"t" => once(&mut record.time, "t", at, number(reader))?,
            b"ut" => once(&mut record.update_time, "ut", at, number(reader))?,
            b"bn" => once(&mut record.base_name, "bn", at, text(reader))?,
            b"bt" => once(&mut record.base_time, "bt", at, number(reader))?,
            b"bu" => once(&mut record.base_unit, "bu", at, text(reader))?,
            b"bv" => once(&mut record.base_value, "bv", at, number(reader))?,
            b"bs" => once(&mut record.base_sum, "bs", at, number(reader))?,
            b"bver" => once(&mut record.version, "bver", at, version(reader))?,
            other if other.ends_with(b"_") => return Err(flaw(at, key.unknown())),
            _ => skip(reader, 0)?,
        }
    }
    Ok(record)
}

fn once<T>(
    slot: &mut Option<T>,
    label: &'static str,
    at: usize,
    value: Result<T, Flaw>,
) -> Result<(), Flaw> {
    if slot.replace(value.map_err(under(label))?).is_some() {
        return Err(under(label)(flaw(at, Fault::DuplicateKey)));
    }
    Ok(())
}

fn number<'b>(reader: &mut impl Reader<'b>) -> Result<Number, Flaw> {
    let at = reader.at();
    match reader.scalar("a number")? {
        Scalar::Int(number) => Ok(Number::Int(number)),
        Scalar::Float(number) if number.is_finite() => Ok(Number::Float(number)),
        Scalar::Float(_) => Err(flaw(at, Invalid::NotFinite.into())),
        other => Err(flaw(at, wrong("a number", other.name()))),
    }
}

fn boolean<'b>(reader: &mut impl Reader<'b>) -> Result<bool, Flaw> {
    let at = reader.at();
    match reader.scalar("a boolean")? {
        Scalar::Bool(on) => Ok(on),
        other => Err(flaw(at, wrong("a boolean", other.name()))),
    }
}

fn data<'b>(reader: &mut impl Reader<'b>) -> Result<String, Flaw> {
    Ok(base64::encode_url(&reader.bytes()?))
}

fn version<'b>(reader: &mut impl Reader<'b>) -> Result<u64, Flaw> {
    let at = reader.at();
    match uint(reader)? {
        version if version <= VERSION_MAX => Ok(version),
        _ => Err(flaw(at, Fault::BadShape { what: "SenML version above 10" })),
    }
}

impl<'b> Bases<'b> {
    /// Takes over the record's base fields and adds its readings.
    fn resolve(
        &mut self,
        record: Record<'b>,
        received: Timestamp,
        readings: &mut Vec<Reading<'b>>,
    ) -> Result<(), Fault> {
        replace(&mut self.name, record.base_name);
        replace(&mut self.time, record.base_time);
        replace(&mut self.unit, record.base_unit);
        replace(&mut self.value, record.base_value);
        replace(&mut self.sum, record.base_sum);

        let values = [
            record.value.map(|number| number.plus(self.value).into()),
            record.text.map(Value::Text),
            record.on.map(Value::Bool),
            record.bytes.map(|text| Value::Text(Cow::Owned(text))),
        ];
        let mut values = values.into_iter().flatten();
        let value = values.next();
        if values.next().is_some() {
            return Err(Fault::BadShape { what: "record has more than one value" });
        }
        let sum = record.sum.map(|sum| sum.plus(self.sum));
        if value.is_none() && sum.is_none() {
            return match (record.name, record.unit, record.time) {
                (None, None, None) => Ok(()),
                _ => Err(Fault::BadShape { what: "record has neither a value nor a sum" }),
            };
        }

        let key = join(self.name.as_ref(), record.name)?;
        let unit = record.unit.or_else(|| self.unit.clone());
        let time = resolve_time(self.time, record.time, received)?;
        if let Some(sum) = sum {
            let sum_key = Cow::Owned(format!("{key}.sum"));
            let sum_unit = unit.as_ref().map(|unit| Cow::Owned(format!("{unit}.s")));
            if let Some(value) = value {
                add(Reading { key, value, unit, time }, readings)?;
            }
            add(Reading { key: sum_key, value: sum.into(), unit: sum_unit, time }, readings)
        } else if let Some(value) = value {
            add(Reading { key, value, unit, time }, readings)
        } else {
            Ok(())
        }
    }
}

fn add<'b>(reading: Reading<'b>, readings: &mut Vec<Reading<'b>>) -> Result<(), Fault> {
    if readings.len() == limits::READINGS_MAX {
        return Err(Invalid::TooManyReadings { count: readings.len() + 1 }.into());
    }
    reading.validate()?;
    readings.push(reading);
    Ok(())
}

fn replace<T>(slot: &mut Option<T>, new: Option<T>) {
    if new.is_some() {
        *slot = new;
    }
}

/// Base name and name; borrowed where one of them is all there is.
fn join<'b>(
    base: Option<&Cow<'b, str>>,
    name: Option<Cow<'b, str>>,
) -> Result<Cow<'b, str>, Fault> {
    match (base.filter(|base| !base.is_empty()), name.filter(|name| !name.is_empty())) {
        (None, None) => Err(Fault::BadShape { what: "record has no name" }),
        (Some(base), None) => Ok(base.clone()),
        (None, Some(name)) => Ok(name),
        // Before the copy: a base name as long as the message, times its records, is no small text.
        (Some(base), Some(name)) if base.len() + name.len() > limits::KEY_BYTES_MAX => {
            let bytes = base.len() + name.len();
            Err(Invalid::TooLong { what: "key", bytes, bytes_max: limits::KEY_BYTES_MAX }.into())
        }
        (Some(base), Some(name)) => Ok(Cow::Owned(format!("{base}{name}"))),
    }
}

/// Seconds, relative or absolute, to a time; `None` for "about now".
fn resolve_time(
    base: Option<Number>,
    time: Option<Number>,
    received: Timestamp,
) -> Result<Option<Timestamp>, Fault> {
    let seconds = match (base, time) {
        (None, None) => return Ok(None),
        (Some(only), None) | (None, Some(only)) => only,
        (base, Some(time)) => time.plus(base),
    };
    if seconds.as_float() == 0.0 {
        return Ok(None);
    }
    let micros = match seconds {
        Number::Int(seconds) => seconds.saturating_mul(1_000_000),
        // The cast saturates: an absurd time is refused below, not wrapped.
        Number::Float(seconds) => (seconds * 1e6).round() as i64,
    };
    let micros = if seconds.as_float() < ABSOLUTE_SECONDS_MIN {
        received.micros().saturating_add(micros)
    } else {
        micros
    };
    Ok(Some(Timestamp::from_micros(micros)?))
}
