//! What survives: a queue, and what a middle keeps in and beside its queue.
//!
//! An append survives the process at once and the machine once it is synced. Space is given back
//! only below what is committed, and, at a middle, only after the snapshot holds what the entries
//! proved.

use std::collections::{HashMap, HashSet};

use forebay_link::machine::Random;
use forebay_link::{BatchBuilder, ConsumerState, Pushed, QueueId, Seq};
use forebay_wire::feed::Stored;

use crate::fault::Fault;

/// One queue on its disk.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) id: QueueId,
    epoch: u32,
    last: Seq,
    pub(crate) entries: Vec<(Seq, Vec<u8>)>,
    /// What readers see and acks promise: at the level `disk`, what is synced; at `process`, what
    /// is appended.
    pub(crate) durable: Seq,
    synced: Seq,
    process: bool,
}

impl Log {
    pub(crate) fn new(id: u64, process: bool) -> Self {
        let id = QueueId::new(u128::from(id));
        let (last, durable, synced) = (Seq::ZERO, Seq::ZERO, Seq::ZERO);
        Self { id, epoch: 1, last, entries: Vec::new(), durable, synced, process }
    }

    /// The number the next append gets.
    pub(crate) fn next(&self) -> Seq {
        if self.last.epoch() == self.epoch {
            Seq::new(self.last.get() + 1)
        } else {
            Seq::from_parts(self.epoch, 1)
        }
    }

    pub(crate) fn append(&mut self, payload: Vec<u8>) -> Seq {
        let seq = self.next();
        self.entries.push((seq, payload));
        self.last = seq;
        if self.process {
            self.durable = seq;
        }
        seq
    }

    pub(crate) fn sync(&mut self, upto: Seq) {
        self.synced = self.synced.max(upto.min(self.last));
        self.durable = self.durable.max(self.synced);
    }

    /// As if nothing had been synced yet.
    pub(crate) fn forget_sync(&mut self) {
        self.synced = Seq::ZERO;
    }

    pub(crate) fn last(&self) -> Seq {
        self.last
    }

    pub(crate) fn bytes(&self) -> usize {
        self.entries.iter().map(|(_, payload)| 32 + payload.len()).sum()
    }

    /// The entries above `after`.
    pub(crate) fn above(&self, after: Seq) -> &[(Seq, Vec<u8>)] {
        &self.entries[self.entries.partition_point(|(seq, _)| *seq <= after)..]
    }

    pub(crate) fn fill(&self, after: Seq, batch: &mut BatchBuilder) {
        for (seq, payload) in self.above(after) {
            if *seq > self.durable || batch.push(*seq, 0, payload) != Pushed::Taken {
                return;
            }
        }
    }

    pub(crate) fn reclaim(&mut self, upto: Seq) {
        let keep = self.entries.partition_point(|(seq, _)| *seq <= upto);
        self.entries.drain(..keep);
    }

    /// The process was killed and comes back: all it appended is there, and durable again.
    pub(crate) fn reopen(&mut self, faults: Fault) {
        (self.durable, self.synced) = (self.last, self.last);
        if faults != Fault::SeqReused {
            self.epoch += 1;
        }
    }

    /// The power went: of what was not durable, only a beginning is left. Returns what is gone.
    pub(crate) fn cut_power(&mut self, random: &mut Random) -> Vec<Vec<u8>> {
        let durable = self.entries.partition_point(|(seq, _)| *seq <= self.synced);
        let tail = (self.entries.len() - durable) as u64;
        let keep = durable + random.below(tail + 1) as usize;
        let gone = self.entries.drain(keep..).map(|(_, payload)| payload).collect();
        self.last = self.entries.last().map_or(self.synced, |(seq, _)| *seq);
        gone
    }
}

/// What a middle knows of its sources and messages.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) positions: HashMap<QueueId, Seq>,
    pub(crate) messages: HashSet<u64>,
}

impl Known {
    fn learn(&mut self, payload: &[u8]) {
        let stored = Stored::decode(payload).expect("every entry of a middle has its prefix");
        let position = self.positions.entry(stored.source).or_default();
        *position = (*position).max(stored.seq);
        if let Some(message) = message_of(stored.entry) {
            self.messages.insert(message);
        }
    }
}

/// The message in an entry; `None` for a position marker.
pub(crate) fn message_of(entry: &[u8]) -> Option<u64> {
    entry.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes))
}

/// What a middle keeps.
#[derive(Debug, Clone)]
pub(crate) struct MiddleDisk {
    pub(crate) log: Log,
    /// Two slots, written alternately: what the entries up to a number prove.
    newer: (Seq, Known),
    older: (Seq, Known),
    pub(crate) consumers: HashMap<String, ConsumerState>,
    pub(crate) capacity_bytes: usize,
}

impl MiddleDisk {
    pub(crate) fn new(id: u64, capacity_bytes: usize) -> Self {
        let (log, consumers) = (Log::new(id, false), HashMap::new());
        Self {
            log,
            newer: Default::default(),
            older: Default::default(),
            consumers,
            capacity_bytes,
        }
    }

    /// What a start finds: the snapshot, and the entries above it.
    pub(crate) fn recover(&self, faults: Fault) -> Known {
        let mut known = self.newer.1.clone();
        if faults == Fault::DedupForgotten {
            known.messages.clear();
        }
        for (_, payload) in self.log.above(self.newer.0) {
            known.learn(payload);
        }
        known
    }

    /// Gives back what all of `names` have committed and both slots prove.
    pub(crate) fn reclaim(&mut self, names: &[String]) {
        let committed = |name: &String| {
            self.consumers.get(name).map_or(Seq::ZERO, |consumer| consumer.committed)
        };
        let Some(upto) = names.iter().map(committed).min() else { return };
        self.older = self.newer.clone();
        for (seq, payload) in self.log.above(self.newer.0) {
            if *seq <= upto {
                self.newer.1.learn(payload);
            }
        }
        self.newer.0 = self.newer.0.max(upto);
        self.log.reclaim(self.older.0);
    }

    /// The newer slot cannot be read: the older one, and a longer scan, must do.
    pub(crate) fn tear_newer_snapshot(&mut self) {
        self.newer = self.older.clone();
    }
}
