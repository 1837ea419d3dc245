//! Published records that came before what precedes them: a bounded wait, then a fetch.
//!
//! What it holds has no gap within; of what does not fit, the oldest is dropped, since the newest
//! joins with what is published from now on.

use std::collections::VecDeque;

use forebay_wire::Seq;
use forebay_wire::records::RecordBatch;

/// Published records that wait for what comes before them.
#[derive(Debug, Default)]
pub(super) struct Stash {
    pub(super) batches: VecDeque<(Seq, RecordBatch)>,
    bytes: usize,
    /// The last number that was published over the connection there is; zero before any.
    pub(super) seen: Seq,
}

impl Stash {
    /// Whether what follows `position` is kept.
    pub(super) fn holds_next(&self, position: Seq) -> bool {
        self.batches.front().is_some_and(|(prev, _)| *prev <= position)
    }

    /// Whether something is missing between `position` and what is kept.
    pub(super) fn begins_above(&self, position: Seq) -> bool {
        self.batches.front().is_some_and(|(prev, _)| *prev > position)
    }

    /// Whether the feed is yet to bring what follows `position`: a reader that fetched past it
    /// waits for it, or the two would bring everything twice for as long as the log grows.
    pub(super) fn is_ahead_of_feed(&self, position: Seq) -> bool {
        self.seen > Seq::ZERO && self.seen <= position
    }

    pub(super) fn last(&self) -> Option<Seq> {
        self.batches.back().map(|(_, batch)| batch.last())
    }

    pub(super) fn push(&mut self, prev: Seq, batch: RecordBatch, bytes_max: usize) {
        if let Some(last) = self.last() {
            if batch.last() <= last {
                return;
            }
            if prev > last {
                // A gap within the stash: what a fetch brings next will reach the new part, or
                // not; keep the newest, which joins with what is published from now on.
                self.clear();
            }
        }
        self.bytes += batch.bytes_len();
        self.batches.push_back((prev, batch));
        while self.bytes > bytes_max && self.batches.len() > 1 {
            if let Some((_, dropped)) = self.batches.pop_front() {
                self.bytes -= dropped.bytes_len();
            }
        }
    }

    pub(super) fn pop(&mut self) -> Option<(Seq, RecordBatch)> {
        let popped = self.batches.pop_front();
        if let Some((_, batch)) = &popped {
            self.bytes -= batch.bytes_len();
        }
        popped
    }

    pub(super) fn clear(&mut self) {
        self.batches.clear();
        self.bytes = 0;
    }
}
