//! A running server: a bound door, the thread behind it, and what it counts.
//!
//! One handle serves the uplink's receiver, the feed's publisher and the replay server; each of
//! their files adds its own `start`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::adapter::bind::Door;
use crate::adapter::thread::Thread;
use crate::error::Error;
use crate::pump::PumpStats;

/// A server on a thread of its own, which counts in `S`.
#[derive(Debug)]
pub struct Server<S> {
    thread: Thread,
    stats: Arc<S>,
    door: Door,
}

impl<S> Server<S> {
    pub(super) const fn new(thread: Thread, stats: Arc<S>, door: Door) -> Self {
        Self { thread, stats, door }
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> Arc<S> {
        Arc::clone(&self.stats)
    }

    /// The endpoint, with the port that was bound.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.door.endpoint
    }

    /// The address that was bound; `None` for a Unix socket.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        self.door.address
    }

    /// What the pump before it has done so far; `None` without one.
    #[must_use]
    pub fn pump(&self) -> Option<Arc<PumpStats>> {
        self.door.pump()
    }

    /// Lets nobody in any more and ends the thread. Whoever was served keeps what was not
    /// answered, and asks again elsewhere or later.
    ///
    /// # Errors
    /// [`Error::Deadline`] if the thread did not end in time: it is left behind.
    pub fn stop(self, deadline: Duration) -> Result<(), Error> {
        let closed = self.door.close(deadline);
        self.thread.stop(deadline).and(closed)
    }
}
