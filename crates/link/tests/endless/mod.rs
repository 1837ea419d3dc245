//! Queues as long as one likes that take no memory: what they hold is made as it is read.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub(crate) mod followed;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use forebay_link::{
    BatchBuilder, Bounds, ConsumerState, EntrySource, EntryStore, Fault, FeedSource, Joined, Level,
    Pushed, QueueId, Records, ReplayStore, Seq, StoreError,
};

pub(crate) const PAYLOAD_BYTES: usize = 256;

#[derive(Debug, Default)]
struct Length {
    entries: u64,
    committed: u64,
    wakers: Vec<Waker>,
}

/// A queue of entries that are all alike.
#[derive(Debug, Clone)]
pub(crate) struct Endless {
    id: u128,
    length: Arc<Mutex<Length>>,
}

impl Endless {
    pub(crate) fn new(id: u128) -> Self {
        Self { id, length: Arc::default() }
    }

    /// It holds so many entries from now on.
    pub(crate) fn grow_to(&self, entries: u64) {
        let mut length = self.length.lock().unwrap();
        length.entries = length.entries.max(entries);
        length.wakers.drain(..).for_each(Waker::wake);
    }

    pub(crate) fn committed(&self) -> u64 {
        self.length.lock().unwrap().committed
    }

    fn pack(&self, after: Seq, batch: &mut BatchBuilder) {
        let entries = self.length.lock().unwrap().entries;
        for counter in after.counter() + 1..=entries {
            let mut payload = [7; PAYLOAD_BYTES];
            payload[..8].copy_from_slice(&counter.to_le_bytes());
            if batch.push(Seq::from_parts(1, counter), 1, &payload) != Pushed::Taken {
                return;
            }
        }
    }

    fn ready(&self, after: Seq, waker: &Waker) -> bool {
        let mut length = self.length.lock().unwrap();
        let ready = length.entries > after.counter();
        if !ready {
            length.wakers.push(waker.clone());
        }
        ready
    }

    fn last(&self) -> Seq {
        Seq::from_parts(1, self.length.lock().unwrap().entries)
    }
}

impl EntrySource for Endless {
    fn queue(&self) -> QueueId {
        QueueId::new(self.id)
    }

    fn bounds(&mut self) -> Result<Bounds, Fault> {
        let committed = self.committed();
        let next = Seq::new(self.last().get() + 1);
        let oldest = Seq::from_parts(1, committed + 1);
        let committed = if committed == 0 { Seq::ZERO } else { Seq::from_parts(1, committed) };
        Ok(Bounds { committed, oldest, next })
    }

    fn fill(&mut self, after: Seq, batch: &mut BatchBuilder) -> Result<(), Fault> {
        self.pack(after, batch);
        Ok(())
    }

    fn commit(&mut self, upto: Seq) -> Result<(), Fault> {
        let mut length = self.length.lock().unwrap();
        length.committed = length.committed.max(upto.counter());
        Ok(())
    }

    fn poll_ready(&mut self, after: Seq, waker: &Waker) -> Result<bool, Fault> {
        Ok(self.ready(after, waker))
    }
}

impl FeedSource for Endless {
    fn queue(&self) -> QueueId {
        QueueId::new(self.id)
    }

    fn head(&mut self) -> Seq {
        self.last()
    }

    fn fill(&mut self, after: Seq, batch: &mut BatchBuilder) -> Result<(), Fault> {
        self.pack(after, batch);
        Ok(())
    }

    fn poll_ready(&mut self, after: Seq, waker: &Waker) -> Result<bool, Fault> {
        Ok(self.ready(after, waker))
    }
}

impl ReplayStore for Endless {
    fn queue(&self) -> QueueId {
        QueueId::new(self.id)
    }

    fn head(&mut self) -> Seq {
        self.last()
    }

    fn fill(&mut self, after: Seq, batch: &mut BatchBuilder) -> Result<(), Fault> {
        self.pack(after, batch);
        Ok(())
    }

    fn consumer(&mut self, _: &str) -> Result<Option<ConsumerState>, Fault> {
        Ok(None)
    }

    fn record(&mut self, _: &str, _: &ConsumerState) -> Result<(), Fault> {
        Ok(())
    }
}

/// A store that counts what it takes of each source, and whether it came in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counting(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    taken: u64,
    sources: HashMap<QueueId, u64>,
}

impl Counting {
    pub(crate) fn taken(&self) -> u64 {
        self.0.lock().unwrap().taken
    }

    /// What was taken of each source.
    pub(crate) fn shares(&self) -> Vec<u64> {
        self.0.lock().unwrap().sources.values().copied().collect()
    }
}

impl EntryStore for Counting {
    fn level(&self) -> Level {
        Level::Disk
    }

    fn position(&mut self, source: QueueId) -> Result<Seq, Fault> {
        let counts = self.0.lock().unwrap();
        Ok(counts.sources.get(&source).map_or(Seq::ZERO, |count| Seq::from_parts(1, *count)))
    }

    fn append(&mut self, source: QueueId, records: &Records<'_>) -> Result<Seq, StoreError> {
        let mut counts = self.0.lock().unwrap();
        counts.taken += u64::from(records.count());
        let known = counts.sources.entry(source).or_default();
        assert_eq!(records.first(), Seq::from_parts(1, *known + 1), "out of order");
        *known = records.last().counter();
        Ok(Seq::from_parts(1, counts.taken))
    }

    fn durable(&mut self) -> Seq {
        Seq::from_parts(1, self.taken())
    }

    fn poll_durable(&mut self, _: Seq, _: &Waker) -> Result<bool, Fault> {
        Ok(true)
    }

    fn room_bytes(&self) -> u64 {
        u64::MAX
    }

    fn joined(&mut self, joined: &Joined) {
        panic!("{joined:?}");
    }
}
