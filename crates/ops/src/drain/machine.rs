//! The end of a tier as a pure state machine: no clock, no thread, no sockets.
//!
//! ```text
//!            begin              settled             all sent away         nothing left
//!  Serving ─────────▶ Settling ─────────▶ Closing ───────────────▶ Flushing ──────────▶ Drained
//!     ▲                  │                   │                         │                   │
//!     └──────────────────┴────── cancel ─────┴─────────────────────────┴───────────────────┘
//! ```
//!
//! A drain that a human or an autoscaler began has no deadline and can be cancelled. One that ends
//! the process has both: whatever its phase, it is drained at the deadline, and what is left then
//! stays on disk. The second may overtake the first and goes on where that one is.

use std::time::Duration;

use serde::Serialize;

/// Where a tier is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It takes work.
    #[default]
    Serving,
    /// It says that it is not ready and still takes work, until those who send it have noticed.
    Settling,
    /// It sends its peers away, one after another, and takes nobody new.
    Closing,
    /// It hands on what it holds, until that is acked.
    Flushing,
    /// Nothing is left, or the deadline has come.
    Drained,
}

impl Phase {
    /// A word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Settling => "settling",
            Self::Closing => "closing",
            Self::Flushing => "flushing",
            Self::Drained => "drained",
        }
    }
}

/// What a tier still has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Remains {
    /// Connections of those that bring work.
    pub connections: u64,
    /// Entries that are not acked by who is to have them; at least so many.
    pub entries: u64,
    /// Bytes they take.
    pub bytes: u64,
}

impl Remains {
    /// Whether there is nothing to hand on.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.entries == 0 && self.bytes == 0
    }

    /// Whether there is nothing at all.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// The process is to end: that cannot be called off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the process is about to end, which cannot be called off")]
pub struct Ending;

/// The machine. All times are those of one monotonic clock, whatever its zero.
#[derive(Debug, Clone)]
pub struct Machine {
    phase: Phase,
    since: Duration,
    settle: Duration,
    /// When the process ends, if it is to.
    end: Option<Duration>,
    /// When closing gives way to flushing, with connections left.
    close_until: Option<Duration>,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// A tier that serves.
    #[must_use]
    pub fn new() -> Self {
        let zero = Duration::ZERO;
        Self { phase: Phase::Serving, since: zero, settle: zero, end: None, close_until: None }
    }

    /// Where it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Since when.
    #[must_use]
    pub fn since(&self) -> Duration {
        self.since
    }

    /// When the process ends, if it is to.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.end
    }

    /// Begins a drain that can be cancelled, with so much time to settle. Nothing if one is under
    /// way.
    pub fn begin(&mut self, now: Duration, settle: Duration) {
        if self.phase == Phase::Serving {
            self.settle = settle;
            self.enter(now, Phase::Settling);
        }
    }

    /// The process is to end within `timeout`. The first deadline counts.
    pub fn end(&mut self, now: Duration, timeout: Duration, settle: Duration) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(now + timeout);
        if self.phase == Phase::Closing {
            self.close_until = Some(half(now, now + timeout));
        }
        // Settling is for others: it may not take what flushing needs.
        self.begin(now, settle.min(timeout / 2));
    }

    /// Calls a drain off: the tier serves again.
    ///
    /// # Errors
    /// [`Ending`]: the process is to end.
    pub fn cancel(&mut self, now: Duration) -> Result<(), Ending> {
        if self.end.is_some() {
            return Err(Ending);
        }
        if self.phase != Phase::Serving {
            self.enter(now, Phase::Serving);
        }
        Ok(())
    }

    /// Moves on by one phase if it is time; says which it has entered. Call until it says none.
    pub fn step(&mut self, now: Duration, remains: &Remains) -> Option<Phase> {
        let is_late = self.end.is_some_and(|end| now >= end);
        let next = match self.phase {
            Phase::Serving | Phase::Drained => return None,
            _ if is_late => Phase::Drained,
            Phase::Settling if now >= self.since + self.settle => Phase::Closing,
            Phase::Closing if remains.connections == 0 => Phase::Flushing,
            Phase::Closing if self.close_until.is_some_and(|until| now >= until) => Phase::Flushing,
            Phase::Flushing if remains.is_flushed() => match (remains.connections, self.end) {
                // Whoever did not go in time may bring something yet, until the process ends.
                (1.., None) => return None,
                _ => Phase::Drained,
            },
            _ => return None,
        };
        self.enter(now, next);
        Some(next)
    }

    fn enter(&mut self, now: Duration, phase: Phase) {
        self.phase = phase;
        self.since = now;
        if phase == Phase::Closing {
            // Half of what is left: a peer that does not go must not cost the flush its time.
            self.close_until = self.end.map(|end| half(now, end));
        }
    }
}

