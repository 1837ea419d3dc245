//! A span of time in a configuration file: `"5s"`, `"250ms"`, `"1m30s"`, `"7d"`.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Units in nanoseconds, largest first.
const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// A span of time with a unit. Dereferences to [`std::time::Duration`].
///
/// A bare number is refused: whether `30` meant seconds or milliseconds is not to be guessed.
///
/// ```
/// let idle: forebay_ops::Duration = "1m30s".parse().unwrap();
/// assert_eq!(*idle, std::time::Duration::from_secs(90));
/// assert_eq!(idle.to_string(), "90s");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(std::time::Duration);

/// Why a text is not a span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a duration: write whole numbers with d, h, m, s, ms, us or ns, such as \"250ms\" or \"1m30s\""
)]
pub struct DurationError {
    /// What was found.
    pub text: String,
}

impl Duration {
    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> Duration {
        Duration(std::time::Duration::from_secs(seconds))
    }

    /// So many milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Duration {
        Duration(std::time::Duration::from_millis(milliseconds))
    }

    /// So many microseconds.
    pub const fn from_micros(microseconds: u64) -> Duration {
        Duration(std::time::Duration::from_micros(microseconds))
    }

    /// The span as the standard library has it.
    pub const fn get(self) -> std::time::Duration {
        self.0
    }
}

impl Deref for Duration {
    type Target = std::time::Duration;

    fn deref(&self) -> &std::time::Duration {
        &self.0
    }
}

impl From<Duration> for std::time::Duration {
    fn from(span: Duration) -> std::time::Duration {
        span.0
    }
}

impl From<std::time::Duration> for Duration {
    fn from(span: std::time::Duration) -> Duration {
        Duration(span)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.0.as_nanos();
        if nanoseconds == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in UNITS {
            if nanoseconds.is_multiple_of(u128::from(size)) {
                return write!(f, "{}{unit}", nanoseconds / u128::from(size));
            }
        }
        unreachable!("every span is a whole number of nanoseconds")
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Duration, DurationError> {
        let fault = || DurationError { text: text.to_owned() };
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(fault());
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(fault)?;
            let (number, tail) = rest.split_at(digits);
            let number: u64 = number.parse().map_err(|_| fault())?;
            let tail = tail.trim_start();
            let letters = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let unit = if unit == "µs" { "us" } else { unit };
            let (_, size) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(fault)?;
            let span = number.checked_mul(*size).ok_or_else(fault)?;
            total = total.checked_add(span).ok_or_else(fault)?;
            rest = tail.trim_start();
        }
        Ok(Duration(std::time::Duration::from_nanos(total)))
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        struct Spans;
        impl de::Visitor<'_> for Spans {
            type Value = Duration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with its unit, such as \"5s\" or \"250ms\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Spans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_every_unit_and_print_as_they_were_meant() {
        for (text, nanoseconds, printed) in [
            ("0s", 0, "0s"),
            ("250ms", 250_000_000, "250ms"),
            ("5 s", 5_000_000_000, "5s"),
            ("1m30s", 90_000_000_000, "90s"),
            ("1h 30m", 5_400_000_000_000, "90m"),
            ("7d", 604_800_000_000_000, "7d"),
            ("10µs", 10_000, "10us"),
            ("1500us", 1_500_000, "1500us"),
            ("3ns", 3, "3ns"),
        ] {
            let span: Duration = text.parse().unwrap();
            assert_eq!(
                (span.as_nanos(), span.to_string().as_str()),
                (nanoseconds, printed),
                "{text}"
            );
            assert_eq!(span.to_string().parse(), Ok(span), "{text} comes back as it went");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_what_was_found() {
        for text in
            ["", "5", "s", "-5s", "1.5s", "5 parsecs", "5s3", "99999999999999999999s", "999999999d"]
        {
            let error = text.parse::<Duration>().unwrap_err();
            assert_eq!(error.text, text);
        }
    }

    #[test]
    fn a_bare_number_in_a_file_is_refused_for_want_of_a_unit() {
        let error = serde_json::from_str::<Duration>("30").unwrap_err().to_string();
        assert!(error.contains("with its unit"), "{error}");
        assert_eq!(serde_json::from_str::<Duration>("\"30s\"").unwrap(), Duration::from_secs(30));
        assert_eq!(serde_json::to_string(&Duration::from_millis(250)).unwrap(), "\"250ms\"");
    }
}
