//! The canonical entry: the one form a message has from the front's queue to the stores.
//!
//! A CBOR array of definite length, in the order of [`EntryHead`], then the body:
//!
//! ```text
//! [1, tenant, device, session, seq, rejected_before, received, [[key, value, unit|null, time], ..]]
//! [1, tenant, device, session, seq, rejected_before, received, content_type, payload]
//! ```
//!
//! The leading 1 is the version of this form. Equal messages give equal bytes: every head is the
//! shortest, every float has 64 bits, and a reading leaves out what it lacks at its end. What a
//! store needs of a message is all in it; nothing downstream parses what the device sent.
//!
//! Not here: checks of what a device sends (they are done before, by the device codecs).

use std::borrow::Cow;

use forebay_model::{
    Body, DeviceId, Invalid, Message, MessageId, Reading, SessionId, TenantId, Timestamp, Value,
    limits,
};
use minicbor::{Decoder, data::Type};

use crate::cbor::{
    put_array, put_bool, put_bytes, put_float, put_int, put_null, put_text, put_uint,
};

/// The version of the canonical form. One line of history each:
/// - 1: the first.
pub const VERSION: u8 = 1;

/// Items of an entry whose body is readings, and of an opaque one.
const READINGS_ITEMS: u64 = 8;
const OPAQUE_ITEMS: u64 = 9;

/// Which message an entry is, without its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryHead<'a> {
    /// Whose device it is.
    pub tenant: &'a str,
    /// Who sent it.
    pub device: &'a str,
    /// Which life of the device's counter numbered it.
    pub session: SessionId,
    /// Its number in that session.
    pub seq: MessageId,
    /// How many numbers directly below `seq` were rejected for good.
    pub rejected_before: u32,
    /// When the front received it.
    pub received: Timestamp,
}

/// Bytes that are not a canonical entry. They were one when they were appended: an alarm.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Not CBOR, or not of the canonical shape.
    #[error("entry is malformed at byte {at}")]
    Malformed {
        /// Offset of the item that was not understood.
        at: usize,
    },
    /// Written by a later release.
    #[error("entry has version {version}, this release reads {VERSION}")]
    Version {
        /// As written.
        version: u64,
    },
    /// A part is out of the bounds of the data model.
    #[error("entry is out of bounds: {0}")]
    Invalid(#[from] Invalid),
}

/// Appends the canonical form of `message` to `out`.
///
/// The message must be within the bounds of the data model, as the device codecs leave it;
/// otherwise [`decode`] refuses the entry.
pub fn encode(message: &Message<'_>, out: &mut Vec<u8>) {
    let items = match message.body {
        Body::Readings(_) => READINGS_ITEMS,
        Body::Opaque { .. } => OPAQUE_ITEMS,
    };
    put_array(out, items as usize);
    put_uint(out, u64::from(VERSION));
    put_text(out, &message.tenant);
    put_text(out, &message.device);
    put_uint(out, message.session.get());
    put_uint(out, message.seq.get());
    put_uint(out, u64::from(message.rejected_before));
    put_int(out, message.received.micros());
    match &message.body {
        Body::Readings(readings) => {
            put_array(out, readings.len());
            readings.iter().for_each(|reading| encode_reading(reading, out));
        }
        Body::Opaque { content_type, payload } => {
            put_text(out, content_type);
            put_bytes(out, payload);
        }
    }
}

fn encode_reading(reading: &Reading<'_>, out: &mut Vec<u8>) {
    let items = match (&reading.unit, reading.time) {
        (_, Some(_)) => 4,
        (Some(_), None) => 3,
        (None, None) => 2,
    };
    put_array(out, items);
    put_text(out, &reading.key);
    match &reading.value {
        Value::Float(number) => put_float(out, *number),
        Value::Int(number) => put_int(out, *number),
        Value::Bool(on) => put_bool(out, *on),
        Value::Text(text) => put_text(out, text),
    }
    match &reading.unit {
        Some(unit) => put_text(out, unit),
        None if items > 2 => put_null(out),
        None => {}
    }
    if let Some(time) = reading.time {
        put_int(out, time.micros());
    }
}

/// Reads which message an entry is, in some ten nanoseconds, without looking at the body.
///
/// # Errors
/// [`EntryError`]: the bytes are not an entry of this version. Raise an alarm and pass over it.
pub fn head(entry: &[u8]) -> Result<EntryHead<'_>, EntryError> {
    let mut decoder = Decoder::new(entry);
    Ok(read_head(&mut decoder)?.0)
}

/// Which message to look for among entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The tenant of its device.
    pub tenant: &'a str,
    /// The device.
    pub device: &'a str,
    /// Its session.
    pub session: u64,
    /// Its number in the session.
    pub seq: u64,
}

