//! The durable consumers: named readers of the log, each with its state as a note beside the cursor.
//!
//! Space is reclaimed below the slowest of them, so one that never comes again holds the log: the
//! configuration names who is required, and who is to be removed.

use forebay_link::{BatchBuilder, ConsumerState, Fault, QueueId, ReplayStore, Seq};
use forebay_queue::{Error, Queue, Reader, Seq as LogSeq};
use hashbrown::HashMap;

use crate::{
    config::{self, CONSUMERS_MAX, is_consumer_name},
    feed::LogView,
};

/// What a consumer's reader is called in the log: the prefix, then its name.
pub(crate) const PREFIX: &str = "to.";
/// Places in the log that are kept open, one for each reader that fetches in order.
const VIEWS_MAX: usize = 16;

/// The log, as fetches read it, and its consumers.
pub(crate) struct ReplayLog {
    log: Queue,
    readers: HashMap<String, Reader>,
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
    pub(crate) fn open(log: &Queue, config: &config::Consumers) -> Result<Self, Error> {
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
        let allow_others = config.allow_others;
        Ok(Self { log: log.clone(), readers, allow_others, views: Vec::new() })
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
        if !self.readers.contains_key(name) {
            if !self.allow_others || !is_consumer_name(name) || self.readers.len() >= CONSUMERS_MAX
            {
                return Ok(None);
            }
            let reader = self.log.reader(&format!("{PREFIX}{name}"))?;
            tracing::info!(consumer = name, "a new consumer begins, the log is kept for it");
            self.readers.insert(name.to_owned(), reader);
        }
        let note = self.readers[name].note();
        let state = ConsumerState::from_note(&note);
        Ok(Some(state.ok_or_else(|| format!("the note of consumer {name:?} is malformed"))?))
    }

    fn record(&mut self, name: &str, state: &ConsumerState) -> Result<(), Fault> {
        let Some(reader) = self.readers.get_mut(name) else {
            return Err(format!("consumer {name:?} has no reader").into());
        };
        let upto = LogSeq::from_u64(state.committed.get()).max(reader.cursor());
        reader.commit_durable(upto, Some(&state.to_note()))?;
        Ok(())
    }
}
