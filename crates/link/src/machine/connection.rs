//! When to connect, when to ask for a sign of life, and when to give a peer up.
//!
//! A peer that is silent too long is given up: its socket is dropped and a new one built, after a
//! pause that doubles with each failure and has full jitter, so that many fronts do not come back
//! at once. A refusal that only a human can mend is retried at the longest pause.

use std::time::Duration;

use crate::config::ConnectConfig;
use crate::machine::Random;

/// How long each thing may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// First pause after a failure.
    pub backoff_min: Duration,
    /// Longest pause after a failure.
    pub backoff_max: Duration,
    /// How often the peer is asked for a sign of life.
    pub ping_every: Duration,
    /// How long it may be silent.
    pub silence_max: Duration,
}

impl From<&ConnectConfig> for Timing {
    fn from(config: &ConnectConfig) -> Self {
        Self {
            backoff_min: config.backoff_min,
            backoff_max: config.backoff_max,
            ping_every: config.ping_every,
            silence_max: config.silence_max,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No socket; the next attempt is due at `until`.
    Down { until: Duration },
    /// The adapter is building a socket.
    Connecting,
    /// There is a socket.
    Up { heard: Duration, ping_at: Duration },
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Build a socket; the state is "connecting" from now on.
    Connect,
    /// Ask for a sign of life.
    Ping,
    /// It was silent too long: drop the socket; the state is "down" from now on.
    Silent,
}

/// One connection, over all its sockets.
#[derive(Debug, Clone)]
pub struct Connection {
    timing: Timing,
    state: State,
    failures: u32,
}

impl Connection {
    /// Down, and due to connect at once.
    #[must_use]
    pub const fn new(timing: Timing) -> Self {
        Self { timing, state: State::Down { until: Duration::ZERO }, failures: 0 }
    }

    /// Whether there is a socket.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// What is due at `now`; call again until nothing is.
    pub fn poll(&mut self, now: Duration, random: &mut Random) -> Option<Due> {
        match self.state {
            State::Down { until } if now >= until => {
                self.state = State::Connecting;
                Some(Due::Connect)
            }
            State::Up { heard, .. } if now.saturating_sub(heard) >= self.timing.silence_max => {
                self.lost(now, random);
                Some(Due::Silent)
            }
            State::Up { heard, ping_at } if now >= ping_at => {
                self.state = State::Up { heard, ping_at: now + self.timing.ping_every };
                Some(Due::Ping)
            }
            _ => None,
        }
    }

    /// When something will be due without any input.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Down { until } => Some(until),
            State::Connecting => None,
            State::Up { heard, ping_at } => Some(ping_at.min(heard + self.timing.silence_max)),
        }
    }

    /// The socket is there.
    pub fn connected(&mut self, now: Duration) {
        self.state = State::Up { heard: now, ping_at: now + self.timing.ping_every };
    }

    /// The peer gave a sign of life.
    pub fn heard(&mut self, now: Duration) {
        if let State::Up { heard, .. } = &mut self.state {
            *heard = (*heard).max(now);
        }
    }

    /// The peer does its work: pauses begin small again.
    pub fn settled(&mut self) {
        self.failures = 0;
    }

    /// The socket is gone, or could not be built: pause, longer each time.
    pub fn lost(&mut self, now: Duration, random: &mut Random) {
        let doubled = self.timing.backoff_min.saturating_mul(1 << self.failures.min(16));
        let cap = doubled.clamp(self.timing.backoff_min, self.timing.backoff_max);
        self.failures = self.failures.saturating_add(1);
        let jitter = random.below(cap.as_micros() as u64 + 1);
        let pause = self.timing.backoff_min / 2 + Duration::from_micros(jitter);
        self.state = State::Down { until: now + pause };
    }

    /// The peer refused: the longest pause, or `pause` if that is longer.
    pub fn refused(&mut self, now: Duration, pause: Duration) {
        self.failures = self.failures.saturating_add(1);
        // A refusal must not keep this end away for ever, whatever it names.
        let pause = pause.clamp(self.timing.backoff_max, self.timing.backoff_max * 12);
        self.state = State::Down { until: now + pause };
    }
}
