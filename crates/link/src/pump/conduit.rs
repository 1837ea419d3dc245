//! Bytes from socket to socket without passing through this process.
//!
//! What the guard has let pass need not be seen again, nor what our own socket sends: it is spliced
//! through a pipe, page by page, and saves the two copies that a read and a write would make.

use std::io;
use std::os::fd::OwnedFd;

use bytes::BytesMut;
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

    /// Moves what `from` has by now; of it, what `to` does not take at once is appended to `rest`.
    /// Returns how much that was together, 0 if `from` has ended. Not to be gone on with if it was
    /// dropped while it waited.
    pub(super) async fn pass_on(
        &self,
        from: &UnixStream,
        to: &TcpStream,
        rest: &mut BytesMut,
    ) -> io::Result<usize> {
        let enter = || part(from, &self.entry, SPLICE_BYTES_MAX);
        let moved = from.async_io(Interest::READABLE, enter).await?;
        let mut held = moved;
        while held > 0 {
            match to.try_io(Interest::WRITABLE, || part(&self.exit, to, held)) {
                Ok(taken) => held -= taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if held > 0 {
            let start = rest.len();
            rest.resize(start + held, 0);
            let mut room = &mut rest[start..];
            while !room.is_empty() {
                let read = rustix::io::read(&self.exit, &mut *room)?;
                room = &mut room[read..];
            }
        }
        Ok(moved)
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
