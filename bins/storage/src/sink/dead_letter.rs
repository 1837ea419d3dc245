//! Entries that no sink can make rows of, kept whole so that nothing is dropped in silence.
//!
//! The middle took them as canonical entries, so one that does not decode is damage or the work of
//! a later release: an alarm, and worth keeping. One file an entry, named by queue and number: a
//! replay writes the same file again. It is synced before the cursor may pass it.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use forebay_wire::{QueueId, Seq};

/// A folder of dead letters.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    folder: PathBuf,
}

impl DeadLetters {
    /// Keeps them in `folder`, which is made when it is first needed.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Keeps one entry; on return it is on the medium.
    ///
    /// # Errors
    /// The folder or file cannot be written. Try again; the sink must not go on without it.
    pub fn keep(&self, queue: QueueId, seq: Seq, entry: &[u8]) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.folder)?;
        let path = self.folder.join(format!("{queue}-{:016x}.entry", seq.get()));
        let unfinished = path.with_extension("entry.tmp");
        let mut file = fs::File::create(&unfinished)?;
        file.write_all(entry)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        fs::File::open(&self.folder)?.sync_all()?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_kept_twice_is_kept_once() {
        let folder = tempfile::tempdir().expect("temp dir");
        let letters = DeadLetters::new(&folder.path().join("dead"));
        let keep = || letters.keep(QueueId::new(1), Seq::from_parts(1, 9), b"not an entry");
        assert_eq!(keep().expect("kept"), keep().expect("kept again"));
        let kept: Vec<_> = fs::read_dir(folder.path().join("dead")).expect("folder").collect();
        assert_eq!(kept.len(), 1);
    }
}
