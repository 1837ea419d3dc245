//! Bytes from socket to socket without passing through this process.
//!
//! What the guard has let pass need not be seen again: the body of a large frame is spliced through
//! a pipe, page by page, and saves the two copies that a read and a write would make.

use std::io;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// Spliced at once at most: what a pipe takes.
const SPLICE_BYTES_MAX: usize = 1024 * 1024;

/// A pipe of this process alone.
#[derive(Debug)]
pub(super) struct Conduit {
    entry: OwnedFd,
    exit: OwnedFd,
}

impl Conduit {
    pub(super) fn new() -> io::Result<Self> {
        let (exit, entry) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { entry, exit })
    }

    /// Moves exactly `bytes`; `false` if `from` ended before. Not to be gone on with if it was
    /// dropped while it waited: what the pipe held then is lost.
    pub(super) async fn carry(
        &self,
        from: &TcpStream,
        to: &UnixStream,
        mut bytes: u64,
    ) -> io::Result<bool> {
        while bytes > 0 {
            let most = usize::try_from(bytes).map_or(SPLICE_BYTES_MAX, |n| n.min(SPLICE_BYTES_MAX));
            let enter = || part(from, &self.entry, most);
            let mut held = from.async_io(Interest::READABLE, enter).await?;
            if held == 0 {
                return Ok(false);
            }
            bytes -= held as u64;
            while held > 0 {
                let leave = || part(&self.exit, to, held);
                held -= to.async_io(Interest::WRITABLE, leave).await?;
            }
        }
        Ok(true)
    }
}

fn part(
    from: impl std::os::fd::AsFd,
    to: impl std::os::fd::AsFd,
    most: usize,
) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    Ok(splice(from, None, to, None, most, flags)?)
}
