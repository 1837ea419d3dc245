//! What was acknowledged survives kills, power cuts and failed syncs, in any mixture; with
//! durability `process` it survives kills.
//!
//! Method: the real ring over a simulated page cache. Dirty pages reach the medium when synced, or
//! by themselves at any time; a power cut keeps of each dirty page any 512-byte sectors; a failed
//! sync marks pages clean without storing them. A model remembers what was appended, acknowledged,
//! seen by readers and committed, and every open is compared with it.
//!
//! Cannot show: reordering within a processor (one thread), what a real disk does with a sync.
//! Twins with one safeguard taken out must fail, or the method is blind.
//!
//! `FOREBAY_CUTS` and `FOREBAY_SEED` make it longer, or another.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use forebay_queue::testing::{self, Backing, Fault, Mapping, PAGE_BYTES, Pace};
use forebay_queue::{Durability, Error, Options, Queue, Reader, Seq};

const SECTOR: usize = 512;
const PAGE: usize = PAGE_BYTES as usize;

/// A generator whose whole state is its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A page cache over a medium.
struct PageCache {
    live: Mapping,
    disk: Mutex<Disk>,
}

struct Disk {
    medium: Vec<u8>,
    dirty: Vec<bool>,
    random: Random,
    /// How many syncs until one fails.
    failure_in: Option<usize>,
}

impl PageCache {
    fn new(medium: Vec<u8>, seed: u64) -> Self {
        let live = Mapping::anonymous(medium.len()).expect("memory");
        live.store(0, &medium);
        let dirty = vec![false; medium.len() / PAGE];
        let disk = Disk { medium, dirty, random: Random(seed), failure_in: None };
        PageCache { live, disk: Mutex::new(disk) }
    }

    fn disk(&self) -> std::sync::MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Some dirty pages reach the medium by themselves.
    fn write_back_some(&self) {
        let disk = &mut *self.disk();
        for page in 0..disk.dirty.len() {
            if disk.dirty[page] && disk.random.one_in(3) {
                disk.store_page(&self.live, page);
            }
        }
    }

    /// What the medium holds after the power went.
    fn cut(&self) -> Vec<u8> {
        let disk = &mut *self.disk();
        for page in 0..disk.dirty.len() {
            if disk.dirty[page] {
                disk.store_some_sectors(&self.live, page);
            }
        }
        disk.medium.clone()
    }
}

impl Disk {
    fn store_some_sectors(&mut self, live: &Mapping, page: usize) {
        let style = self.random.below(3);
        for sector in 0..PAGE / SECTOR {
            if style == 0 || (style == 1 && self.random.one_in(2)) {
                let at = page * PAGE + sector * SECTOR;
                self.medium[at..at + SECTOR].copy_from_slice(live.view(at, SECTOR));
            }
        }
    }

    fn store_page(&mut self, live: &Mapping, page: usize) {
        let at = page * PAGE;
        self.medium[at..at + PAGE].copy_from_slice(live.view(at, PAGE));
        self.dirty[page] = false;
    }
}

impl Backing for PageCache {
    fn len_bytes(&self) -> usize {
        self.live.len_bytes()
    }
    fn store(&self, offset: usize, bytes: &[u8]) {
        self.live.store(offset, bytes);
        if !bytes.is_empty() {
            let disk = &mut *self.disk();
            disk.dirty[offset / PAGE..=(offset + bytes.len() - 1) / PAGE].fill(true);
        }
    }
    fn view(&self, offset: usize, len: usize) -> &[u8] {
        self.live.view(offset, len)
    }
    fn sync(&self, offset: usize, len: usize) -> io::Result<()> {
        let disk = &mut *self.disk();
        let fails = disk.failure_in.is_some_and(|left| left == 0);
        disk.failure_in = disk.failure_in.and_then(|left| left.checked_sub(1));
        for page in offset / PAGE..(offset + len).div_ceil(PAGE) {
            if !disk.dirty[page] {
                continue;
            }
            if fails {
                // Marked clean whatever reached the medium: nothing, some sectors, or all.
                disk.store_some_sectors(&self.live, page);
                disk.dirty[page] = false;
            } else {
                disk.store_page(&self.live, page);
            }
        }
        if fails { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }
}

/// What must be true, whatever happens to the queue.
#[derive(Default)]
struct Model {
    /// Every entry that may still be stored, and what it holds.
    appended: BTreeMap<Seq, Vec<u8>>,
    /// Durable by the queue's word, or seen by a reader.
    promised: Seq,
    /// The durable cursor that was promised.
    committed: Seq,
    /// In memory only.
    committed_live: Seq,
    note: u64,
    notes: u64,
    payloads: u64,
}

struct Run {
    random: Random,
    options: Options,
    faults: Vec<Fault>,
    cache: Arc<PageCache>,
    model: Model,
    payload_bytes: Option<usize>,
}

impl Run {
    fn new(seed: u64, faults: &[Fault]) -> Self {
        let mut random = Random(seed);
        let capacity = PAGE_BYTES * (1 + random.below(6) as u64);
        let options = Options {
            capacity_bytes: capacity,
            entry_bytes_max: (capacity / 2 - 32).min(1500) as u32,
            durability: if random.one_in(4) { Durability::Process } else { Durability::Disk },
            ..Options::default()
        };
        let mut medium = testing::fresh(u128::from(seed) + 1, capacity);
        medium.resize(testing::file_bytes(capacity) as usize, 0);
        let cache = Arc::new(PageCache::new(medium, random.next()));
        // A swarm: sizes fixed or mixed, small or large.
        let payload_bytes = match random.below(3) {
            0 => Some(random.below(300)),
            1 => Some(480),
            _ => None,
        };
        Run {
            random,
            options,
            faults: faults.to_vec(),
            cache,
            model: Model::default(),
            payload_bytes,
        }
    }

