//! One read buffer for all the connections of a core.
//!
//! A connection that is idle needs no read buffer, and a busy one needs a large one, only while
//! its task runs. Tasks of a core run one after the other, so one buffer serves them all: 64 KiB
//! a core instead of 64 KiB a connection, and as many messages a system call.

use std::{
    cell::RefCell,
    io,
    ops::Range,
    rc::Rc,
    task::{Context, Poll},
};

use super::link::Link;

/// Bytes of a core's read buffer: one full message, or some 230 of 256 B.
pub(crate) const SHARED_BYTES: usize = 64 * 1024;

/// The buffer of a core; clones share it.
#[derive(Clone)]
pub(crate) struct SharedBuffer(Rc<RefCell<Box<[u8]>>>);

impl SharedBuffer {
    /// A buffer of [`SHARED_BYTES`].
    pub(crate) fn new() -> Self {
        Self(Rc::new(RefCell::new(vec![0; SHARED_BYTES].into_boxed_slice())))
    }
}

/// The read side of one connection: what it has of the shared buffer, and what it kept.
pub(crate) struct ReadSide {
    shared: SharedBuffer,
    /// The part of the shared buffer that holds unread bytes of this connection. Empty whenever
    /// another task runs: see [`Self::keep_rest`].
    filled: Range<usize>,
    /// Bytes that were taken and could not be used at once.
    kept: Vec<u8>,
    kept_from: usize,
    ended: bool,
}

impl ReadSide {
    /// A side of which `early` was read before.
    pub(crate) fn new(shared: SharedBuffer, early: Vec<u8>) -> Self {
        Self { shared, filled: 0..0, kept: early, kept_from: 0, ended: false }
    }

    /// Takes what has arrived on `link` into the shared buffer.
    pub(crate) fn poll_fill(
        &mut self,
        link: &mut Link,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        debug_assert!(self.filled.is_empty(), "filled again before it was read");
        if self.has_rest() {
            return Poll::Ready(Ok(()));
        }
        let mut shared = self.shared.0.borrow_mut();
        link.poll_read(cx, &mut shared).map_ok(|count| {
            self.filled = 0..count;
            self.ended = count == 0;
        })
    }

    /// Whether kept bytes wait.
    pub(crate) fn has_rest(&self) -> bool {
        self.kept_from < self.kept.len()
    }

    /// Copies unread bytes out of the shared buffer, so that another connection may fill it.
    pub(crate) fn keep_rest(&mut self) {
        if self.filled.is_empty() {
            return;
        }
        self.kept.drain(..self.kept_from);
        self.kept_from = 0;
        self.kept.extend_from_slice(&self.shared.0.borrow()[self.filled.clone()]);
        self.filled = 0..0;
    }
}

impl io::Read for ReadSide {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.has_rest() {
            let count = out.len().min(self.kept.len() - self.kept_from);
            out[..count].copy_from_slice(&self.kept[self.kept_from..self.kept_from + count]);
            self.kept_from += count;
            if !self.has_rest() {
                // Give the memory back: a connection keeps bytes only while it is held up.
                self.kept = Vec::new();
                self.kept_from = 0;
            }
            return Ok(count);
        }
        if self.filled.is_empty() {
            return if self.ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let count = out.len().min(self.filled.len());
        let from = self.filled.start;
        out[..count].copy_from_slice(&self.shared.0.borrow()[from..from + count]);
        self.filled.start += count;
        Ok(count)
    }
}
