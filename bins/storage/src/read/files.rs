//! Which files of the lake a query has to open.
//!
//! A row's time may lie anywhere before its hour of receipt (a device that was offline) and a
//! little after it (a device whose clock is ahead), so the folder says little about it. The footers
//! do: the bounds of each file are read once and remembered, and of each hour that a query has
//! looked at the bounds of all its files, so that a year of hours is passed over without a listing.
//! What is remembered is bounded; forgetting costs time, never an answer.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Columns, Filter, ReadError, scan};
use crate::{
    lake::{
        file,
        gate::{Gate, Lease},
        name::{FileName, Hour, in_force},
    },
    rows::RowView,
};

/// Files whose bounds are remembered: about 2 MB, and three days of a file every 15 s.
const REMEMBERED_MAX: usize = 16_384;

/// How often an hour is listed because files of the listing before are gone. Another process
/// compacts an hour once in a quarter of an hour at most.
pub(super) const LISTINGS_MAX: usize = 8;

/// The earliest and latest time of rows, both included; `None` of a file without rows.
type Bounds = Option<(i64, i64)>;

/// A file of the lake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LakeFile {
    /// Its hour.
    pub hour: Hour,
    /// Its name.
    pub name: FileName,
    /// Where it was when it was listed.
    pub path: PathBuf,
    /// Keeps it on disk while this is held, though its hour is compacted meanwhile.
    lease: Lease,
}

/// The files of one lake.
#[derive(Debug)]
pub struct LakeFiles {
    gate: Arc<Gate>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Hours with a folder, and the bounds of all their rows once they were looked at.
    hours: BTreeMap<Hour, Option<Bounds>>,
    files: HashMap<(Hour, FileName), Bounds>,
    /// How often a file was published: bounds gathered meanwhile may lack it.
    publications: u64,
}

impl LakeFiles {
    /// Opens a lake for reading; one that does not exist yet is empty.
    ///
    /// # Errors
    /// [`ReadError::Io`]: its folders cannot be listed.
    pub fn open(root: &Path) -> Result<Self, ReadError> {
        let hours = file::hours(root).map_err(|error| ReadError::io(root, error))?;
        let hours = hours.into_iter().map(|(hour, _)| (hour, None)).collect();
        let known = Mutex::new(Known { hours, ..Known::default() });
        Ok(Self { gate: Arc::new(Gate::new(root)), known })
    }