    fn payload(&mut self) -> Vec<u8> {
        let max = self.options.entry_bytes_max as usize;
        let len = match self.payload_bytes {
            Some(len) => len,
            None if self.random.one_in(8) => self.random.below(max + 1),
            None => self.random.below(120),
        };
        self.model.payloads += 1;
        let mut bytes = Random(self.model.payloads);
        (0..len.min(max)).map(|_| bytes.next() as u8).collect()
    }

    /// One life of the queue: open, check, work, die. Returns how it ended.
    fn life(&mut self) {
        let backing: Arc<dyn Backing> = Arc::<PageCache>::clone(&self.cache);
        let disk = self.options.durability == Durability::Disk;
        if disk && self.random.one_in(12) {
            self.cache.disk().failure_in = Some(self.random.below(5));
        }
        let lived = testing::open(backing, &self.options, &self.faults)
            .and_then(|queue| self.check(&queue).and_then(|reader| self.work(&queue, reader)));
        // An injected failure of a sync ends a life at any point; nothing else does.
        assert!(matches!(lived, Ok(()) | Err(Error::Io { .. })), "{lived:?}");
        self.cache.disk().failure_in = None;
        // Dropped without a thread, a queue does nothing more: that was the kill.
        // With durability `process` that is all it promises to survive.
        if disk && self.random.one_in(2) {
            let seed = self.random.next();
            self.cache = Arc::new(PageCache::new(self.cache.cut(), seed));
        }
    }

    /// Compares what an open found with the model.
    fn check(&mut self, queue: &Queue) -> forebay_queue::Result<Reader> {
        let model = &mut self.model;
        assert_eq!(queue.recovery().corrupt_ranges, 0, "nothing was damaged");
        let mut stored = Vec::new();
        let mut tail = queue.tail(Some(Seq::NONE));
        loop {
            let batch = tail.read(64, 1 << 20).expect("open");
            assert_eq!(batch.gap(), None, "no gap");
            if batch.is_empty() {
                break;
            }
            for entry in batch.iter() {
                let known = model.appended.get(&entry.seq);
                assert_eq!(known.map(Vec::as_slice), Some(entry.payload), "ghost {}", entry.seq);
                stored.push(entry.seq);
            }
        }
        for pair in stored.windows(2) {
            assert!(pair[1].follows(pair[0]), "gap between {} and {}", pair[0], pair[1]);
        }
        let last = stored.last().copied().unwrap_or(model.committed_live);
        assert!(last >= model.promised, "promised {}, stored up to {last}", model.promised);
        // What was not found now must never come back.
        model.appended.retain(|seq, _| *seq <= last);
        model.promised = model.promised.max(last);
        let reader = queue.reader("r")?;
        let cursor = reader.cursor();
        assert!(cursor >= model.committed, "cursor {cursor} behind {}", model.committed);
        if let Some(first) = stored.first() {
            let is_next = first.follows(cursor) || cursor == Seq::NONE;
            assert!(*first <= cursor || is_next, "cursor {cursor}, first stored {first}");
        }
        let note = reader.note();
        let note = note.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        assert!(note >= model.note, "note {note} older than {}", model.note);
        (model.committed, model.committed_live, model.note) = (cursor, cursor, note);
        Ok(reader)
    }

