//! The handle of producers.

use std::path::Path;
use std::task::Waker;
use std::time::Duration;

use crate::{
    Error, Options, QueueId, Reader, ReaderStat, Recovery, Result, Seq, SeqSpan, Stat, Tail,
};

/// A crash-safe ring queue; a clone is another producer of the same queue.
#[derive(Clone, Debug)]
pub struct Queue {
    recovery: Recovery,
}

impl Queue {
    /// Makes the directory if needed and a new queue in it.
    pub fn create(_dir: impl AsRef<Path>, _options: &Options) -> Result<Queue> {
        Err(Error::Closed)
    }
    /// Opens a queue and recovers what the last user left.
    pub fn open(_dir: impl AsRef<Path>, _options: &Options) -> Result<Queue> {
        Err(Error::Closed)
    }
    /// Opens the queue, or creates it where there is none.
    pub fn open_or_create(_dir: impl AsRef<Path>, _options: &Options) -> Result<Queue> {
        Err(Error::Closed)
    }
    /// The queue's random name.
    pub fn id(&self) -> QueueId {
        QueueId::from_u128(0)
    }
    /// What the open found.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }
    /// The state at this moment.
    pub fn stat(&self) -> Stat {
        unreachable!("no queue can be made yet")
    }
    /// Appends one entry and returns its seq.
    pub fn append(&self, _time_us: u64, _payload: &[u8]) -> Result<Seq> {
        Err(Error::Closed)
    }
    /// Appends one entry whose payload is the slices one after another.
    pub fn append_parts(&self, _time_us: u64, _parts: &[&[u8]]) -> Result<Seq> {
        Err(Error::Closed)
    }
    /// Appends all entries or none, published at once.
    pub fn append_batch(&self, _time_us: u64, _payloads: &[impl AsRef<[u8]>]) -> Result<SeqSpan> {
        Err(Error::Closed)
    }
    /// Appends all entries or none; each payload is its slices one after another.
    pub fn append_batch_parts<const PARTS: usize>(
        &self,
        _time_us: u64,
        _entries: &[[&[u8]; PARTS]],
    ) -> Result<SeqSpan> {
        Err(Error::Closed)
    }
    /// The last seq appended; [`Seq::NONE`] before the first.
    pub fn appended(&self) -> Seq {
        Seq::NONE
    }
    /// The last seq durable at the queue's level.
    pub fn durable(&self) -> Seq {
        Seq::NONE
    }
    /// Waits until `seq` is durable.
    pub fn wait_durable(&self, _seq: Seq, _timeout: Duration) -> Result<()> {
        Err(Error::Closed)
    }
    /// Whether `seq` is durable; if not, `waker` is woken once it is, or the queue has failed.
    pub fn poll_durable(&self, _seq: Seq, _waker: &Waker) -> Result<bool> {
        Err(Error::Closed)
    }
    /// Opens the durable reader of that name, at its cursor; a new one starts at the oldest
    /// retained entry.
    pub fn reader(&self, _name: &str) -> Result<Reader> {
        Err(Error::Closed)
    }
    /// Forgets a reader, so that it holds no space any more.
    pub fn remove_reader(&self, _name: &str) -> Result<()> {
        Err(Error::Closed)
    }
    /// The named readers.
    pub fn readers(&self) -> Vec<ReaderStat> {
        Vec::new()
    }
    /// A reader that holds no space. `None`: from the present end on; `Some(after)`: from the
    /// first retained entry above `after` on, [`Seq::NONE`] for the oldest.
    pub fn tail(&self, _after: Option<Seq>) -> Tail {
        unreachable!("no queue can be made yet")
    }
    /// Syncs what was appended, writes a last checkpoint, and refuses further appends.
    pub fn close(self) -> Result<()> {
        Err(Error::Closed)
    }
}
