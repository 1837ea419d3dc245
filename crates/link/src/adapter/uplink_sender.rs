//! The uplink sender over a DEALER.

use std::sync::Arc;
use std::time::Duration;

use crate::adapter::stats::SenderStats;
use crate::config::SenderConfig;
use crate::error::Error;
use crate::seam::{EntrySource, OnFailure};

/// Sends a queue's entries to a receiver and commits them as they are acked.
#[derive(Debug)]
pub struct UplinkSender {
    stats: Arc<SenderStats>,
    endpoint: String,
}

impl UplinkSender {
    /// Starts the thread. `on_failure` is called on it if the queue behind fails.
    ///
    /// # Errors
    /// The endpoint is malformed, public or taken, or the thread could not be started.
    pub fn start(
        config: SenderConfig,
        queue: impl EntrySource,
        on_failure: OnFailure,
    ) -> Result<Self, Error> {
        drop((queue, on_failure, config));
        Err(Error::Stopped)
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> Arc<SenderStats> {
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
