//! The replay server over a ROUTER.

use std::sync::Arc;
use std::time::Duration;

use crate::adapter::stats::ReplayStats;
use crate::config::ReplayConfig;
use crate::error::Error;
use crate::seam::{OnFailure, ReplayStore};

/// Serves fetches, and the cursors of durable consumers.
#[derive(Debug)]
pub struct ReplayServer {
    stats: Arc<ReplayStats>,
    endpoint: String,
}

impl ReplayServer {
    /// Starts the thread. `on_failure` is called on it if the queue behind fails.
    ///
    /// # Errors
    /// The endpoint is malformed, public or taken, or the thread could not be started.
    pub fn start(
        config: ReplayConfig,
        queue: impl ReplayStore,
        on_failure: OnFailure,
    ) -> Result<Self, Error> {
        drop((queue, on_failure, config));
        Err(Error::Stopped)
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> Arc<ReplayStats> {
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
