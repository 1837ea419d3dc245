//! The thread that keeps a lake tidy: it compacts hours that are closed, and drops those too old.
//!
//! One process at a time cares for a lake: a lock on the file `.caretaker` says who. A process that
//! does not get it asks again at each look, so a second one on the same volume takes over when the
//! first is gone. What a process that died has left is swept by the next that gets the lock.
//!
//! Not here: how an hour is exchanged (`compact`).

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use forebay_ops::{Shutdown, thread};

use super::{
    compact::{CompactError, Compacted, Compactor, is_compact, sweep},
    file::{self, Finished, finished},
    merge::MergeError,
    name::{FileName, Hour},
};
use crate::{
    config::{Compaction, LakeRetention},
    read::LakeFiles,
};

/// Who cares for the lake holds a lock on this file in it.
const LOCK: &str = ".caretaker";
/// An hour that could not be changed is left alone for so long.
const RETRY_AFTER: Duration = Duration::from_secs(15 * 60);

/// What was done, and how the lake stands.
#[derive(Debug, Default)]
pub struct CareStatus {
    /// Hours replaced by a compacted one.
    pub compacted: AtomicU64,
    /// Files that these had.
    pub merged_files: AtomicU64,
    /// Tries that failed: to compact an hour, to drop one, to look at the lake or to tidy up.
    pub failures: AtomicU64,
    /// Hours dropped because they were too old, or the lake too large.
    pub dropped: AtomicU64,
    /// Bytes of their files.
    pub dropped_bytes: AtomicU64,
    /// Hours that hold files.
    pub hours: AtomicU64,
    /// Of these, closed ones with more than a file for a queue.
    pub waiting: AtomicU64,
    /// Bytes of all files.
    pub bytes: AtomicU64,
    /// Whether this process is who cares for the lake.
    pub holds: AtomicU64,
    /// How often it has looked, if only whether another process cares for the lake.
    pub looks: AtomicU64,
}

/// The running thread. It ends soon after this is dropped; [`Self::stop`] waits for it.
#[derive(Debug)]
pub struct Caretaker {
    end: Shutdown,
    status: Arc<CareStatus>,
    thread: Option<JoinHandle<()>>,
}

