//! The two clocks: how long the middle has been running, and what time it is.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::dedup::RunningTime;

/// Counts on from where the last run's snapshot stood; time in between runs is not counted.
#[derive(Debug)]
pub(crate) struct Clock {
    before: RunningTime,
    start: Instant,
}

impl Clock {
    /// A clock that has run for `before` already.
    pub(crate) fn new(before: RunningTime) -> Self {
        Self { before, start: Instant::now() }
    }

    /// How long the middle has been running, over all restarts.
    pub(crate) fn running(&self) -> RunningTime {
        let seconds = u32::try_from(self.start.elapsed().as_secs()).unwrap_or(u32::MAX);
        RunningTime(self.before.0.saturating_add(seconds))
    }
}

/// Microseconds since 1970 by the wall clock, which only stamps; 0 before.
pub(crate) fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
