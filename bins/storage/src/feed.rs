//! The middle's log as this tier sees it, so that everything behind it runs without sockets too.

use std::{fmt, sync::Arc, time::Duration};

use forebay_link::{Error, FeedEvent, QueueId, Seq, Start, Subscriber, SubscriberConfig, Tally};

use crate::sink::Outcome;

/// Entries in order.
pub trait Source: Send + Sync + 'static {
    /// The next event; `None` if there is none within `timeout`.
    ///
    /// # Errors
    /// No event will come any more.
    fn next(&self, timeout: Duration) -> Result<Option<FeedEvent>, Error>;

    /// The last entry the middle is known to have; [`Seq::ZERO`] if nothing is known.
    fn head(&self) -> Seq;
}

/// A source with a durable cursor at the middle.
///
/// All methods take `&self`: one thread reads while another announces and commits.
pub trait Consumer: Source {
    /// Announces a range of `queue`, durably on return.
    ///
    /// # Errors
    /// [`Error::Deadline`]: repeat it. [`Error::OtherQueue`]: go on without. Others: stop.
    fn prepare(
        &self,
        queue: QueueId,
        first: Seq,
        last: Seq,
        plan: &[u8],
        timeout: Duration,
    ) -> Result<(), Error>;

    /// Says that all of `queue` up to `upto` are stored and what `tally` they come to, durably on
    /// return. The queue is that of the numbers: who reads may be in another one already.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    fn commit(
        &self,
        queue: QueueId,
        upto: Seq,
        tally: Tally,
        timeout: Duration,
    ) -> Result<(), Error>;

    /// The range of this queue that the store itself was told last, first and last entry: all
    /// before it is stored, and it is read again with exactly these bounds. `None` for a store that
    /// keeps no such ledger.
    ///
    /// # Errors
    /// What keeps the store from saying so; asked again until it does.
    fn announced(&self, queue: QueueId) -> Result<Option<(Seq, Seq)>, Outcome> {
        let _ = queue;
        Ok(None)
    }
}

impl Source for Subscriber {
    fn next(&self, timeout: Duration) -> Result<Option<FeedEvent>, Error> {
        Self::next(self, timeout)
    }

    fn head(&self) -> Seq {
        Seq::new(self.stats().head.get())
    }
}

impl Consumer for Subscriber {
    fn prepare(
        &self,
        queue: QueueId,
        first: Seq,
        last: Seq,
        plan: &[u8],
        timeout: Duration,
    ) -> Result<(), Error> {
        Self::prepare(self, queue, first, last, plan, timeout)
    }

    fn commit(
        &self,
        queue: QueueId,
        upto: Seq,
        tally: Tally,
        timeout: Duration,
    ) -> Result<(), Error> {
        self.commit_counted(queue, upto, tally, timeout)
    }
}

/// Opens a source without a cursor: from where, and under which thread name.
pub type Opener = Arc<dyn Fn(Start, &str) -> Result<Arc<dyn Source>, Error> + Send + Sync>;

/// A middle whose log can be followed.
#[derive(Clone)]
pub struct Middle {
    /// Its name in the configuration.
    pub name: String,
    /// Opens its log anew.
    pub open: Opener,
}

impl Middle {
    /// A middle behind sockets; `config` names them, its start and thread are replaced.
    #[must_use]
    pub fn new(name: &str, config: SubscriberConfig) -> Self {
        let open = move |start: Start, thread: &str| -> Result<Arc<dyn Source>, Error> {
            let config = SubscriberConfig {
                thread: thread.to_owned(),
                start,
                consumer: None,
                ..config.clone()
            };
            Ok(Arc::new(Subscriber::start(config)?))
        };
        Self { name: name.to_owned(), open: Arc::new(open) }
    }
}

impl fmt::Debug for Middle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Middle").field("name", &self.name).finish_non_exhaustive()
    }
}
