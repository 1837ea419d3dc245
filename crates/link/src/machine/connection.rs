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

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn timing() -> Timing {
        Timing::from(&ConnectConfig::new("tcp://middle:7410"))
    }

    /// The pause after so many failures before this one.
    fn pause(seed: u64, failures: u32) -> Duration {
        let mut connection = Connection { failures, ..Connection::new(timing()) };
        connection.lost(Duration::ZERO, &mut Random::new(seed));
        connection.deadline().expect("it is down")
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_spread_over_all_their_length() {
        let Timing { backoff_min, backoff_max, .. } = timing();
        for failures in 0..40 {
            let longest = (backoff_min * (1 << failures.min(10))).min(backoff_max);
            let mut tenths = [0; 10];
            for seed in 0..2_000 {
                let jitter = pause(seed, failures) - backoff_min / 2;
                assert!(jitter <= longest, "{jitter:?} after {failures} failures");
                tenths[(jitter.as_micros() * 10 / (longest.as_micros() + 1)) as usize] += 1;
            }
            // 200 each; seven standard deviations off is no accident.
            assert!(tenths.iter().all(|count| (105..295).contains(count)), "{tenths:?}");
        }
    }

    #[test]
    fn a_peer_that_does_its_work_makes_pauses_short_again() {
        let mut connection = Connection { failures: 9, ..Connection::new(timing()) };
        connection.settled();
        connection.lost(Duration::ZERO, &mut Random::new(1));
        assert!(connection.deadline() <= Some(timing().backoff_min * 3 / 2));
        connection.refused(Duration::ZERO, Duration::from_secs(3_600));
        assert_eq!(connection.deadline(), Some(timing().backoff_max * 12));
    }

    #[test]
    fn a_silent_peer_is_asked_each_second_and_given_up_after_three() {
        let (mut connection, mut random) = (Connection::new(timing()), Random::new(1));
        assert_eq!(connection.poll(Duration::ZERO, &mut random), Some(Due::Connect));
        connection.connected(Duration::ZERO);
        let mut due = Vec::new();
        while connection.is_up() {
            let now = connection.deadline().expect("it is up");
            assert_eq!(connection.poll(now - MILLISECOND, &mut random), None);
            due.extend(connection.poll(now, &mut random).map(|due| (now.as_millis(), due)));
        }
        assert_eq!(due, [(1_000, Due::Ping), (2_000, Due::Ping), (3_000, Due::Silent)]);
    }

    #[test]
    fn a_sign_of_life_puts_the_silence_off() {
        let (mut connection, mut random) = (Connection::new(timing()), Random::new(1));
        connection.connected(Duration::ZERO);
        connection.heard(MILLISECOND * 2_500);
        assert_eq!(connection.poll(MILLISECOND * 5_499, &mut random), Some(Due::Ping));
        assert_eq!(connection.poll(MILLISECOND * 5_500, &mut random), Some(Due::Silent));
    }
}
