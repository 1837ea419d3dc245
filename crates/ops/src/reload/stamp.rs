//! What tells that a file was changed or replaced, without reading it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::ReloadError;

/// A file changed so short ago may change again without a sign: clocks of file systems tick
/// between every 10 ms and every 2 s.
const YOUNG: Duration = Duration::from_secs(3);

/// The outside of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    young: bool,
}

/// The stamps of all files, through symbolic links.
pub(super) fn of_all(files: &[PathBuf]) -> Result<Vec<Stamp>, ReloadError> {
    let of = |path: &PathBuf| {
        let found = std::fs::metadata(path)
            .map_err(|error| ReloadError::Read { path: path.clone(), error })?;
        let age =
            found.modified().ok().and_then(|then| SystemTime::now().duration_since(then).ok());
        Ok(Stamp {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            young: age.is_some_and(|age| age < YOUNG),
        })
    };
    files.iter().map(of).collect()
}

/// Whether what was read under `old` is surely what is there under `new`.
pub(super) fn are_same(old: &[Stamp], new: &[Stamp]) -> bool {
    let same = |(old, new): (&Stamp, &Stamp)| !old.young && *old == Stamp { young: false, ..*new };
    old.len() == new.len() && old.iter().zip(new).all(same)
}

/// A hash of the contents, to tell a changed file from one that was only touched.
pub(super) fn content(contents: &[Vec<u8>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    contents.hash(&mut hasher);
    hasher.finish()
}
