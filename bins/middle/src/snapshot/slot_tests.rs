//! The two slots under kills and power cuts: at no step is anything lost or invented.
//!
//! Method: a medium that keeps what was written since the last sync apart. A kill keeps it all, a
//! power cut any part of it, torn at 512 bytes, each drawn from a printed seed. A model log that
//! is durable only up to where it was waited for stands for the real one. After each cut the slots
//! are read back, the log is scanned, and every number is compared. It cannot show that the kernel
//! keeps the order of syncs: the queue's tests do.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    io,
    rc::Rc,
    sync::Mutex,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{
    Log, Snapshots,
    slot::{Medium, ReadError, WriteError},
};
use crate::dedup::{Dedup, Key, RunningTime, Verdict};

const SECTOR_BYTES: usize = 512;
const LOG: u128 = 77;
const NOW: RunningTime = RunningTime(5);
const START: RunningTime = RunningTime(0);
const DEVICES: u64 = 40;
const NUMBERS: u64 = 30;

/// A medium with a page cache.
#[derive(Debug, Clone, Default)]
struct Disk {
    cached: Vec<u8>,
    synced: Vec<u8>,
    fail_write: bool,
    fail_sync: bool,
}

impl Disk {
    /// What is there after a power cut: of each sector the synced or the cached bytes.
    fn cut(&self, random: &mut SmallRng) -> Self {
        let mut left = self.synced.clone();
        left.resize(self.cached.len(), 0);
        for (at, sector) in left.chunks_mut(SECTOR_BYTES).enumerate() {
            if random.random_bool(0.5) {
                let from = at * SECTOR_BYTES;
                sector.copy_from_slice(&self.cached[from..from + sector.len()]);
            }
        }
        Self { cached: left.clone(), synced: left, ..Self::default() }
    }
}

/// The disk as a slot holds it; the test looks at it while it is being written.
type Shared = Rc<RefCell<Disk>>;