    /// Where the lake is.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.gate.root()
    }

    /// What those who change the lake must go through, so that no query loses a file.
    #[must_use]
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Calls `each` for every row of a listed file that the filter wants; says `false`, with none
    /// handed out, if the file is gone: it was dropped, or another process compacted its hour.
    ///
    /// # Errors
    /// As [`scan::scan`].
    pub fn scan(
        &self,
        file: &LakeFile,
        filter: &Filter,
        columns: Columns,
        each: &mut dyn FnMut(RowView<'_>),
    ) -> Result<bool, ReadError> {
        let mut scan = |path: &Path| match scan::scan(path, filter, columns, each) {
            Err(error) if error.is_not_found() => Ok(false),
            scanned => scanned.map(|()| true),
        };
        if scan(&file.path)? {
            return Ok(true);
        }
        // Its hour was compacted by this process, and it waits for us where the old files are?
        self.gate.retired_path(file.hour, &file.name).map_or(Ok(false), |path| scan(&path))
    }

    /// Told after a file was put in place.
    pub fn published(&self, hour: Hour) {
        let mut known = self.known();
        known.publications += 1;
        known.hours.insert(hour, None);
    }

    /// Told after an hour was dropped, or was found gone.
    pub fn forget(&self, hour: Hour) {
        {
            let mut known = self.known();
            known.publications += 1;
            known.hours.remove(&hour);
            known.files.retain(|(of, _), _| *of != hour);
        }
        // Rows may have come for it meanwhile, and been published before it was forgotten.
        if self.root().join(hour.folder()).is_dir() {
            self.published(hour);
        }
    }

    /// The latest hour that has a folder.
    #[must_use]
    pub fn latest_hour(&self) -> Option<Hour> {
        self.known().hours.last_key_value().map(|(&hour, _)| hour)
    }

    /// The files that can hold a row the filter wants, hour by hour, in the order of their names.
    ///
    /// # Errors
    /// [`ReadError`]: a folder or a footer cannot be read.
    pub fn wanted(&self, filter: &Filter) -> Result<Vec<LakeFile>, ReadError> {
        let hours: Vec<(Hour, Option<Bounds>)> =
            self.known().hours.iter().map(|(&hour, &bounds)| (hour, bounds)).collect();
        let mut wanted = Vec::new();
        for (hour, bounds) in hours {
            match bounds {
                Some(bounds) if !meets(filter, bounds) => {}
                // Without bounds in the filter no footer needs to be read.
                _ if filter.bounds().is_none() => wanted.extend(self.list(hour)?),
                _ => self.wanted_of_hour(hour, filter, &mut wanted)?,
            }
        }
        Ok(wanted)
    }

    fn wanted_of_hour(
        &self,
        hour: Hour,
        filter: &Filter,
        wanted: &mut Vec<LakeFile>,
    ) -> Result<(), ReadError> {
        'listing: for _ in 0..LISTINGS_MAX {
            let publications = self.known().publications;
            let (mut all, mut found): (Bounds, _) = (None, Vec::new());
            let listed = self.list(hour)?;
            let is_empty = listed.is_empty();
            for file in listed {
                // Another process has compacted the hour since, or dropped it: that is no reason to
                // take it for empty.
                let Some(bounds) = self.bounds(&file)? else { continue 'listing };
                if let Some((low, high)) = bounds {
                    let (lowest, highest) = all.unwrap_or((low, high));
                    all = Some((lowest.min(low), highest.max(high)));
                }
                if meets(filter, bounds) {
                    found.push(file);
                }
            }
            wanted.append(&mut found);
            // A file published between the listing and here must not be hidden by bounds without
            // it, nor what another process may yet put into an hour without files.
            let mut known = self.known();
            if known.publications == publications && !is_empty {
                known.hours.insert(hour, Some(all));
            }
            return Ok(());
        }
        Err(self.changing(hour))
    }

    /// Why an hour was given up after [`LISTINGS_MAX`] listings.
    pub(super) fn changing(&self, hour: Hour) -> ReadError {
        let error = io::Error::other("its files are gone whenever they were listed");
        ReadError::io(&self.root().join(hour.folder()), error)
    }

    /// The finished files of an hour, in the order of their names, without those that another one
    /// supersedes.
    pub(super) fn list(&self, hour: Hour) -> Result<Vec<LakeFile>, ReadError> {
        // Before the listing: what is listed stays.
        let lease = self.gate.lease();
        let folder = self.root().join(hour.folder());
        let names = file::finished_names(&folder).map_err(|error| ReadError::io(&folder, error))?;
        let listed = in_force(&names).into_iter().map(|name| {
            let path = folder.join(name.to_string());
            LakeFile { hour, name, path, lease: lease.clone() }
        });
        Ok(listed.collect())
    }

    /// The bounds of a file; `None` if it is gone.
    fn bounds(&self, file: &LakeFile) -> Result<Option<Bounds>, ReadError> {
        let key = (file.hour, file.name);
        if let Some(&bounds) = self.known().files.get(&key) {
            return Ok(Some(bounds));
        }
        let open = |path: &Path| match scan::open(path) {
            Err(error) if error.is_not_found() => Ok(None),
            opened => opened.map(Some),
        };
        let mut opened = open(&file.path)?;
        if opened.is_none()
            && let Some(path) = self.gate.retired_path(file.hour, &file.name)
        {
            opened = open(&path)?;
        }
        let Some((_, metadata)) = opened else { return Ok(None) };
        let bounds = scan::time_bounds(metadata.metadata());
        let mut known = self.known();
        if known.files.len() >= REMEMBERED_MAX {
            known.files.clear();
        }
        known.files.insert(key, bounds);
        Ok(Some(bounds))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn meets(filter: &Filter, bounds: Bounds) -> bool {
    bounds.is_some_and(|bounds| filter.meets(bounds))
}
