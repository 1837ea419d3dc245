//! A medium with a page cache in front of it, as a kernel has one, in memory and from a seed.
//!
//! Stores go to the cache and mark pages dirty. A sync copies the dirty pages of its range to the
//! medium. At any time the cache may write a dirty page back by itself. A *kill* keeps the cache,
//! dirty pages included; a *power cut* keeps the medium only, and each page that was dirty arrives
//! there wholly, not at all, or in some of its 512-byte sectors. A sync told to fail writes some of
//! its pages and marks *all* of them clean, as Linux does.
//!
//! A cut may also strike in the middle of a call: with any part of a store done, and with any of a
//! sync's pages written. It does not unwind: the disk notes its image at the chosen call and lets the doomed process
//! run on, in an illusion that nobody will look at. [`Disk::is_cut`] tells the driver to believe
//! nothing that happens afterwards.

use std::io;
use std::sync::Mutex;

use forebay_queue::testing::{Backing, Mapping};

use super::random::Random;

const PAGE_BYTES: usize = 4096;
const SECTOR_BYTES: usize = 512;

/// What goes wrong, and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Chance, in 1,024ths, that a call makes the cache write one dirty page back.
    pub(crate) writeback: u64,
    /// Chance, in 1,024ths, that a sync fails.
    pub(crate) sync_failure: u64,
    /// Chance, in 1,024ths, that a dirty page reaches the medium in a power cut at all.
    pub(crate) arrival: u64,
}

/// What a cut leaves behind.
#[derive(Clone)]
pub(crate) struct Image {
    cache: Vec<u8>,
    medium: Vec<u8>,
    dirty: Vec<bool>,
}

impl Image {
    /// A file of these bytes, all of them on the medium.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        let dirty = vec![false; bytes.len().div_ceil(PAGE_BYTES)];
        Image { medium: bytes.clone(), cache: bytes, dirty }
    }

    fn lose_power(mut self, random: &mut Random, weather: Weather) -> Self {
        for page in 0..self.dirty.len() {
            if !self.dirty[page] || !random.chance(weather.arrival) {
                continue;
            }
            let whole = random.chance(512);
            let pages = page * PAGE_BYTES..((page + 1) * PAGE_BYTES).min(self.cache.len());
            for start in pages.clone().step_by(SECTOR_BYTES) {
                let end = (start + SECTOR_BYTES).min(pages.end);
                if whole || random.chance(512) {
                    self.medium[start..end].copy_from_slice(&self.cache[start..end]);
                }
            }
        }
        self.dirty.fill(false);
        self.cache.clone_from(&self.medium);
        self
    }
}

struct State {
    medium: Vec<u8>,
    dirty: Vec<bool>,
    dirty_count: usize,
    random: Random,
    calls: u64,
    cut_at: u64,
    is_power: bool,
    left: Option<Image>,
}

/// The memory that a queue runs on in the simulator.
pub(crate) struct Disk {
    cache: Mapping,
    weather: Weather,
    state: Mutex<State>,
}

impl Disk {
    /// Goes on from an image; at the `cut_at`th store or sync from now the process is killed.
    pub(crate) fn new(image: &Image, seed: u64, weather: Weather, cut_at: u64) -> Self {
        let cache = Mapping::anonymous(image.cache.len()).expect("memory for the simulator");
        cache.store(0, &image.cache);
        let dirty_count = image.dirty.iter().filter(|dirty| **dirty).count();
        let state = State {
            medium: image.medium.clone(),
            dirty: image.dirty.clone(),
            dirty_count,
            random: Random::new(seed),
            calls: 0,
            cut_at,
            is_power: false,
            left: None,
        };
        Disk { cache, weather, state: Mutex::new(state) }
    }

    /// From now on the power goes when the process ends.
    pub(crate) fn arm_power(&self) {
        self.lock().is_power = true;
    }

    /// Whether the cut has come: what the queue says from now on nobody has heard.
    pub(crate) fn is_cut(&self) -> bool {
        self.lock().left.is_some()
    }

    /// Ends the process, now if the cut has not come by itself, and says what is left.
    pub(crate) fn end(&self) -> Image {
        let mut state = self.lock();
        self.strike(&mut state);
        state.left.clone().expect("just struck")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the simulator's lock is held")
    }

    fn strike(&self, state: &mut State) {
        if state.left.is_some() {
            return;
        }
        let image = Image {
            cache: self.cache.view(0, self.cache.len_bytes()).to_vec(),
            medium: state.medium.clone(),
            dirty: state.dirty.clone(),
        };
        state.left = Some(if state.is_power {
            image.lose_power(&mut state.random, self.weather)
        } else {
            image
        });
    }

    /// Counts a call; true if the process ends in the middle of it.
    fn step(&self, state: &mut State) -> bool {
        state.calls += 1;
        if state.dirty_count > 0 && state.random.chance(self.weather.writeback) {
            let nth = state.random.below(state.dirty_count as u64) as usize;
            let dirty = state.dirty.iter().enumerate().filter(|(_, dirty)| **dirty);
            let page = dirty.map(|(page, _)| page).nth(nth).expect("counted");
            self.write_page(state, page);
        }
        state.calls == state.cut_at
    }

    fn write_page(&self, state: &mut State, page: usize) {
        let start = page * PAGE_BYTES;
        let len = PAGE_BYTES.min(self.cache.len_bytes() - start);
        state.medium[start..start + len].copy_from_slice(self.cache.view(start, len));
        if std::mem::take(&mut state.dirty[page]) {
            state.dirty_count -= 1;
        }
    }
}

fn pages(offset: usize, len: usize) -> std::ops::Range<usize> {
    offset / PAGE_BYTES..(offset + len).div_ceil(PAGE_BYTES)
}

impl Backing for Disk {
    fn len_bytes(&self) -> usize {
        self.cache.len_bytes()
    }

    fn store(&self, offset: usize, bytes: &[u8]) {
        let mut state = self.lock();
        let strikes = self.step(&mut state);
        // A store is many instructions: a cut may come with any part of it done.
        let done = if strikes { state.random.below(bytes.len() as u64 + 1) as usize } else { 0 };
        self.cache.store(offset, &bytes[..done]);
        for page in pages(offset, bytes.len()) {
            if !std::mem::replace(&mut state.dirty[page], true) {
                state.dirty_count += 1;
            }
        }
        if strikes {
            self.strike(&mut state);
        }
        self.cache.store(offset + done, &bytes[done..]);
    }

    fn view(&self, offset: usize, len: usize) -> &[u8] {
        self.cache.view(offset, len)
    }

    fn sync(&self, offset: usize, len: usize) -> io::Result<()> {
        let mut state = self.lock();
        let strikes = self.step(&mut state);
        let fails = state.random.chance(self.weather.sync_failure);
        for page in pages(offset, len) {
            if strikes && state.random.chance(256) {
                break;
            }
            if !state.dirty[page] {
                continue;
            }
            if fails && state.random.chance(512) {
                // Not written, and yet clean: nothing will write it unless it is dirtied again.
                state.dirty[page] = false;
                state.dirty_count -= 1;
            } else {
                self.write_page(&mut state, page);
            }
        }
        if strikes {
            self.strike(&mut state);
        }
        if fails { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }
}
