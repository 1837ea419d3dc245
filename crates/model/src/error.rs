//! Why a part of a message is refused, in words a device author can act on.

use crate::limits;

/// What is wrong with a part of a message. Permanent: the same bytes will be refused again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// An id has no characters.
    #[error("{what} is empty")]
    Empty {
        /// Which part.
        what: &'static str,
    },
    /// A part is longer than its limit.
    #[error("{what} has {bytes} bytes, the limit is {bytes_max}")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit, from [`limits`].
        bytes_max: usize,
    },
    /// A character that could be mistaken for a separator, or is not printable.
    #[error("{what} has a character that is not allowed at byte {at}")]
    BadCharacter {
        /// Which part.
        what: &'static str,
        /// Offset of the character in bytes.
        at: usize,
    },
    /// A float that is NaN or infinite: no store compares or averages it.
    #[error("value is not a finite number")]
    NotFinite,
    /// A time outside 1970-01-01 to 2200-01-01.
    #[error("time {time_us} microseconds is not between 1970 and 2200")]
    TimeOutOfBounds {
        /// Microseconds since the Unix epoch as sent.
        time_us: i64,
    },
    /// A number above [`crate::SAFE_INTEGER_MAX`], or zero where counting starts at one.
    #[error("{what} {number} is not between {min} and 9007199254740991")]
    NumberOutOfBounds {
        /// Which number.
        what: &'static str,
        /// As sent.
        number: u64,
        /// Lowest allowed.
        min: u64,
    },
    /// More readings than [`limits::READINGS_MAX`].
    #[error("message has {count} readings, the limit is {max}", max = limits::READINGS_MAX)]
    TooManyReadings {
        /// As sent.
        count: usize,
    },
    /// A message without any reading.
    #[error("message has no readings")]
    NoReadings,
}

impl Invalid {
    /// A stable, short code for protocols and metric labels.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty { .. } => "empty",
            Self::TooLong { .. } => "too_long",
            Self::BadCharacter { .. } => "bad_character",
            Self::NotFinite => "not_finite",
            Self::TimeOutOfBounds { .. } => "bad_time",
            Self::NumberOutOfBounds { .. } => "bad_number",
            Self::TooManyReadings { .. } => "too_many_readings",
            Self::NoReadings => "no_readings",
        }
    }
}

/// Checks a length against its bounds.
pub(crate) fn check_length(
    what: &'static str,
    bytes: usize,
    bytes_max: usize,
) -> Result<(), Invalid> {
    if bytes == 0 {
        return Err(Invalid::Empty { what });
    }
    if bytes > bytes_max {
        return Err(Invalid::TooLong { what, bytes, bytes_max });
    }
    Ok(())
}
