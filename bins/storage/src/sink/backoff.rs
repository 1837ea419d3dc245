//! How long to wait before the next try: full jitter, doubling, bounded.

use std::time::Duration;

/// First bound of the wait.
const WAIT_MIN: Duration = Duration::from_millis(100);
/// Last bound of the wait.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Waits drawn from zero to a bound that doubles from 100 ms to 30 s.
///
/// Full jitter: many sinks that lost one store do not come back to it in step.
#[derive(Debug)]
pub struct Backoff {
    bound: Duration,
    bound_max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { bound: WAIT_MIN, bound_max: WAIT_MAX }
    }
}

impl Backoff {
    /// The wait before the next try.
    pub fn wait(&mut self) -> Duration {
        let wait = self.bound.mul_f64(rand::random::<f64>());
        self.bound = (self.bound * 2).min(self.bound_max);
        wait
    }

    /// Starts again at the first bound.
    pub fn reset(&mut self) {
        self.bound = WAIT_MIN;
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
