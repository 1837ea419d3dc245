//! The publishing end of the feed: records as the log grows, the head when it does not.
//!
//! Every batch names the number before its first record, so that a subscriber sees whatever it
//! missed; the head, repeated, shows a lost tail. Nothing is kept for anybody: who missed
//! something fetches it.

use std::time::Duration;

use bytes::Bytes;
use forebay_wire::feed::Head;
use forebay_wire::frame::Kind;
use forebay_wire::records::BatchBuilder;
use forebay_wire::{QueueId, Seq};

/// The publishing end of one log.
#[derive(Debug)]
pub struct Publisher {
    queue: QueueId,
    session: u64,
    published: Seq,
    head_every: Duration,
    head_at: Duration,
}

impl Publisher {
    /// A publisher of what comes above `head`. `session` is drawn at random for each run.
    #[must_use]
    pub fn new(queue: QueueId, session: u64, head: Seq, head_every: Duration) -> Self {
        Self { queue, session, published: head, head_every, head_at: Duration::ZERO }
    }

    /// The last number published: the next batch is packed above it.
    #[must_use]
    pub const fn published(&self) -> Seq {
        self.published
    }

    /// The frame of a batch packed above [`Self::published`]; `None` if it is empty.
    pub fn batch(&mut self, now: Duration, batch: &mut BatchBuilder) -> Option<Bytes> {
        if batch.is_empty() || batch.first() <= self.published {
            batch.clear();
            return None;
        }
        let (first, last) = (batch.first(), batch.last());
        let prev = if first.follows(self.published) {
            self.published
        } else {
            // Records are gone from between: a subscriber must not take this batch for the next.
            Seq::new(first.get() - 1)
        };
        let frame = batch.finish(Kind::Data, 0, self.queue, self.session, prev);
        self.published = last;
        self.head_at = now + self.head_every;
        Some(frame)
    }

    /// When the head is due.
    #[must_use]
    pub const fn deadline(&self) -> Duration {
        self.head_at
    }

    /// The frame of the head, if it is due.
    pub fn tick(&mut self, now: Duration) -> Option<Bytes> {
        if now < self.head_at {
            return None;
        }
        self.head_at = now + self.head_every;
        Some(Head { queue: self.queue, session: self.session, head: self.published }.encode())
    }
}
