//! How often a frame that is not full may be sent.
//!
//! A ring that fills one entry at a time would wake the forwarder for each, and each would travel in
//! a frame of its own: on one CPU that costs as much as all that the sessions do. So what comes
//! right after a frame that was not full waits a moment for company. The first entry after a pause
//! goes at once.

use std::{
    pin::Pin,
    task::{Context, Waker},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A moment's rest after each frame that is not full.
pub(super) struct Pace {
    rest: Duration,
    until: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// Rests of this length; of zero, none.
    pub(super) fn new(rest: Duration) -> Self {
        Self { rest, until: None, timer: None }
    }

    /// A new connection begins; it may have a runtime of its own, of which no timer outlives another.
    pub(super) fn restart(&mut self) {
        (self.until, self.timer) = (None, None);
    }

    /// A frame has been filled that has room left.
    pub(super) fn was_not_full(&mut self) {
        if !self.rest.is_zero() {
            self.until = Some(Instant::now() + self.rest);
        }
    }

    /// Whether nothing may be sent yet.
    pub(super) fn is_resting(&mut self) -> bool {
        self.until = self.until.filter(|until| Instant::now() < *until);
        self.until.is_some()
    }

    /// Whether the rest is over; if not, `waker` is woken once it is.
    pub(super) fn poll_rested(&mut self, waker: &Waker) -> bool {
        let Some(until) = self.until else { return true };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        let over = timer.as_mut().poll(&mut Context::from_waker(waker)).is_ready();
        if over {
            self.until = None;
        }
        over
    }
}
