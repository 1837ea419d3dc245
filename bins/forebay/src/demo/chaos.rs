//! Kills and restarts tiers at random, by a schedule that a seed repeats.

use std::time::{Duration, Instant};

use anyhow::Result;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::process::Process;

/// Seconds between two kills, over all tiers.
const INTERVAL: std::ops::Range<f64> = 0.7..2.5;
/// Seconds that a killed tier stays away.
const AWAY: std::ops::Range<f64> = 0.0..1.5;

/// One kill of the schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Kill {
    /// Which of the processes.
    victim: usize,
    /// How long after the previous kill.
    after: Duration,
    /// How long until it is started again.
    away: Duration,
}

/// Kills under way.
#[derive(Debug)]
pub(super) struct Chaos {
    random: StdRng,
    victims: usize,
    next: (Instant, Kill),
    away: Vec<(Instant, usize)>,
    kills: u64,
}

impl Chaos {
    /// The schedule of a seed over so many processes, beginning now.
    pub(super) fn new(seed: u64, victims: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let first = draw(&mut random, victims);
        Self {
            random,
            victims,
            next: (Instant::now() + first.after, first),
            away: vec![],
            kills: 0,
        }
    }

    /// Kills so far.
    pub(super) fn kills(&self) -> u64 {
        self.kills
    }

    /// When there is something to do next.
    pub(super) fn due(&self) -> Instant {
        self.away.iter().map(|(at, _)| *at).fold(self.next.0, Instant::min)
    }

    /// Does what is due.
    pub(super) fn step(&mut self, processes: &mut [Process], now: Instant) -> Result<()> {
        if self.next.0 <= now {
            let kill = self.next.1;
            if processes[kill.victim].kill()? {
                self.kills += 1;
                self.away.push((now + kill.away, kill.victim));
            }
            let next = draw(&mut self.random, self.victims);
            self.next = (now + next.after, next);
        }
        self.restart(processes, now)
    }

    /// Starts everything that is away: the killing is over.
    pub(super) fn heal(&mut self, processes: &mut [Process]) -> Result<()> {
        for (_, victim) in self.away.drain(..) {
            processes[victim].start()?;
        }
        Ok(())
    }

    fn restart(&mut self, processes: &mut [Process], now: Instant) -> Result<()> {
        let mut result = Ok(());
        self.away.retain(|(at, victim)| {
            let due = *at <= now;
            if due && let Err(error) = processes[*victim].start() {
                result = Err(error.into());
            }
            !due
        });
        result
    }
}

fn draw(random: &mut StdRng, victims: usize) -> Kill {
    Kill {
        victim: random.random_range(0..victims),
        after: Duration::from_secs_f64(random.random_range(INTERVAL)),
        away: Duration::from_secs_f64(random.random_range(AWAY)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_schedule_and_every_tier_has_its_turn() {
        let (mut one, mut two) = (StdRng::seed_from_u64(5), StdRng::seed_from_u64(5));
        let mut met = [false; 3];
        for _ in 0..50 {
            let kill = draw(&mut one, 3);
            assert_eq!(kill, draw(&mut two, 3));
            met[kill.victim] = true;
        }
        assert_eq!(met, [true; 3]);
    }
}
