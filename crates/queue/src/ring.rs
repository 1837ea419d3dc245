//! The ring itself: what all handles share, and how entries get in.
//!
//! Getting them onto the medium is in `sync.rs`, when that happens in `pace.rs`, getting them out
//! in `reader.rs` and `tail.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use crossbeam::sync::Unparker;
use crossbeam::utils::CachePadded;

use crate::cursor::Cursors;
use crate::error::{Error, Result};
use crate::faults::{Fault, Faults};
use crate::format::{self, Geometry, HEAD_BYTES, Head, Mark};
use crate::groups::Groups;
use crate::line::Line;
use crate::log::Log;
use crate::memory::Memory;
use crate::sync::Syncer;
use crate::watch::{Barrier, Threads, Watch};
use crate::{Durability, QueueId, Recovery, Seq, SeqSpan, crc};

/// Set in [`Ring::attention`]: the sync thread sleeps although nothing told it for how long.
pub(crate) const ATTENTION_SYNC: u32 = 1;
/// Set in [`Ring::attention`]: a reader sleeps until something is appended.
pub(crate) const ATTENTION_READERS: u32 = 2;
/// Set in [`Ring::attention`]: a producer sleeps until the line moves.
pub(crate) const ATTENTION_DOOR: u32 = 4;

/// How many boundaries the index of seqs remembers, spread over the ring.
pub(crate) const INDEX_MARKS: u64 = 1024;

/// How far ahead of a batch's copies lines are fetched: some records, as long as memory takes.
const FETCH_AHEAD_BYTES: u64 = 1 << 10;

/// The part of the options that matters after the open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) durability: Durability,
    pub(crate) entry_bytes_max: u32,
    pub(crate) sync_delay: Duration,
    pub(crate) checkpoint_interval: Duration,
}

impl Settings {
    pub(crate) fn syncs(&self) -> bool {
        self.durability == Durability::Disk
    }
}

/// What producers and readers look at all the time and few move.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Below it space may be reused.
    pub(crate) reclaimed: AtomicU64,
    /// Everything below is on the medium.
    pub(crate) durable: AtomicU64,
    /// The last seq below `durable`; stored after it.
    pub(crate) durable_seq: AtomicU64,
    /// Set once nothing may go in any more; `ended` says why.
    pub(crate) is_ended: AtomicBool,
}

/// Numbers for `stat`.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) full: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) sync_bytes: AtomicU64,
    pub(crate) sync_nanos: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
}

/// Everything the handles of one open queue share.
pub(crate) struct Ring {
    pub(crate) id: QueueId,
    pub(crate) settings: Settings,
    pub(crate) geometry: Geometry,
    pub(crate) faults: Faults,
    pub(crate) recovery: Recovery,
    pub(crate) memory: Memory,
    /// The epoch of this open, and where it began.
    pub(crate) epoch: u32,
    pub(crate) epoch_position: u64,
    pub(crate) line: Line,
    /// Producers that wait to get in line.
    pub(crate) door: Threads,
    pub(crate) limits: CachePadded<Limits>,
    /// Who wants to be told by the next append.
    pub(crate) attention: CachePadded<AtomicU32>,
    pub(crate) barrier: Barrier,
    pub(crate) counters: Counters,
    /// The largest seq that somebody waits for.
    pub(crate) demand: AtomicU64,
    /// Whether the sync thread rests so that entries come together.
    pub(crate) gathering: AtomicBool,
    /// Threads in `wait_durable`.
    pub(crate) waiters: AtomicU32,
    /// How many of them the last sync of the thread served.
    pub(crate) group: AtomicU32,
    /// Counts moves of cursors.
    pub(crate) cursor_version: AtomicU64,
    pub(crate) cursors: Cursors,
    pub(crate) sync: Mutex<Syncer>,
    /// Held for reading while a tail copies, for writing while `reclaimed` moves.
    pub(crate) reclaiming: RwLock<()>,
    pub(crate) index: Mutex<VecDeque<Mark>>,
    /// Damaged ranges met so far, from and to.
    pub(crate) damage: Mutex<BTreeMap<u64, u64>>,
    pub(crate) on_durable: Groups,
    pub(crate) on_readable: Watch,
    pub(crate) ended: Mutex<Option<Error>>,
    /// Asks the sync thread to finish.
    pub(crate) closing: AtomicBool,
    /// Wakes the sync thread; unset where there is none.
    pub(crate) unparker: OnceLock<Unparker>,
}

