//! The system calls that no safe crate offers. The only unsafe code of this package.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// `_IOR('X', 125, __u32)`: FS_IOC_SHUTDOWN, the same for ext4 and XFS.
const FS_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;

/// Do not write the journal first: what was not synced is lost, as by a power cut.
const SHUTDOWN_WITHOUT_LOG_FLUSH: u32 = 2;

/// Cuts off the file system that `folder` is on, as a power cut would.
pub(crate) fn shut_down_filesystem(folder: &File) -> io::Result<()> {
    let flags = SHUTDOWN_WITHOUT_LOG_FLUSH;
    // SAFETY: the descriptor is open as long as `folder` is borrowed, and this request reads one
    // `u32` through the pointer, which lives beyond the call.
    let result = unsafe { libc::ioctl(folder.as_raw_fd(), FS_IOC_SHUTDOWN, &raw const flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
