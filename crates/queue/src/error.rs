//! What can go wrong, sorted by what the caller must do: push back, give up the entry, or stop.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::Seq;

/// Shorthand for a result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call on a queue failed.
///
/// ```
/// use forebay_queue::{Error, Options, Queue};
/// # let dir = tempfile::tempdir().unwrap();
/// let options = Options { any_filesystem: true, ..Options::default() };
/// match Queue::open(dir.path(), &options) {
///     Err(Error::Missing { path }) => println!("no queue at {}", path.display()),
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing was appended. Push back and try again: room comes when the slowest reader commits.
    #[error("queue is full: {used_bytes} of {limit_bytes} bytes used, {needed_bytes} needed")]
    Full {
        /// Bytes between the reclaimed position and the end.
        used_bytes: u64,
        /// The ring's capacity.
        limit_bytes: u64,
        /// What this append would have taken, padding included.
        needed_bytes: u64,
    },
    /// Nothing was appended, and never will be. Reject the entry.
    #[error("entry is too large: {bytes} bytes, at most {limit_bytes}")]
    TooLarge {
        /// Payload bytes of the entry, or bytes of the whole batch.
        bytes: u64,
        /// What would have been accepted.
        limit_bytes: u64,
    },
    /// Another process or handle holds the queue. Stop it first, or use the read-only tools.
    #[error("queue is locked by another process: {path}")]
    Locked {
        /// The ring file.
        path: PathBuf,
    },
    /// There is no queue here. Create one.
    #[error("no queue: {path}")]
    Missing {
        /// The ring file that was looked for.
        path: PathBuf,
    },
    /// There is a queue already. Open it.
    #[error("queue exists already: {path}")]
    Exists {
        /// The ring file that was found.
        path: PathBuf,
    },
    /// The queue was not made, because the owner called it off, and nothing of it is left. End.
    #[error("making the queue was called off: {path}")]
    CalledOff {
        /// The ring file that there would have been.
        path: PathBuf,
    },
    /// The file is not a queue that this version can use; nothing in it was touched.
    #[error("{path} is not usable: {reason}")]
    Unsupported {
        /// The ring file.
        path: PathBuf,
        /// What was found, and what was expected.
        reason: String,
    },
    /// The directory lies on a file system that cannot keep the promise; see
    /// [`Options::any_filesystem`](crate::Options::any_filesystem).
    #[error("{path} is on {filesystem}, which cannot promise durability: use ext4 or xfs")]
    Filesystem {
        /// The directory.
        path: PathBuf,
        /// The name of the file system, or its magic number.
        filesystem: String,
    },
    /// Stored bytes are damaged below the durable mark, and no intact copy is left.
    #[error("{path} is corrupt at byte {offset_bytes}: {reason}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset_bytes: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The options contradict each other or the queue. Mend the configuration.
    #[error("invalid option {option}: {reason}")]
    Options {
        /// The field of [`Options`](crate::Options).
        option: &'static str,
        /// Why it cannot be.
        reason: String,
    },
    /// A system call failed. After a failed sync every later call gives the same error: end the
    /// process, recovery decides what is stored.
    #[error("{action} failed on {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The deadline passed first; nothing is decided. Wait again or give up.
    #[error("seq {seq} was not durable in time")]
    Timeout {
        /// What was waited for.
        seq: Seq,
    },
    /// The seq has not been given to an entry that readers may see.
    #[error("seq {seq} lies beyond the end {end}")]
    Beyond {
        /// What was asked for.
        seq: Seq,
        /// The last seq that there is.
        end: Seq,
    },
    /// The reader's name, its note, or the number of readers breaks a limit.
    #[error("reader {name:?}: {reason}")]
    Reader {
        /// The name of the reader.
        name: String,
        /// Which limit.
        reason: &'static str,
    },
    /// The queue was closed by [`Queue::close`](crate::Queue::close).
    #[error("queue is closed")]
    Closed,
}

impl Error {
    /// An I/O error with its place.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Error::Io { action, path: path.into(), source: Arc::new(source) }
    }

    /// Whether the same call may succeed later without anybody mending anything.
    ///
    /// ```
    /// use forebay_queue::Error;
    /// assert!(Error::Full { used_bytes: 9, limit_bytes: 9, needed_bytes: 1 }.is_temporary());
    /// assert!(!Error::Closed.is_temporary());
    /// ```
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Error::Full { .. } | Error::Timeout { .. })
    }
}
