//! How a sink stands: for metrics, readiness and the status page.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use forebay_wire::Seq;

/// What a sink is doing; the number is the value of its gauge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum SinkState {
    /// It writes, or waits for entries.
    #[default]
    Running = 0,
    /// The store or the middle did not take the last try; it tries again by itself.
    Retrying = 1,
    /// A human must mend something; it looks again by itself, at last once a minute.
    Alarmed = 2,
    /// It has ended: drained, or a newer process has taken over.
    Ended = 3,
}

impl SinkState {
    /// A word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Alarmed => "alarmed",
            Self::Ended => "ended",
        }
    }
}

/// Counters only grow; the rest are gauges. One thread sets each, any reads.
#[derive(Debug, Default)]
pub struct SinkStatus {
    /// Ranges stored.
    pub batches: AtomicU64,
    /// Rows stored.
    pub rows: AtomicU64,
    /// Rows stored of devices that the registry does not list, where there is one.
    pub unknown: AtomicU64,
    /// Rows stored whose value is not as the registry says.
    pub suspect: AtomicU64,
    /// Bytes stored, encoded.
    pub bytes: AtomicU64,
    /// Entries committed.
    pub entries: AtomicU64,
    /// Tries that were not taken.
    pub retries: AtomicU64,
    /// Entries that were no entries, and rows that the store refused, set aside.
    pub dead_letters: AtomicU64,
    /// Times that entries were gone from the middle before this sink had them.
    pub missed: AtomicU64,
    /// How many entries, as far as their numbers tell.
    pub missed_entries: AtomicU64,
    received: AtomicU64,
    committed: AtomicU64,
    held: AtomicU64,
    /// When the middle took the first entry that is not committed; 0 if there is none.
    oldest_us: AtomicU64,
    state: Mutex<(SinkState, String)>,
}

impl SinkStatus {
    /// What it is doing, and why.
    #[must_use]
    pub fn state(&self) -> (SinkState, String) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets what it is doing; says whether that is a change.
    pub fn set_state(&self, state: SinkState, reason: &str) -> bool {
        let mut current = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = current.0 != state;
        if changed || current.1 != reason {
            *current = (state, reason.to_owned());
        }
        changed
    }

    /// The last entry read.
    #[must_use]
    pub fn received(&self) -> Seq {
        Seq::new(self.received.load(Ordering::Relaxed))
    }

    pub(super) fn set_received(&self, seq: Seq) {
        self.received.store(seq.get(), Ordering::Relaxed);
    }

    /// The last entry committed.
    #[must_use]
    pub fn committed(&self) -> Seq {
        Seq::new(self.committed.load(Ordering::Relaxed))
    }

    pub(super) fn set_committed(&self, seq: Seq) {
        self.committed.store(seq.get(), Ordering::Relaxed);
    }

    /// How many entries are acked by the store and held back from the middle's cursor.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn set_held(&self, entries: u64) {
        self.held.store(entries, Ordering::Relaxed);
    }

    pub(super) fn set_oldest_us(&self, oldest_us: Option<u64>) {
        self.oldest_us.store(oldest_us.unwrap_or(0), Ordering::Relaxed);
    }

    /// How many entries of the middle, whose last is `head`, are not committed.
    ///
    /// Exact within one epoch of the middle's queue; across a restart of the middle it counts only
    /// those of the newer epoch.
    #[must_use]
    pub fn lag_entries(&self, head: Seq) -> u64 {
        let committed = self.committed();
        if committed >= head {
            0
        } else if committed.epoch() == head.epoch() {
            head.counter() - committed.counter()
        } else {
            head.counter()
        }
    }

    /// How long ago the middle took the oldest entry that this sink has read and not committed.
    #[must_use]
    pub fn lag_seconds(&self) -> f64 {
        let oldest_us = self.oldest_us.load(Ordering::Relaxed);
        if oldest_us == 0 {
            return 0.0;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (now.as_secs_f64() - oldest_us as f64 / 1e6).max(0.0)
    }
}
