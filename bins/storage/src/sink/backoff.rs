//! How long to wait before the next try: full jitter, doubling, bounded.

use std::time::Duration;

/// First bound of the wait.
const WAIT_MIN: Duration = Duration::from_millis(100);
/// Last bound of the wait.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Bounds of the wait for a human: soon enough after the mending, seldom enough for the log.
const HUMAN_MIN: Duration = Duration::from_secs(1);
const HUMAN_MAX: Duration = Duration::from_secs(60);

/// Waits drawn from zero to a bound that doubles from 100 ms to 30 s.
///
/// Full jitter: many sinks that lost one store do not come back to it in step.
#[derive(Debug)]
pub struct Backoff {
    bound_min: Duration,
    bound: Duration,
    bound_max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { bound_min: WAIT_MIN, bound: WAIT_MIN, bound_max: WAIT_MAX }
    }
}

impl Backoff {
    /// Waits for a human: from a second to a minute.
    pub(super) fn for_human() -> Self {
        Self { bound_min: HUMAN_MIN, bound: HUMAN_MIN, bound_max: HUMAN_MAX }
    }

    /// The wait before the next try.
    pub fn wait(&mut self) -> Duration {
        let wait = self.bound.mul_f64(rand::random::<f64>());
        self.bound = (self.bound * 2).min(self.bound_max);
        wait
    }

    /// Starts again at the first bound.
    pub fn reset(&mut self) {
        self.bound = self.bound_min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_within_bounds_that_double_up_to_half_a_minute() {
        let mut backoff = Backoff::default();
        let mut bound = WAIT_MIN;
        for _ in 0..20 {
            assert!(backoff.wait() <= bound);
            bound = (bound * 2).min(WAIT_MAX);
        }
        assert_eq!(backoff.bound, WAIT_MAX);
        backoff.reset();
        assert!(backoff.wait() <= WAIT_MIN);
    }
}
