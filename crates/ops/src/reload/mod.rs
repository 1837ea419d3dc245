//! Files that are followed while the process runs: certificates, keys, registries.
//!
//! A [`Watched`] holds what a set of files says. It looks at them every [`EVERY`], on a thread of
//! its own: if size, time or inode of any has changed, all are read again and parsed. What cannot
//! be read or parsed changes nothing: the last good version stays, the log says why (WARN), and
//! `forebay_reload_refused_total` counts it. So files may be replaced one after the other: a
//! certificate without its key yet is refused, and taken once the key is there.
//!
//! Polling, not inotify: a mounted Kubernetes secret is a symbolic link that is swapped, and a
//! network file system tells nobody. Not here: directories, and files that may be missing.

mod stamp;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};

use crate::{Metrics, MetricsError};
use stamp::Stamp;

/// How often the files are looked at: a `stat` of each.
pub const EVERY: Duration = Duration::from_secs(2);
/// Longest file that is read: a registry of some million devices.
pub const FILE_BYTES_MAX: u64 = 256 << 20;

/// Why there is nothing to begin with. A later fault is logged and counted instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The files were read and say something wrong.
    #[error("{what}: {reason}")]
    Content {
        /// What they are, as given to [`Watched::open`].
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// A metric is registered already: two of the same name share a registry and its labels.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The system gave no thread.
    #[error("starting a thread: {0}")]
    Thread(io::Error),
}

type Parse<T> = dyn Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync;
type Hook<T> = Box<dyn Fn(&Arc<T>) + Send + Sync>;

/// What a set of files says, kept up to date. Clones share it; the last one to go ends the thread.
pub struct Watched<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

struct Shared<T> {
    what: String,
    files: Vec<PathBuf>,
    parse: Box<Parse<T>>,
    current: RwLock<Arc<T>>,
    generation: AtomicU64,
    hooks: Mutex<Vec<Hook<T>>>,
    seen: Mutex<Seen>,
    taken: IntCounter,
    refused: IntCounter,
    good: IntGauge,
    /// Dropped with the last handle, which ends the thread at once.
    _alive: Sender<()>,
}

