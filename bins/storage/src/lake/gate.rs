//! Who may change a folder of the lake, and when: writers together, an exchange of folders alone.
//!
//! Three parties share a lake. *Sinks* put files into the folder of an hour. The *caretaker*
//! replaces such a folder by a compacted one, or takes it away. *Queries* list folders and then
//! open what they listed. So a put holds the gate shared, an exchange holds it alone, and a query
//! takes a [`Lease`]: what was taken away stays on disk, and can be found, until every query that
//! may have listed it is gone.
//!
//! A put is also refused here, as done already, if a file that is there covers its range: a range
//! that is stored again after its hour was compacted must not lie there twice.
//!
//! Not here: what is exchanged, and how a crash in the middle of it is mended (`compact`).

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard},
};

use super::{
    file::{self, Observer},
    name::{FileName, Hour},
};

/// Hours whose files are remembered: those that rows come in for at a time, and some late ones.
const REMEMBERED_MAX: usize = 64;

/// Held by a query: files that it may have listed are not removed.
pub type Lease = Arc<()>;

/// A folder that was taken out of the lake and waits for the queries that may still read it.
#[derive(Debug)]
struct Retired {
    hour: Hour,
    folder: PathBuf,
    /// Held by queries that began before it was taken out; none until it is.
    lease: Option<Lease>,
    /// Whether it was taken out is not on the medium: it stays for this process's life.
    stays: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Hours that something was put into since the caretaker last asked.
    changed: BTreeSet<Hour>,
    /// The files of hours that were written lately.
    held: HashMap<Hour, Vec<FileName>>,
    /// Hours whose folders this process has put on the medium.
    made: HashSet<Hour>,
    /// In the order in which they were taken out.
    retired: Vec<Retired>,
    /// The lease that queries take now.
    lease: Lease,
}

/// The gate of one lake, shared by all that work on it in this process.
#[derive(Debug)]
pub struct Gate {
    root: PathBuf,
    swap: RwLock<()>,
    state: Mutex<State>,
}

impl Gate {
    /// The gate of the lake at a folder.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), swap: RwLock::default(), state: Mutex::default() }
    }

    /// Where the lake is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a file in place, durably; says `false`, with nothing written, if the rows of its range
    /// are there already in a file with a longer one.
    ///
    /// # Errors
    /// As [`file::make_hour`] and [`file::write`]. Try again with the same bytes.
    pub fn put(
        &self,
        hour: Hour,
        name: &str,
        bytes: &[u8],
        observer: &Observer,
    ) -> io::Result<bool> {
        let _shared = self.swap.read().unwrap_or_else(PoisonError::into_inner);
        let parsed = FileName::parse(name)
            .ok_or_else(|| io::Error::other(format!("{name} is no name of a lake file")))?;
        if self.covers(hour, parsed)? {
            return Ok(false);
        }
        self.make_hour(hour, observer)?;
        file::write(&self.root.join(hour.folder()), name, bytes, observer)?;
        let mut state = self.state();
        state.changed.insert(hour);
        if let Some(files) = state.held.get_mut(&hour)
            && !files.contains(&parsed)
        {
            files.push(parsed);
        }
        Ok(true)
    }

    /// Makes an hour's folder, once: it may be there, and another process have been killed before
    /// its name was on the medium.
    fn make_hour(&self, hour: Hour, observer: &Observer) -> io::Result<()> {
        // Somebody may have removed what was made.
        if self.state().made.contains(&hour) && self.root.join(hour.folder()).is_dir() {
            return Ok(());
        }
        file::make_hour(&self.root, hour, observer)?;
        let mut state = self.state();
        if state.made.len() >= REMEMBERED_MAX {
            state.made.clear();
        }
        state.made.insert(hour);
        Ok(())
    }

    /// Whether an hour has a file with a longer range around this one's.
    fn covers(&self, hour: Hour, name: FileName) -> io::Result<bool> {
        let longer = |files: &[FileName]| files.iter().any(|file| file.supersedes(&name));
        if let Some(files) = self.state().held.get(&hour) {
            return Ok(longer(files));
        }
        let files = file::finished_names(&self.root.join(hour.folder()))?;
        let found = longer(&files);
        let mut state = self.state();
        if state.held.len() >= REMEMBERED_MAX {
            state.held.clear();
        }
        state.held.insert(hour, files);
        Ok(found)
    }

    /// Hours that something was put into since this was asked last.
    #[must_use]
    pub fn take_changed(&self) -> BTreeSet<Hour> {
        std::mem::take(&mut self.state().changed)
    }

    /// Keeps what is taken out of the lake from now on readable while it is held.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.state().lease.clone()
    }

    /// Where a file lies that was listed and is no longer in its hour's folder.
    #[must_use]
    pub fn retired_path(&self, hour: Hour, name: &FileName) -> Option<PathBuf> {
        let state = self.state();
        let folders = state.retired.iter().rev().filter(|retired| retired.hour == hour);
        folders.map(|retired| retired.folder.join(name.to_string())).find(|path| path.exists())
    }

    /// Waits until no file is being put, and lets none be until the guard is dropped.
    pub(super) fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.swap.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that what a query may have listed in `hour` will be found in `folder`. Called alone,
    /// before the move; [`Self::moved`] or [`Self::not_moved`] follows.
    pub(super) fn retire(&self, hour: Hour, folder: &Path) {
        let mut state = self.state();
        state.held.remove(&hour);
        state.made.remove(&hour);
        let folder = folder.to_owned();
        state.retired.push(Retired { hour, folder, lease: None, stays: false });
    }

    /// The move is made and on the medium: queries that begin from now on cannot list what was
    /// moved, and once those of before are gone it may be removed.
    pub(super) fn moved(&self) {
        let mut state = self.state();
        let lease = std::mem::take(&mut state.lease);
        if let Some(last) = state.retired.last_mut() {
            last.lease = Some(lease);
        }
    }

    /// The move was made, and may be undone by a power cut: what was moved stays where it is until
    /// the next start finds out.
    pub(super) fn not_settled(&self) {
        if let Some(last) = self.state().retired.last_mut() {
            last.stays = true;
        }
    }

    /// The move was not made.
    pub(super) fn not_moved(&self) {
        self.state().retired.pop();
    }

    /// The folders that were taken out and that no query can need any more.
    pub(super) fn take_unneeded(&self) -> Vec<PathBuf> {
        let mut state = self.state();
        let (mut unneeded, mut needed) = (Vec::new(), Vec::new());
        let mut free = true;
        for retired in std::mem::take(&mut state.retired) {
            // A query that may need an earlier one may need all later ones too: it listed before.
            free &= retired.stays || retired.lease.as_ref().is_some_and(is_unshared);
            if free && !retired.stays {
                unneeded.push(retired.folder);
            } else {
                needed.push(retired);
            }
        }
        state.retired = needed;
        unneeded
    }

    /// How many folders wait to be removed.
    #[must_use]
    pub fn retired(&self) -> usize {
        self.state().retired.len()
    }
}

fn is_unshared(lease: &Lease) -> bool {
    Arc::strong_count(lease) == 1
}