impl Ring {
    /// The records, to be walked over.
    #[inline]
    pub(crate) fn log(&self) -> Log<'_> {
        Log { memory: &self.memory, geometry: &self.geometry, faults: self.faults }
    }

    /// Up to where readers may look.
    #[inline]
    pub(crate) fn readable(&self) -> u64 {
        match self.settings.durability {
            Durability::Disk => self.limits.durable.load(Ordering::Acquire),
            Durability::Process => self.line.tail(),
        }
    }

    /// The last seq that is durable at this queue's level.
    #[inline]
    pub(crate) fn durable_seq(&self) -> Seq {
        match self.settings.durability {
            Durability::Disk => Seq::from_u64(self.limits.durable_seq.load(Ordering::Acquire)),
            Durability::Process => self.line.seq(),
        }
    }

    /// Refuses work after the end.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.limits.is_ended.load(Ordering::Acquire) { Err(self.why_ended()) } else { Ok(()) }
    }

    #[cold]
    fn why_ended(&self) -> Error {
        lock(&self.ended).clone().unwrap_or(Error::Closed)
    }

    /// Ends the queue: no append, no ack from here on. The first reason stays.
    pub(crate) fn end(&self, why: Error) -> Error {
        let first = lock(&self.ended).get_or_insert(why).clone();
        self.limits.is_ended.store(true, Ordering::SeqCst);
        self.on_durable.end();
        self.on_readable.notify(u64::MAX);
        self.door.notify();
        first
    }

    /// Appends one entry whose payload is the parts one after another.
    #[inline]
    pub(crate) fn append(&self, time_us: u64, parts: &[&[u8]]) -> Result<Seq> {
        self.check()?;
        let len = self.payload_bytes(parts)?;
        let crc = checksum(parts);
        let bytes = format::record_bytes(u64::from(len));
        self.hold_back();
        let (start, end) =
            self.reserve(|start| start + self.geometry.skip(start, bytes) + bytes)?;
        let at = end - bytes;
        self.store_payload(at, parts);
        let seq = successor(self.line.enter(start), 1);
        let lag = self.lag_base(at);
        self.store_head(start, at, &Head::entry(len, crc, seq, time_us, at - lag));
        self.line.leave(end, seq, u64::from(len));
        self.memory.prefetch(self.geometry.offset(end), bytes as usize);
        self.tell();
        Ok(seq)
    }

    /// Appends all entries or none; `entries` is not empty.
    ///
    /// Checksums come after the reservation, so that they are computed while the copies wait for
    /// memory; alone, the processor does neither of the two half as fast as both at once.
    pub(crate) fn append_batch<const PARTS: usize>(
        &self,
        time_us: u64,
        entries: &[[&[u8]; PARTS]],
    ) -> Result<SeqSpan> {
        self.check()?;
        let (mut sum, mut largest, mut payload_bytes) = (0, 0, 0);
        for parts in entries {
            let len = u64::from(self.payload_bytes(parts)?);
            let bytes = format::record_bytes(len);
            sum += bytes;
            largest = largest.max(bytes);
            payload_bytes += len;
        }
        // Wherever the ring's end falls, less than the largest record is lost to padding.
        if sum + largest > self.geometry.capacity {
            let limit_bytes = self.geometry.capacity - largest;
            return Err(Error::TooLarge { bytes: sum, limit_bytes });
        }
        // Room for them all: nothing may be allocated while others wait behind the reservation.
        let mut crcs = Vec::with_capacity(entries.len());
        self.hold_back();
        let (start, end) = self.reserve(|start| {
            if sum <= self.geometry.rest(start) {
                return start + sum;
            }
            entries.iter().fold(start, |at, parts| {
                let bytes = format::record_bytes(payload_len(parts));
                at + self.geometry.skip(at, bytes) + bytes
            })
        })?;
        // First in line: whoever is behind waits for these copies anyway, so one pass does it.
        let is_first = self.line.is_turn(start);
        if !is_first {
            self.walk(start, entries, |_, parts, _, at| crcs.push(self.fill(at, parts)));
        }
        let first = successor(self.line.enter(start), entries.len() as u64);
        let durable = self.lag_base(start);
        self.walk(start, entries, |row, parts, boundary, at| {
            let crc = if is_first { self.fill(at, parts) } else { crcs[row] };
            let seq = Seq::from_u64(first.get() + row as u64);
            let len = payload_len(parts) as u32;
            self.store_head(boundary, at, &Head::entry(len, crc, seq, time_us, at - durable));
        });
        let last = Seq::from_u64(first.get() + entries.len() as u64 - 1);
        self.line.leave(end, last, payload_bytes);
        self.tell();
        Ok(SeqSpan { first, last })
    }

    /// Goes over the records of a batch: row, parts, boundary before it, place of its head.
    #[inline(always)]
    fn walk<const PARTS: usize>(
        &self,
        start: u64,
        entries: &[[&[u8]; PARTS]],
        mut visit: impl FnMut(usize, &[&[u8]; PARTS], u64, u64),
    ) {
        let mut boundary = start;
        for (row, parts) in entries.iter().enumerate() {
            let bytes = format::record_bytes(payload_len(parts));
            let at = boundary + self.geometry.skip(boundary, bytes);
            visit(row, parts, boundary, at);
            boundary = at + bytes;
        }
    }

    /// Stores the payload of the record at `at` and gives its checksum.
    #[inline(always)]
    fn fill(&self, at: u64, parts: &[&[u8]]) -> u32 {
        let bytes = format::record_bytes(payload_len(parts));
        self.memory.prefetch(self.geometry.offset(at + FETCH_AHEAD_BYTES), bytes as usize);
        self.store_payload(at, parts);
        checksum(parts)
    }

    #[inline]
    fn payload_bytes(&self, parts: &[&[u8]]) -> Result<u32> {
        let bytes = payload_len(parts);
        let limit = self.settings.entry_bytes_max;
        match u32::try_from(bytes) {
            Ok(len) if len <= limit => Ok(len),
            _ => Err(Error::TooLarge { bytes, limit_bytes: u64::from(limit) }),
        }
    }

    #[inline]
    fn reserve(&self, end_of: impl Fn(u64) -> u64) -> Result<(u64, u64)> {
        let capacity = self.geometry.capacity;
        self.line.reserve(|start| {
            let end = end_of(start);
            if end - self.limits.reclaimed.load(Ordering::Acquire) <= capacity {
                return Ok(end);
            }
            self.make_room(start, end)
        })
    }

    /// Makes room up to `end`, or says that the ring is full.
    #[cold]
    fn make_room(&self, start: u64, end: u64) -> Result<u64> {
        let capacity = self.geometry.capacity;
        if self.faults.has(Fault::SpaceReusedEarly) {
            if let Some(live) = self.cursors.slowest() {
                self.limits.reclaimed.fetch_max(live.position, Ordering::Release);
            }
        } else {
            self.reclaim_for(end)?;
        }
        let reclaimed = self.limits.reclaimed.load(Ordering::Acquire);
        if end - reclaimed <= capacity {
            return Ok(end);
        }
        self.counters.full.fetch_add(1, Ordering::Relaxed);
        // Readers see durable entries only: without a sync of the tail they could never commit it.
        if self.settings.syncs() {
            self.want_durable(self.line.seq());
        }
        let used_bytes = start - reclaimed;
        Err(Error::Full { used_bytes, limit_bytes: capacity, needed_bytes: end - start })
    }

    #[inline]
    fn store_payload(&self, at: u64, parts: &[&[u8]]) {
        let mut offset = self.geometry.offset(at) + HEAD_BYTES as usize;
        for part in parts {
            self.memory.store(offset, part);
            offset += part.len();
        }
    }

    /// Stores an entry's head at `at`, and a filler from the boundary before it if there is room
    /// for one between them.
    #[inline]
    fn store_head(&self, boundary: u64, at: u64, head: &Head) {
        if at - boundary >= HEAD_BYTES {
            let pad = Head::pad(at - boundary, head.seq).encode(&self.geometry, boundary);
            self.memory.store(self.geometry.offset(boundary), &pad);
        }
        self.memory.store(self.geometry.offset(at), &head.encode(&self.geometry, at));
    }

    /// Up to where an entry at `at` may say that everything is durable.
    #[inline]
    fn lag_base(&self, at: u64) -> u64 {
        match self.settings.durability {
            Durability::Disk => self.limits.durable.load(Ordering::Relaxed),
            Durability::Process => at,
        }
    }

    /// Wakes those who asked to be woken by the next append or commit.
    #[inline]
    pub(crate) fn tell(&self) {
        self.barrier.light();
        if self.attention.load(Ordering::Relaxed) != 0 {
            self.tell_now();
        }
    }

    #[cold]
    fn tell_now(&self) {
        let wanted = self.attention.swap(0, Ordering::SeqCst);
        if wanted & ATTENTION_READERS != 0 {
            self.on_readable.notify(u64::MAX);
        }
        if wanted & ATTENTION_SYNC != 0 {
            self.unpark();
        }
        if wanted & ATTENTION_DOOR != 0 {
            self.open_door();
        }
    }

    /// Wakes the sync thread, if there is one.
    pub(crate) fn unpark(&self) {
        if let Some(unparker) = self.unparker.get() {
            unparker.unpark();
        }
    }

    /// Counts a damaged range and keeps a copy of it; the first time only.
    pub(crate) fn note_damage(&self, from: u64, to: u64) {
        if lock(&self.damage).insert(from, to).is_some() {
            return;
        }
        let mut bytes = Vec::new();
        for (offset, len) in self.geometry.pieces(from, to) {
            bytes.extend_from_slice(self.memory.view(offset, len));
        }
        self.memory.quarantine(&format!("ring-{from:016x}.bad"), &bytes);
    }

    /// The boundary, not below `oldest`, from which a walk to the first entry above `after` starts.
    pub(crate) fn index_before(&self, after: Seq, oldest: Mark) -> Mark {
        let index = lock(&self.index);
        let at = index.partition_point(|mark| mark.seq <= after);
        match at.checked_sub(1).map(|at| index[at]) {
            Some(mark) if mark.position > oldest.position => mark,
            _ => oldest,
        }
    }
}

/// The first of `count` seqs behind `previous`. They are of one epoch: where they do not fit what
/// is left of its counter, after some 10^12 entries without a restart, the next epoch begins.
#[inline]
fn successor(previous: Seq, count: u64) -> Seq {
    if previous.counter() + count > Seq::COUNTER_MAX {
        return Seq::from_u64(((u64::from(previous.epoch()) + 1) << Seq::COUNTER_BITS) | 1);
    }
    Seq::from_u64(previous.get() + 1)
}

#[inline]
fn payload_len(parts: &[&[u8]]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}

#[inline]
fn checksum(parts: &[&[u8]]) -> u32 {
    let state = parts.iter().fold(crc::START, |state, part| crc::update(state, part));
    crc::finish(state)
}

/// Locks; a thread that panicked while it held the lock left only numbers behind.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_does_not_fit_the_counter_begins_the_next_epoch() {
        let last = Seq::new(7, Seq::COUNTER_MAX - 2);
        assert_eq!(successor(last, 2), Seq::new(7, Seq::COUNTER_MAX - 1));
        assert_eq!(successor(last, 3), Seq::new(8, 1));
        assert!(successor(last, 3).follows(last));
    }
}
