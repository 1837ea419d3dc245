//! What a subscriber's machine wants done, and what it tells.

use std::time::Duration;

use bytes::Bytes;
use forebay_wire::frame::FrameError;
use forebay_wire::{QueueId, Seq};

use crate::machine::durable::{Declined, RequestId};
use crate::seam::FeedEvent;

/// What the machine wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Build a SUB socket, in place of any other; then `feed_connected` or `feed_lost`.
    ConnectFeed,
    /// Drop the SUB socket.
    DropFeed,
    /// Build a DEALER socket, in place of any other; then `fetch_connected` or `fetch_lost`.
    ConnectFetch,
    /// Drop the DEALER socket.
    DropFetch,
    /// Send a frame over the DEALER.
    Send(Bytes),
    /// Hand an event to the reader; its bytes count as buffered until `taken`.
    Yield(FeedEvent),
    /// A request is done: durable, or declined for good.
    Finished(RequestId, Result<(), Declined>),
    /// No event will come any more, and no request is done.
    End(Ending),
    /// Something worth a log line or a counter.
    Report(Report),
}

/// Why it ends by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// A newer session of the same consumer has taken over.
    Fenced,
    /// The middle does not know the consumer, or refuses this version.
    Refused(String),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A published batch showed that something before it is missing.
    Gap {
        /// The last number yielded.
        position: Seq,
        /// The number before the batch.
        prev: Seq,
    },
    /// A batch was dropped for want of room.
    Dropped,
    /// Records that were fetched, not published, were yielded.
    Fetched {
        /// How many, at most: those of a batch that were not known yet.
        records: u32,
    },
    /// The feed was silent too long.
    FeedSilent,
    /// The fetch connection was silent too long.
    FetchSilent,
    /// The middle's log is another one than before.
    QueueChanged {
        /// Its id.
        queue: QueueId,
    },
    /// A frame that made no sense.
    Malformed(FrameError),
}

/// A fetch that has no END yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outstanding {
    pub(super) session: u64,
    pub(super) since: Duration,
}
