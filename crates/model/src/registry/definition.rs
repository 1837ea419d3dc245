//! What a key's readings should be: type, unit, bounds; and what is wrong with one that is not so.

use std::fmt;

use crate::Value;

/// The type a key's readings should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataType {
    /// Any number: a whole one counts, as many encoders drop the fraction of 21.0.
    Float,
    /// A whole number.
    Int,
    /// On or off.
    Bool,
    /// Text.
    Text,
}

impl DataType {
    /// All types.
    pub const ALL: [Self; 4] = [Self::Float, Self::Int, Self::Bool, Self::Text];

    /// The word that names it in a registry.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Int => "int",
            Self::Bool => "bool",
            Self::Text => "text",
        }
    }

    /// The type that a word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|data_type| data_type.as_str() == word)
    }

    fn of(value: &Value<'_>) -> Self {
        match value {
            Value::Float(_) => Self::Float,
            Value::Int(_) => Self::Int,
            Value::Bool(_) => Self::Bool,
            Value::Text(_) => Self::Text,
        }
    }

    fn takes(self, value: &Value<'_>) -> bool {
        let found = Self::of(value);
        found == self || (self == Self::Float && found == Self::Int)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known of one key of a device type, or of one device.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KeyDefinition {
    /// The type its readings should have; any if absent.
    pub data_type: Option<DataType>,
    /// The unit of readings that come without one.
    pub unit: Option<Box<str>>,
    /// For people.
    pub description: Option<Box<str>>,
    /// The lowest number allowed.
    pub min: Option<f64>,
    /// The highest number allowed.
    pub max: Option<f64>,
}

/// What is wrong with a reading. Permanent for this registry: the same reading is refused again.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The value has another type than the registry says.
    #[error("value is {found}, the registry says {expected}")]
    WrongType {
        /// As the registry has it.
        expected: DataType,
        /// As sent.
        found: DataType,
    },
    /// The number is below the lowest allowed.
    #[error("value {number} is below {min}")]
    BelowMin {
        /// As sent.
        number: f64,
        /// The lowest allowed.
        min: f64,
    },
    /// The number is above the highest allowed.
    #[error("value {number} is above {max}")]
    AboveMax {
        /// As sent.
        number: f64,
        /// The highest allowed.
        max: f64,
    },
}

impl Violation {
    /// All codes, for counters.
    pub const CODES: [&'static str; 2] = ["wrong_type", "out_of_bounds"];

    /// A stable, short code for protocols and metric labels.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::WrongType { .. } => Self::CODES[0],
            Self::BelowMin { .. } | Self::AboveMax { .. } => Self::CODES[1],
        }
    }
}

impl KeyDefinition {
    /// Checks a value against type and bounds.
    ///
    /// # Errors
    /// [`Violation`] names the first that is not met.
    pub fn check(&self, value: &Value<'_>) -> Result<(), Violation> {
        if let Some(expected) = self.data_type
            && !expected.takes(value)
        {
            return Err(Violation::WrongType { expected, found: DataType::of(value) });
        }
        let number = match value {
            Value::Float(number) => *number,
            Value::Int(number) => *number as f64,
            Value::Bool(_) | Value::Text(_) => return Ok(()),
        };
        match (self.min, self.max) {
            (Some(min), _) if number < min => Err(Violation::BelowMin { number, min }),
            (_, Some(max)) if number > max => Err(Violation::AboveMax { number, max }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_another_type_or_out_of_bounds_is_named() {
        let definition = KeyDefinition {
            data_type: Some(DataType::Float),
            min: Some(-40.0),
            max: Some(150.0),
            ..KeyDefinition::default()
        };
        for value in [Value::Float(-40.0), Value::Int(150), Value::Float(0.5)] {
            assert_eq!(definition.check(&value), Ok(()), "{value:?}");
        }
        for (value, code) in [
            (Value::Text("hot".into()), "wrong_type"),
            (Value::Bool(true), "wrong_type"),
            (Value::Float(-40.5), "out_of_bounds"),
            (Value::Int(151), "out_of_bounds"),
        ] {
            let violation = definition.check(&value).expect_err("refused");
            assert_eq!(violation.code(), code, "{value:?}");
        }
        let whole = KeyDefinition { data_type: Some(DataType::Int), ..KeyDefinition::default() };
        assert_eq!(whole.check(&Value::Float(1.0)).expect_err("refused").code(), "wrong_type");
        assert_eq!(KeyDefinition::default().check(&Value::Text("x".into())), Ok(()));
    }
}
