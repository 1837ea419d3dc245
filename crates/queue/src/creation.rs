//! Making a ring: every block allocated and written, step by step, and called off between two steps
//! if its owner wants to end.
//!
//! A ring is made under another name and renamed when it is whole, so that a crash on the way, or
//! an end, leaves nothing that looks like a queue. Nothing else is ever created, renamed or removed.

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Advice, FallocateFlags, FlockOperation};
use rustix::io::Errno;

use crate::directory::{check_filesystem, lock, random_id};
use crate::error::{Error, Result};
use crate::format::{self, Geometry, SuperBlock};
use crate::open::first_slots;
use crate::options::Options;

/// The name under which a ring is made.
const NEW_NAME: &str = "ring.new";
/// Zeroes are written in pieces of this size, so that the file's extents hold data.
const ZERO_BYTES: usize = 1 << 20;
/// This much is written and synced before the owner is asked again. A second on a medium that takes
/// 16 MB a second, and far above what a sync costs by itself.
const STEP_BYTES: u64 = 16 << 20;
/// This much is allocated before the owner is asked again: extents alone, on the file systems that
/// keep a ring; memory, on those that do not.
const ALLOCATE_BYTES: u64 = 256 << 20;

/// How far the making of a ring has come; see [`Queue::open_or_create_with`].
///
/// [`Queue::open_or_create_with`]: crate::Queue::open_or_create_with
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Making {
    /// Bytes that are written and synced.
    pub made_bytes: u64,
    /// Bytes the ring will have.
    pub total_bytes: u64,
}

/// Why a ring was not made.
enum Unmade {
    CalledOff,
    Failed(io::Error),
}

impl<E: Into<io::Error>> From<E> for Unmade {
    fn from(error: E) -> Self {
        Unmade::Failed(error.into())
    }
}

/// Makes a ring file; the directory too, if it is missing. `watch` may call it off.
pub(crate) fn create(
    dir: &Path,
    options: &Options,
    watch: &mut dyn FnMut(Making) -> ControlFlow<()>,
) -> Result<()> {
    let page_bytes = rustix::param::page_size().max(format::SLOT_BYTES) as u64;
    let capacity = options.capacity_checked(page_bytes)?;
    make(dir)?;
    check_filesystem(dir, options)?;
    let path = dir.join(format::FILE_NAME);
    if path.try_exists().map_err(|error| Error::io("look for", &path, error))? {
        return Err(Error::Exists { path });
    }
    let new_path = dir.join(NEW_NAME);
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(options.mode)
        .open(&new_path)
        .map_err(|error| Error::io("create", &new_path, error))?;
    // What a crash left there is not a queue yet; somebody else who is making one holds the lock.
    lock(&file, &new_path)?;
    if !is_named(&file, &new_path).map_err(|error| Error::io("look for", &new_path, error))? {
        // He has finished, and our file may be his queue by now; or he has given up.
        return Err(Error::Locked { path });
    }
    let block = SuperBlock { id: random_id(&new_path)?, capacity, page_bytes: page_bytes as u32 };
    let named = fill(&file, &block, options, watch).and_then(|()| {
        Ok(rustix::fs::renameat_with(
            rustix::fs::CWD,
            &new_path,
            rustix::fs::CWD,
            &path,
            rustix::fs::RenameFlags::NOREPLACE,
        )?)
    });
    if named.is_err() {
        // While it is locked: from then on the name may be somebody else's.
        let _ = fs::remove_file(&new_path);
    }
    let made = named.and_then(|()| Ok(File::open(dir)?.sync_all()?));
    // Not left to the close: a child that another thread is just starting holds a copy of the
    // descriptor until it runs its program, and with it the lock that the open wants next.
    let _ = rustix::fs::flock(&file, FlockOperation::Unlock);
    made.map_err(|unmade| match unmade {
        Unmade::CalledOff => Error::CalledOff { path },
        Unmade::Failed(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Error::Exists { path }
        }
        Unmade::Failed(error) => Error::io("create", &new_path, error),
    })
}

/// Whether `path` still names `file`.
fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the directory and what is missing above it, durable as names: without that a power cut
/// takes the ring with them. Every directory up to the root of the file system is synced, not only
/// those made now, for a process that was killed here may have made some of them.
fn make(dir: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)
        .map_err(|error| Error::io("create directory", dir, error))?;
    let device = |dir: &Path| fs::metadata(dir).map(|found| found.dev());
    let synced = || {
        let ring_device = device(dir)?;
        for above in dir.ancestors().skip(1) {
            let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            if device(above)? != ring_device {
                break;
            }
            match File::open(above) {
                // One that may not even be listed was not made by us.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
                opened => opened?.sync_all()?,
            }
        }
        Ok(())
    };
    synced().map_err(|error| Error::io("sync the directories above", dir, error))
}

/// Allocates every block, writes every byte, syncs, and leaves nothing in the page cache: what is
/// cached from here may be in folios of 2 MiB, of which one stored byte makes a sync write all.
///
/// Synced step by step, for a sync of all that was written could not be called off.
fn fill(
    file: &File,
    block: &SuperBlock,
    options: &Options,
    watch: &mut dyn FnMut(Making) -> ControlFlow<()>,
) -> std::result::Result<(), Unmade> {
    let total_bytes = block.file_bytes();
    let mut ask = |made_bytes| match watch(Making { made_bytes, total_bytes }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Unmade::CalledOff),
    };
    file.set_permissions(fs::Permissions::from_mode(options.mode))?;
    file.set_len(0)?;
    for (at, len) in steps(total_bytes, ALLOCATE_BYTES) {
        ask(0)?;
        allocate(file, at, len)?;
    }
    let zeroes = vec![0; ZERO_BYTES.min(total_bytes as usize)];
    for (start, len) in steps(total_bytes, STEP_BYTES) {
        ask(start)?;
        for (at, len) in steps(len, ZERO_BYTES as u64) {
            file.write_all_at(&zeroes[..len as usize], start + at)?;
        }
        file.sync_data()?;
    }
    ask(total_bytes)?;
    let geometry = Geometry::new(block);
    for (place, slot) in first_slots().iter().enumerate() {
        file.write_all_at(&slot.encode(), geometry.slot_offset(place) as u64)?;
    }
    file.sync_all()?;
    // Last, and by itself: without it the file is not a queue.
    file.write_all_at(&block.encode(), 0)?;
    file.sync_all()?;
    rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?;
    Ok(())
}

/// Allocates a range; again if the signal that asks for the end has interrupted it.
fn allocate(file: &File, at: u64, len: u64) -> io::Result<()> {
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), at, len) {
            Err(Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
}

/// The offsets and lengths of the steps in which `total` bytes are done.
fn steps(total: u64, step: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..total.div_ceil(step)).map(move |number| {
        let at = number * step;
        (at, step.min(total - at))
    })
}
