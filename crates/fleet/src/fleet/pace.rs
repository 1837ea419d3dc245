//! When a device's next messages are due.

use std::time::{Duration, Instant};

/// A steady pace from a starting moment, or none at all.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Option<Duration>,
    /// When the next message is due.
    next: Instant,
}

impl Pace {
    /// A pace of `per_second` messages, the first at `start`; without a number, always due.
    pub(super) fn new(per_second: Option<f64>, start: Instant) -> Self {
        let interval = per_second.map(|rate| Duration::from_secs_f64(1.0 / rate.max(1e-6)));
        Self { interval, next: start }
    }

    /// Takes as many due messages as wanted at most.
    ///
    /// A device that could not send for long does not make up for all of it: it is at most a
    /// second, or `wanted`, behind.
    pub(super) fn take(&mut self, wanted: u64, now: Instant) -> u64 {
        let Some(interval) = self.interval else { return wanted };
        if wanted == 0 || now < self.next {
            return 0;
        }
        let behind = now - self.next;
        let due = (behind.as_secs_f64() / interval.as_secs_f64()) as u64 + 1;
        let taken = due.min(wanted);
        self.next += interval.mul_f64(taken as f64);
        let allowed = Duration::from_secs(1).max(interval.mul_f64(wanted as f64));
        if let Some(earliest) = now.checked_sub(allowed) {
            self.next = self.next.max(earliest);
        }
        taken
    }

    /// When the next message is due, if the pace is bounded.
    pub(super) fn next(&self) -> Option<Instant> {
        self.interval.map(|_| self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_kept_on_average_and_an_outage_is_not_made_up_for() {
        let start = Instant::now();
        let mut pace = Pace::new(Some(100.0), start);
        let mut taken = 0;
        for ms in 0..1000 {
            taken += pace.take(64, start + Duration::from_millis(ms));
        }
        assert_eq!(taken, 100);
        let later = start + Duration::from_secs(3600);
        let mut burst = 0;
        loop {
            match pace.take(64, later) {
                0 => break,
                some => burst += some,
            }
        }
        assert!((100..=165).contains(&burst), "{burst}");
    }

    #[test]
    fn without_a_rate_everything_is_due() {
        let mut pace = Pace::new(None, Instant::now());
        assert_eq!(pace.take(64, Instant::now()), 64);
        assert_eq!(pace.next(), None);
    }
}
