//! When: microseconds since the Unix epoch.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::Invalid;

/// A moment in microseconds since 1970-01-01T00:00:00Z, between 1970 and 2200.
///
/// The bound keeps a device with an absurd clock from opening a partition of its own in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 2200-01-01T00:00:00Z, the first moment that is out of bounds.
    pub const END_US: i64 = 7_258_118_400_000_000;

    /// Checks and keeps a time in microseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`Invalid::TimeOutOfBounds`] before 1970 or from 2200 on.
    pub fn from_micros(time_us: i64) -> Result<Self, Invalid> {
        if (0..Self::END_US).contains(&time_us) {
            Ok(Self(time_us))
        } else {
            Err(Invalid::TimeOutOfBounds { time_us })
        }
    }

    /// The wall clock now; a clock outside the bounds is brought to the nearer one.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        Self(micros.min(Self::END_US - 1))
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_times_are_refused() {
        for time_us in [-1, i64::MIN, i64::MAX, Timestamp::END_US] {
            assert_eq!(Timestamp::from_micros(time_us), Err(Invalid::TimeOutOfBounds { time_us }));
        }
        assert_eq!(Timestamp::from_micros(0).map(Timestamp::micros), Ok(0));
        assert!(Timestamp::now() > Timestamp(1_600_000_000_000_000));
    }
}
