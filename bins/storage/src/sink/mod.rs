//! What a store must be able to do, and how it is fed exactly once, at its own pace.
//!
//! Each sink has its own durable consumer at the middle and two threads of its own: one reads the
//! feed into a bounded buffer of rows, one writes closed ranges. Nothing is shared between sinks,
//! so a slow or dead one moves only its own lag. The order is always: **announce** the range at
//! the middle (PREPARE), **send** the identical block, **commit** after the store's ack; after a
//! death at any point the same range is read, encoded and sent again, under the same token.
//!
//! A new store is one small file that implements [`Sink`], and a section of the configuration.
//!
//! Not here: what a block's bytes are (each sink's own folder), and enrichment.

mod backoff;
mod bisect;
mod buffer;
mod dead_letter;
mod held;
mod letter;
mod reader;
mod refused;
mod status;
mod task;
mod writer;

use std::{fmt, future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use forebay_wire::{QueueId, Seq};

pub use backoff::Backoff;
pub use buffer::{Limits, RangeBuffer};
pub use dead_letter::{DeadLetters, Gap, Kept, KeptKind};
pub use letter::{Letter, LetterValue};
pub use status::{SinkState, SinkStatus};
pub use task::{Hold, SinkTask, SinkTaskConfig};

use crate::rows::Rows;

/// Names a block for ever: the same entries have the same token, others never have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// The middle's queue.
    pub queue: QueueId,
    /// First entry of the range.
    pub first: Seq,
    /// Last entry of the range.
    pub last: Seq,
    /// Which of its rows, if the range as a whole was refused.
    pub piece: Option<TokenPiece>,
}

/// A piece of a range, by the places of its rows in it.
///
/// The pieces of a range are sent in the order of their rows, and after them the next range; only a
/// [`TokenPiece::letter`] comes later, alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenPiece {
    /// Its first row.
    pub start: u32,
    /// The row after its last.
    pub end: u32,
    /// It is a dead letter sent again: the store's own mark may be far beyond it.
    pub letter: bool,
}

impl Token {
    /// The token of a range that is sent in one block.
    #[must_use]
    pub fn whole(queue: QueueId, first: Seq, last: Seq) -> Self {
        Self { queue, first, last, piece: None }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}-{:016x}", self.queue, self.first.get(), self.last.get())?;
        match self.piece {
            // Whether it is sent in its turn or as a letter, it is the same piece.
            Some(TokenPiece { start, end, .. }) => write!(f, "-{start:08x}-{end:08x}"),
            None => Ok(()),
        }
    }
}

/// One piece of an encoded range: a file of the lake, a block of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Where it goes, in the sink's own terms; unique within the range.
    pub name: String,
    /// The bytes, the same at every try.
    pub bytes: Bytes,
    /// How many rows it holds.
    pub rows: u64,
}

/// An encoded range, kept until the store has acked it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoded {
    /// Its parts, in the order in which they are sent.
    pub parts: Vec<Part>,
    /// Rows that are in no part: they have no place in the store by their kind, or a newer row of
    /// the same range replaces them.
    pub left_out: u64,
}

/// What a store said to a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All parts are in; how safely, [`Sink::durability`] says.
    Ack,
    /// Not now: send the same bytes again, later, for ever.
    Transient(String),
    /// Some of these rows will never be taken, though others are, and none of these was: the block
    /// is cut until only the bad ones are left out.
    Poison(String),
    /// Nothing will be taken until a human mends the configuration of this side or the store. It
    /// is tried again now and then.
    Misconfigured(String),
}

/// When an ack is worth a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The ack means that the rows survive the store's death.
    OnAck,
    /// They do so this long after the ack: the cursor is held back.
    After(Duration),
}

/// Why a block that is sent twice counts once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotency {
    /// The store refuses or forgets a block whose token it has seen.
    Token,
    /// Rows have a key, and the same row again replaces itself.
    Key,
    /// The block is a file, and its name is the token.
    FileName,
    /// Rows that are older than what the store has change nothing.
    LastWriteWins,
}

impl Idempotency {
    /// Whether a replay must repeat exactly the same range, so that the range is announced first.
    #[must_use]
    pub fn by_range(self) -> bool {
        matches!(self, Self::Token | Self::FileName)
    }
}

/// A range that a sink cannot encode; the same range will fail again.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode the range: {0}")]
pub struct EncodeError(pub String);

/// The future of [`Sink::send`].
pub type Sending<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// The future of [`Sink::life`].
pub type Looking<'a> = Pin<Box<dyn Future<Output = u64> + Send + 'a>>;

/// A store.
pub trait Sink: Send + 'static {
    /// The bytes of a range: a function of the rows alone, of no clock, counter or random number.
    ///
    /// # Errors
    /// [`EncodeError`]: treated as [`Outcome::Misconfigured`]: an alarm, and the cursor stays.
    fn encode(&mut self, rows: &Rows) -> Result<Encoded, EncodeError>;

    /// Sends all parts. May be called again with the same arguments after any outcome and after
    /// a restart. Its thread is the sink's own: it may block.
    fn send<'a>(&'a mut self, encoded: &'a Encoded, token: &'a Token) -> Sending<'a>;

    /// When an ack is worth a commit.
    fn durability(&self) -> Durability;

    /// Why sending twice counts once.
    fn idempotency(&self) -> Idempotency;

    /// The number of the store's life, from 0: another one if the store may have died since it was
    /// asked for last, because a connection broke, and so may have forgotten what it acked. Only a
    /// sink whose ack is worth something [after a while](Durability::After) needs to know; it is
    /// asked every few seconds while something waits, and may use that to keep a connection open.
    fn life(&mut self) -> Looking<'_> {
        Box::pin(std::future::ready(0))
    }
}
