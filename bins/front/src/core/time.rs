//! The time of a core, by which the deadlines of its sessions go: it stands still while the core
//! does.
//!
//! A core that had no CPU for a minute, or whose machine was paused, finds the hellos and pongs of
//! that minute unread in its sockets. By the front's clock their devices would be late.

use std::cell::Cell;

/// How far this time goes on without a sweep: a sweep is a quarter of a second behind the one before
/// it, and a good deal more on a busy machine. A core that is later than that was away.
const AHEAD_MS_MAX: u64 = 1000;

/// A core's time, in milliseconds. It never goes back.
#[derive(Debug)]
pub(crate) struct CoreTime {
    /// The front's time at the last sweep.
    swept_ms: Cell<u64>,
    /// How long the core was away, in all.
    away_ms: Cell<u64>,
}

impl CoreTime {
    /// The time of a core that starts at `front_ms` of the front's clock.
    pub(crate) fn new(front_ms: u64) -> Self {
        Self { swept_ms: Cell::new(front_ms), away_ms: Cell::new(0) }
    }

    /// What it shows at `front_ms` of the front's clock.
    pub(crate) fn at(&self, front_ms: u64) -> u64 {
        front_ms.min(self.swept_ms.get() + AHEAD_MS_MAX) - self.away_ms.get()
    }

    /// The core sweeps, at `front_ms` of the front's clock. Returns how long it was away.
    pub(crate) fn sweep(&self, front_ms: u64) -> u64 {
        let away_ms = front_ms.saturating_sub(self.swept_ms.get() + AHEAD_MS_MAX);
        self.away_ms.set(self.away_ms.get() + away_ms);
        self.swept_ms.set(front_ms);
        away_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_by_the_front_s_clock_while_the_core_sweeps() {
        let time = CoreTime::new(700);
        for front_ms in (700..60_000).step_by(250) {
            assert_eq!((time.at(front_ms), time.sweep(front_ms)), (front_ms, 0));
        }
    }

    #[test]
    fn time_stands_still_while_the_core_is_away_and_goes_on_where_it_stood() {
        let time = CoreTime::new(0);
        assert_eq!(time.at(999), 999);
        assert_eq!(time.at(90_000), 1000, "what is polled before the sweep sees no more");
        assert_eq!(time.sweep(90_000), 89_000);
        assert_eq!((time.at(90_000), time.at(90_250)), (1000, 1250));
        assert_eq!(time.sweep(91_500), 500);
        assert_eq!((time.at(91_500), time.at(91_750)), (2000, 2250));
    }
}
