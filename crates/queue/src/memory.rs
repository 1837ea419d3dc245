//! Where the ring's bytes live: a mapping, or whatever a test puts in its place.
//!
//! Every load, store and sync of ring memory passes here. Without the feature `testing` the enum
//! has one variant, so the calls are the mapping's own, inlined.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use crate::map::Mapping;

/// Memory with a medium behind it: what a test implements to simulate a page cache.
///
/// A `view` must show what was stored last; `sync` must make a range survive the simulated power
/// cut, or fail. Calls come from several threads.
#[cfg(any(test, feature = "testing"))]
pub trait Backing: Send + Sync {
    /// Bytes of the block; constant.
    fn len_bytes(&self) -> usize;
    /// Copies `bytes` to `offset`.
    fn store(&self, offset: usize, bytes: &[u8]);
    /// Looks at a range that nobody stores to meanwhile.
    fn view(&self, offset: usize, len: usize) -> &[u8];
    /// Makes a range durable.
    ///
    /// # Errors
    /// Whatever the test wants the system to say.
    fn sync(&self, offset: usize, len: usize) -> io::Result<()>;
    /// Marks a range dirty, contents unchanged.
    fn redirty(&self, offset: usize, len: usize) {
        let bytes = self.view(offset, len).to_vec();
        self.store(offset, &bytes);
    }
    /// Keeps a copy of damaged bytes.
    fn quarantine(&self, name: &str, bytes: &[u8]) {
        let _ = (name, bytes);
    }
}

/// The ring's memory.
pub(crate) enum Memory {
    /// A file, mapped and locked, or a copy of one.
    Mapped {
        /// The bytes.
        map: Mapping,
        /// Keeps the lock; none for a copy.
        lock: Option<File>,
        /// The ring file, for errors and for the quarantine beside it.
        path: PathBuf,
    },
    /// A test's own.
    #[cfg(any(test, feature = "testing"))]
    Simulated(std::sync::Arc<dyn Backing>),
}

impl Memory {
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn len_bytes(&self) -> usize {
        match self {
            Memory::Mapped { map, .. } => map.len_bytes(),
            Memory::Simulated(backing) => backing.len_bytes(),
        }
    }

    #[inline]
    pub(crate) fn store(&self, offset: usize, bytes: &[u8]) {
        match self {
            Memory::Mapped { map, .. } => map.store(offset, bytes),
            #[cfg(any(test, feature = "testing"))]
            Memory::Simulated(backing) => backing.store(offset, bytes),
        }
    }

    #[inline]
    pub(crate) fn prefetch(&self, offset: usize, len: usize) {
        match self {
            Memory::Mapped { map, .. } => map.prefetch(offset, len),
            #[cfg(any(test, feature = "testing"))]
            Memory::Simulated(_) => {}
        }
    }

    #[inline]
    pub(crate) fn prefetch_view(&self, offset: usize, len: usize) {
        match self {
            Memory::Mapped { map, .. } => map.prefetch_view(offset, len),
            #[cfg(any(test, feature = "testing"))]
            Memory::Simulated(_) => {}
        }
    }

    #[inline]
    pub(crate) fn view(&self, offset: usize, len: usize) -> &[u8] {
        match self {
            Memory::Mapped { map, .. } => map.view(offset, len),
            #[cfg(any(test, feature = "testing"))]
            Memory::Simulated(backing) => backing.view(offset, len),
        }
    }

    pub(crate) fn sync(&self, offset: usize, len: usize) -> io::Result<()> {
        match self {
            Memory::Mapped { map, .. } => map.sync(offset, len),
            #[cfg(any(test, feature = "testing"))]
            Memory::Simulated(backing) => backing.sync(offset, len),
        }
    }

    pub(crate) fn redirty(&self, offset: usize, len: usize) {
        match self {
            Memory::Mapped { map, .. } => map.redirty(offset, len),
            #[cfg(any(test, feature = "testing"))]
            Memory::Simulated(backing) => backing.redirty(offset, len),
        }
    }

    pub(crate) fn populate(&self, offset: usize, len: usize) {
        match self {
            Memory::Mapped { map, .. } => map.populate(offset, len),
            #[cfg(any(test, feature = "testing"))]
            Memory::Simulated(_) => {}
        }
    }

    /// The ring file, for error texts.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Memory::Mapped { path, .. } => path.clone(),
            #[cfg(any(test, feature = "testing"))]
            Memory::Simulated(_) => PathBuf::from("(simulated)"),
        }
    }

    /// Keeps a copy of damaged bytes beside the ring, once; where that is impossible the bytes
    /// still lie in the ring until they are reclaimed, and the damage is counted all the same.
    pub(crate) fn quarantine(&self, name: &str, bytes: &[u8]) {
        match self {
            Memory::Mapped { path, .. } => {
                let target = path.with_file_name(name);
                let made = File::options().write(true).create_new(true).mode(0o600).open(&target);
                if let Ok(mut file) = made {
                    let _ = file.write_all(bytes).and_then(|()| file.sync_all());
                }
            }
            #[cfg(any(test, feature = "testing"))]
            Memory::Simulated(backing) => backing.quarantine(name, bytes),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // The lock goes with the descriptor; said here because nothing else reads the field.
        match self {
            Memory::Mapped { lock, .. } => {
                if let Some(file) = lock {
                    let _ = rustix::fs::flock(&*file, rustix::fs::FlockOperation::Unlock);
                }
            }
            #[cfg(any(test, feature = "testing"))]
            Memory::Simulated(_) => {}
        }
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Memory({})", self.path().display())
    }
}
