//! Where the tiers plug in: a queue to send from, one to store into, one to publish and replay.
//!
//! All calls come from the one thread that runs the link, and none may block for long unless it
//! says so. Whatever waits does so by a [`Waker`]: `false` means "not yet, and the waker will be
//! called once it is"; a spurious wake-up is harmless. An error of the type [`Fault`] ends the
//! thread and is handed to [`OnFailure`]: the process must end then, and recovery decides.

use std::task::Waker;

use forebay_wire::feed::{ConsumerState, Pending, Tally};
use forebay_wire::records::{BatchBuilder, RecordBatch, Records};
use forebay_wire::uplink::Level;
use forebay_wire::{QueueId, Seq};

use crate::error::{Error, Fault, StoreError};

/// Called once, on the link's thread, when it ends because of a fault.
pub type OnFailure = Box<dyn FnOnce(Error) + Send>;

/// Where a source's queue stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The last number known to be committed, [`Seq::ZERO`] if none is known: with a durable
    /// cursor at `e:n`, n above 1, that is `e:n-1`. Too low is safe; too high loses the notice of
    /// a receiver that went back in time.
    pub committed: Seq,
    /// The first number that can still be sent; `next` if there is none.
    pub oldest: Seq,
    /// The number the next append will get, **in the epoch of this open**: after a restart that is
    /// `epoch:1` of the new epoch, even though nothing was appended in it yet. A receiver that
    /// claims to have this number or more has seen another life of this queue (its directory was
    /// restored from an old copy): the link then refuses to go on.
    pub next: Seq,
}

/// The front's side of the uplink: a durable reader of one queue.
pub trait EntrySource: Send + 'static {
    /// The queue's id.
    fn queue(&self) -> QueueId;

    /// Where it stands; asked at each new session.
    ///
    /// # Errors
    /// The queue cannot be trusted any more.
    fn bounds(&mut self) -> Result<Bounds, Fault>;

    /// Packs the durable entries above `after`, in order, until the batch does not take one more
    /// or there is none. `after` is normally the last one packed before; after a step back it is
    /// lower, but never below what was committed. [`Seq::ZERO`] means from the oldest.
    ///
    /// # Errors
    /// The queue cannot be trusted any more.
    fn fill(&mut self, after: Seq, batch: &mut BatchBuilder) -> Result<(), Fault>;

    /// Everything up to `upto` is durable at the receiver: the cursor moves past it. `upto` may be
    /// a number this queue does not hold (a power cut took it back after it was sent): it means
    /// "all that are not above it", and must not fail.
    ///
    /// # Errors
    /// The queue cannot be trusted any more.
    fn commit(&mut self, upto: Seq) -> Result<(), Fault>;

    /// Whether there is an entry above `after`.
    ///
    /// # Errors
    /// The queue cannot be trusted any more.
    fn poll_ready(&mut self, after: Seq, waker: &Waker) -> Result<bool, Fault>;
}

/// A source whose entries from `after` to `oldest` this store never got and never will: it lost
/// its disk, or came back with an older copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// The source.
    pub source: QueueId,
    /// The last number the store has.
    pub after: Seq,
    /// The last number the source had committed: it goes on above it.
    pub committed: Seq,
    /// How many entries are missing, if both numbers are of one epoch.
    pub lost: Option<u64>,
}

/// The middle's side of the uplink.
pub trait EntryStore: Send + 'static {
    /// The level its `durable` has.
    fn level(&self) -> Level;

    /// The highest number of `source` of which all up to it are durable here, [`Seq::ZERO`] if it
    /// is not known. Asked once for each source and run.
    ///
    /// # Errors
    /// The store cannot be trusted any more.
    fn position(&mut self, source: QueueId) -> Result<Seq, Fault>;

    /// Takes records of `source` that follow what was taken before, all or none, and returns the
    /// local number whose durability proves all of them: of the last record appended, or, if all
    /// of them were duplicates, of a position marker. The receiver acks once [`Self::durable`] has
    /// reached it.
    ///
    /// # Errors
    /// - [`StoreError::Full`]: nothing was taken.
    /// - [`StoreError::Fatal`]: the store cannot be trusted any more.
    fn append(&mut self, source: QueueId, records: &Records<'_>) -> Result<Seq, StoreError>;

    /// All local numbers up to here are durable, at the store's level.
    fn durable(&mut self) -> Seq;

    /// Whether `durable` has reached `seq`.
    ///
    /// # Errors
    /// The store cannot be trusted any more: nothing beyond `durable` will ever be.
    fn poll_durable(&mut self, seq: Seq, waker: &Waker) -> Result<bool, Fault>;

    /// Bytes that can still be appended. Credit is made of it.
    fn room_bytes(&self) -> u64;

    /// Told before anything is appended above a loss: count it and say so.
    fn joined(&mut self, joined: &Joined);
}

