//! The directory of a queue: opening the file, locking it, refusing what cannot keep the promise.
//!
//! How the file is made is in `creation.rs`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::QueueId;
use crate::error::{Error, Result};
use crate::format::{self, SUPER_BYTES, SuperBlock};
use crate::map::Mapping;
use crate::memory::Memory;
use crate::options::{Durability, Options};

/// How long the lock of somebody who merely looks can be in the way: two system calls of a process
/// that may have to wait for a processor between them.
const LOOK_TIME_MAX: Duration = Duration::from_millis(200);
/// Pause between two tries for the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Opens, locks, checks and maps the ring file.
pub(crate) fn open(dir: &Path, options: &Options) -> Result<(Memory, SuperBlock)> {
    let path = dir.join(format::FILE_NAME);
    let file =
        File::options().read(true).write(true).open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::Missing { path: path.clone() },
            _ => Error::io("open", &path, error),
        })?;
    check_filesystem(dir, options)?;
    lock(&file, &path)?;
    sync_name(dir, options)?;
    let block = read_super_block(&file, &path)?;
    let page_bytes = rustix::param::page_size();
    if page_bytes > block.page_bytes as usize {
        let reason = format!("made for pages of {}, here they have {page_bytes}", block.page_bytes);
        return Err(Error::Unsupported { path, reason });
    }
    let limit = format::entry_bytes_limit(block.capacity);
    if u64::from(options.entry_bytes_max) > limit {
        let reason = format!("{} does not fit this ring: at most {limit}", options.entry_bytes_max);
        return Err(Error::Options { option: "entry_bytes_max", reason });
    }
    let map = Mapping::of_file(&file, block.file_bytes() as usize)
        .map_err(|error| Error::io("map", &path, error))?;
    Ok((Memory::Mapped { map, lock: Some(file), path }, block))
}

/// Makes the ring's name durable: a maker that was killed behind his rename has not, and a loss of
/// power would then take what is acknowledged here along with the name.
fn sync_name(dir: &Path, options: &Options) -> Result<()> {
    if options.durability == Durability::Process {
        return Ok(());
    }
    let synced = File::open(dir).and_then(|folder| folder.sync_all());
    synced.map_err(|error| Error::io("sync directory", dir, error))
}

/// Reads the super-block and compares it with the file's size.
pub(crate) fn read_super_block(file: &File, path: &Path) -> Result<SuperBlock> {
    let unsupported = |reason| Error::Unsupported { path: path.to_owned(), reason };
    let mut bytes = [0; SUPER_BYTES];
    file.read_exact_at(&mut bytes, 0).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => unsupported("shorter than a super-block".into()),
        _ => Error::io("read", path, error),
    })?;
    let block = SuperBlock::decode(&bytes).map_err(unsupported)?;
    let len = file.metadata().map_err(|error| Error::io("stat", path, error))?.len();
    if len != block.file_bytes() {
        let expected = block.file_bytes();
        return Err(unsupported(format!("{len} bytes long, {expected} expected: truncated?")));
    }
    Ok(block)
}

/// Takes the lock for life. Whoever merely looks at the queue holds one for a moment: that is
/// waited for, and nothing longer.
pub(crate) fn lock(file: &File, path: &Path) -> Result<()> {
    let mut left = LOOK_TIME_MAX;
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) if left.is_zero() => {
                return Err(Error::Locked { path: path.to_owned() });
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                std::thread::sleep(LOCK_PAUSE);
                left = left.saturating_sub(LOCK_PAUSE);
            }
            Err(error) => return Err(Error::io("lock", path, error.into())),
        }
    }
}

/// Whether somebody has the queue open. Found out by a shared lock that is given back at once.
pub(crate) fn is_locked(file: &File, path: &Path) -> Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => rustix::fs::flock(file, FlockOperation::Unlock)
            .map(|()| false)
            .map_err(|error| Error::io("unlock", path, error.into())),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(Error::io("lock", path, error.into())),
    }
}

/// Refuses file systems on which a sync means less than the promise, unless told otherwise.
pub(crate) fn check_filesystem(dir: &Path, options: &Options) -> Result<()> {
    if options.any_filesystem || options.durability == Durability::Process {
        return Ok(());
    }
    let stat = rustix::fs::statfs(dir).map_err(|error| Error::io("statfs", dir, error.into()))?;
    match filesystem_name(stat.f_type as u64) {
        "ext4" | "xfs" => Ok(()),
        "" => {
            Err(Error::Filesystem { path: dir.into(), filesystem: format!("{:#x}", stat.f_type) })
        }
        name => Err(Error::Filesystem { path: dir.into(), filesystem: name.into() }),
    }
}

/// The name of a file system by its magic number; empty if it is none that we know.
pub(crate) fn filesystem_name(magic: u64) -> &'static str {
    match magic & 0xffff_ffff {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x0102_1994 => "tmpfs",
        0x8584_58f6 => "ramfs",
        0x6969 => "nfs",
        0x794c_7630 => "overlay",
        0x6573_5546 => "fuse",
        0x0102_1997 => "9p",
        0x9123_683e => "btrfs",
        0x2fc1_2fc1 => "zfs",
        0xff53_4d42 | 0xfe53_4d42 => "cifs",
        0xf2f5_2010 => "f2fs",
        _ => "",
    }
}

/// Sixteen random bytes.
pub(crate) fn random_id(path: &Path) -> Result<QueueId> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags)
            .map_err(|error| Error::io("make a random id for", path, error.into()))?;
    }
    Ok(QueueId::from_u128(u128::from_le_bytes(bytes)))
}
