//! An hour's folder is replaced by one with a single sorted file for each queue, all at once.
//!
//! The order, for an hour `hour=14` (docs/decisions/0005): merge its files into a folder
//! `.hour=14.<id>.tmp` beside it; put a mark `.swapped-<id>` into that; sync all of it; look
//! whether the hour still holds exactly the files that were merged; **exchange** the two folders in
//! one step (`renameat2` with RENAME_EXCHANGE); sync the folder above. The old files are then what
//! is in the folder with the dot, and are removed once no query reads them.
//!
//! A death at any point leaves the old hour or the new one in place, whole, and a folder with a dot
//! that no reader looks into. [`sweep`] tells what that is by the mark: if the hour has the mark of
//! its id it holds old files, otherwise unfinished ones; neither is needed, except for what lies in
//! the old folder and was not merged: a file that another process put there at the last moment, and
//! whatever is not a file of ours. That is moved over.
//!
//! Not here: which hours are due (`caretaker`), and the rows (`merge`).

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{
    file::{finished_names, sync_folder},
    gate::Gate,
    merge::{MergeError, Merged, merge},
    name::{FileName, Hour, SUFFIX_UNFINISHED, in_force},
};

/// What the mark in a folder that was exchanged begins with; the id of the exchange follows.
const MARK: &str = ".swapped-";

/// The moments of an exchange, or of an hour's removal, at which a process may die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The new folder is there, empty.
    FolderMade,
    /// One file of the new folder is there and synced.
    FileMerged,
    /// The new folder is whole, with its mark.
    Marked,
    /// It is on the medium.
    Synced,
    /// The folders are exchanged, or an hour that is too old has lost its name.
    Exchanged,
    /// That is on the medium.
    Settled,
    /// One of the old files is gone.
    FileRemoved,
    /// All that was left is gone.
    Removed,
}

impl Step {
    /// All steps in their order.
    pub const ALL: [Self; 8] = [
        Self::FolderMade,
        Self::FileMerged,
        Self::Marked,
        Self::Synced,
        Self::Exchanged,
        Self::Settled,
        Self::FileRemoved,
        Self::Removed,
    ];
}

/// Called after each step; a test panics in it, which ends the work there as death would.
pub type Observer = Arc<dyn Fn(Step) + Send + Sync>;

/// Why an hour was not changed. It is as it was; what is left of the try is swept later.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompactError {
    /// A folder cannot be listed, made, synced or exchanged.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The files cannot be merged.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// The file system cannot exchange two folders in one step: no hour of this lake can be
    /// compacted.
    #[error("the file system of {path} cannot exchange two folders in one step")]
    Unsupported {
        /// The hour's folder.
        path: PathBuf,
    },
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> CompactError {
    let path = path.to_owned();
    move |error| CompactError::Io { path, error }
}

/// What became of an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compacted {
    /// It has one file for each queue, and had so many in all.
    Exchanged {
        /// Files before.
        files: usize,
        /// Its rows.
        merged: Merged,
    },
    /// It has one file for each queue already.
    Already,
    /// A file came in meanwhile: try again.
    Disturbed,
}

/// Changes hours of one lake; one at a time, in one process at a time.
pub struct Compactor {
    gate: Arc<Gate>,
    observer: Observer,
}

impl Compactor {
    /// A compactor that works behind a gate.
    #[must_use]
    pub fn new(gate: Arc<Gate>) -> Self {
        Self { gate, observer: Arc::new(|_| {}) }
    }

    /// The same, with something that watches each step.
    #[must_use]
    pub fn with_observer(mut self, observer: Observer) -> Self {
        self.observer = observer;
        self
    }

    /// Replaces an hour's files by one for each queue. `stop` is asked now and then.
    ///
    /// # Errors
    /// [`CompactError`]: the hour is as it was.
    pub fn compact(&self, hour: Hour, stop: &dyn Fn() -> bool) -> Result<Compacted, CompactError> {
        let folder = self.gate.root().join(hour.folder());
        let names = finished_names(&folder).map_err(failed(&folder))?;
        if is_compact(&names) {
            return Ok(Compacted::Already);
        }
        let (id, beside) = self.beside(hour);
        fs::create_dir(&beside).map_err(failed(&beside))?;
        (self.observer)(Step::FolderMade);
        let done = self.merge_all(&folder, &beside, &names, stop).and_then(|merged| {
            self.mark(&beside, &id)?;
            self.exchange(hour, &folder, &beside, &names).map(|exchanged| (merged, exchanged))
        });
        match done {
            Ok((merged, true)) => Ok(Compacted::Exchanged { files: names.len(), merged }),
            Ok((_, false)) => {
                remove(&beside, &*self.observer).map_err(failed(&beside))?;
                Ok(Compacted::Disturbed)
            }
            Err(error) => {
                // Makes room at once where a full disk was the cause. But where the exchange was
                // made and then failed to settle, the old files are there: they stay until a
                // start finds out what is on the medium.
                if !is_swapped(&folder, &id) {
                    let _ = remove(&beside, &*self.observer);
                }
                Err(error)
            }
        }
    }

