//! What others may ask of a session: to look at the clock, at a new ack, or to end.
//!
//! A session is one task on one core. Its core's timer and watermark tasks, newer connections of
//! the same device and the drain reach it only through this handle: they leave a word and wake it.

use std::{
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
    task::Waker,
};

use futures_util::task::AtomicWaker;

/// Never: no deadline is set.
const NEVER: u64 = u64::MAX;

/// Why a session is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// A newer connection speaks for the device.
    Replaced,
    /// The front drains: let the acks that are due go out first.
    Drain,
    /// The credential has expired or was revoked.
    Expired,
}

/// The handle of one session.
#[derive(Debug)]
pub(crate) struct Control {
    waker: AtomicWaker,
    order: AtomicU8,
    /// The number of the session, for a newer connection that continues it; one above the number,
    /// so that 0 says that no hello has come.
    session: AtomicU64,
    /// The highest message number that has reached the configured level; 0 is none.
    reached: AtomicU64,
    /// When the session wants to be woken, in milliseconds of its core's time.
    check_at_ms: AtomicU64,
}

impl Control {
    pub(crate) fn new() -> Self {
        Self {
            waker: AtomicWaker::new(),
            order: AtomicU8::new(0),
            session: AtomicU64::new(0),
            reached: AtomicU64::new(0),
            check_at_ms: AtomicU64::new(NEVER),
        }
    }

    /// Called by the session at the start of every poll.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Makes the session run.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Tells the session to end. A later order counts if it is the graver.
    pub(crate) fn order(&self, order: Order) {
        let word = match order {
            Order::Drain => 1,
            Order::Replaced => 2,
            Order::Expired => 3,
        };
        self.order.fetch_max(word, Ordering::AcqRel);
        self.wake();
    }

    /// What the session was told.
    pub(crate) fn ordered(&self) -> Option<Order> {
        match self.order.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Order::Drain),
            2 => Some(Order::Replaced),
            _ => Some(Order::Expired),
        }
    }

    /// Names the session after its hello.
    pub(crate) fn name_session(&self, session: u64) {
        self.session.store(session + 1, Ordering::Release);
    }

    /// The highest number that has reached the level, if this handle is of `session`.
    pub(crate) fn reached_in(&self, session: u64) -> Option<u64> {
        (self.session.load(Ordering::Acquire) == session + 1).then(|| self.reached())
    }

    /// All messages up to `number` have reached the level. Does not wake.
    pub(crate) fn reach(&self, number: u64) {
        self.reached.fetch_max(number, Ordering::AcqRel);
    }

    /// The highest message number that has reached the level.
    pub(crate) fn reached(&self) -> u64 {
        self.reached.load(Ordering::Acquire)
    }

    /// Asks to be woken at `at_ms` or earlier.
    ///
    /// A deadline that moves back, as that of the idle ping does with each message, is left where
    /// it was: the session is woken in vain once a period instead of storing it at every poll.
    pub(crate) fn check_at(&self, at_ms: u64) {
        if at_ms < self.check_at_ms.load(Ordering::Relaxed) {
            self.check_at_ms.store(at_ms, Ordering::Relaxed);
        }
    }

    /// Wakes the session if its time has come. Called by the core's sweep.
    pub(crate) fn sweep(&self, now_ms: u64) {
        if self.check_at_ms.load(Ordering::Relaxed) <= now_ms {
            self.check_at_ms.store(NEVER, Ordering::Relaxed);
            self.wake();
        }
    }
}
