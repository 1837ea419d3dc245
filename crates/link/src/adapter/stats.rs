//! What each link has done so far, for metrics: counters only grow, the rest are gauges.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A number that one thread sets and others read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }
}

/// A state that one thread sets and others read.
#[derive(Debug, Default)]
pub struct Flag(AtomicBool);

impl Flag {
    /// Its value.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: bool) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// An uplink sender's.
#[derive(Debug, Default)]
pub struct SenderStats {
    /// Whether the receiver has welcomed the current session.
    pub welcomed: Flag,
    /// Whether the last session was refused for a reason that a human must mend.
    pub refused: Flag,
    /// Connections attempted.
    pub connects: Count,
    /// Sessions welcomed.
    pub sessions: Count,
    /// Batches sent, repeated ones included.
    pub batches: Count,
    /// Entries sent, repeated ones included.
    pub entries: Count,
    /// Bytes sent, repeated ones included.
    pub bytes: Count,
    /// Times it went back: at a welcome below what was sent, or at a nack.
    pub rewinds: Count,
    /// The last number acked, as in [`forebay_wire::Seq::get`].
    pub acked: Count,
    /// The last number sent in this session.
    pub sent: Count,
    /// Bytes sent and unacked now.
    pub in_flight_bytes: Count,
    /// Bytes the receiver allows in flight now.
    pub credit_bytes: Count,
}

/// An uplink receiver's.
#[derive(Debug, Default)]
pub struct ReceiverStats {
    /// Sources with an open session.
    pub sources: Count,
    /// Sessions opened.
    pub sessions: Count,
    /// Batches taken.
    pub batches: Count,
    /// Entries taken.
    pub entries: Count,
    /// Entries that had been taken before and were dropped here.
    pub repeated: Count,
    /// Nacks for a gap.
    pub gaps: Count,
    /// Nacks for want of room.
    pub full: Count,
    /// Sources that were refused.
    pub refused: Count,
    /// Frames that made no sense.
    pub malformed: Count,
    /// Entries known to be lost because this receiver had gone back in time.
    pub lost: Count,
}

/// A publisher's.
#[derive(Debug, Default)]
pub struct PublisherStats {
    /// Batches published.
    pub batches: Count,
    /// Records published.
    pub records: Count,
    /// Bytes published, counted once whatever the number of subscribers.
    pub bytes: Count,
    /// The last number published, as in [`forebay_wire::Seq::get`].
    pub published: Count,
}

/// A replay server's.
#[derive(Debug, Default)]
pub struct ReplayStats {
    /// Fetches answered.
    pub fetches: Count,
    /// Records sent.
    pub records: Count,
    /// Bytes sent.
    pub bytes: Count,
    /// Sessions granted.
    pub sessions: Count,
    /// Ranges announced.
    pub prepares: Count,
    /// Commits made durable.
    pub commits: Count,
    /// Requests of a session that a newer one had replaced.
    pub fenced: Count,
    /// Frames that made no sense.
    pub malformed: Count,
}

/// A subscriber's.
#[derive(Debug, Default)]
pub struct SubscriberStats {
    /// Whether the feed was heard of within its deadline.
    pub feed_alive: Flag,
    /// Whether the fetch connection is up.
    pub fetch_alive: Flag,
    /// Connections attempted, of both kinds.
    pub connects: Count,
    /// Batches yielded.
    pub batches: Count,
    /// Records yielded.
    pub records: Count,
    /// Batches dropped because the buffer was full; they are fetched later.
    pub dropped: Count,
    /// Gaps seen.
    pub gaps: Count,
    /// Records yielded that came by a fetch.
    pub fetched: Count,
    /// Times records were gone from the middle.
    pub missed: Count,
    /// Bytes waiting for the reader.
    pub buffered_bytes: Count,
    /// The last number yielded into the buffer, as in [`forebay_wire::Seq::get`].
    pub received: Count,
    /// The last number the middle is known to have.
    pub head: Count,
}
