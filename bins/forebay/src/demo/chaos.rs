//! When which tier is killed: a schedule that a seed repeats.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// Kills in a minute on average, over all tiers.
const INTERVAL: std::ops::Range<f64> = 0.7..2.5;
/// How long a killed tier stays away.
const AWAY: std::ops::Range<f64> = 0.0..1.5;

/// One kill.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Kill {
    /// Which of the processes.
    pub(super) victim: usize,
    /// How long after the previous kill.
    pub(super) after: Duration,
    /// How long until it is started again.
    pub(super) away: Duration,
}

/// An endless schedule of kills.
#[derive(Debug)]
pub(super) struct Schedule {
    random: StdRng,
    victims: usize,
}

impl Schedule {
    /// The schedule of a seed over so many processes.
    pub(super) fn new(seed: u64, victims: usize) -> Self {
        Self { random: StdRng::seed_from_u64(seed), victims }
    }

    /// The next kill.
    pub(super) fn next(&mut self) -> Kill {
        Kill {
            victim: self.random.random_range(0..self.victims),
            after: Duration::from_secs_f64(self.random.random_range(INTERVAL)),
            away: Duration::from_secs_f64(self.random.random_range(AWAY)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_schedule_and_every_tier_has_its_turn() {
        let (mut one, mut two) = (Schedule::new(5, 3), Schedule::new(5, 3));
        let mut met = [false; 3];
        for _ in 0..50 {
            let kill = one.next();
            assert_eq!(kill, two.next());
            met[kill.victim] = true;
        }
        assert_eq!(met, [true; 3]);
    }
}
