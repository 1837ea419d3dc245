//! A number of bytes in a configuration file: `"64MiB"`, `"10MB"`, or a plain integer.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Units by size, largest first; binary before decimal so that printing prefers it.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// A number of bytes. Prints in the largest binary unit that holds it exactly.
///
/// ```
/// let size: forebay_ops::ByteSize = "64 MiB".parse().unwrap();
/// assert_eq!(size.get(), 64 << 20);
/// assert_eq!(size.to_string(), "64MiB");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(u64);

/// Why a text is not a number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a size: write an integer of bytes, or one with B, KiB, MiB, GiB, TiB (or KB, MB, GB, TB)"
)]
pub struct ByteSizeError {
    /// What was found.
    pub text: String,
}

impl ByteSize {
    /// So many bytes.
    pub const fn new(bytes: u64) -> ByteSize {
        ByteSize(bytes)
    }

    /// So many times 1,024 bytes.
    ///
    /// # Panics
    /// If that is more than a `u64` holds.
    pub const fn kib(count: u64) -> ByteSize {
        ByteSize(count.checked_mul(1 << 10).expect("a size in KiB fits in 64 bits"))
    }

    /// So many times 1,048,576 bytes.
    ///
    /// # Panics
    /// If that is more than a `u64` holds.
    pub const fn mib(count: u64) -> ByteSize {
        ByteSize(count.checked_mul(1 << 20).expect("a size in MiB fits in 64 bits"))
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of bytes as an index; what does not fit is cut to the largest index.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl From<ByteSize> for u64 {
    fn from(size: ByteSize) -> u64 {
        size.0
    }
}

impl From<u64> for ByteSize {
    fn from(bytes: u64) -> ByteSize {
        ByteSize(bytes)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |(unit, bytes): &&(&str, u64)| {
            (unit.contains('i') || *unit == "B")
                && self.0 >= *bytes
                && self.0.is_multiple_of(*bytes)
        };
        match UNITS.iter().find(exact) {
            Some((unit, bytes)) => write!(f, "{}{unit}", self.0 / bytes),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<ByteSize, ByteSizeError> {
        let fault = || ByteSizeError { text: text.to_owned() };
        let trimmed = text.trim();
        let digits =
            trimmed.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let number: u64 = number.replace('_', "").parse().map_err(|_| fault())?;
        let unit = unit.trim();
        if unit.is_empty() {
            return Ok(ByteSize(number));
        }
        let (_, bytes) =
            UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(fault)?;
        number.checked_mul(*bytes).map(ByteSize).ok_or_else(fault)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        struct Sizes;
        impl Visitor<'_> for Sizes {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"64MiB\" or a whole number of bytes")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes)
                    .map(ByteSize)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_unit_and_print_as_they_were_meant() {
        for (text, bytes, printed) in [
            ("0", 0, "0B"),
            ("17", 17, "17B"),
            ("64KiB", 65_536, "64KiB"),
            ("64 MiB", 64 << 20, "64MiB"),
            ("1mib", 1 << 20, "1MiB"),
            ("1_000", 1_000, "1000B"),
            ("2KB", 2_000, "2000B"),
            ("3GiB", 3 << 30, "3GiB"),
            ("1TiB", 1 << 40, "1TiB"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.get(), size.to_string().as_str()), (bytes, printed), "{text}");
            assert_eq!(size.to_string().parse(), Ok(size), "{text} comes back as it went");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_what_was_found() {
        for text in
            ["", "MiB", "-1", "1.5MiB", "64M", "64 XiB", "99999999999999999999", "9999999999TiB"]
        {
            let error = text.parse::<ByteSize>().unwrap_err();
            assert_eq!(error.text, text);
        }
    }

    #[test]
    fn integers_and_texts_are_both_taken_from_a_file() {
        assert_eq!(serde_json::from_str::<ByteSize>("4096").unwrap(), ByteSize::kib(4));
        assert_eq!(serde_json::from_str::<ByteSize>("\"4KiB\"").unwrap(), ByteSize::kib(4));
        assert!(serde_json::from_str::<ByteSize>("-1").is_err());
        assert!(serde_json::from_str::<ByteSize>("true").is_err());
        assert_eq!(serde_json::to_string(&ByteSize::mib(64)).unwrap(), "\"64MiB\"");
    }
}
