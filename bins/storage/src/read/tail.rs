//! Rows that are not in a file yet, as a query sees them.

use forebay_wire::{QueueId, Seq};

use super::Filter;
use crate::rows::RowView;

/// From which entry on a tail has shown the rows of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailMark {
    /// The queue.
    pub queue: QueueId,
    /// The first entry: all rows from it on came from the tail, so no file may show them again.
    pub first: Seq,
}

/// Where the unflushed rows are.
pub trait Tail: Send + Sync {
    /// Calls `each` for the wanted rows as they are at one moment, and says from where on it did.
    fn visit(&self, filter: &Filter, each: &mut dyn FnMut(RowView<'_>)) -> Vec<TailMark>;
}

/// A lake without a writer has no tail.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTail;

impl Tail for NoTail {
    fn visit(&self, _: &Filter, _: &mut dyn FnMut(RowView<'_>)) -> Vec<TailMark> {
        Vec::new()
    }
}
