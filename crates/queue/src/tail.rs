//! Readers that hold no space.

use std::task::Waker;
use std::time::Duration;

use crate::{Entry, Error, Result, Seq};

/// Follows the end of the queue without holding space.
#[derive(Debug)]
pub struct Tail {}

/// Entries that were overwritten before the tail came to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last seq delivered before.
    pub after: Seq,
    /// The first seq that is delivered again.
    pub next: Seq,
}

impl Tail {
    /// Copies out the next entries; empty if there is nothing new.
    pub fn read(&mut self, _max_entries: usize, _max_bytes: usize) -> Result<TailBatch<'_>> {
        Err(Error::Closed)
    }
    /// The last seq delivered.
    pub fn position(&self) -> Seq {
        Seq::NONE
    }
    /// Whether there is something to read; if not, `waker` is woken once there is.
    pub fn poll_ready(&mut self, _waker: &Waker) -> bool {
        false
    }
    /// Waits until there is something to read; false if the time passed first.
    pub fn wait(&mut self, _timeout: Duration) -> bool {
        false
    }
}

/// Entries copied out by a [`Tail`].
#[derive(Debug)]
pub struct TailBatch<'a> {
    #[expect(dead_code, reason = "holds the borrow")]
    tail: &'a Tail,
}

impl<'a> TailBatch<'a> {
    /// What was missed directly before the first entry of this batch.
    pub fn gap(&self) -> Option<Gap> {
        None
    }
    /// Number of entries.
    pub fn len(&self) -> usize {
        0
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        true
    }
    /// The entries in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        std::iter::empty()
    }
}
