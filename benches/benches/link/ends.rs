//! Ends without a disk: a source that never runs dry before its time, a store that only counts.

use std::sync::{Arc, Condvar, Mutex};
use std::task::Waker;
use std::time::Duration;

use forebay_link::{
    BatchBuilder, Bounds, ConsumerState, EntrySource, EntryStore, Fault, FeedSource, Joined, Level,
    Pushed, QueueId, Records, ReplayStore, Seq, StoreError,
};

use crate::ENTRY_BYTES;

/// Records that the reader of a feed may be behind: well within the subscriber's buffer.
const FEED_WINDOW: u64 = 12_000;
/// Records that the log grows by at least, as by a group that is made durable together.
const FEED_STEP: u64 = 3_000;
const PAYLOAD: [u8; ENTRY_BYTES] = [7; ENTRY_BYTES];

fn pack(from: u64, upto: u64, batch: &mut BatchBuilder) {
    for counter in from + 1..=upto {
        if batch.push(Seq::from_parts(1, counter), 1, &PAYLOAD) != Pushed::Taken {
            return;
        }
    }
}

/// Some entries, all there from the beginning.
#[derive(Debug)]
pub(crate) struct Spring {
    entries: u64,
}

impl Spring {
    pub(crate) fn new(entries: u64) -> Self {
        Self { entries }
    }
}

impl EntrySource for Spring {
    fn queue(&self) -> QueueId {
        QueueId::new(1)
    }

    fn bounds(&mut self) -> Result<Bounds, Fault> {
        let next = Seq::from_parts(1, self.entries + 1);
        Ok(Bounds { committed: Seq::ZERO, oldest: Seq::from_parts(1, 1), next })
    }

    fn fill(&mut self, after: Seq, batch: &mut BatchBuilder) -> Result<(), Fault> {
        pack(after.counter(), self.entries, batch);
        Ok(())
    }

    fn commit(&mut self, _: Seq) -> Result<(), Fault> {
        Ok(())
    }

    fn poll_ready(&mut self, after: Seq, _: &Waker) -> Result<bool, Fault> {
        Ok(after.counter() < self.entries)
    }
}

/// Takes everything; durable at once.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    taken: u64,
    bytes: u64,
}

impl EntryStore for Drain {
    fn level(&self) -> Level {
        Level::Disk
    }

    fn position(&mut self, _: QueueId) -> Result<Seq, Fault> {
        Ok(Seq::ZERO)
    }

    fn append(&mut self, _: QueueId, records: &Records<'_>) -> Result<Seq, StoreError> {
        for record in records {
            self.bytes += record.payload.len() as u64;
            self.taken += 1;
        }
        Ok(Seq::from_parts(1, self.taken))
    }

    fn durable(&mut self) -> Seq {
        Seq::from_parts(1, self.taken)
    }

    fn poll_durable(&mut self, _: Seq, _: &Waker) -> Result<bool, Fault> {
        Ok(true)
    }

    fn room_bytes(&self) -> u64 {
        u64::MAX
    }

    fn joined(&mut self, _: &Joined) {}
}

#[derive(Debug, Default)]
struct Pace {
    grown: u64,
    wakers: Vec<Waker>,
}

/// A log that grows as its reader reads, so that nothing need be fetched.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    entries: u64,
    pace: Arc<(Mutex<Pace>, Condvar)>,
}

impl Feed {
    pub(crate) fn new(entries: u64) -> Self {
        Self { entries, pace: Arc::default() }
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// The reader listens, and has all up to here.
    pub(crate) fn received(&self, upto: u64) {
        let grown = upto + FEED_WINDOW;
        if grown >= self.entries || grown >= self.grown() + FEED_STEP {
            self.grow(grown);
        }
    }

    /// The log grows up to here.
    pub(crate) fn grow(&self, upto: u64) {
        let mut pace = self.pace.0.lock().expect("no thread panics");
        pace.grown = upto.min(self.entries);
        for waker in pace.wakers.drain(..) {
            waker.wake();
        }
        self.pace.1.notify_all();
    }

    /// How far the log has grown.
    pub(crate) fn grown(&self) -> u64 {
        self.pace.0.lock().expect("no thread panics").grown
    }

    /// Waits until the log has grown beyond `after`.
    pub(crate) fn wait(&self, after: u64) {
        let mut pace = self.pace.0.lock().expect("no thread panics");
        while pace.grown <= after {
            let waited = self.pace.1.wait_timeout(pace, Duration::from_secs(30));
            pace = waited.expect("no thread panics").0;
        }
    }

    pub(crate) fn pack(&self, after: Seq, batch: &mut BatchBuilder) {
        pack(after.counter(), self.grown(), batch);
    }
}

impl FeedSource for Feed {
    fn queue(&self) -> QueueId {
        QueueId::new(1)
    }

    fn head(&mut self) -> Seq {
        Seq::from_parts(1, 0)
    }

    fn fill(&mut self, after: Seq, batch: &mut BatchBuilder) -> Result<(), Fault> {
        self.pack(after, batch);
        Ok(())
    }

    fn poll_ready(&mut self, after: Seq, waker: &Waker) -> Result<bool, Fault> {
        let mut pace = self.pace.0.lock().expect("no thread panics");
        let ready = pace.grown > after.counter();
        if !ready {
            pace.wakers.push(waker.clone());
        }
        Ok(ready)
    }
}

impl ReplayStore for Feed {
    fn queue(&self) -> QueueId {
        QueueId::new(1)
    }

    fn head(&mut self) -> Seq {
        Seq::from_parts(1, self.grown())
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
