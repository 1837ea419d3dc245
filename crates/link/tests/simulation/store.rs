//! A middle's queue behind the traits of the link, with its planted mistakes.

use std::task::Waker;

use forebay_link::{
    BatchBuilder, ConsumerState, EntryStore, Fault as StoreFault, Joined, Level, QueueId, Records,
    ReplayStore, Seq, StoreError,
};
use forebay_wire::feed::Stored;

use crate::disk::{Known, MiddleDisk, message_of};
use crate::fault::Fault;

/// What runs over a [`MiddleDisk`]; a restart makes a new one from it.
#[derive(Debug)]
pub(crate) struct MiddleStore {
    pub(crate) disk: MiddleDisk,
    pub(crate) known: Known,
    pub(crate) fault: Fault,
    pub(crate) joined: Vec<Joined>,
    was_full: bool,
}

impl MiddleStore {
    pub(crate) fn open(disk: MiddleDisk, fault: Fault) -> Self {
        let known = disk.recover(fault);
        Self { disk, known, fault, joined: Vec::new(), was_full: false }
    }

    fn room(&self) -> usize {
        self.disk.capacity_bytes.saturating_sub(self.disk.log.bytes())
    }
}

impl EntryStore for MiddleStore {
    fn level(&self) -> Level {
        Level::Disk
    }

    fn position(&mut self, source: QueueId) -> Result<Seq, StoreFault> {
        Ok(self.known.positions.get(&source).copied().unwrap_or_default())
    }

    fn append(&mut self, source: QueueId, records: &Records<'_>) -> Result<Seq, StoreError> {
        if self.room() < records.bytes().len() + 56 * records.count() as usize {
            self.was_full = true;
            return Err(StoreError::Full);
        }
        let mut last_is_stored = false;
        for record in records {
            let message = message_of(record.payload).expect("a front sends no markers");
            last_is_stored = self.known.messages.insert(message);
            if last_is_stored {
                let prefix = Stored::prefix(source, record.seq);
                self.disk.log.append([&prefix[..], record.payload].concat());
            }
        }
        if !last_is_stored {
            // Nothing else would prove the position.
            self.disk.log.append(Stored::prefix(source, records.last()).to_vec());
        }
        self.known.positions.insert(source, records.last());
        Ok(self.disk.log.last())
    }

    fn durable(&mut self) -> Seq {
        if self.fault == Fault::AckBeforeDurable {
            return self.disk.log.last();
        }
        self.disk.log.durable
    }

    fn poll_durable(&mut self, seq: Seq, _: &Waker) -> Result<bool, StoreFault> {
        Ok(self.durable() >= seq)
    }

    fn room_bytes(&self) -> u64 {
        if self.fault == Fault::CreditNeverReturned && self.was_full {
            return 0;
        }
        self.room() as u64
    }

    fn joined(&mut self, joined: &Joined) {
        self.joined.push(*joined);
    }
}

impl ReplayStore for MiddleStore {
    fn queue(&self) -> QueueId {
        self.disk.log.id
    }

    fn head(&mut self) -> Seq {
        self.disk.log.durable
    }

    fn fill(&mut self, after: Seq, batch: &mut BatchBuilder) -> Result<(), StoreFault> {
        let off_by_one = self.fault == Fault::ReplayOffByOne;
        let after = match self.disk.log.above(after).first() {
            Some((seq, _)) if off_by_one => *seq,
            _ => after,
        };
        self.disk.log.fill(after, batch);
        Ok(())
    }

    fn consumer(&mut self, name: &str) -> Result<Option<ConsumerState>, StoreFault> {
        Ok(Some(self.disk.consumers.get(name).cloned().unwrap_or_default()))
    }

    fn record(&mut self, name: &str, state: &ConsumerState) -> Result<(), StoreFault> {
        // Durable on return, as the trait demands: a note that a crash may take back would let an
        // older session in again.
        self.disk.consumers.insert(name.to_owned(), state.clone());
        Ok(())
    }
}
