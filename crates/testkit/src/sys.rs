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

/// Runs `work` on this thread one machine instruction at a time, and calls `look` between any two.
///
/// The processor's trap flag, not ptrace: a signal handler on the same thread costs microseconds
/// where the turns of two processes cost a switch each. `look` runs in that handler: it must not
/// allocate, nor take a lock that `work` can hold.
#[cfg(target_arch = "x86_64")]
pub(crate) fn step_through(look: fn(), work: impl FnOnce()) -> io::Result<()> {
    use std::arch::asm;
    use std::sync::atomic::{AtomicPtr, Ordering};

    static LOOK: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

    extern "C" fn on_trap(_: libc::c_int) {
        let look = LOOK.load(Ordering::Acquire);
        // SAFETY: stored below, from a `fn()`, before the first trap can come.
        let look = unsafe { std::mem::transmute::<*mut (), fn()>(look) };
        look();
    }

    LOOK.store(look as *mut (), Ordering::Release);
    // SAFETY: all-zero bytes are a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_trap as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is initialised and lives beyond the call; the handler has the signature
    // that flags without SA_SIGINFO ask for.
    if unsafe { libc::sigaction(libc::SIGTRAP, &raw const action, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: sets the trap flag and nothing else; the pushes are balanced. Each instruction from
    // here on raises SIGTRAP on this thread, whose handler was installed above; the kernel clears
    // the flag while the handler runs.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    // SAFETY: clears the flag; the pushes are balanced.
    unsafe { asm!("pushfq", "and qword ptr [rsp], ~0x100", "popfq") };
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    Ok(())
}
