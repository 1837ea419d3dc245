//! The deadlines of a session: what is due at a moment, and when to look again.
//!
//! Pure: times come in as milliseconds of the core's time, which stands still while the core does.

use crate::config::Limits;

/// Longest wait for the other end to close after we have.
const LINGER_MS: u64 = 1000;

/// Longest wait for acks that are due before a drain closes a session.
const DRAIN_MS: u64 = 1500;

/// What a session's time has come for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// The device has not said hello.
    Hello,
    /// The device has been silent: ping it.
    Ping,
    /// The device has been silent for twice as long.
    Silent,
    /// The device does not take what we send.
    Stalled,
    /// Its socket has not been read for as long as it may be.
    Paused,
    /// The drain waits no longer for acks.
    Drained,
    /// Closing has taken long enough.
    Lingered,
}

/// The spans that hold for every session, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Spans {
    hello: u64,
    ping: u64,
    write_stall: u64,
    read_pause: u64,
}

/// The times a session remembers.
#[derive(Debug)]
pub(crate) struct Clock {
    spans: Spans,
    started: u64,
    greeted: bool,
    heard: u64,
    pinged: bool,
    stalled: Option<u64>,
    paused: Option<u64>,
    draining: Option<u64>,
    closing: Option<u64>,
}

impl Clock {
    /// A session that starts now; one without a hello is `greeted` from the start.
    pub(crate) fn new(limits: &Limits, greeted: bool, now_ms: u64) -> Self {
        let ms = |span: forebay_ops::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let spans = Spans {
            hello: ms(limits.hello),
            ping: ms(limits.ping),
            write_stall: ms(limits.write_stall),
            read_pause: ms(limits.read_pause),
        };
        Self {
            spans,
            started: now_ms,
            greeted,
            heard: now_ms,
            pinged: false,
            stalled: None,
            paused: None,
            draining: None,
            closing: None,
        }
    }

    /// The device has said hello.
    pub(crate) fn greet(&mut self) {
        self.greeted = true;
    }

    /// Bytes have come.
    pub(crate) fn hear(&mut self, now_ms: u64) {
        self.heard = now_ms;
        self.pinged = false;
    }

    /// A ping went out.
    pub(crate) fn ping(&mut self) {
        self.pinged = true;
    }

    /// Whether all that was to be sent is sent.
    pub(crate) fn flushed(&mut self, all: bool, now_ms: u64) {
        self.stalled = if all { None } else { self.stalled.or(Some(now_ms)) };
    }

    /// The socket is not read from now on. Says whether it was before.
    pub(crate) fn pause(&mut self, now_ms: u64) -> bool {
        let was = self.paused.is_some();
        self.paused.get_or_insert(now_ms);
        was
    }

    /// The socket is read again.
    pub(crate) fn resume(&mut self, now_ms: u64) {
        if self.paused.take().is_some() {
            // What it sent meanwhile lies unread: it was not silent.
            self.heard = now_ms;
        }
    }

    /// The front drains.
    pub(crate) fn drain(&mut self, now_ms: u64) {
        self.draining.get_or_insert(now_ms);
    }

    /// The close has begun.
    pub(crate) fn close(&mut self, now_ms: u64) {
        self.closing.get_or_insert(now_ms);
    }

    /// What is due, the most final first, and when to look again.
    pub(crate) fn due(&self, now_ms: u64) -> (Option<Due>, u64) {
        if let Some(since) = self.closing {
            return first(&[(since + LINGER_MS, Due::Lingered)], now_ms);
        }
        let spans = &self.spans;
        let never = u64::MAX;
        let after =
            |since: Option<u64>, span: u64| since.map_or(never, |at| at.saturating_add(span));
        let hello = if self.greeted { never } else { self.started.saturating_add(spans.hello) };
        let heard = (self.paused.is_none()).then_some(self.heard);
        let ping = if self.pinged { never } else { after(heard, spans.ping) };
        first(
            &[
                (after(self.stalled, spans.write_stall), Due::Stalled),
                (hello, Due::Hello),
                (after(heard, spans.ping.saturating_mul(2)), Due::Silent),
                (after(self.draining, DRAIN_MS), Due::Drained),
                (after(self.paused, spans.read_pause), Due::Paused),
                (ping, Due::Ping),
            ],
            now_ms,
        )
    }
}

/// The first of `deadlines` that has passed, and the earliest that has not.
fn first(deadlines: &[(u64, Due)], now_ms: u64) -> (Option<Due>, u64) {
    let due = deadlines.iter().find(|(at, _)| *at <= now_ms).map(|(_, due)| *due);
    let next = deadlines.iter().map(|(at, _)| *at).filter(|at| *at > now_ms).min();
    (due, next.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(greeted: bool) -> Clock {
        Clock::new(&Limits::default(), greeted, 1000)
    }

    #[test]
    fn a_device_that_says_nothing_is_due_for_its_hello() {
        let mut clock = clock(false);
        assert_eq!(clock.due(1000), (None, 6000));
        assert_eq!(clock.due(6000).0, Some(Due::Hello));
        clock.greet();
        assert_eq!(clock.due(6000), (None, 31_000));
    }

    #[test]
    fn a_silent_device_is_pinged_once_and_then_given_up() {
        let mut clock = clock(true);
        assert_eq!(clock.due(31_000).0, Some(Due::Ping));
        clock.ping();
        assert_eq!(clock.due(31_000), (None, 61_000));
        assert_eq!(clock.due(61_000).0, Some(Due::Silent));
        clock.hear(60_000);
        assert_eq!(clock.due(61_000), (None, 90_000));
    }

    #[test]
    fn a_device_that_is_not_read_is_not_silent() {
        let mut clock = clock(true);
        assert!(!clock.pause(30_000));
        assert!(clock.pause(31_000));
        assert_eq!(clock.due(34_999), (None, 35_000));
        assert_eq!(clock.due(99_000).0, Some(Due::Paused));
        clock.resume(99_000);
        assert_eq!(clock.due(99_000), (None, 129_000));
    }

    #[test]
    fn a_stall_counts_from_the_first_byte_that_is_not_taken() {
        let mut clock = clock(true);
        clock.flushed(false, 2000);
        clock.flushed(false, 9000);
        assert_eq!(clock.due(11_999), (None, 12_000));
        assert_eq!(clock.due(12_000).0, Some(Due::Stalled));
        clock.flushed(true, 12_000);
        assert_eq!(clock.due(12_000).0, None);
    }

    #[test]
    fn a_close_ends_all_other_waits() {
        let mut clock = clock(false);
        clock.drain(1000);
        clock.close(1500);
        assert_eq!(clock.due(2499), (None, 2500));
        assert_eq!(clock.due(99_000).0, Some(Due::Lingered));
    }
}
