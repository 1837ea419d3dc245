//! Opening a ring: from whatever bytes a crash left to a queue that appends.
//!
//! The order is the promise: scan; make durable again what is accepted above the mark; make the new
//! epoch durable in both slots; only then hand out the ring. A crash anywhere in between leaves a
//! file that the next open treats alike, and no step takes longer than the ring is large.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Mutex, OnceLock, RwLock};
use std::time::Instant;

use crossbeam::utils::CachePadded;

use crate::cursor::Cursors;
use crate::error::{Error, Result};
use crate::faults::{Fault, Faults};
use crate::format::{Geometry, Mark, SLOT_BYTES, Slot, SuperBlock};
use crate::groups::Groups;
use crate::line::Line;
use crate::log::Log;
use crate::memory::Memory;
use crate::options::Options;
use crate::recovery::{self, Scan, Slots};
use crate::ring::{Counters, INDEX_MARKS, Limits, Ring, Settings};
use crate::seq::Seq;
use crate::sync::Syncer;
use crate::watch::{Barrier, Threads, Watch};
use crate::{Durability, Recovery};

/// The two checkpoints of a new, empty ring.
pub(crate) fn first_slots() -> [Slot; 2] {
    let slot = |generation| Slot {
        generation,
        head: Mark::default(),
        durable: Mark::default(),
        tail: Mark::default(),
        epoch: 0,
        epoch_position: 0,
        process: false,
        readers: Vec::new(),
    };
    [slot(1), slot(2)]
}

/// Recovers the ring in `memory` and begins a new epoch.
pub(crate) fn open_ring(
    memory: Memory,
    block: &SuperBlock,
    options: &Options,
    faults: Faults,
) -> Result<Ring> {
    let started = Instant::now();
    let geometry = Geometry::new(block);
    let slots = recovery::read_slots(&memory, &geometry).ok_or_else(|| Error::Corrupt {
        path: memory.path(),
        offset_bytes: geometry.slot_offset(0) as u64,
        reason: "both checkpoint slots are damaged".into(),
    })?;
    let log = Log { memory: &memory, geometry: &geometry, faults };
    let limit = slots.newest.head.position + geometry.capacity;
    let scan = recovery::scan(log, &slots.newest, limit, geometry.capacity / INDEX_MARKS);
    let epoch = next_epoch(&memory, &slots, &scan, faults)?;
    let tail = scan.tail;
    let disk = options.durability == Durability::Disk;
    let durable = if disk { tail } else { slots.newest.durable };
    let syncer = Syncer {
        durable,
        heads: [slots.newest.head.position; 2],
        place: slots.place,
        version: 0,
        written: started,
        newest: slots.newest.clone(),
    };
    let seq_before = if faults.has(Fault::NoEpochInRecord) && tail.seq.epoch() == epoch {
        tail.seq
    } else {
        Seq::new(epoch, 0)
    };
    let ring = Ring {
        id: block.id,
        settings: Settings {
            durability: options.durability,
            entry_bytes_max: options.entry_bytes_max,
            sync_delay: options.sync_delay,
            checkpoint_interval: options.checkpoint_interval,
        },
        geometry,
        faults,
        recovery: report(&slots, &scan, epoch, started),
        memory,
        epoch,
        epoch_position: tail.position,
        line: Line::new(Mark { position: tail.position, seq: seq_before }),
        door: Threads::default(),
        limits: CachePadded::new(Limits {
            reclaimed: AtomicU64::new(slots.newest.head.position),
            durable: AtomicU64::new(tail.position),
            durable_seq: AtomicU64::new(seq_before.get()),
            is_ended: AtomicBool::new(false),
        }),
        attention: CachePadded::new(AtomicU32::new(0)),
        barrier: Barrier::new(),
        counters: Counters::default(),
        demand: AtomicU64::new(0),
        gathering: AtomicBool::new(false),
        waiters: AtomicU32::new(0),
        group: AtomicU32::new(0),
        cursor_version: AtomicU64::new(0),
        cursors: Cursors::of_rows(&slots.newest.readers),
        sync: Mutex::new(syncer),
        reclaiming: RwLock::new(()),
        index: Mutex::new(VecDeque::from(scan.index)),
        damage: Mutex::new(BTreeMap::new()),
        on_durable: Groups::default(),
        on_readable: Watch::default(),
        ended: Mutex::new(None),
        closing: AtomicBool::new(false),
        unparker: OnceLock::new(),
    };
    for damage in &scan.damage {
        ring.note_damage(damage.from, damage.to);
    }
    if disk && !faults.has(Fault::ReopenWithoutSync) {
        ring.sync_again(slots.newest.durable.position, tail.position)?;
    }
    ring.begin_epoch(&slots)?;
    Ok(ring)
}

/// An epoch that no entry and no checkpoint has had.
fn next_epoch(memory: &Memory, slots: &Slots, scan: &Scan, faults: Faults) -> Result<u32> {
    let newest = &slots.newest;
    let known = [newest.tail.seq, newest.durable.seq, scan.tail.seq].map(Seq::epoch);
    let last = known.into_iter().fold(slots.epoch, u32::max);
    if faults.has(Fault::NoEpochInRecord) {
        return Ok(last.max(1));
    }
    if last >= Seq::EPOCH_MAX - 1 {
        return Err(Error::Unsupported {
            path: memory.path(),
            reason: format!("all {} epochs are used: drain it and make a new one", Seq::EPOCH_MAX),
        });
    }
    Ok(last + 1)
}

fn report(slots: &Slots, scan: &Scan, epoch: u32, started: Instant) -> Recovery {
    Recovery {
        epoch,
        entries: scan.entries,
        bytes: scan.tail.position - slots.newest.head.position,
        entries_above_mark: scan.entries_above_mark,
        torn_tail: scan.torn,
        corrupt_ranges: scan.damage.len() as u64,
        corrupt_bytes: scan.damage.iter().map(|damage| damage.to - damage.from).sum(),
        entries_lost: scan.damage.iter().map(|damage| damage.lost).sum(),
        slot_damaged: slots.damaged,
        took_us: started.elapsed().as_micros() as u64,
    }
}

impl Ring {
    /// Makes a range durable that was found in the page cache: its pages may be marked clean by a
    /// sync that failed, so they are marked dirty first.
    fn sync_again(&self, from: u64, to: u64) -> Result<()> {
        for (offset, len) in self.geometry.pieces(from, to) {
            if len > 0 && !self.faults.has(Fault::ReopenWithoutRedirty) {
                self.memory.redirty(offset, len);
            }
            self.sync_range(offset, len)?;
        }
        Ok(())
    }

    /// Makes the new epoch, and where it begins, durable in both slots.
    ///
    /// The newest checkpoint is made durable as it is before the other is overwritten: if it was
    /// only in the page cache, the medium's copy of its place may be half written.
    fn begin_epoch(&self, slots: &Slots) -> Result<()> {
        if self.faults.has(Fault::EpochNotStored) {
            return Ok(());
        }
        let mut syncer = self.lock_sync();
        let offset = self.geometry.slot_offset(slots.place);
        if !self.faults.has(Fault::ReopenWithoutRedirty) {
            self.memory.redirty(offset, SLOT_BYTES);
        }
        self.sync_range(offset, SLOT_BYTES)?;
        self.checkpoint(&mut syncer)?;
        self.checkpoint(&mut syncer)
    }
}