impl Medium for Shared {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.borrow_mut();
        if disk.fail_write {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let offset = usize::try_from(offset).expect("small");
        let end = offset + bytes.len();
        let length = disk.cached.len().max(end);
        disk.cached.resize(length, 0);
        disk.cached[offset..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.borrow_mut();
        if disk.fail_sync {
            return Err(io::Error::other("medium failed"));
        }
        disk.synced = disk.cached.clone();
        Ok(())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let disk = self.borrow();
        let from = disk.cached.get(usize::try_from(offset).expect("small")..).unwrap_or(&[]);
        let count = from.len().min(bytes.len());
        bytes[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn length_bytes(&self) -> io::Result<u64> {
        Ok(self.borrow().cached.len() as u64)
    }
}

/// A log of (device, number) by seq; durable only up to where it was waited for.
#[derive(Debug, Default)]
struct ModelLog {
    /// Everything that is in it or was, reclaimed or not.
    ever: RefCell<BTreeMap<u64, (u64, u64)>>,
    last: Cell<u64>,
    durable: Cell<u64>,
    reclaimed: Cell<u64>,
    /// The planted fault: waiting for durability returns at once.
    lies: bool,
}

impl Log for ModelLog {
    fn appended(&self) -> u64 {
        self.last.get()
    }

    fn wait_durable(&self, seq: u64) {
        if !self.lies {
            self.durable.set(self.durable.get().max(seq));
        }
    }
}

impl ModelLog {
    /// Some traffic, much of it resent.
    fn traffic(&self, dedup: &Mutex<Dedup>, random: &mut SmallRng, messages: usize) {
        let mut dedup = dedup.lock().expect("one thread");
        for _ in 0..messages {
            let (device, number) =
                (random.random_range(0..DEVICES), random.random_range(1..NUMBERS));
            if admit(&mut dedup, device, number) == Verdict::New {
                self.last.set(self.last.get() + 1);
                self.ever.borrow_mut().insert(self.last.get(), (device, number));
                dedup.sources.advance(1, self.last.get(), NOW);
            }
        }
    }

    fn stored_up_to(&self, seq: u64) -> BTreeSet<(u64, u64)> {
        self.ever.borrow().range(..=seq).map(|(_, message)| *message).collect()
    }
}

fn admit(dedup: &mut Dedup, device: u64, number: u64) -> Verdict {
    let device = format!("device-{device}");
    dedup.table.admit(&Key { tenant: "t", device: &device, session: 1 }, number, 0, NOW)
}

/// Opens the slots, scans the log up to `end` as a start does, and compares all that is known.
fn reopen(slots: [Disk; 2], log: &ModelLog, end: u64) -> (Dedup, Snapshots<Shared>) {
    let mut dedup = Dedup::new(1 << 24);
    let slots = slots.map(|disk| Rc::new(RefCell::new(disk)));
    let (mut snapshots, found) = Snapshots::open(slots, LOG, &mut dedup).expect("readable");
    snapshots.chunk_bytes = 400;
    assert!(found.unreadable.is_empty(), "{:?}", found.unreadable);
    let after = found.scan_after.unwrap_or(0);
    assert!(after >= log.reclaimed.get(), "nothing proves {after}..={}", log.reclaimed.get());
    for (seq, (device, number)) in log.ever.borrow().range(after + 1..) {
        if *seq > end {
            break;
        }
        admit(&mut dedup, *device, *number);
        dedup.sources.advance(1, *seq, NOW);
    }
    let stored = log.stored_up_to(end);
    for (device, number) in (0..DEVICES).flat_map(|device| (0..NUMBERS).map(move |n| (device, n))) {
        let name = format!("device-{device}");
        let known = dedup.table.contains(&Key { tenant: "t", device: &name, session: 1 }, number);
        assert_eq!(known, stored.contains(&(device, number)), "device {device} number {number}");
    }
    let position = log.ever.borrow().range(..=end).next_back().map(|(seq, _)| *seq);
    assert_eq!(dedup.sources.position(1), position);
    (dedup, snapshots)
}

/// One middle that runs, takes snapshots beside traffic, and is cut at any step; again and again.
fn run(seed: u64, lies: bool) {
    let mut random = SmallRng::seed_from_u64(seed);
    let log = ModelLog { lies, ..ModelLog::default() };
    let mut slots = [Disk::default(), Disk::default()];
    for _ in 0..8 {
        let (dedup, mut snapshots) = reopen(slots, &log, log.last.get());
        let dedup = Mutex::new(dedup);
        // A queue's open syncs what it found.
        log.durable.set(log.last.get());
        let mut cuts = Vec::new();
        for _ in 0..random.random_range(1..4) {
            log.traffic(&dedup, &mut random.clone(), 100);
            let disks = snapshots.slots.clone();
            let cut = |cuts: &mut Vec<_>| {
                let state = [disks[0].borrow().clone(), disks[1].borrow().clone()];
                cuts.push((state, log.last.get(), log.durable.get()));
            };
            let taken = snapshots.take(&dedup, &log, NOW, START, |_| {
                log.traffic(&dedup, &mut random, 3);
                cut(&mut cuts);
            });
            if let Some(proven) = taken.expect("no fault").proven {
                log.reclaimed.set(log.reclaimed.get().max(proven));
                // What was cut before could not be followed by this reclaim.
                cuts.clear();
            }
            log.traffic(&dedup, &mut random, 20);
            cut(&mut cuts);
        }
        for (state, last, durable) in &cuts {
            reopen(state.clone(), &log, *last);
            let torn = [state[0].cut(&mut random), state[1].cut(&mut random)];
            reopen(torn, &log, *durable);
        }
        let (state, last, durable) = cuts.swap_remove(random.random_range(0..cuts.len()));
        let power_cut = random.random_bool(0.5);
        let end = if power_cut { durable } else { last };
        log.ever.borrow_mut().split_off(&(end + 1));
        slots = if power_cut { state.map(|disk| disk.cut(&mut random)) } else { state };
    }
}

#[test]
fn a_cut_at_any_step_loses_and_invents_nothing() {
    for seed in 0..60 {
        println!("seed {seed}");
        run(seed, false);
    }
}

#[test]
#[should_panic(expected = "device")]
fn a_snapshot_that_does_not_wait_for_the_log_is_caught() {
    for seed in 0..60 {
        run(seed, true);
    }
}

/// Two snapshots, and a log that was reclaimed as far as they allow.
fn two_snapshots() -> (Mutex<Dedup>, Snapshots<Shared>, ModelLog) {
    let mut random = SmallRng::seed_from_u64(1);
    let log = ModelLog::default();
    let (dedup, mut snapshots) = reopen([Disk::default(), Disk::default()], &log, 0);
    let dedup = Mutex::new(dedup);
    for expected in [None, Some(())] {
        log.traffic(&dedup, &mut random, 200);
        let taken = snapshots.take(&dedup, &log, NOW, START, |_| ()).expect("no fault");
        assert_eq!(taken.proven.map(|_| ()), expected);
        log.reclaimed.set(taken.proven.unwrap_or(0));
    }
    log.traffic(&dedup, &mut random, 50);
    (dedup, snapshots, log)
}

fn disks(snapshots: &Snapshots<Shared>) -> [Disk; 2] {
    snapshots.slots.clone().map(|disk| disk.borrow().clone())
}

#[test]
fn the_older_slot_is_enough_when_the_newer_is_torn() {
    let (_dedup, snapshots, log) = two_snapshots();
    for header_lost in [true, false] {
        let mut slots = disks(&snapshots);
        let newer = &mut slots[1 - snapshots.next].cached;
        let at = if header_lost { 20 } else { newer.len() - 30 };
        newer[at] ^= 4;
        let mut dedup = Dedup::new(1 << 24);
        let shared = slots.clone().map(|disk| Rc::new(RefCell::new(disk)));
        let (reopened, found) = Snapshots::open(shared, LOG, &mut dedup).expect("readable");
        assert_eq!(found.unreadable.len(), usize::from(!header_lost));
        assert_eq!(reopened.next, 1 - snapshots.next, "the torn one is written next");
        assert_eq!(found.scan_after, Some(log.reclaimed.get()));
        if header_lost {
            reopen(slots, &log, log.last.get());
        }
    }
}

#[test]
fn a_snapshot_of_another_log_is_left_alone() {
    let (_dedup, snapshots, _log) = two_snapshots();
    let mut dedup = Dedup::new(1 << 24);
    let shared = disks(&snapshots).map(|disk| Rc::new(RefCell::new(disk)));
    let (_, found) = Snapshots::open(shared, LOG + 1, &mut dedup).expect("readable");
    assert_eq!((found.scan_after, dedup.table.sessions()), (None, 0));
}

#[test]
fn a_full_medium_is_tried_again_and_a_failed_sync_is_told_apart() {
    let (dedup, mut snapshots, log) = two_snapshots();
    let next = snapshots.slots[snapshots.next].clone();
    next.borrow_mut().fail_write = true;
    let refused = snapshots.take(&dedup, &log, NOW, START, |_| ());
    assert!(matches!(refused, Err(WriteError::Write(_))), "{refused:?}");
    reopen(disks(&snapshots).map(|disk| Disk { fail_write: false, ..disk }), &log, log.last.get());

    next.borrow_mut().fail_write = false;
    next.borrow_mut().fail_sync = true;
    let refused = snapshots.take(&dedup, &log, NOW, START, |_| ());
    assert!(matches!(refused, Err(WriteError::Sync(_))), "{refused:?}");

    next.borrow_mut().fail_sync = false;
    snapshots.take(&dedup, &log, NOW, START, |_| ()).expect("no fault any more");
    reopen(disks(&snapshots), &log, log.last.get());
}

#[test]
fn a_later_version_is_refused_and_not_overwritten() {
    let (_dedup, snapshots, _log) = two_snapshots();
    let slots = disks(&snapshots).map(|disk| Rc::new(RefCell::new(disk)));
    let mut header = slots[0].borrow().cached[..88].to_vec();
    header[8] = 2;
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &header[..84]) as u32;
    header[84..].copy_from_slice(&crc.to_le_bytes());
    slots[0].clone().write_at(0, &header).expect("no fault");
    let refused = Snapshots::open(slots, LOG, &mut Dedup::new(1 << 24)).map(|_| ());
    assert!(matches!(refused, Err(ReadError::Bad(super::Bad::Version(2)))), "{refused:?}");
}
