//! Durable named readers.

use std::task::Waker;
use std::time::Duration;

use crate::{Error, Result, Seq};

/// One entry as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its number.
    pub seq: Seq,
    /// The time that the producer gave.
    pub time_us: u64,
    /// The bytes.
    pub payload: &'a [u8],
}

/// A durable named reader.
#[derive(Debug)]
pub struct Reader {
    name: String,
}

impl Reader {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The last seq committed; the cursor stands behind it.
    pub fn cursor(&self) -> Seq {
        Seq::NONE
    }
    /// The entries from the read position on: at most `max_entries`, and at most `max_bytes` of
    /// payload except that a first entry always fits. Empty if there is nothing.
    pub fn peek(&mut self, _max_entries: usize, _max_bytes: usize) -> Result<Batch<'_>> {
        Err(Error::Closed)
    }
    /// All entries up to `upto` are done.
    pub fn commit(&mut self, _upto: Seq) -> Result<()> {
        Err(Error::Closed)
    }
    /// Commits, and returns once the cursor and the note are on the medium.
    pub fn commit_durable(&mut self, _upto: Seq, _note: Option<&[u8]>) -> Result<()> {
        Err(Error::Closed)
    }
    /// The note kept beside the cursor; empty if there is none.
    pub fn note(&self) -> Vec<u8> {
        Vec::new()
    }
    /// The next peek starts at the first retained entry above `after`, not below the cursor.
    pub fn rewind(&mut self, _after: Seq) -> Result<()> {
        Err(Error::Closed)
    }
    /// Whether there is something to peek; if not, `waker` is woken once there is.
    pub fn poll_ready(&mut self, _waker: &Waker) -> bool {
        false
    }
    /// Waits until there is something to peek; false if the time passed first.
    pub fn wait(&mut self, _timeout: Duration) -> bool {
        false
    }
}

/// Entries that borrow the reader; dropped without advance they are delivered again.
#[derive(Debug)]
pub struct Batch<'a> {
    #[expect(dead_code, reason = "holds the borrow")]
    reader: &'a mut Reader,
}

impl<'a> Batch<'a> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        0
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        true
    }
    /// The seq of the last entry.
    pub fn last(&self) -> Option<Seq> {
        None
    }
    /// The entries in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        std::iter::empty()
    }
    /// Moves the read position past the batch without committing it.
    pub fn advance(self) {}
}