/// The version that was looked at last, good or bad.
enum Seen {
    Read { stamps: Vec<Stamp>, content: u64 },
    Unreadable,
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Reads and parses `files`, and follows them from now on.
    ///
    /// `what` names them in the log and as the label `files` of the metrics: a word or two such as
    /// `uplink_tls`. `parse` gets their contents in the order of `files`, on the calling thread now
    /// and on the watching thread later; its error is logged, so it must hold no secret.
    ///
    /// # Errors
    /// [`ReloadError`]: nothing is followed.
    pub fn open<E: fmt::Display>(
        what: &str,
        files: Vec<PathBuf>,
        metrics: &Metrics,
        parse: impl Fn(&[Vec<u8>]) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, ReloadError> {
        Self::open_every(EVERY, what, files, metrics, parse)
    }

    /// As [`Watched::open`], looking at another pace.
    ///
    /// # Errors
    /// As for [`Watched::open`].
    pub fn open_every<E: fmt::Display>(
        every: Duration,
        what: &str,
        files: Vec<PathBuf>,
        metrics: &Metrics,
        parse: impl Fn(&[Vec<u8>]) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, ReloadError> {
        let parse: Box<Parse<T>> =
            Box::new(move |contents| parse(contents).map_err(|error| error.to_string()));
        let (stamps, contents) = read(&files)?;
        let first = parse(&contents)
            .map_err(|reason| ReloadError::Content { what: what.to_owned(), reason })?;
        let metrics = metrics.with_label("files", what);
        let taken = metrics.counter(
            "forebay_reload_taken_total",
            "New versions of watched files that were taken over.",
        )?;
        let refused = metrics.counter(
            "forebay_reload_refused_total",
            "New versions of watched files that were refused; the old one stays in use.",
        )?;
        let good = metrics.gauge(
            "forebay_reload_good",
            "1 if the watched files hold what is in use, 0 if they were refused.",
        )?;
        good.set(1);
        let (alive, ended) = mpsc::channel();
        let shared = Arc::new(Shared {
            what: what.to_owned(),
            files,
            parse,
            current: RwLock::new(Arc::new(first)),
            generation: AtomicU64::new(1),
            hooks: Mutex::default(),
            seen: Mutex::new(Seen::Read { stamps, content: stamp::content(&contents) }),
            taken,
            refused,
            good,
            _alive: alive,
        });
        let watched = Arc::downgrade(&shared);
        crate::thread::spawn("reload", move || {
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let Some(shared) = watched.upgrade() else { return };
                shared.look();
            }
        })
        .map_err(ReloadError::Thread)?;
        Ok(Self { shared })
    }

    /// The last good version.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.shared.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many good versions there were; the first is 1. One atomic load: keep what
    /// [`Watched::get`] gave beside it in a hot loop, and get again when it has changed.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Calls `hook` with each later version, after [`Watched::get`] gives it, on the thread that
    /// found it. The hook must be short.
    pub fn on_change(&self, hook: impl Fn(&Arc<T>) + Send + Sync + 'static) {
        lock(&self.shared.hooks).push(Box::new(hook));
    }

    /// Looks at the files now; whether a new version was taken over.
    pub fn look(&self) -> bool {
        self.shared.look()
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.shared.files
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let generation = self.shared.generation.load(Ordering::Relaxed);
        f.debug_struct("Watched")
            .field("what", &self.shared.what)
            .field("generation", &generation)
            .finish_non_exhaustive()
    }
}

impl<T> Shared<T> {
    fn look(&self) -> bool {
        let mut seen = lock(&self.seen);
        let now = stamp::of_all(&self.files);
        if let (Ok(now), Seen::Read { stamps, .. }) = (&now, &*seen)
            && stamp::are_same(stamps, now)
        {
            return false;
        }
        let parsed = match now.and_then(|_| read(&self.files)) {
            Ok((stamps, contents)) => {
                let new = stamp::content(&contents);
                let same = matches!(*seen, Seen::Read { content, .. } if content == new);
                *seen = Seen::Read { stamps, content: new };
                if same {
                    return false;
                }
                (self.parse)(&contents)
            }
            // Told once for as long as it lasts.
            Err(_) if matches!(*seen, Seen::Unreadable) => return false,
            Err(error) => {
                *seen = Seen::Unreadable;
                Err(error.to_string())
            }
        };
        match parsed {
            Ok(value) => {
                self.take(value);
                true
            }
            Err(reason) => {
                self.refused.inc();
                self.good.set(0);
                tracing::warn!(files = self.what, reason, "new version refused, the old one stays");
                false
            }
        }
    }

    fn take(&self, value: T) {
        let value = Arc::new(value);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&value);
        let generation = self.generation.fetch_add(1, Ordering::Release) + 1;
        self.taken.inc();
        self.good.set(1);
        tracing::info!(files = self.what, generation, "new version in use");
        for hook in lock(&self.hooks).iter() {
            hook(&value);
        }
    }
}

/// The contents of all files, and their stamps from before: if one of them is replaced meanwhile,
/// the next look finds it changed.
fn read(files: &[PathBuf]) -> Result<(Vec<Stamp>, Vec<Vec<u8>>), ReloadError> {
    let stamps = stamp::of_all(files)?;
    let contents = files.iter().map(|path| read_one(path)).collect::<Result<_, _>>()?;
    Ok((stamps, contents))
}

fn read_one(path: &Path) -> Result<Vec<u8>, ReloadError> {
    let failed = |error| ReloadError::Read { path: path.to_owned(), error };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        let reason = format!("{bytes} bytes, at most {FILE_BYTES_MAX} are read");
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, reason)));
    }
    std::fs::read(path).map_err(failed)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
