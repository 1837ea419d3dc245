//! The feed as a sink sees it: entries in order, and a durable cursor at the middle.

use std::time::Duration;

use forebay_link::{Error, FeedEvent, Seq, Subscriber};

/// A durable consumer. The link's [`Subscriber`] is one; tests have one without sockets.
///
/// All methods take `&self`: one thread reads while another announces and commits.
pub trait Consumer: Send + Sync + 'static {
    /// The next event; `None` if there is none within `timeout`.
    ///
    /// # Errors
    /// No event will come any more.
    fn next(&self, timeout: Duration) -> Result<Option<FeedEvent>, Error>;

    /// Announces a range, durably on return.
    ///
    /// # Errors
    /// [`Error::Deadline`]: repeat it. Others: stop.
    fn prepare(&self, first: Seq, last: Seq, plan: &[u8], timeout: Duration) -> Result<(), Error>;

    /// Says that all up to `upto` are stored, durably on return.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    fn commit(&self, upto: Seq, timeout: Duration) -> Result<(), Error>;

    /// The last entry the middle is known to have; [`Seq::ZERO`] if nothing is known.
    fn head(&self) -> Seq;
}

impl Consumer for Subscriber {
    fn next(&self, timeout: Duration) -> Result<Option<FeedEvent>, Error> {
        Self::next(self, timeout)
    }

    fn prepare(&self, first: Seq, last: Seq, plan: &[u8], timeout: Duration) -> Result<(), Error> {
        Self::prepare(self, first, last, plan, timeout)
    }

    fn commit(&self, upto: Seq, timeout: Duration) -> Result<(), Error> {
        Self::commit(self, upto, timeout)
    }

    fn head(&self) -> Seq {
        Seq::new(self.stats().head.get())
    }
}
