//! What a device tells about its own work: a hook for each event, and counters.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use forebay_model::MessageId;

use crate::ConnectionError;

/// Hears of a device's work, from inside its connection task: return at once, never block.
///
/// Every method does nothing unless overridden.
pub trait Observer: Send + Sync {
    /// A message is safe at the front's level, so long after `send` took it.
    fn acked(&self, seq: MessageId, latency: Duration) {
        let _ = (seq, latency);
    }

    /// A message was refused for good; it is reported once.
    fn rejected(&self, rejection: &Rejection) {
        let _ = rejection;
    }

    /// A session is open.
    fn connected(&self) {}

    /// The connection ended; another is made unless the device is closed.
    fn disconnected(&self, error: &ConnectionError) {
        let _ = error;
    }
}

/// A message that a front refused for good. It is not stored anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Its number, as `send` returned it.
    pub seq: MessageId,
    /// A stable word; docs/protocol.md lists them.
    pub code: String,
    /// A sentence.
    pub reason: String,
}

/// What a device has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Messages put on a connection, resends included.
    pub sent: u64,
    /// Of these, sent again.
    pub resent: u64,
    /// Messages that are done: acked, rejected ones included.
    pub acked: u64,
    /// Messages refused for good.
    pub rejected: u64,
    /// Times a front asked to go back.
    pub nacked: u64,
    /// Sessions opened.
    pub connections: u64,
}

/// The counters behind [`Statistics`].
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) sent: AtomicU64,
    pub(crate) resent: AtomicU64,
    pub(crate) acked: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) nacked: AtomicU64,
    pub(crate) connections: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> Statistics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            sent: get(&self.sent),
            resent: get(&self.resent),
            acked: get(&self.acked),
            rejected: get(&self.rejected),
            nacked: get(&self.nacked),
            connections: get(&self.connections),
        }
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

impl fmt::Debug for dyn Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
