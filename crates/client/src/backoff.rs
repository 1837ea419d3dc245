//! How long to wait before the next connection: full jitter, so that a thousand devices that lost
//! one front do not come back in one moment.

use std::time::Duration;

/// Bounds of the wait. It is random between 0 and a bound that doubles from `first` to `longest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The bound of the first wait.
    pub first: Duration,
    /// The highest bound.
    pub longest: Duration,
}

impl Default for Backoff {
    /// 100 ms to 30 s.
    fn default() -> Self {
        Self { first: Duration::from_millis(100), longest: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The wait before the next attempt after `failures` in a row, at least `asked` if the front
    /// named a wait.
    pub(crate) fn wait(&self, failures: u32, asked: Option<Duration>) -> Duration {
        let bound = self.first.saturating_mul(1 << failures.min(16)).min(self.longest);
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        let jitter = Duration::from_micros(rand::random_range(0..=micros));
        // On top of what the front asked for: its wait is the same for all its devices.
        asked.unwrap_or_default() + jitter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_longest() {
        let backoff =
            Backoff { first: Duration::from_millis(10), longest: Duration::from_millis(70) };
        for (failures, bound) in [(0, 10), (1, 20), (2, 40), (3, 70), (40, 70)] {
            for _ in 0..200 {
                assert!(backoff.wait(failures, None) <= Duration::from_millis(bound));
            }
        }
        let asked = Duration::from_secs(2);
        assert!(backoff.wait(0, Some(asked)) >= asked);
    }
}