fn half(now: Duration, end: Duration) -> Duration {
    now + end.saturating_sub(now) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn left(connections: u64, entries: u64) -> Remains {
        Remains { connections, entries, bytes: entries * 100 }
    }

    /// All phases entered at `now`.
    fn steps(machine: &mut Machine, now: Duration, remains: Remains) -> Vec<Phase> {
        std::iter::from_fn(|| machine.step(now, &remains)).collect()
    }

    #[test]
    fn a_tier_settles_then_closes_then_flushes_and_is_drained() {
        let mut machine = Machine::new();
        assert_eq!(steps(&mut machine, s(1), left(2, 9)), []);
        machine.end(s(10), s(20), s(3));
        assert_eq!(machine.phase(), Phase::Settling);
        assert_eq!(steps(&mut machine, s(12), left(2, 9)), [], "it is still settling");
        assert_eq!(steps(&mut machine, s(13), left(2, 9)), [Phase::Closing]);
        assert_eq!(steps(&mut machine, s(14), left(1, 9)), []);
        assert_eq!(steps(&mut machine, s(15), left(0, 9)), [Phase::Flushing]);
        assert_eq!(steps(&mut machine, s(16), left(0, 1)), []);
        assert_eq!(steps(&mut machine, s(17), left(0, 0)), [Phase::Drained]);
    }

    #[test]
    fn an_idle_tier_without_anybody_to_tell_is_drained_at_once() {
        let mut machine = Machine::new();
        machine.end(s(1), s(20), Duration::ZERO);
        let all = [Phase::Closing, Phase::Flushing, Phase::Drained];
        assert_eq!(steps(&mut machine, s(1), Remains::default()), all);
    }

    #[test]
    fn a_process_that_is_to_end_is_drained_at_its_deadline_in_any_phase() {
        for entries in [0, 5] {
            for connections in [0, 5] {
                let mut machine = Machine::new();
                machine.end(s(0), s(20), s(30));
                let mut at = s(0);
                while machine.phase() != Phase::Drained {
                    steps(&mut machine, at, left(connections, entries));
                    at += Duration::from_millis(100);
                    assert!(at <= s(21), "{machine:?}");
                }
            }
        }
    }

    #[test]
    fn peers_that_do_not_go_leave_half_of_the_time_for_the_flush() {
        let mut machine = Machine::new();
        machine.end(s(0), s(20), Duration::ZERO);
        assert_eq!(steps(&mut machine, s(0), left(1, 1)), [Phase::Closing]);
        assert_eq!(steps(&mut machine, s(9), left(1, 1)), []);
        assert_eq!(steps(&mut machine, s(10), left(1, 1)), [Phase::Flushing]);
    }

    #[test]
    fn a_drain_that_was_asked_for_waits_for_ever_and_can_be_called_off() {
        let mut machine = Machine::new();
        machine.begin(s(0), s(1));
        steps(&mut machine, s(1), left(1, 1));
        assert_eq!(steps(&mut machine, s(9_999), left(1, 1)), [], "it has no deadline");
        assert_eq!(steps(&mut machine, s(9_999), left(0, 1)), [Phase::Flushing]);
        assert_eq!(steps(&mut machine, s(9_999), left(1, 0)), [], "somebody came back");
        machine.cancel(s(10_000)).unwrap();
        assert_eq!(machine.phase(), Phase::Serving);
        assert_eq!(steps(&mut machine, s(10_001), left(0, 0)), []);
        machine.begin(s(10_002), s(1));
        assert_eq!(machine.phase(), Phase::Settling, "and begun anew");
    }

    #[test]
    fn the_end_of_the_process_overtakes_a_drain_and_cannot_be_called_off() {
        let mut machine = Machine::new();
        machine.begin(s(0), Duration::ZERO);
        steps(&mut machine, s(0), left(3, 3));
        assert_eq!(machine.phase(), Phase::Closing);
        machine.end(s(100), s(20), s(5));
        machine.end(s(110), s(99), s(5));
        assert_eq!(machine.deadline(), Some(s(120)), "the first deadline counts");
        assert_eq!(machine.cancel(s(101)), Err(Ending));
        assert_eq!(steps(&mut machine, s(101), left(3, 3)), [], "it goes on where it is");
        assert_eq!(steps(&mut machine, s(110), left(3, 3)), [Phase::Flushing]);
        assert_eq!(steps(&mut machine, s(111), left(3, 0)), [Phase::Drained]);
    }

    #[test]
    fn a_tier_that_was_drained_before_ends_without_another_wait() {
        let mut machine = Machine::new();
        machine.begin(s(0), Duration::ZERO);
        steps(&mut machine, s(0), Remains::default());
        machine.end(s(50), s(20), s(5));
        assert_eq!(machine.phase(), Phase::Drained);
    }
}
