//! A file of the lake appears whole or not at all, and stays after a power cut once it is there.
//!
//! The order is: write a name that readers pass over, sync it, rename it, sync its folder. A
//! Parquet footer is written last, so a torn file would be worth nothing; it never has a name that
//! counts. Renaming over an equal file of an earlier try is harmless.
//!
//! Not here: what the bytes are (`encode`) and which name they have (`name`).

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use forebay_ops::make_folder;

use super::name::{FileName, Hour, SUFFIX_UNFINISHED};

/// The moments of a write at which a process may die; tests stop it at each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The folder of the hour is there, and its name is on the medium.
    FolderMade,
    /// The unfinished file is there, empty.
    Created,
    /// About half of the bytes are in it.
    HalfWritten,
    /// All bytes are in it.
    Written,
    /// All bytes are on the medium.
    Synced,
    /// It has its name.
    Renamed,
    /// Its name is on the medium.
    FolderSynced,
}

impl Step {
    /// All steps in their order.
    pub const ALL: [Self; 7] = [
        Self::FolderMade,
        Self::Created,
        Self::HalfWritten,
        Self::Written,
        Self::Synced,
        Self::Renamed,
        Self::FolderSynced,
    ];
}

/// Called after each step; a test panics in it, which ends the write there as death would.
pub type Observer = Arc<dyn Fn(Step) + Send + Sync>;

/// Makes the folder of an hour, and puts its name on the medium.
///
/// Every folder above it is synced too: do it once for an hour, not for each of its files.
///
/// # Errors
/// As [`make_folder`]: nothing in the folder is safe yet.
pub fn make_hour(root: &Path, hour: Hour, observer: &Observer) -> io::Result<()> {
    make_folder(&root.join(hour.folder()))?;
    observer(Step::FolderMade);
    Ok(())
}

/// Writes one file of the lake into a folder that [`make_hour`] has made.
///
/// On return the file is on the medium under its name.
///
/// # Errors
/// Any of the system calls: what is left is an unfinished file that nobody reads and the next
/// start sweeps. Try again with the same bytes.
pub fn write(folder: &Path, name: &str, bytes: &[u8], observer: &Observer) -> io::Result<PathBuf> {
    // The leading dot hides it from every tool; the random part keeps two processes apart that
    // both believe they own the lake, until the middle has fenced one.
    let unfinished =
        folder.join(format!(".{name}.{:016x}{SUFFIX_UNFINISHED}", rand::random::<u64>()));
    let written = write_unfinished(&unfinished, bytes, observer);
    if let Err(error) = written {
        // Makes room at once where a full disk was the cause; a sweep would come only at a start.
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    let path = folder.join(name);
    fs::rename(&unfinished, &path)?;
    observer(Step::Renamed);
    sync_folder(folder)?;
    observer(Step::FolderSynced);
    Ok(path)
}

fn write_unfinished(path: &Path, bytes: &[u8], observer: &Observer) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    observer(Step::Created);
    let (front, back) = bytes.split_at(bytes.len() / 2);
    file.write_all(front)?;
    observer(Step::HalfWritten);
    file.write_all(back)?;
    observer(Step::Written);
    file.sync_all()?;
    observer(Step::Synced);
    Ok(())
}

/// Puts the names in a folder on the medium.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

/// Removes what writes that never ended have left behind, and returns how many there were.
///
/// # Errors
/// The lake's folder cannot be listed, or a file not be removed.
pub fn sweep(root: &Path) -> io::Result<usize> {
    let mut swept = 0;
    for (_, folder) in hours(root)? {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file() && is_unfinished(&entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path())?;
                swept += 1;
            }
        }
    }
    Ok(swept)
}

/// Whether a name is one of [`write`]'s; anybody may have others with a dot.
fn is_unfinished(name: &str) -> bool {
    let name = name.strip_prefix('.').and_then(|name| name.strip_suffix(SUFFIX_UNFINISHED));
    let name = name.and_then(|name| name.rsplit_once('.'));
    name.is_some_and(|(name, _)| FileName::parse(name).is_some())
}

/// A finished file in the folder of an hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its name.
    pub name: FileName,
    /// Its length.
    pub bytes: u64,
    /// When it was written.
    pub written: SystemTime,
}

/// The finished files of a folder, by name; one that is not there has none.
///
/// # Errors
/// The folder cannot be listed.
pub fn finished(folder: &Path) -> io::Result<Vec<Finished>> {
    let mut files = Vec::new();
    for name in finished_names(folder)? {
        match fs::metadata(folder.join(name.to_string())) {
            Ok(file) => {
                files.push(Finished { name, bytes: file.len(), written: file.modified()? });
            }
            // Exchanged between the listing and now: whoever decides by it looks again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

/// The names of the finished files of a folder, in order; one that is not there has none.
///
/// # Errors
/// The folder cannot be listed.
pub fn finished_names(folder: &Path) -> io::Result<Vec<FileName>> {
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut names = Vec::new();
    for entry in listed {
        names.extend(entry?.file_name().to_str().and_then(FileName::parse));
    }
    names.sort_unstable();
    Ok(names)
}

/// The hours that have a folder, in their order.
///
/// # Errors
/// The lake's folder cannot be listed. A lake that does not exist yet has no hours.
pub fn hours(root: &Path) -> io::Result<Vec<(Hour, PathBuf)>> {
    let mut found = Vec::new();
    for (day, day_path) in folders(root)? {
        if !day.starts_with("dt=") {
            continue;
        }
        for (name, path) in folders(&day_path)? {
            if let Some(hour) = Hour::from_folders(&day, &name) {
                found.push((hour, path));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn folders(root: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let listed = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut found = Vec::new();
    for entry in listed {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}