/// The middle's log, as the publisher reads it: from where it ends at the start, in order.
pub trait FeedSource: Send + 'static {
    /// The log's queue id.
    fn queue(&self) -> QueueId;

    /// The last durable number; [`Seq::ZERO`] if the log is empty.
    fn head(&mut self) -> Seq;

    /// Packs the durable records above `after`, as [`EntrySource::fill`] does. If those directly
    /// above it are gone, it goes on with the first that is left.
    ///
    /// # Errors
    /// The log cannot be trusted any more.
    fn fill(&mut self, after: Seq, batch: &mut BatchBuilder) -> Result<(), Fault>;

    /// Whether there is a durable record above `after`.
    ///
    /// # Errors
    /// The log cannot be trusted any more.
    fn poll_ready(&mut self, after: Seq, waker: &Waker) -> Result<bool, Fault>;
}

/// The middle's log, as fetches read it, and what it keeps of its durable consumers.
///
/// Served on a thread of its own: the calls may block for the time of a sync.
pub trait ReplayStore: Send + 'static {
    /// The log's queue id.
    fn queue(&self) -> QueueId;

    /// The last durable number; [`Seq::ZERO`] if the log is empty.
    fn head(&mut self) -> Seq;

    /// Packs the durable records above `after` (anywhere in the log), as [`FeedSource::fill`].
    ///
    /// # Errors
    /// The log cannot be trusted any more.
    fn fill(&mut self, after: Seq, batch: &mut BatchBuilder) -> Result<(), Fault>;

    /// What is kept of the consumer `name`, durably; the default state if it is allowed but new;
    /// `None` if there is no such consumer and none may be made.
    ///
    /// # Errors
    /// The log cannot be trusted any more.
    fn consumer(&mut self, name: &str) -> Result<Option<ConsumerState>, Fault>;

    /// Keeps `state` for the consumer `name`, **durable on return**: its cursor at
    /// `state.committed`, the rest as a note beside it ([`ConsumerState::to_note`], at most
    /// [`forebay_wire::feed::NOTE_BYTES_MAX`] bytes), and its tally as that of `state.committed`.
    /// Fencing was checked by the caller.
    ///
    /// # Errors
    /// The log cannot be trusted any more.
    fn record(&mut self, name: &str, state: &ConsumerState) -> Result<(), Fault>;
}

/// A consumer's standing when its session opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The middle's queue: another id than before means another log, with numbers of its own.
    pub queue: QueueId,
    /// Records come from above this number on: what the consumer has committed, or where a reader
    /// without a cursor was told to start.
    pub after: Seq,
    /// A range announced and not committed before: write exactly it again, then commit it.
    pub pending: Option<Pending>,
    /// What the consumer had accounted for when it committed `after`, if it said so then.
    pub tally: Option<Tally>,
}

/// What a subscriber yields, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeedEvent {
    /// The session is open. Comes first, and again if the middle's queue has become another; not
    /// again after a mere reconnect.
    Opened(Opened),
    /// Records, the first of which follows the last one yielded.
    Batch(RecordBatch),
    /// The records above `after` and up to `resume` are gone from the middle. A durable consumer
    /// sees this only if the middle was told to go on without it.
    Missed {
        /// The last number yielded.
        after: Seq,
        /// The next one is above this.
        resume: Seq,
    },
}
