//! What a sink cannot store, kept so that nothing is dropped in silence: rows that the store
//! refuses, entries that no sink can make rows of, and which entries the middle gave up for it.
//!
//! One file each, named by sink, queue and place: a replay writes the same file again. It is synced
//! before the cursor may pass it. The middle took entries as canonical, so one that does not decode
//! is damage or the work of a later release: an alarm, and worth keeping whole.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use forebay_ops::make_folder;
use forebay_wire::{QueueId, Seq};
use serde::{Deserialize, Serialize};

use super::Letter;

const ROW: &str = ".row.json";
const ENTRY: &str = ".entry";
const GAP: &str = ".gap.json";
/// Added to the name of a letter that was stored after all.
const DONE: &str = ".done";

/// A folder of dead letters, as one sink fills it.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    folder: PathBuf,
    sink: String,
}

/// A dead letter in its folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    /// Where it is.
    pub path: PathBuf,
    /// Its name without the kind: what commands call it.
    pub name: String,
    /// What it is.
    pub kind: KeptKind,
    /// Whether it was stored after all.
    pub done: bool,
}

/// Entries that were gone from the middle before a sink had stored them: it was detached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Which sink.
    pub sink: String,
    /// The middle's queue.
    pub queue: String,
    /// The entries above this one...
    pub after: String,
    /// ... and up to this one.
    pub upto: String,
    /// How many they are, if both numbers are of one epoch; position markers count.
    pub entries: Option<u64>,
    /// A range within that was announced before, first and last entry: the store may have it.
    pub announced: Option<(String, String)>,
}

/// What a dead letter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeptKind {
    /// A row that the store refused.
    Row,
    /// An entry that does not decode.
    Entry,
}

impl DeadLetters {
    /// Keeps those of a sink in `folder`, which is made when it is first needed.
    #[must_use]
    pub fn new(folder: &Path, sink: &str) -> Self {
        Self { folder: folder.to_owned(), sink: sink.to_owned() }
    }

    /// Keeps one entry; on return it is on the medium.
    ///
    /// # Errors
    /// The folder or file cannot be written. Try again; the sink must not go on without it.
    pub fn keep_entry(&self, queue: QueueId, seq: Seq, entry: &[u8]) -> io::Result<PathBuf> {
        self.keep(&format!("{}.{queue}-{:016x}{ENTRY}", self.sink, seq.get()), entry)
    }

    /// Keeps one row; on return it is on the medium.
    ///
    /// # Errors
    /// As [`Self::keep_entry`].
    pub fn keep_row(&self, letter: &Letter) -> io::Result<PathBuf> {
        let bytes = serde_json::to_vec_pretty(letter).map_err(io::Error::other)?;
        self.keep(&format!("{}.{}{ROW}", self.sink, letter.token()), &bytes)
    }

    /// Removes the letter of a row that was stored after all, if it is there; after a power cut it
    /// may be back.
    ///
    /// # Errors
    /// It cannot be removed: sent again, the row still counts once.
    pub fn drop_letter(path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Keeps a gap; on return it is on the medium.
    ///
    /// # Errors
    /// As [`Self::keep_entry`].
    pub fn keep_gap(&self, queue: QueueId, after: Seq, gap: &Gap) -> io::Result<PathBuf> {
        let bytes = serde_json::to_vec_pretty(gap).map_err(io::Error::other)?;
        self.keep(&format!("{}.{queue}-{:016x}{GAP}", self.sink, after.get()), &bytes)
    }

    /// All gaps kept in a folder, in the order of their names; one that is not there has none.
    ///
    /// # Errors
    /// The folder cannot be listed, or a gap cannot be read.
    pub fn gaps(folder: &Path) -> io::Result<Vec<Gap>> {
        let listed = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed?,
        };
        let mut paths = Vec::new();
        for entry in listed {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.starts_with('.') && name.ends_with(GAP) {
                paths.push(path);
            }
        }
        paths.sort_unstable();
        let read =
            |path: PathBuf| serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other);
        paths.into_iter().map(read).collect()
    }

    fn keep(&self, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
        let path = self.folder.join(name);
        let unfinished = self.folder.join(format!(".{name}.tmp"));
        if fs::exists(self.folder.join(format!("{name}{DONE}")))? {
            return Ok(path);
        }
        make_folder(&self.folder)?;
        let mut file = fs::File::create(&unfinished)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        if let Err(error) = written {
            // Makes room at once where a full disk was the cause.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        fs::rename(&unfinished, &path)?;
        fs::File::open(&self.folder)?.sync_all()?;
        Ok(path)
    }

    /// All dead letters of a folder, in the order of their names; one that is not there is empty.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn list(folder: &Path) -> io::Result<Vec<Kept>> {
        let listed = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed?,
        };
        let mut found = Vec::new();
        for entry in listed {
            let entry = entry?;
            let Ok(file) = entry.file_name().into_string() else { continue };
            if file.starts_with('.') {
                continue;
            }
            let (stem, done) = match file.strip_suffix(DONE) {
                Some(stem) => (stem, true),
                None => (file.as_str(), false),
            };
            for (suffix, kind) in [(ROW, KeptKind::Row), (ENTRY, KeptKind::Entry)] {
                if let Some(name) = stem.strip_suffix(suffix) {
                    let (path, name) = (entry.path(), name.to_owned());
                    found.push(Kept { path, name, kind, done });
                }
            }
        }
        found.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        Ok(found)
    }
}

impl Kept {
    /// The refused row.
    ///
    /// # Errors
    /// It cannot be read, or is no letter.
    pub fn letter(&self) -> io::Result<Letter> {
        serde_json::from_slice(&fs::read(&self.path)?).map_err(io::Error::other)
    }

    /// Notes that it was stored after all, on the medium.
    ///
    /// # Errors
    /// It cannot be renamed: it stays as it is, and may be sent again.
    pub fn mark_done(&self) -> io::Result<()> {
        let mut done = self.path.clone().into_os_string();
        done.push(DONE);
        fs::rename(&self.path, done)?;
        match self.path.parent() {
            Some(folder) => fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_kept_twice_is_kept_once_and_not_again_once_it_is_done() {
        let folder = tempfile::tempdir().expect("temp dir");
        let folder = folder.path().join("dead");
        let letters = DeadLetters::new(&folder, "lake");
        let keep = || letters.keep_entry(QueueId::new(1), Seq::from_parts(1, 9), b"not an entry");
        assert!(DeadLetters::list(&folder).expect("no folder is no letter").is_empty());
        assert_eq!(keep().expect("kept"), keep().expect("kept again"));
        let kept = DeadLetters::list(&folder).expect("folder");
        assert_eq!((kept.len(), kept[0].kind, kept[0].done), (1, KeptKind::Entry, false));
        kept[0].mark_done().expect("marked");
        keep().expect("kept before");
        let kept = DeadLetters::list(&folder).expect("folder");
        assert_eq!((kept.len(), kept[0].done), (1, true));
    }
}
