//! Which files of the lake a query has to open.
//!
//! A row's time may lie anywhere before its hour of receipt (a device that was offline) and a
//! little after it (a device whose clock is ahead), so the folder says little about it. The footers
//! do: the bounds of each file are read once and remembered, and of each hour that a query has
//! looked at the bounds of all its files, so that a year of hours is passed over without a listing.
//! What is remembered is bounded; forgetting costs time, never an answer.

use std::{
    collections::{BTreeMap, HashMap},
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

    /// Calls `each` for every row of a listed file that the filter wants; none of a file that was
    /// dropped since.
    ///
    /// # Errors
    /// As [`scan::scan`].
    pub fn scan(
        &self,
        file: &LakeFile,
        filter: &Filter,
        columns: Columns,
        each: &mut dyn FnMut(RowView<'_>),
    ) -> Result<(), ReadError> {
        // Not there any more: its hour was compacted, and it waits for us where the old files are.
        // Otherwise it was taken away by hand or by retention: no longer stored.
        match scan::scan(&file.path, filter, columns, each) {
            Err(error) if error.is_not_found() => {}
            scanned => return scanned,
        }
        let Some(path) = self.gate.retired_path(file.hour, &file.name) else { return Ok(()) };
        match scan::scan(&path, filter, columns, each) {
            Err(error) if error.is_not_found() => Ok(()),
            scanned => scanned,
        }
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
        let publications = self.known().publications;
        let mut all: Bounds = None;
        for file in self.list(hour)? {
            let bounds = self.bounds(&file)?;
            if let Some((low, high)) = bounds {
                let (lowest, highest) = all.unwrap_or((low, high));
                all = Some((lowest.min(low), highest.max(high)));
            }
            if meets(filter, bounds) {
                wanted.push(file);
            }
        }
        // A file published between the listing and here must not be hidden by bounds without it.
        let mut known = self.known();
        if known.publications == publications {
            known.hours.insert(hour, Some(all));
        }
        Ok(())
    }

    /// The finished files of an hour, in the order of their names, without those that another one
    /// supersedes.
    fn list(&self, hour: Hour) -> Result<Vec<LakeFile>, ReadError> {
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

    fn bounds(&self, file: &LakeFile) -> Result<Bounds, ReadError> {
        let key = (file.hour, file.name);
        if let Some(&bounds) = self.known().files.get(&key) {
            return Ok(bounds);
        }
        let opened = match scan::open(&file.path) {
            Err(error) if error.is_not_found() => {
                let Some(path) = self.gate.retired_path(file.hour, &file.name) else {
                    return Ok(None);
                };
                scan::open(&path)
            }
            opened => opened,
        };
        let bounds = scan::time_bounds(opened?.1.metadata());
        let mut known = self.known();
        if known.files.len() >= REMEMBERED_MAX {
            known.files.clear();
        }
        known.files.insert(key, bounds);
        Ok(bounds)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn meets(filter: &Filter, bounds: Bounds) -> bool {
    bounds.is_some_and(|bounds| filter.meets(bounds))
}
