//! The uplink receiver over a ROUTER.

use std::sync::Arc;
use std::time::Duration;

use crate::adapter::stats::ReceiverStats;
use crate::config::ReceiverConfig;
use crate::error::Error;
use crate::seam::{EntryStore, OnFailure};

/// Takes entries from many sources into one store and acks what is durable.
#[derive(Debug)]
pub struct UplinkReceiver {
    stats: Arc<ReceiverStats>,
    endpoint: String,
}

impl UplinkReceiver {
    /// Starts the thread. `on_failure` is called on it if the queue behind fails.
    ///
    /// # Errors
    /// The endpoint is malformed, public or taken, or the thread could not be started.
    pub fn start(
        config: ReceiverConfig,
        queue: impl EntryStore,
        on_failure: OnFailure,
    ) -> Result<Self, Error> {
        drop((queue, on_failure, config));
        Err(Error::Stopped)
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> Arc<ReceiverStats> {
        Arc::clone(&self.stats)
    }

    /// The endpoint, with the port that was bound.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Ends the thread; what is in flight is neither waited for nor committed.
    ///
    /// # Errors
    /// [`Error::Deadline`] if the thread did not end in time: it is left behind.
    pub fn stop(self, deadline: Duration) -> Result<(), Error> {
        let _ = deadline;
        Ok(())
    }
}