    /// Takes an hour out of the lake, for it is too old: its folder, with all that is in it. Says
    /// whether there was one.
    ///
    /// # Errors
    /// [`CompactError`]: the hour is as it was, or gone but perhaps back after a power cut.
    pub fn drop_hour(&self, hour: Hour) -> Result<bool, CompactError> {
        let folder = self.gate.root().join(hour.folder());
        let (_, beside) = self.beside(hour);
        let _alone = self.gate.alone();
        self.gate.retire(hour, &beside);
        if let Err(error) = fs::rename(&folder, &beside) {
            self.gate.not_moved();
            if error.kind() == io::ErrorKind::NotFound {
                return Ok(false);
            }
            return Err(failed(&folder)(error));
        }
        self.settle(&folder, || Ok(()))?;
        Ok(true)
    }

    /// Removes what was taken out and is needed by no query any more.
    ///
    /// # Errors
    /// The first folder that cannot be removed, after all others were: the next [`sweep`] tries
    /// again.
    pub fn remove_unneeded(&self) -> Result<(), CompactError> {
        let mut done = Ok(());
        for beside in self.gate.take_unneeded() {
            let removed = remove(&beside, &*self.observer).map_err(failed(&beside));
            done = done.and(removed);
            // The day goes with its last hour; a writer makes it again if it must.
            let _alone = self.gate.alone();
            if let Some(day) = beside.parent() {
                let _ = fs::remove_dir(day);
            }
        }
        done
    }

    /// A new id, and the folder that no reader looks into.
    fn beside(&self, hour: Hour) -> (String, PathBuf) {
        let id = format!("{:016x}", rand::random::<u64>());
        let folder = self.gate.root().join(hour.folder());
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (id.clone(), folder.with_file_name(format!(".{name}.{id}{SUFFIX_UNFINISHED}")))
    }

    fn merge_all(
        &self,
        folder: &Path,
        beside: &Path,
        names: &[FileName],
        stop: &dyn Fn() -> bool,
    ) -> Result<Merged, CompactError> {
        let mut total = Merged::default();
        for of_queue in in_force(names).chunk_by(|one, other| one.queue == other.queue) {
            let (first, last) = (of_queue[0], of_queue[of_queue.len() - 1]);
            // Neither begins nor ends within another, so the last one reaches farthest.
            let name = FileName { last: last.last, ..first };
            let target = beside.join(name.to_string());
            if let [only] = of_queue {
                fs::hard_link(folder.join(only.to_string()), &target).map_err(failed(&target))?;
            } else {
                let paths = of_queue.iter().map(|name| folder.join(name.to_string()));
                let merged = merge(&paths.collect::<Vec<_>>(), &target, stop)?;
                total.rows += merged.rows;
                total.repeated += merged.repeated;
            }
            (self.observer)(Step::FileMerged);
        }
        Ok(total)
    }

    fn mark(&self, beside: &Path, id: &str) -> Result<(), CompactError> {
        let mark = beside.join(format!("{MARK}{id}"));
        fs::File::create_new(&mark).and_then(|mark| mark.sync_all()).map_err(failed(&mark))?;
        (self.observer)(Step::Marked);
        sync_folder(beside).map_err(failed(beside))?;
        sync_above(beside)?;
        (self.observer)(Step::Synced);
        Ok(())
    }

    /// Exchanges the folders if the hour holds what was merged, and nothing else.
    fn exchange(
        &self,
        hour: Hour,
        folder: &Path,
        beside: &Path,
        names: &[FileName],
    ) -> Result<bool, CompactError> {
        let _alone = self.gate.alone();
        if finished_names(folder).map_err(failed(folder))? != names {
            return Ok(false);
        }
        self.gate.retire(hour, beside);
        if let Err(error) = renameat_with(CWD, folder, CWD, beside, RenameFlags::EXCHANGE) {
            self.gate.not_moved();
            use rustix::io::Errno;
            return Err(match error {
                Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => {
                    CompactError::Unsupported { path: folder.to_owned() }
                }
                error => failed(folder)(error.into()),
            });
        }
        self.settle(folder, || rescue(beside, folder))?;
        Ok(true)
    }