impl Caretaker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gave none.
    pub fn start(
        files: Arc<LakeFiles>,
        compaction: Compaction,
        retention: LakeRetention,
    ) -> io::Result<Self> {
        let (end, status) = (Shutdown::new(), Arc::new(CareStatus::default()));
        let compactor = Compactor::new(files.gate().clone());
        let (ended, shown) = (end.clone(), status.clone());
        let mut work = Care {
            files,
            compactor,
            compaction,
            retention,
            end: end.clone(),
            status: shown,
            hours: BTreeMap::new(),
            unsupported: false,
        };
        let thread = thread::spawn("lake-care", move || {
            let every = work.compaction.look_every.into();
            let mut lock = None;
            loop {
                if lock.is_none() {
                    lock = work.begin();
                }
                if lock.is_some() {
                    work.look();
                }
                work.status.looks.fetch_add(1, Ordering::Relaxed);
                if ended.wait_timeout(every) {
                    return;
                }
            }
        })?;
        Ok(Self { end, status, thread: Some(thread) })
    }

    /// What it has done.
    #[must_use]
    pub fn status(&self) -> Arc<CareStatus> {
        self.status.clone()
    }

    /// Lets it give up the hour it is at, and end; does not wait for it.
    pub fn begin_stop(&self) {
        self.end.begin("the lake's caretaker ends");
    }

    /// Gives up the hour it is at, and ends.
    pub fn stop(mut self) {
        self.begin_stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Caretaker {
    fn drop(&mut self) {
        self.begin_stop();
    }
}

/// What is known of an hour.
#[derive(Debug, Default, Clone, Copy)]
struct Known {
    bytes: u64,
    /// Nothing is to be done until something comes in.
    settled: bool,
    /// It is closed, and was not changed yet.
    waiting: bool,
    /// When its folder had changed last, as it was looked at.
    changed: Option<SystemTime>,
    /// When it may be compacted again after that failed.
    retry_at: Option<Instant>,
    /// When it may be dropped again after that failed.
    drop_again_at: Option<Instant>,
}

struct Care {
    files: Arc<LakeFiles>,
    compactor: Compactor,
    compaction: Compaction,
    retention: LakeRetention,
    end: Shutdown,
    status: Arc<CareStatus>,
    hours: BTreeMap<Hour, Known>,
    /// Folders cannot be exchanged here: hours stay as they are.
    unsupported: bool,
}

impl Care {
    /// Takes the lake into care, if nobody else has it, and sweeps.
    fn begin(&mut self) -> Option<File> {
        let root = self.files.root().to_owned();
        let begun = lock(&root).map(|lock| {
            let lock = lock?;
            match sweep(&root) {
                Ok(0) => {}
                Ok(swept) => {
                    tracing::info!(path = %root.display(), count = swept, "swept unfinished folders of the lake");
                }
                // It takes room, and is in the way of nothing else.
                Err(error) => {
                    self.status.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "an unfinished folder of the lake is left until the next start");
                }
            }
            self.hours.clear();
            Some(lock)
        });
        match begun {
            Ok(lock) => {
                self.status.holds.store(u64::from(lock.is_some()), Ordering::Relaxed);
                if lock.is_none() {
                    tracing::debug!(path = %root.display(), "another process cares for the lake");
                }
                lock
            }
            Err(error) => {
                self.status.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(path = %root.display(), %error, "cannot take the lake into care");
                None
            }
        }
    }

    /// One look at all hours that something may be due for.
    fn look(&mut self) {
        if let Err(error) = self.list() {
            self.status.failures.fetch_add(1, Ordering::Relaxed);
            let path = self.files.root().display();
            tracing::warn!(%path, %error, "cannot list the hours of the lake");
            return;
        }
        self.remove_unneeded();
        // Before anything is merged that is to be dropped.
        self.drop_old();
        let due: Vec<Hour> =
            self.hours.iter().filter(|(_, known)| !known.settled).map(|(&hour, _)| hour).collect();
        for hour in due {
            if self.end.is_draining() {
                return;
            }
            self.look_at(hour);
        }
        self.drop_beyond_bytes();
        self.remove_unneeded();
        self.show();
    }

    /// Learns which hours there are and which have changed, whoever did it: another process that
    /// writes into this lake, or somebody who removed a folder by hand.
    fn list(&mut self) -> io::Result<()> {
        let changed = self.files.gate().take_changed();
        let listed: BTreeMap<_, _> = file::hours(self.files.root())?.into_iter().collect();
        let gone: Vec<Hour> =
            self.hours.keys().filter(|hour| !listed.contains_key(hour)).copied().collect();
        for hour in gone {
            self.hours.remove(&hour);
            self.files.forget(hour);
            tracing::info!(%hour, "an hour of the lake is no longer there");
        }
        for (hour, folder) in listed {
            let known = self.hours.get(&hour);
            let seen = known.and_then(|known| known.changed);
            let by_another = known.is_none_or(|known| known.settled) && changed_at(&folder) != seen;
            if by_another {
                self.files.published(hour);
            }
            if by_another || changed.contains(&hour) {
                let known = self.hours.entry(hour).or_default();
                (known.settled, known.retry_at) = (false, None);
            }
        }
        Ok(())
    }

    fn look_at(&mut self, hour: Hour) {
        let folder = self.files.root().join(hour.folder());
        let known = self.hours.get(&hour);
        let later = known.and_then(|known| known.retry_at).is_some_and(|at| at > Instant::now());
        // Before the listing: what comes in between is seen at the next look.
        let changed = changed_at(&folder);
        let files = match finished(&folder) {
            Ok(files) => files,
            Err(_) if later => return,
            Err(error) => return self.failed(hour, &error),
        };
        let known = self.hours.entry(hour).or_default();
        known.bytes = files.iter().map(|file| file.bytes).sum();
        known.changed = changed;
        let names: Vec<FileName> = files.iter().map(|file| file.name).collect();
        let (closed, compact) = (self.compaction.is_closed(hour, &files), is_compact(&names));
        known.settled = closed && (compact || !self.compaction.enabled || self.unsupported);
        known.waiting = closed && !compact;
        if known.settled || !closed || later {
            return;
        }
        let (end, begun) = (self.end.clone(), Instant::now());
        match self.compactor.compact(hour, &|| end.is_draining()) {
            Ok(Compacted::Exchanged { files, merged }) => {
                self.status.compacted.fetch_add(1, Ordering::Relaxed);
                self.status.merged_files.fetch_add(files as u64, Ordering::Relaxed);
                tracing::info!(%hour, files, rows = merged.rows, repeated = merged.repeated,
                    took = ?begun.elapsed(), "compacted an hour of the lake");
                self.measure(hour);
            }
            Ok(Compacted::Already) => {}
            Ok(Compacted::Disturbed) => {
                tracing::debug!(%hour, "a file came in while its hour was compacted");
            }
            Err(CompactError::Merge(MergeError::Stopped)) => {}
            Err(error @ CompactError::Unsupported { .. }) => {
                self.unsupported = true;
                self.failed(hour, &error);
            }
            Err(error) => self.failed(hour, &error),
        }
    }

    fn measure(&mut self, hour: Hour) {
        let folder = self.files.root().join(hour.folder());
        let changed = changed_at(&folder);
        let bytes = finished(&folder).map(|files| files.iter().map(|file| file.bytes).sum());
        if let (Ok(bytes), Some(known)) = (bytes, self.hours.get_mut(&hour)) {
            *known = Known { bytes, settled: true, changed, ..Known::default() };
        }
    }

    fn failed(&mut self, hour: Hour, error: &dyn std::fmt::Display) {
        self.status.failures.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%hour, %error, "an hour of the lake stays as it is");
        if let Some(known) = self.hours.get_mut(&hour) {
            known.retry_at = Some(Instant::now() + RETRY_AFTER);
        }
    }

    /// Drops the hours that ended longer ago than rows are kept.
    fn drop_old(&mut self) {
        let kept: Duration = self.retention.drop_after.into();
        if kept.is_zero() {
            return;
        }
        let is_old = |hour: &Hour| now_us().saturating_sub(hour.end_us()) > micros(kept);
        for hour in self.hours.keys().copied().filter(is_old).collect::<Vec<_>>() {
            self.drop_hour(hour, "too old");
        }
    }

    /// Drops the oldest hours until what is left is not too much. The latest stays, whatever its
    /// size: rows come in for it. One that cannot be dropped is passed over.
    fn drop_beyond_bytes(&mut self) {
        let bytes_max = self.retention.bytes_max.get();
        if bytes_max == 0 {
            return;
        }
        let mut bytes: u64 = self.hours.values().map(|known| known.bytes).sum();
        let oldest: Vec<(Hour, u64)> =
            self.hours.iter().map(|(&hour, known)| (hour, known.bytes)).collect();
        for &(hour, of_hour) in oldest.split_last().map_or(&[][..], |(_, older)| older) {
            if bytes <= bytes_max {
                return;
            }
            if self.drop_hour(hour, "the lake is too large") {
                bytes -= of_hour;
            }
        }
    }

    /// Drops an hour; says whether it is gone.
    fn drop_hour(&mut self, hour: Hour, reason: &str) -> bool {
        let again_at = self.hours.get(&hour).and_then(|known| known.drop_again_at);
        if again_at.is_some_and(|at| at > Instant::now()) {
            return false;
        }
        let folder = self.files.root().join(hour.folder());
        let dropped = finished(&folder).map_err(|error| error.to_string()).and_then(|files| {
            let dropped = self.compactor.drop_hour(hour).map_err(|error| error.to_string())?;
            Ok((dropped, files.iter().map(|file| file.bytes).sum::<u64>()))
        });
        match dropped {
            Ok((dropped, bytes)) => {
                self.hours.remove(&hour);
                self.files.forget(hour);
                if dropped {
                    self.status.dropped.fetch_add(1, Ordering::Relaxed);
                    self.status.dropped_bytes.fetch_add(bytes, Ordering::Relaxed);
                    tracing::info!(%hour, bytes, reason, "dropped an hour of the lake");
                }
                true
            }
            Err(error) => {
                self.status.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%hour, %error, reason, "an hour of the lake is not dropped");
                if let Some(known) = self.hours.get_mut(&hour) {
                    known.drop_again_at = Some(Instant::now() + RETRY_AFTER);
                }
                false
            }
        }
    }

    fn remove_unneeded(&mut self) {
        if let Err(error) = self.compactor.remove_unneeded() {
            self.status.failures.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%error, "old files of the lake are left until the next start");
        }
    }

    fn show(&self) {
        let waiting = self.hours.values().filter(|known| known.waiting).count();
        let bytes = self.hours.values().map(|known| known.bytes).sum();
        self.status.hours.store(self.hours.len() as u64, Ordering::Relaxed);
        self.status.waiting.store(waiting as u64, Ordering::Relaxed);
        self.status.bytes.store(bytes, Ordering::Relaxed);
    }
}

impl Compaction {
    /// Whether no more files are expected in an hour: it is over, and so is the time since its last
    /// file.
    fn is_closed(&self, hour: Hour, files: &[Finished]) -> bool {
        let after: Duration = self.after.into();
        let over = now_us().saturating_sub(hour.end_us()) >= micros(after);
        let quiet = |file: &Finished| {
            // A clock that was set back makes a file young: it waits.
            file.written.elapsed().is_ok_and(|age| age >= after)
        };
        over && files.iter().all(quiet)
    }
}

/// When something was last put into a folder or taken out of it.
fn changed_at(folder: &Path) -> Option<SystemTime> {
    folder.metadata().and_then(|folder| folder.modified()).ok()
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

fn now_us() -> i64 {
    micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The lock of a lake; `None` if another process has it.
fn lock(root: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(root.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
