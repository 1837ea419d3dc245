//! The subscriber over a SUB and a DEALER.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use forebay_wire::Seq;

use crate::adapter::stats::SubscriberStats;
use crate::config::SubscriberConfig;
use crate::error::Error;
use crate::seam::FeedEvent;

/// Follows a middle's log without a gap, and keeps a durable consumer's cursor there.
///
/// All methods take `&self`: one task may read while another prepares and commits.
#[derive(Debug)]
pub struct Subscriber {
    stats: Arc<SubscriberStats>,
}

impl Subscriber {
    /// Starts the thread. The middle need not be there yet.
    ///
    /// # Errors
    /// An endpoint is malformed, or the thread could not be started.
    pub fn start(config: SubscriberConfig) -> Result<Self, Error> {
        drop(config);
        Err(Error::Stopped)
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> Arc<SubscriberStats> {
        Arc::clone(&self.stats)
    }

    /// The next event; `None` if there is none within `timeout`.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::Refused`], [`Error::Stopped`]: no event will come any more.
    pub fn next(&self, timeout: Duration) -> Result<Option<FeedEvent>, Error> {
        let _ = timeout;
        Err(Error::Stopped)
    }

    /// The next event, for a task: pending until there is one.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Result<FeedEvent, Error>> {
        let _ = context;
        Poll::Ready(Err(Error::Stopped))
    }

    /// Announces the range `start..=end`, durably at the middle on return. `plan` is what this
    /// consumer needs to write exactly the same again; at most
    /// [`forebay_wire::feed::PLAN_BYTES_MAX`] bytes. A range announced before and not committed
    /// is replaced. Blocks.
    ///
    /// # Errors
    /// - [`Error::Deadline`]: repeat it; it may or may not have been done, and is idempotent.
    /// - [`Error::Fenced`], [`Error::Refused`], [`Error::Stopped`]: stop.
    pub fn prepare(
        &self,
        start: Seq,
        end: Seq,
        plan: &[u8],
        timeout: Duration,
    ) -> Result<(), Error> {
        let _ = (start, end, plan, timeout);
        Err(Error::Stopped)
    }

    /// Says that all up to `upto` are safe here; durable at the middle on return. Blocks.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn commit(&self, upto: Seq, timeout: Duration) -> Result<(), Error> {
        let _ = (upto, timeout);
        Err(Error::Stopped)
    }

    /// [`Self::prepare`] for a task: resolves once it is durable, over reconnects, without a
    /// deadline of its own.
    ///
    /// # Errors
    /// As [`Self::prepare`], without the deadline.
    pub async fn prepared(&self, start: Seq, end: Seq, plan: &[u8]) -> Result<(), Error> {
        let _ = (start, end, plan);
        Err(Error::Stopped)
    }

    /// [`Self::commit`] for a task, likewise.
    ///
    /// # Errors
    /// As [`Self::prepared`].
    pub async fn committed(&self, upto: Seq) -> Result<(), Error> {
        let _ = upto;
        Err(Error::Stopped)
    }

    /// Ends the thread; events not yet read are dropped and will be delivered again.
    ///
    /// # Errors
    /// [`Error::Deadline`] if the thread did not end in time: it is left behind.
    pub fn stop(self, deadline: Duration) -> Result<(), Error> {
        let _ = deadline;
        Ok(())
    }
}