    fn work(&mut self, queue: &Queue, mut reader: Reader) -> forebay_queue::Result<()> {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        for _ in 0..self.random.below(40) {
            if self.random.one_in(4) {
                self.cache.write_back_some();
            }
            let done = match self.random.below(10) {
                0..=3 => self.append(queue),
                4 => self.append_batch(queue),
                5 | 6 => {
                    let upto = queue.appended();
                    queue.wait_durable(upto, Duration::ZERO).map(|()| {
                        self.promise(upto);
                    })
                }
                7 => self.read(&mut reader),
                8 => {
                    now += Duration::from_millis(self.random.below(120) as u64);
                    testing::step(queue, &mut pace, now).map(|_| ())
                }
                _ => self.commit_durable(&mut reader),
            };
            match done {
                Ok(()) | Err(Error::Full { .. }) => {}
                failed => return failed,
            }
            self.promise(queue.durable());
        }
        Ok(())
    }

    fn promise(&mut self, upto: Seq) {
        // Counter 0 names no entry: nothing of this epoch yet.
        if upto.counter() > 0 {
            self.model.promised = self.model.promised.max(upto);
        }
    }

    fn append(&mut self, queue: &Queue) -> forebay_queue::Result<()> {
        let payload = self.payload();
        let seq = queue.append(1, &payload)?;
        self.model.appended.insert(seq, payload);
        Ok(())
    }

    fn append_batch(&mut self, queue: &Queue) -> forebay_queue::Result<()> {
        let payloads: Vec<_> = (0..=self.random.below(5)).map(|_| self.payload()).collect();
        let span = match queue.append_batch(1, &payloads) {
            Err(Error::TooLarge { .. }) => return Ok(()),
            other => other?,
        };
        for (row, payload) in payloads.into_iter().enumerate() {
            let seq = Seq::from_u64(span.first.get() + row as u64);
            self.model.appended.insert(seq, payload);
        }
        Ok(())
    }

    fn read(&mut self, reader: &mut Reader) -> forebay_queue::Result<()> {
        let before = reader.cursor();
        let batch = reader.peek(1 + self.random.below(8), 1 << 20)?;
        let mut previous = before;
        for entry in batch.iter() {
            assert!(entry.seq.follows(previous) || previous == Seq::NONE, "reader's gap");
            let known = self.model.appended.get(&entry.seq);
            assert_eq!(known.map(Vec::as_slice), Some(entry.payload));
            previous = entry.seq;
        }
        self.model.promised = self.model.promised.max(previous);
        batch.advance();
        reader.commit(previous)?;
        self.model.committed_live = previous;
        Ok(())
    }

    fn commit_durable(&mut self, reader: &mut Reader) -> forebay_queue::Result<()> {
        self.model.notes += 1;
        let upto = reader.cursor();
        reader.commit_durable(upto, Some(&self.model.notes.to_le_bytes()))?;
        (self.model.committed, self.model.note) = (upto, self.model.notes);
        Ok(())
    }
}

/// Runs lives until `cuts` are done; returns how many it took to fail, if it failed.
fn cuts_until_failure(seed: u64, cuts: usize, faults: &[Fault]) -> Option<usize> {
    let mut done = 0;
    for run in 0.. {
        let run_seed = seed.wrapping_mul(1_000_003).wrapping_add(run);
        let mut state = Run::new(run_seed, faults);
        for life in 0..20 {
            let outcome = catch_unwind(AssertUnwindSafe(|| state.life()));
            if outcome.is_err() {
                eprintln!("failed: FOREBAY_SEED={seed}, run {run}, life {life}");
                return Some(done);
            }
            done += 1;
        }
        if done >= cuts {
            break;
        }
    }
    None
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn acknowledged_entries_survive_kills_power_cuts_and_failed_syncs() {
    let (seed, cuts) = (number("FOREBAY_SEED", 1), number("FOREBAY_CUTS", 20_000) as usize);
    assert_eq!(cuts_until_failure(seed, cuts, &[]), None, "seed {seed}");
}

#[test]
fn every_planted_fault_is_noticed() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let missed: Vec<_> = Fault::ALL
        .into_iter()
        .filter(|fault| {
            let found = cuts_until_failure(7, 60_000, &[*fault]);
            eprintln!("{fault:?}: {found:?}");
            found.is_none()
        })
        .collect();
    std::panic::set_hook(hook);
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}
