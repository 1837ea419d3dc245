//! The last values on disk: what a restart needs not read again.
//!
//! Lines of JSON: a head with the version and the positions, a value a line, a line for each device
//! that was heard later than its values tell, and a last line with the counts of both. Written under
//! another name, synced and renamed, so that there is always a whole one. Losing it costs a longer
//! start: the values are made again from the lake and the feed.

use std::{
    collections::BTreeMap,
    fs, io,
    io::{BufRead as _, Write as _},
    path::Path,
};

use forebay_ops::make_folder;
use forebay_wire::live::{LastValue, Position};
use serde::{Deserialize, Serialize};

/// Version of the form. One line of history each:
/// - 1: the first.
/// - 2: when devices were heard, where their values do not tell.
const VERSION: u32 = 2;

/// The last values of one moment, and what they include.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// By the middle's name in the configuration: all entries up to here are in the values.
    pub positions: BTreeMap<String, Position>,
    /// The values.
    pub values: Vec<LastValue<'static>>,
    /// Devices of which a reading was received after all of those in `values`: it was older by its
    /// own time.
    pub heard: Vec<Heard>,
}

/// When a device was heard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heard {
    /// Whose device it is.
    pub tenant: String,
    /// Which.
    pub device: String,
    /// When a front received the latest of its readings, in microseconds since 1970.
    pub received_us: i64,
}

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// It cannot be read or written.
    #[error("snapshot {path}: {error}")]
    Io {
        /// Which.
        path: String,
        /// What the system said.
        error: io::Error,
    },
    /// It is not a whole snapshot of a version this release reads. Start without it.
    #[error("snapshot {path} is of no use: {reason}")]
    Damaged {
        /// Which.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    positions: BTreeMap<String, Position>,
}

#[derive(Serialize, Deserialize)]
struct Foot {
    values: usize,
    #[serde(default)]
    heard: usize,
}

impl Snapshot {
    /// Writes it in place of an older one; on return it is on the medium.
    ///
    /// # Errors
    /// [`SnapshotError::Io`]: the older one is still there.
    pub fn write(&self, path: &Path) -> Result<(), SnapshotError> {
        self.try_write(path)
            .map_err(|error| SnapshotError::Io { path: path.display().to_string(), error })
    }

    fn try_write(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        make_folder(folder)?;
        let unfinished = path.with_extension("tmp");
        let mut file = io::BufWriter::new(fs::File::create(&unfinished)?);
        let mut line = |value: &dyn Fn(&mut dyn io::Write) -> serde_json::Result<()>| {
            value(&mut file)?;
            file.write_all(b"\n")
        };
        let head = Head { version: VERSION, positions: self.positions.clone() };
        line(&|file| serde_json::to_writer(file, &head))?;
        for value in &self.values {
            line(&|file| serde_json::to_writer(file, value))?;
        }
        for heard in &self.heard {
            line(&|file| serde_json::to_writer(file, heard))?;
        }
        let foot = Foot { values: self.values.len(), heard: self.heard.len() };
        line(&|file| serde_json::to_writer(file, &foot))?;
        file.into_inner()?.sync_all()?;
        fs::rename(&unfinished, path)?;
        fs::File::open(folder)?.sync_all()
    }

    /// Reads a snapshot; `None` if there is none.
    ///
    /// # Errors
    /// [`SnapshotError`]: say so, and start without it.
    pub fn read(path: &Path) -> Result<Option<Self>, SnapshotError> {
        let shown = || path.display().to_string();
        let file = match fs::File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| SnapshotError::Io { path: shown(), error })?,
        };
        let damaged = |reason: String| SnapshotError::Damaged { path: shown(), reason };
        let mut lines = io::BufReader::new(file).lines();
        let mut next = || match lines.next() {
            Some(Ok(line)) => Ok(line),
            // A character cut in two.
            Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Err(damaged(error.to_string()))
            }
            Some(Err(error)) => Err(SnapshotError::Io { path: shown(), error }),
            None => Err(damaged("it ends early".to_owned())),
        };
        let head: Head =
            serde_json::from_str(&next()?).map_err(|error| damaged(error.to_string()))?;
        if !(1..=VERSION).contains(&head.version) {
            return Err(damaged(format!("it has version {}", head.version)));
        }
        let (mut values, mut heard) = (Vec::new(), Vec::new());
        loop {
            let line = next()?;
            let error = match serde_json::from_str::<LastValue<'static>>(&line) {
                Ok(value) => {
                    values.push(value);
                    continue;
                }
                Err(error) => error,
            };
            if let Ok(found) = serde_json::from_str::<Heard>(&line) {
                heard.push(found);
                continue;
            }
            match serde_json::from_str::<Foot>(&line) {
                Ok(foot) if (foot.values, foot.heard) == (values.len(), heard.len()) => break,
                Ok(foot) => {
                    let found = (values.len(), heard.len());
                    let wanted = (foot.values, foot.heard);
                    return Err(damaged(format!("it has {found:?} of {wanted:?} lines")));
                }
                Err(_) => return Err(damaged(error.to_string())),
            }
        }
        Ok(Some(Self { positions: head.positions, values, heard }))
    }
}
