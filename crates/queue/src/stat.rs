//! What a queue tells about itself: plain numbers, taken at one moment, for gauges and tools.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cursor::Cursor;
use crate::log::Step;
use crate::ring::lock;
use crate::{Durability, Queue, QueueId, Seq};

/// The state of a queue at one moment, from [`Queue::stat`](crate::Queue::stat).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stat {
    /// Which queue.
    pub id: QueueId,
    /// What `durable` means here.
    pub durability: Durability,
    /// Size of the ring.
    pub capacity_bytes: u64,
    /// Bytes not yet reclaimed: what counts against the capacity.
    pub used_bytes: u64,
    /// Bytes that the slowest reader has not committed.
    pub pending_bytes: u64,
    /// The last seq appended.
    pub appended: Seq,
    /// The last seq durable.
    pub durable: Seq,
    /// Bytes appended and not yet durable.
    pub unsynced_bytes: u64,
    /// The caller's time of the oldest entry that the slowest reader has not committed, in
    /// microseconds; `None` if there is none.
    pub oldest_time_us: Option<u64>,
    /// Entries appended since the open.
    pub appends_total: u64,
    /// Payload bytes appended since the open.
    pub append_bytes_total: u64,
    /// Appends refused because the ring was full, since the open.
    pub full_total: u64,
    /// Syncs of entries since the open.
    pub syncs_total: u64,
    /// Bytes handed to those syncs, whole pages not counted.
    pub sync_bytes_total: u64,
    /// Time spent in those syncs, in nanoseconds.
    pub sync_nanos_total: u64,
    /// Checkpoints written since the open.
    pub checkpoints_total: u64,
    /// Damaged ranges met since the open, each counted once.
    pub corrupt_total: u64,
    /// Bytes in those ranges.
    pub corrupt_bytes_total: u64,
    /// The named readers.
    pub readers: Vec<ReaderStat>,
}

impl Stat {
    /// Age of the oldest uncommitted entry against `now_us`, on the clock whose times were
    /// appended; zero if there is none.
    ///
    /// ```
    /// # use forebay_queue::{Options, Queue};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// let queue = Queue::create(dir.path(), &options)?;
    /// queue.append(1_000, b"x")?;
    /// assert_eq!(queue.stat().oldest_age_us(1_500), 500);
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    #[must_use]
    pub fn oldest_age_us(&self, now_us: u64) -> u64 {
        self.oldest_time_us.map_or(0, |time| now_us.saturating_sub(time))
    }
}

/// The state of one named reader.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReaderStat {
    /// Its name.
    pub name: String,
    /// The last seq committed, in memory.
    pub committed: Seq,
    /// The last seq whose commit is on the medium.
    pub committed_durable: Seq,
    /// Bytes appended above the commit.
    pub pending_bytes: u64,
    /// Whether somebody holds it at the moment.
    pub in_use: bool,
}

/// What an open found and mended, from [`Queue::recovery`](crate::Queue::recovery).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The epoch that this open began.
    pub epoch: u32,
    /// Entries found between the oldest retained one and the end.
    pub entries: u64,
    /// Bytes they take.
    pub bytes: u64,
    /// Entries accepted above the durable mark, and synced again.
    pub entries_above_mark: u64,
    /// Whether bytes of an unfinished record were found behind the end: normal after a crash.
    pub torn_tail: bool,
    /// Damaged ranges below the durable mark, each costing at least one entry.
    pub corrupt_ranges: u64,
    /// Bytes in those ranges.
    pub corrupt_bytes: u64,
    /// Entries known to be missing because of them, by their seqs.
    pub entries_lost: u64,
    /// Whether one of the two checkpoint slots was damaged or half written.
    pub slot_damaged: bool,
    /// How long the open took, in microseconds.
    pub took_us: u64,
}

impl Queue {
    /// The named readers.
    ///
    /// See [`Queue::remove_reader`] for an example.
    #[must_use]
    pub fn readers(&self) -> Vec<ReaderStat> {
        let ring = self.ring();
        let table = ring.cursors.table();
        let tail = ring.line.tail();
        let stat = |cursor: &Arc<Cursor>| {
            let place = cursor.place();
            ReaderStat {
                name: cursor.name.clone(),
                committed: place.committed.seq,
                committed_durable: place.durable.seq,
                pending_bytes: tail.saturating_sub(place.committed.position),
                in_use: cursor.is_held(),
            }
        };
        table.iter().map(stat).collect()
    }

    /// The state at this moment.
    ///
    /// See [`Stat::oldest_age_us`] for an example.
    #[must_use]
    pub fn stat(&self) -> Stat {
        let ring = self.ring();
        let head = ring.lock_sync().newest.head;
        let readers = self.readers();
        // A tail's lock: what stands at the oldest commit is not reused while it is looked at.
        let _held = ring.reclaiming.read();
        let durable = ring.limits.durable.load(Ordering::Acquire);
        let oldest = ring.cursors.slowest().unwrap_or(head);
        let tail = ring.line.mark();
        let oldest_time_us = match ring.log().next(oldest.position, tail.position) {
            Step::Entry { head, .. } | Step::BadPayload { head, .. } => Some(head.time_us),
            Step::Gap { .. } | Step::BadHead { .. } | Step::End => None,
        };
        let (corrupt_total, corrupt_bytes_total) = {
            let damage = lock(&ring.damage);
            (damage.len() as u64, damage.iter().map(|(from, to)| to - from).sum())
        };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stat {
            id: ring.id,
            durability: ring.settings.durability,
            capacity_bytes: ring.geometry.capacity,
            used_bytes: tail.position - count(&ring.limits.reclaimed),
            pending_bytes: tail.position - oldest.position,
            appended: tail.seq,
            durable: self.durable(),
            unsynced_bytes: tail.position.saturating_sub(durable),
            oldest_time_us,
            appends_total: tail.seq.counter(),
            append_bytes_total: ring.line.payload_bytes(),
            full_total: count(&ring.counters.full),
            syncs_total: count(&ring.counters.syncs),
            sync_bytes_total: count(&ring.counters.sync_bytes),
            sync_nanos_total: count(&ring.counters.sync_nanos),
            checkpoints_total: count(&ring.counters.checkpoints),
            corrupt_total,
            corrupt_bytes_total,
            readers,
        }
    }
}