    /// Puts a move on the medium, and does what is to follow it before anything is removed.
    fn settle(
        &self,
        folder: &Path,
        then: impl FnOnce() -> Result<(), CompactError>,
    ) -> Result<(), CompactError> {
        (self.observer)(Step::Exchanged);
        let settled = sync_above(folder).and_then(|()| {
            (self.observer)(Step::Settled);
            then()
        });
        match &settled {
            Ok(()) => self.gate.moved(),
            Err(_) => self.gate.not_settled(),
        }
        settled
    }
}

/// Whether there is nothing to merge: one file for each queue.
#[must_use]
pub fn is_compact(names: &[FileName]) -> bool {
    names.windows(2).all(|pair| pair[0].queue != pair[1].queue)
}

/// Tidies up after processes that died while they changed hours; how many folders that were.
///
/// To be called only by who alone changes hours, before it does.
///
/// # Errors
/// The first that was met, after all else was tidied up: a folder cannot be listed, or something in
/// it not be moved or removed. What is left is in nobody's way.
pub fn sweep(root: &Path) -> Result<usize, CompactError> {
    let (mut swept, mut done) = (0, Ok(()));
    for day in listed(root)? {
        let is_day = day.file_name().is_some_and(|name| name.to_string_lossy().starts_with("dt="));
        if !is_day || !day.is_dir() {
            continue;
        }
        let entries = listed(&day).unwrap_or_else(|error| {
            done = std::mem::replace(&mut done, Ok(())).and(Err(error));
            Vec::new()
        });
        for beside in entries {
            match sweep_one(&day, &beside) {
                Ok(is_swept) => swept += usize::from(is_swept),
                Err(error) => done = done.and(Err(error)),
            }
        }
        // Empty only if an hour that was too old was the last of it.
        let _ = fs::remove_dir(&day);
    }
    done.map(|()| swept)
}

/// Removes an entry of a day if it is what a compaction has left; says whether it was.
fn sweep_one(day: &Path, beside: &Path) -> Result<bool, CompactError> {
    let name = beside.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some((hour, id)) = name
        .strip_prefix('.')
        .and_then(|name| name.strip_suffix(SUFFIX_UNFINISHED))
        .and_then(|name| name.rsplit_once('.'))
        .filter(|(hour, _)| hour.starts_with("hour="))
    else {
        return Ok(false);
    };
    let folder = day.join(hour);
    if is_swapped(&folder, id) {
        // The exchange before the removal of what it replaced, on the medium too.
        sync_folder(day).map_err(failed(day))?;
        rescue(beside, &folder)?;
    }
    remove(beside, &|_| {}).map_err(failed(beside))?;
    Ok(true)
}

fn is_swapped(folder: &Path, id: &str) -> bool {
    folder.join(format!("{MARK}{id}")).exists()
}

/// Moves into the hour what the old folder holds and the new one does not: a file that another
/// process put there after the files were compared, and whatever is not ours, folders too.
///
/// What begins with a dot is no part of the lake and stays.
fn rescue(old: &Path, folder: &Path) -> Result<(), CompactError> {
    let present = finished_names(folder).map_err(failed(folder))?;
    let mut moved = false;
    for from in listed(old)? {
        let name = from.file_name().unwrap_or_default();
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        let ours = name.to_str().and_then(FileName::parse);
        if ours
            .is_some_and(|name| present.iter().any(|file| *file == name || file.supersedes(&name)))
        {
            continue;
        }
        // Not over what came to the hour under the same name since: nobody could tell which counts.
        renameat_with(CWD, &from, CWD, folder.join(name), RenameFlags::NOREPLACE)
            .map_err(|error| failed(&from)(error.into()))?;
        moved = true;
    }
    if moved { sync_folder(folder).map_err(failed(folder)) } else { Ok(()) }
}

/// Removes a folder with a dot and all in it; what is gone already is no fault.
fn remove(folder: &Path, observer: &dyn Fn(Step)) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        // Somebody else's, with a dot or in an hour that was dropped.
        let is_folder = entry.file_type()?.is_dir();
        gone(if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) })?;
        observer(Step::FileRemoved);
    }
    gone(fs::remove_dir(folder))?;
    observer(Step::Removed);
    Ok(())
}

fn sync_above(folder: &Path) -> Result<(), CompactError> {
    let Some(above) = folder.parent() else { return Ok(()) };
    sync_folder(above).map_err(failed(above))
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>, CompactError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed(folder))?,
    };
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed(folder))).collect()
}
