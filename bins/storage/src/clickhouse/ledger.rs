//! The last range announced to a store, kept in the store itself.
//!
//! Ranges are announced and sent in order, so all that lies before the last announced one is
//! stored, and of what comes after it nothing is. Only that one range is in doubt: it is read again
//! with exactly its bounds and sent under its token. So a consumer that was set back, or renamed,
//! or whose pending range the middle has lost, stores nothing twice, however old what it reads
//! again is.
//!
//! It knows one writer: two consumers of different names that feed one set of tables at the same
//! time are not fenced from each other.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use forebay_link::{Error as LinkError, FeedEvent, QueueId, Seq, Tally};

use super::{
    client::{Store, outcome},
    outcome::is_missing,
};
use crate::{
    config::Clickhouse,
    feed::{Consumer, Source},
    sink::{Outcome, Token},
};

/// First and last entry of a range.
pub(super) type Span = (Seq, Seq);

/// What this process knows of the ledger.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    announced: Mutex<HashMap<QueueId, Span>>,
}

impl Ledger {
    /// The range of this queue that was announced last when its feed was opened.
    pub(super) fn found(&self, queue: QueueId) -> Option<Span> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner).get(&queue).copied()
    }

    fn keep(&self, queue: QueueId, span: Option<Span>) {
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        match span {
            Some(span) => announced.insert(queue, span),
            None => announced.remove(&queue),
        };
    }
}

/// Writes the range down before its block is sent.
pub(super) async fn announce(store: &Store, token: &Token) -> Result<(), Outcome> {
    let insert = format!(
        "INSERT INTO {} (queue, first, last) SETTINGS async_insert = 0{} VALUES ('{}', {}, {})",
        store.schema.table("ranges"),
        if store.settings.cluster.is_some() { ", insert_quorum = 'auto'" } else { "" },
        token.queue,
        token.first.get(),
        token.last.get()
    );
    store.run(&insert).await.map_err(outcome)
}

/// The range announced last; none if there is no table yet.
async fn last_announced(store: &Store, queue: QueueId) -> Result<Option<Span>, Outcome> {
    let sequential = if store.settings.cluster.is_some() {
        " SETTINGS select_sequential_consistency = 1"
    } else {
        ""
    };
    let sql = format!(
        "SELECT first, last FROM {} WHERE queue = '{queue}' ORDER BY first DESC LIMIT 1{sequential}",
        store.schema.table("ranges")
    );
    let lines = match store.lines(&sql).await {
        Err(error) if is_missing(&error) => return Ok(None),
        answer => answer.map_err(outcome)?,
    };
    let Some(line) = lines.first() else { return Ok(None) };
    let span = line.split_once('\t').and_then(|(first, last)| {
        Some((Seq::new(first.parse().ok()?), Seq::new(last.parse().ok()?)))
    });
    let wrong = || Outcome::Misconfigured(format!("ClickHouse: {line:?} in the table of ranges"));
    span.map(Some).ok_or_else(wrong)
}

/// A consumer that asks the store, too, which range is in doubt.
pub struct LedgerConsumer<C> {
    consumer: Arc<C>,
    settings: Clickhouse,
    ledger: Arc<Ledger>,
}

impl<C> LedgerConsumer<C> {
    pub(super) fn new(consumer: Arc<C>, settings: Clickhouse, ledger: Arc<Ledger>) -> Self {
        Self { consumer, settings, ledger }
    }
}

impl<C> fmt::Debug for LedgerConsumer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LedgerConsumer").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

impl<C: Source> Source for LedgerConsumer<C> {
    fn next(&self, timeout: Duration) -> Result<Option<FeedEvent>, LinkError> {
        self.consumer.next(timeout)
    }

    fn head(&self) -> Seq {
        self.consumer.head()
    }
}

impl<C: Consumer> Consumer for LedgerConsumer<C> {
    fn prepare(
        &self,
        queue: QueueId,
        first: Seq,
        last: Seq,
        plan: &[u8],
        timeout: Duration,
    ) -> Result<(), LinkError> {
        self.consumer.prepare(queue, first, last, plan, timeout)
    }

    fn commit(
        &self,
        queue: QueueId,
        upto: Seq,
        tally: Tally,
        timeout: Duration,
    ) -> Result<(), LinkError> {
        self.consumer.commit(queue, upto, tally, timeout)
    }

    fn announced(&self, queue: QueueId) -> Result<Option<Span>, Outcome> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Outcome::Transient(error.to_string()))?;
        let store = Store::new(&self.settings)?;
        let span = runtime.block_on(last_announced(&store, queue))?;
        self.ledger.keep(queue, span);
        Ok(span)
    }
}
