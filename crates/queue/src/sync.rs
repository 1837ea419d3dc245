//! Onto the medium: syncs of entries, checkpoints, and the reuse of space behind them.
//!
//! One lock orders all of it: whoever holds the [`Syncer`] syncs. A failed sync is final. The
//! kernel has then marked the pages clean without storing them, so that trying again would lie.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::faults::Fault;
use crate::format::{Mark, SLOT_BYTES, Slot};
use crate::ring::{INDEX_MARKS, Ring, lock};
use crate::seq::Seq;

/// What the holder of the sync lock knows.
#[derive(Debug)]
pub(crate) struct Syncer {
    /// Everything below is on the medium.
    pub(crate) durable: Mark,
    /// The newest checkpoint.
    pub(crate) newest: Slot,
    /// In which slot it stands.
    pub(crate) place: usize,
    /// Where space begins according to each slot: after a crash either may be what is left.
    pub(crate) heads: [u64; 2],
    /// Which moves of cursors it contains.
    pub(crate) version: u64,
    /// When it was written.
    pub(crate) written: Instant,
}

impl Ring {
    pub(crate) fn lock_sync(&self) -> MutexGuard<'_, Syncer> {
        lock(&self.sync)
    }

    /// Waits until `seq` is durable: syncs itself if nobody else is about to, else waits for the
    /// group.
    pub(crate) fn wait_durable(&self, seq: Seq, timeout: Duration) -> Result<()> {
        if self.durable_seq() >= seq {
            return Ok(());
        }
        self.check()?;
        let end = self.line.seq();
        if seq > end {
            return Err(Error::Beyond { seq, end });
        }
        let others = self.waiters.fetch_add(1, Ordering::AcqRel);
        let result = self.wait_counted(seq, timeout, others);
        self.waiters.fetch_sub(1, Ordering::AcqRel);
        result
    }

    fn wait_counted(&self, seq: Seq, timeout: Duration, others: u32) -> Result<()> {
        let has_thread = self.unparker.get().is_some();
        let alone = others == 0 && self.group.load(Ordering::Relaxed) <= 1;
        if !has_thread {
            return self.sync_entries(&mut self.lock_sync());
        }
        if alone && let Ok(mut syncer) = self.sync.try_lock() {
            return self.sync_entries(&mut syncer);
        }
        self.want_durable(seq);
        let reached = || self.durable_seq() >= seq;
        let woken = self.on_durable.wait(timeout, || reached() || self.check().is_err());
        match self.check() {
            _ if reached() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                debug_assert!(!woken);
                Err(Error::Timeout { seq })
            }
        }
    }

    /// Asks the sync thread to make `seq` durable at once.
    pub(crate) fn want_durable(&self, seq: Seq) {
        self.demand.fetch_max(seq.get(), Ordering::AcqRel);
        self.unpark();
    }

    /// Makes everything published durable.
    pub(crate) fn sync_entries(&self, syncer: &mut Syncer) -> Result<()> {
        self.check()?;
        let from = syncer.durable.position;
        // The mark and not the tail: whoever asks for a seq may know it before its turn has ended.
        if self.line.mark().position == from {
            return Ok(());
        }
        self.on_durable.begin();
        let target = self.line.mark();
        let started = Instant::now();
        if !self.faults.has(Fault::AckWithoutSync) {
            for (offset, len) in self.geometry.pieces(from, target.position) {
                self.sync_range(offset, len)?;
            }
        }
        let counters = &self.counters;
        counters.syncs.fetch_add(1, Ordering::Relaxed);
        counters.sync_bytes.fetch_add(target.position - from, Ordering::Relaxed);
        counters.sync_nanos.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        syncer.durable = target;
        self.limits.durable.store(target.position, Ordering::Release);
        self.limits.durable_seq.store(target.seq.get(), Ordering::Release);
        self.index_push(target);
        self.on_durable.finish(target.seq.get(), || self.is_wanted());
        if self.settings.syncs() {
            self.on_readable.notify(u64::MAX);
        }
        Ok(())
    }

    /// Syncs one range; an error ends the queue.
    pub(crate) fn sync_range(&self, offset: usize, mut len: usize) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        if self.faults.has(Fault::SyncPageShort) {
            let end = (offset + len - 1) / 4096 * 4096;
            len = end.saturating_sub(offset);
        }
        match self.memory.sync(offset, len) {
            Err(error) if !self.faults.has(Fault::SyncErrorIgnored) => {
                Err(self.end(Error::io("msync", self.memory.path(), error)))
            }
            _ => Ok(()),
        }
    }

    /// Writes a checkpoint of what is durable and committed at this moment.
    pub(crate) fn checkpoint(&self, syncer: &mut Syncer) -> Result<()> {
        self.check()?;
        let version = self.cursor_version.load(Ordering::Acquire);
        let rows = self.cursors.rows();
        // After the rows, so that no cursor stands above the tail.
        let tail = self.line.mark();
        let slowest = rows.iter().map(|row| row.cursor).min_by_key(|mark| mark.position);
        let head = slowest.unwrap_or(syncer.newest.head);
        // Without syncs of entries the mark would stay behind the head; below it nothing counts.
        if syncer.durable.position < head.position {
            syncer.durable = head;
        }
        let slot = Slot {
            generation: syncer.newest.generation + 1,
            head,
            durable: syncer.durable,
            tail,
            epoch: self.epoch,
            epoch_position: self.epoch_position,
            process: !self.settings.syncs(),
            readers: rows,
        };
        self.write_slot(syncer, slot)?;
        syncer.version = version;
        self.cursors.mark_durable(&syncer.newest.readers);
        self.reclaim(syncer);
        Ok(())
    }

    /// Puts a checkpoint in the place of the older one and syncs it.
    pub(crate) fn write_slot(&self, syncer: &mut Syncer, slot: Slot) -> Result<()> {
        let place = if self.faults.has(Fault::OneSlot) { 0 } else { 1 - syncer.place };
        let offset = self.geometry.slot_offset(place);
        self.memory.store(offset, &slot.encode());
        if self.faults.has(Fault::SlotToggledEarly) {
            self.sync_range(self.geometry.slot_offset(1 - place), SLOT_BYTES)?;
        } else {
            self.sync_range(offset, SLOT_BYTES)?;
        }
        syncer.heads[place] = slot.head.position;
        if self.faults.has(Fault::OneSlot) {
            syncer.heads = [slot.head.position; 2];
        }
        syncer.place = place;
        syncer.newest = slot;
        syncer.written = Instant::now();
        self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Lets space be reused up to where both slots agree that nobody needs it.
    fn reclaim(&self, syncer: &Syncer) {
        let upto = syncer.heads[0].min(syncer.heads[1]);
        {
            let _no_tail_copies = self.reclaiming.write().unwrap_or_else(PoisonError::into_inner);
            self.limits.reclaimed.fetch_max(upto, Ordering::Release);
        }
        let mut index = lock(&self.index);
        while index.front().is_some_and(|mark| mark.position < upto) {
            index.pop_front();
        }
    }

    /// Moves `reclaimed` so that the ring takes an append up to `end`, if the commits allow it.
    pub(crate) fn reclaim_for(&self, end: u64) -> Result<()> {
        let capacity = self.geometry.capacity;
        let enough = |ring: &Self| end - ring.limits.reclaimed.load(Ordering::Acquire) <= capacity;
        let mut syncer = self.lock_sync();
        // Twice: space is reused only when both slots allow it.
        for _ in 0..2 {
            let committed = self.cursors.slowest().unwrap_or(syncer.newest.head);
            if enough(self) || end - committed.position > capacity {
                return Ok(());
            }
            self.checkpoint(&mut syncer)?;
        }
        Ok(())
    }

    /// Whether a checkpoint would say something new.
    pub(crate) fn is_checkpoint_due(&self, syncer: &Syncer) -> bool {
        syncer.durable != syncer.newest.durable
            || syncer.version != self.cursor_version.load(Ordering::Acquire)
            || (!self.settings.syncs() && self.line.tail() != syncer.newest.tail.position)
            // The space of the last commits is free only when both slots know of them.
            || syncer.heads[0] != syncer.heads[1]
    }

    /// Remembers a boundary for seeks by seq, if it is far enough from the last one.
    pub(crate) fn index_push(&self, mark: Mark) {
        let mut index = lock(&self.index);
        let spacing = self.geometry.capacity / INDEX_MARKS;
        if index.back().is_none_or(|last| mark.position >= last.position + spacing.max(1)) {
            index.push_back(mark);
        }
    }
}