impl Wanted<'_> {
    /// Whether it is in this entry; bytes that are no entry hold no message.
    #[must_use]
    pub fn is_in(&self, entry: &[u8]) -> bool {
        head(entry).is_ok_and(|head| {
            head.seq.get() == self.seq
                && head.session.get() == self.session
                && head.device == self.device
                && head.tenant == self.tenant
        })
    }
}

/// Reads a whole entry; texts and payload borrow from it.
///
/// # Errors
/// As [`head`], and for a body that is malformed or out of bounds.
pub fn decode(entry: &[u8]) -> Result<Message<'_>, EntryError> {
    let mut decoder = Decoder::new(entry);
    let (head, items) = read_head(&mut decoder)?;
    TenantId::check(head.tenant)?;
    DeviceId::check(head.device)?;
    let body = match items {
        READINGS_ITEMS => read_readings(&mut decoder)?,
        _ => Body::Opaque {
            content_type: Cow::Borrowed(read(&mut decoder, Decoder::str)?),
            payload: Cow::Borrowed(read(&mut decoder, Decoder::bytes)?),
        },
    };
    if decoder.position() != entry.len() {
        return Err(EntryError::Malformed { at: decoder.position() });
    }
    body.validate()?;
    Ok(Message {
        tenant: Cow::Borrowed(head.tenant),
        device: Cow::Borrowed(head.device),
        session: head.session,
        seq: head.seq,
        rejected_before: head.rejected_before,
        received: head.received,
        body,
    })
}

/// Reads one item; an error names where it starts.
fn read<'b, T>(
    decoder: &mut Decoder<'b>,
    item: impl FnOnce(&mut Decoder<'b>) -> Result<T, minicbor::decode::Error>,
) -> Result<T, EntryError> {
    let at = decoder.position();
    item(decoder).map_err(|_| EntryError::Malformed { at })
}

/// The head, and how many items the entry has.
fn read_head<'b>(decoder: &mut Decoder<'b>) -> Result<(EntryHead<'b>, u64), EntryError> {
    let items = read(decoder, Decoder::array)?;
    let version = read(decoder, Decoder::u64)?;
    if version != u64::from(VERSION) {
        return Err(EntryError::Version { version });
    }
    let items = match items {
        Some(items @ (READINGS_ITEMS | OPAQUE_ITEMS)) => items,
        _ => return Err(EntryError::Malformed { at: 0 }),
    };
    let head = EntryHead {
        tenant: read(decoder, Decoder::str)?,
        device: read(decoder, Decoder::str)?,
        session: SessionId::new(read(decoder, Decoder::u64)?)?,
        seq: MessageId::new(read(decoder, Decoder::u64)?)?,
        rejected_before: read(decoder, Decoder::u32)?,
        received: Timestamp::from_micros(read(decoder, Decoder::i64)?)?,
    };
    Ok((head, items))
}

fn read_readings<'b>(decoder: &mut Decoder<'b>) -> Result<Body<'b>, EntryError> {
    let at = decoder.position();
    let count = read(decoder, Decoder::array)?.ok_or(EntryError::Malformed { at })?;
    // A reading has at least 3 bytes: an announced length beyond that is a lie, not an allocation.
    let left = decoder.input().len() - decoder.position();
    if count > limits::READINGS_MAX as u64 || count > left as u64 / 3 {
        return Err(EntryError::Malformed { at });
    }
    let mut readings = Vec::with_capacity(count as usize);
    for _ in 0..count {
        readings.push(read_reading(decoder)?);
    }
    Ok(Body::Readings(readings))
}

fn read_reading<'b>(decoder: &mut Decoder<'b>) -> Result<Reading<'b>, EntryError> {
    let at = decoder.position();
    let items = match read(decoder, Decoder::array)? {
        Some(items @ 2..=4) => items,
        _ => return Err(EntryError::Malformed { at }),
    };
    let key = Cow::Borrowed(read(decoder, Decoder::str)?);
    let value = read_value(decoder)?;
    let mut unit = None;
    if items > 2 {
        if items == 4 && matches!(decoder.datatype(), Ok(Type::Null)) {
            read(decoder, Decoder::null)?;
        } else {
            unit = Some(Cow::Borrowed(read(decoder, Decoder::str)?));
        }
    }
    let time = match items {
        4 => Some(Timestamp::from_micros(read(decoder, Decoder::i64)?)?),
        _ => None,
    };
    Ok(Reading { key, value, unit, time })
}

fn read_value<'b>(decoder: &mut Decoder<'b>) -> Result<Value<'b>, EntryError> {
    let at = decoder.position();
    match decoder.input().get(at) {
        Some(0xfb) => read(decoder, Decoder::f64).map(Value::Float),
        Some(0x00..=0x3b) => read(decoder, Decoder::i64).map(Value::Int),
        Some(0x60..=0x7b) => read(decoder, Decoder::str).map(|text| Value::Text(text.into())),
        Some(0xf4 | 0xf5) => read(decoder, Decoder::bool).map(Value::Bool),
        _ => Err(EntryError::Malformed { at }),
    }
}
