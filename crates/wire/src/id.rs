//! Which queue and which entry: the two numbers that identify everything between the tiers.
//!
//! The wire's own newtypes over the queue's numbers, since this package imports no queue: `get`
//! and `new` convert. Their text forms are the ones in logs, in the live protocol and in tools.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// One queue directory: drawn at random when it was made, so that a wiped disk is not mistaken
/// for a restart. Shown as 32 hexadecimal digits.
///
/// ```
/// use forebay_wire::QueueId;
/// let id: QueueId = "000000000000000000000000000000ff".parse().expect("32 hex digits");
/// assert_eq!((id.get(), id.to_string().len()), (255, 32));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(u128);

impl QueueId {
    /// Takes the number as the queue drew it.
    #[must_use]
    pub const fn new(number: u128) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u128 {
        self.0
    }

    /// Its form in frames and entries: 16 bytes, little-endian.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// Reads what [`Self::to_bytes`] wrote.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a queue id or not a sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct ParseIdError {
    /// The form that was expected.
    pub expected: &'static str,
}

impl FromStr for QueueId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let expected = ParseIdError { expected: "a queue id of 32 hexadecimal digits" };
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(expected);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| expected)
    }
}

/// The number of an entry in one queue, never reused: an epoch of 24 bits above a counter of 40.
///
/// Shown as `epoch:counter`. The epoch grows by one at every open of the queue and the counter
/// starts at 1 in each; [`Seq::ZERO`] stands for "before every entry".
///
/// ```
/// use forebay_wire::Seq;
/// let last = Seq::from_parts(3, 17);
/// assert!(Seq::from_parts(3, 18).follows(last));
/// assert!(Seq::from_parts(5, 1).follows(last));
/// assert!(!Seq::from_parts(5, 2).follows(last));
/// assert_eq!(last.to_string(), "3:17");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Seq(u64);

impl Seq {
    /// Bits of the counter; the epoch has the rest.
    pub const COUNTER_BITS: u32 = 40;
    /// Highest counter of an epoch.
    pub const COUNTER_MAX: u64 = (1 << Self::COUNTER_BITS) - 1;
    /// Highest epoch.
    pub const EPOCH_MAX: u32 = (1 << (u64::BITS - Self::COUNTER_BITS)) - 1;
    /// Before every entry.
    pub const ZERO: Self = Self(0);

    /// Takes the number as the queue assigned it.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Puts a number together; bits above the width of a part are cut off.
    #[must_use]
    pub const fn from_parts(epoch: u32, counter: u64) -> Self {
        Self(((epoch as u64) << Self::COUNTER_BITS) | (counter & Self::COUNTER_MAX))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Which open of the queue assigned it.
    #[must_use]
    pub const fn epoch(self) -> u32 {
        (self.0 >> Self::COUNTER_BITS) as u32
    }

    /// Its place in that epoch, from 1.
    #[must_use]
    pub const fn counter(self) -> u64 {
        self.0 & Self::COUNTER_MAX
    }

    /// Whether it may come directly after `previous`: the next counter of the same epoch, or the
    /// first of any later one.
    #[must_use]
    pub const fn follows(self, previous: Self) -> bool {
        if self.epoch() == previous.epoch() {
            self.counter() == previous.counter() + 1
        } else {
            self.epoch() > previous.epoch() && self.counter() == 1
        }
    }

    /// The next number of the same epoch; `None` when the counter is used up.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        if self.counter() == Self::COUNTER_MAX { None } else { Some(Self(self.0 + 1)) }
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch(), self.counter())
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Seq {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let expected = ParseIdError { expected: "a sequence number as epoch:counter" };
        let (epoch, counter) = text.split_once(':').ok_or(expected)?;
        let digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(epoch) || !digits(counter) {
            return Err(expected);
        }
        let epoch: u32 = epoch.parse().map_err(|_| expected)?;
        let counter: u64 = counter.parse().map_err(|_| expected)?;
        if epoch > Self::EPOCH_MAX || counter > Self::COUNTER_MAX {
            return Err(expected);
        }
        Ok(Self::from_parts(epoch, counter))
    }
}

macro_rules! serde_as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

serde_as_text!(QueueId);
serde_as_text!(Seq);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_is_the_next_counter_or_the_first_of_a_later_epoch() {
        let at = Seq::from_parts;
        assert!(at(1, 1).follows(Seq::ZERO));
        assert!(at(7, 3).follows(at(7, 2)));
        assert!(at(9, 1).follows(at(7, 2)));
        for wrong in [at(7, 2), at(7, 4), at(6, 1), at(8, 2), at(8, 0)] {
            assert!(!wrong.follows(at(7, 2)), "{wrong}");
        }
        assert!(!at(8, 0).follows(at(7, Seq::COUNTER_MAX)));
        assert_eq!(at(7, Seq::COUNTER_MAX).next(), None);
    }

    #[test]
    fn text_forms_read_back_and_refuse_others() {
        for seq in [Seq::ZERO, Seq::from_parts(Seq::EPOCH_MAX, Seq::COUNTER_MAX)] {
            assert_eq!(seq.to_string().parse(), Ok(seq));
        }
        for text in ["", "1", "1:", ":1", "+1:2", "16777216:1", "1:1099511627776", "1:2:3"] {
            assert!(text.parse::<Seq>().is_err(), "{text}");
        }
        let id = QueueId::new(u128::MAX - 1);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(QueueId::from_bytes(id.to_bytes()), id);
        for text in ["", "ff", "+0000000000000000000000000000001"] {
            assert!(text.parse::<QueueId>().is_err(), "{text}");
        }
        assert_eq!(serde_json::to_string(&Seq::from_parts(2, 9)).expect("text"), r#""2:9""#);
    }
}
