//! One measured value with its key, unit and time.

use std::borrow::Cow;

use crate::{Invalid, Timestamp, error::check_length, limits};

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// A finite number.
    Float(f64),
    /// A whole number.
    Int(i64),
    /// On or off.
    Bool(bool),
    /// Text of any length that fits the message.
    Text(Cow<'a, str>),
}

impl Value<'_> {
    /// The same value, owning its text.
    #[must_use]
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Float(number) => Value::Float(number),
            Self::Int(number) => Value::Int(number),
            Self::Bool(on) => Value::Bool(on),
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
        }
    }
}

/// One value of one key at one time.
///
/// Fields are public so that decoders fill them without copies; whoever takes a reading from
/// outside calls [`Reading::validate`] before it lets it on.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading<'a> {
    /// What was measured: 1 to 128 bytes without control characters.
    pub key: Cow<'a, str>,
    /// The value.
    pub value: Value<'a>,
    /// Its unit as the device names it: 1 to 32 bytes without control characters.
    pub unit: Option<Cow<'a, str>>,
    /// When it was measured, if the device has a clock.
    pub time: Option<Timestamp>,
}

impl Reading<'_> {
    /// Checks every part against its bounds.
    ///
    /// # Errors
    /// [`Invalid`] names the first part that is out of bounds. Reject the message.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_text("key", &self.key, limits::KEY_BYTES_MAX)?;
        if let Some(unit) = &self.unit {
            check_text("unit", unit, limits::UNIT_BYTES_MAX)?;
        }
        match self.value {
            Value::Float(number) if !number.is_finite() => Err(Invalid::NotFinite),
            _ => Ok(()),
        }
    }

    /// The same reading, owning its text.
    #[must_use]
    pub fn into_owned(self) -> Reading<'static> {
        Reading {
            key: Cow::Owned(self.key.into_owned()),
            value: self.value.into_owned(),
            unit: self.unit.map(|unit| Cow::Owned(unit.into_owned())),
            time: self.time,
        }
    }
}

/// Text that names something: within its length, nothing that a terminal would obey.
pub(crate) fn check_text(what: &'static str, text: &str, bytes_max: usize) -> Result<(), Invalid> {
    check_length(what, text.len(), bytes_max)?;
    // Bytes first: nearly every key is plain ASCII and needs no decoding.
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Ok(());
    }
    match text.char_indices().find(|(_, character)| character.is_control()) {
        Some((at, _)) => Err(Invalid::BadCharacter { what, at }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(key: &'static str, value: Value<'static>) -> Reading<'static> {
        Reading { key: key.into(), value, unit: None, time: None }
    }

    #[test]
    fn values_that_no_store_can_average_are_refused() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let error = reading("t", Value::Float(number)).validate();
            assert_eq!(error, Err(Invalid::NotFinite));
        }
        assert_eq!(reading("t", Value::Float(-0.0)).validate(), Ok(()));
    }

    #[test]
    fn keys_and_units_are_bounded_and_printable() {
        let value = Value::Bool(true);
        assert_eq!(reading("", value.clone()).validate().unwrap_err().code(), "empty");
        assert_eq!(
            reading("a\u{1b}[2J", value.clone()).validate(),
            Err(Invalid::BadCharacter { what: "key", at: 1 })
        );
        assert_eq!(reading("température", value.clone()).validate(), Ok(()));
        let unit = Some("x".repeat(33).into());
        let error = Reading { unit, ..reading("t", value) }.validate().unwrap_err();
        assert_eq!(error, Invalid::TooLong { what: "unit", bytes: 33, bytes_max: 32 });
    }
}
