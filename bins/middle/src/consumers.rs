//! The durable consumers: named readers of the log, each with its state as a note beside the cursor.
//!
//! Space is reclaimed below the slowest of them, so one that never comes again holds the log: the
//! configuration names who is required, and who is to be removed. What they say has become of what
//! they took is kept with their cursors (`accounts`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_link::{BatchBuilder, ConsumerState, Fault, QueueId, ReplayStore, Seq};
use forebay_queue::{Error, Queue, Seq as LogSeq};
use hashbrown::HashMap;

use crate::{
    accounts::{Account, Accounts, Before},
    balance::committed,
    beginning::Beginnings,
    config::{self, CONSUMERS_MAX, is_consumer_name},
    dedup::Dedup,
    detach::{Readers, lock_readers},
    feed::LogView,
    gaps::{self, lock_gaps},
};

/// What a consumer's reader is called in the log: the prefix, then its name.
pub(crate) const PREFIX: &str = "to.";
/// Places in the log that are kept open, one for each reader that fetches in order.
const VIEWS_MAX: usize = 16;

/// The log, as fetches read it, and its consumers.
pub(crate) struct ReplayLog {
    log: Queue,
    readers: Readers,
    accounts: Arc<Mutex<Accounts>>,
    dedup: Arc<Mutex<Dedup>>,
    gaps: gaps::Shared,
    beginnings: Beginnings,
    allow_others: bool,
    /// Least recently used first.
    views: Vec<LogView>,
}

impl ReplayLog {
    /// Opens the required consumers, removes those that will not come again, and takes up those
    /// that were there.
    ///
    /// # Errors
    /// The log has failed, or its table of readers is full.
    pub(crate) fn open(
        log: &Queue,
        config: &config::Consumers,
        accounts: Arc<Mutex<Accounts>>,
        dedup: Arc<Mutex<Dedup>>,
        gaps: gaps::Shared,
    ) -> Result<Self, Error> {
        for name in &config.remove {
            let reader = format!("{PREFIX}{name}");
            if log.readers().iter().any(|known| known.name == reader) {
                log.remove_reader(&reader)?;
                tracing::warn!(consumer = name, "consumer removed, its cursor is forgotten");
            }
        }
        let mut readers = HashMap::new();
        for name in &config.required {
            readers.insert(name.clone(), log.reader(&format!("{PREFIX}{name}"))?);
        }
        for known in log.readers() {
            let Some(name) = known.name.strip_prefix(PREFIX) else { continue };
            if readers.contains_key(name) {
                continue;
            }
            if !config.allow_others {
                tracing::warn!(
                    consumer = name,
                    bytes = known.pending_bytes,
                    "a consumer that is not required holds the log; see consumers.remove"
                );
            }
            readers.insert(name.to_owned(), log.reader(&known.name)?);
        }
        let (allow_others, log) = (config.allow_others, log.clone());
        let readers = Arc::new(Mutex::new(readers));
        let (beginnings, views) = (Beginnings::default(), Vec::new());
        Ok(Self { log, readers, accounts, dedup, gaps, beginnings, allow_others, views })
    }

    /// Takes up the accounts of all consumers as their cursors stand.
    ///
    /// # Errors
    /// What the files of the accounts hold is not known: the middle must not go on.
    pub(crate) fn settle(&self) -> std::io::Result<()> {
        let readers = lock_readers(&self.readers);
        let mut accounts = lock(&self.accounts);
        let nothing = lock(&self.dedup).ledger.records == 0;
        // Before anything else is written: that overwrites the older file, which may have the one
        // account that belongs to a cursor.
        for (name, reader) in readers.iter() {
            accounts.settle(name, committed(&reader.note()))?;
        }
        accounts.retain(|name| readers.contains_key(name))?;
        for name in readers.keys() {
            if nothing && accounts.latest(name).is_none() {
                accounts.begin(name)?;
            }
        }
        Ok(())
    }

    /// The consumers' readers, for who may detach them.
    pub(crate) fn readers(&self) -> Readers {
        Arc::clone(&self.readers)
    }

    /// The place that stands at `after`, or a new one there instead of the least recently used.
    fn view(&mut self, after: LogSeq) -> &mut LogView {
        let known = self.views.iter().position(|view| view.after() == after);
        let view = match known {
            Some(at) => self.views.remove(at),
            None => {
                if self.views.len() >= VIEWS_MAX {
                    self.views.remove(0);
                }
                LogView::new(&self.log, after)
            }
        };
        self.views.push(view);
        self.views.last_mut().expect("pushed above")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ReplayStore for ReplayLog {
    fn queue(&self) -> QueueId {
        QueueId::new(self.log.id().get())
    }

    fn head(&mut self) -> Seq {
        Seq::new(self.log.durable().get())
    }

    fn fill(&mut self, after: Seq, batch: &mut BatchBuilder) -> Result<(), Fault> {
        let after = LogSeq::from_u64(after.get());
        self.view(after).fill(after, batch)
    }

    fn consumer(&mut self, name: &str) -> Result<Option<ConsumerState>, Fault> {
        let mut readers = lock_readers(&self.readers);
        if !readers.contains_key(name) {
            if !self.allow_others || !is_consumer_name(name) || readers.len() >= CONSUMERS_MAX {
                return Ok(None);
            }
            let reader = self.log.reader(&format!("{PREFIX}{name}"))?;
            tracing::info!(consumer = name, "a new consumer begins, the log is kept for it");
            readers.insert(name.to_owned(), reader);
        }
        let note = readers[name].note();
        let state = ConsumerState::from_note(&note);
        let state = state.ok_or_else(|| format!("the note of consumer {name:?} is malformed"))?;
        let account = lock(&self.accounts).get(name, state.committed);
        Ok(Some(ConsumerState { tally: account.map(|account| account.tally), ..state }))
    }

    fn record(&mut self, name: &str, state: &ConsumerState) -> Result<(), Fault> {
        let mut readers = lock_readers(&self.readers);
        let Some(reader) = readers.get_mut(name) else {
            return Err(format!("consumer {name:?} has no reader").into());
        };
        // Nobody is detached meanwhile: that needs the readers.
        let given_up = || lock_gaps(&self.gaps).messages(name, self.log.id());
        let mut accounts = lock(&self.accounts);
        let known = accounts.latest(name);
        let mut before = known.and_then(|account| account.before);
        let ConsumerState { committed, tally, .. } = *state;
        let asked = LogSeq::from_u64(committed.get());
        if let (Some(tally), None) = (tally, before) {
            let span = (reader.cursor(), asked);
            let ledger = self.beginnings.ledger_at(&self.log, &self.dedup, name, span)?;
            before = ledger.map(|ledger| Before::of(&ledger, &tally, given_up()));
        }
        let account = tally.map(|tally| Account { committed, tally, before });
        // First: whatever dies before the cursor has moved finds the tally that belongs to it.
        if account != known {
            accounts.put(name, account)?;
        }
        let upto = asked.max(reader.cursor());
        reader.commit_durable(upto, Some(&state.to_note()))?;
        // Without traffic there may be no further commit. One that is left behind tells of less
        // than its cursor has passed.
        if upto == asked && account.is_some_and(|account| account.before.is_none()) {
            // Entries are appended under this lock.
            let dedup = lock(&self.dedup);
            if self.log.readers().iter().any(|reader| {
                reader.name.strip_prefix(PREFIX) == Some(name) && reader.pending_bytes == 0
            }) {
                accounts.caught_up(name, &dedup.ledger, given_up());
            }
        }
        Ok(())
    }
}
