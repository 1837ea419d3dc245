//! Queues in memory, behind the traits of the link: what a test's tiers are made of.
//!
//! An append is durable when the test says so, or at once. They outlive the links that use them,
//! as a disk outlives a process.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::{Duration, Instant};

use forebay_link::{
    BatchBuilder, Bounds, ConsumerState, EntrySource, EntryStore, Fault, FeedSource, Joined, Level,
    Pushed, QueueId, Records, ReplayStore, Seq, StoreError,
};
use forebay_wire::feed::Stored;

/// One queue's contents.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) id: QueueId,
    pub(crate) epoch: u32,
    pub(crate) entries: Vec<(Seq, Vec<u8>)>,
    pub(crate) durable: Seq,
    pub(crate) sync_at_once: bool,
    pub(crate) committed: Seq,
    pub(crate) positions: HashMap<QueueId, Seq>,
    pub(crate) consumers: HashMap<String, ConsumerState>,
    pub(crate) room_bytes: u64,
    pub(crate) joined: Vec<Joined>,
    pub(crate) level: Level,
    wakers: Vec<Waker>,
}

/// A queue shared by a test and its links.
#[derive(Debug, Clone)]
pub(crate) struct Memory(Arc<Mutex<Contents>>);

impl Memory {
    pub(crate) fn new(id: u128) -> Self {
        Self(Arc::new(Mutex::new(Contents {
            id: QueueId::new(id),
            epoch: 1,
            entries: Vec::new(),
            durable: Seq::ZERO,
            sync_at_once: true,
            committed: Seq::ZERO,
            positions: HashMap::new(),
            consumers: HashMap::new(),
            room_bytes: u64::MAX,
            joined: Vec::new(),
            level: Level::Disk,
            wakers: Vec::new(),
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap()
    }

    /// Appends, as a device session does.
    pub(crate) fn append(&self, payload: &[u8]) -> Seq {
        self.lock().append(payload)
    }

    /// Makes everything durable.
    pub(crate) fn sync(&self) {
        self.lock().sync();
    }

    /// What came from sources, in order: the source, its number, the payload.
    pub(crate) fn stored(&self) -> Vec<(QueueId, Seq, Vec<u8>)> {
        let contents = self.lock();
        let stored = contents.entries.iter().map(|(_, payload)| {
            let stored = Stored::decode(payload).unwrap();
            (stored.source, stored.seq, stored.entry.to_vec())
        });
        stored.collect()
    }
}

impl Contents {
    fn last(&self) -> Seq {
        self.entries.last().map_or(Seq::from_parts(self.epoch, 0), |(seq, _)| *seq)
    }

    pub(crate) fn append(&mut self, payload: &[u8]) -> Seq {
        let last = self.last();
        let counter = if last.epoch() == self.epoch { last.counter() + 1 } else { 1 };
        let seq = Seq::from_parts(self.epoch, counter);
        self.entries.push((seq, payload.to_vec()));
        if self.sync_at_once {
            self.sync();
        }
        seq
    }

    pub(crate) fn sync(&mut self) {
        self.durable = self.entries.last().map_or(self.durable, |(seq, _)| *seq);
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }

    fn fill(&self, after: Seq, batch: &mut BatchBuilder) {
        let from = self.entries.partition_point(|(seq, _)| *seq <= after);
        for (seq, payload) in &self.entries[from..] {
            if *seq > self.durable || batch.push(*seq, 7, payload) != Pushed::Taken {
                break;
            }
        }
    }

    fn ready(&mut self, after: Seq, waker: &Waker) -> bool {
        let ready = self.durable > after && self.entries.iter().any(|(seq, _)| *seq > after);
        if !ready {
            self.wakers.push(waker.clone());
        }
        ready
    }
}

impl EntrySource for Memory {
    fn queue(&self) -> QueueId {
        self.lock().id
    }

    fn bounds(&mut self) -> Result<Bounds, Fault> {
        let contents = self.lock();
        let last = contents.last();
        let next = if last.epoch() == contents.epoch {
            Seq::new(last.get() + 1)
        } else {
            Seq::from_parts(contents.epoch, 1)
        };
        let oldest = contents.entries.iter().find(|(seq, _)| *seq > contents.committed);
        let oldest = oldest.map_or(next, |(seq, _)| *seq);
        Ok(Bounds { committed: contents.committed, oldest, next })
    }

    fn fill(&mut self, after: Seq, batch: &mut BatchBuilder) -> Result<(), Fault> {
        self.lock().fill(after, batch);
        Ok(())
    }

    fn commit(&mut self, upto: Seq) -> Result<(), Fault> {
        let mut contents = self.lock();
        contents.committed = contents.committed.max(upto);
        Ok(())
    }

    fn poll_ready(&mut self, after: Seq, waker: &Waker) -> Result<bool, Fault> {
        Ok(self.lock().ready(after, waker))
    }
}

impl EntryStore for Memory {
    fn level(&self) -> Level {
        self.lock().level
    }

    fn position(&mut self, source: QueueId) -> Result<Seq, Fault> {
        Ok(self.lock().positions.get(&source).copied().unwrap_or(Seq::ZERO))
    }

    fn append(&mut self, source: QueueId, records: &Records<'_>) -> Result<Seq, StoreError> {
        let mut contents = self.lock();
        let bytes = records.bytes().len() as u64;
        if contents.room_bytes < bytes {
            return Err(StoreError::Full);
        }
        contents.room_bytes -= bytes;
        let mut last = Seq::ZERO;
        for record in records {
            let prefix = Stored::prefix(source, record.seq);
            last = contents.append(&[&prefix[..], record.payload].concat());
        }
        // This store syncs at once or when told; the positions of what is not yet durable would
        // be forgotten by a crash, which these tests do not play: the simulator does.
        contents.positions.insert(source, records.last());
        Ok(last)
    }

    fn durable(&mut self) -> Seq {
        self.lock().durable
    }

    fn poll_durable(&mut self, seq: Seq, waker: &Waker) -> Result<bool, Fault> {
        let mut contents = self.lock();
        if contents.durable >= seq {
            return Ok(true);
        }
        contents.wakers.push(waker.clone());
        Ok(false)
    }

    fn room_bytes(&self) -> u64 {
        self.lock().room_bytes
    }

    fn joined(&mut self, joined: &Joined) {
        self.lock().joined.push(*joined);
    }
}

impl FeedSource for Memory {
    fn queue(&self) -> QueueId {
        self.lock().id
    }

    fn head(&mut self) -> Seq {
        self.lock().durable
    }

    fn fill(&mut self, after: Seq, batch: &mut BatchBuilder) -> Result<(), Fault> {
        self.lock().fill(after, batch);
        Ok(())
    }

    fn poll_ready(&mut self, after: Seq, waker: &Waker) -> Result<bool, Fault> {
        Ok(self.lock().ready(after, waker))
    }
}

impl ReplayStore for Memory {
    fn queue(&self) -> QueueId {
        self.lock().id
    }

    fn head(&mut self) -> Seq {
        self.lock().durable
    }

    fn fill(&mut self, after: Seq, batch: &mut BatchBuilder) -> Result<(), Fault> {
        self.lock().fill(after, batch);
        Ok(())
    }

    fn consumer(&mut self, name: &str) -> Result<Option<ConsumerState>, Fault> {
        let unknown = name.starts_with("unknown");
        let state = self.lock().consumers.get(name).cloned().unwrap_or_default();
        Ok((!unknown).then_some(state))
    }

    fn record(&mut self, name: &str, state: &ConsumerState) -> Result<(), Fault> {
        assert_eq!(ConsumerState::from_note(&state.to_note()).as_ref(), Some(state));
        self.lock().consumers.insert(name.to_owned(), state.clone());
        Ok(())
    }
}

/// Waits until `condition` holds; fails loudly when it does not in time.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A failure handler that fails the test: the queues of these tests never fail.
pub(crate) fn no_failure() -> forebay_link::OnFailure {
    Box::new(|error| {
        eprintln!("a link failed: {error}");
        std::process::abort();
    })
}
