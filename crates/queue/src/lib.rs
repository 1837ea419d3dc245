//! A crash-safe memory-mapped ring queue with durable named readers.
//!
//! [`Queue`] appends, [`Reader`] reads and commits, [`Tail`] follows without holding space, and
//! [`tools`] look at a queue from outside. All calls block, none needs a runtime; an async program
//! registers a waker ([`Queue::poll_durable`], [`Reader::poll_ready`]).
//!
//! An entry passes these watermarks, and never goes back:
//! `reclaimed <= committed <= durable <= appended`.
//!
//! - *appended*: in the mapping; survives the process.
//! - *durable*: on the medium, with [`Durability::Disk`]; survives the machine. Acknowledge now.
//! - *committed*: a reader is done with it.
//! - *reclaimed*: every reader's commit is on the medium; its space may be reused.
//!
//! The code, from the medium upwards: `format.rs` (bytes), `map.rs` and `memory.rs` (where they
//! lie), `creation.rs` and `directory.rs` (the file), `log.rs` (walking over records), `recovery.rs`
//! and `open.rs` (after a crash), `line.rs`
//! and `door.rs` (the order of producers), `ring.rs` (appending), `sync.rs` and `pace.rs` (onto the medium),
//! `cursor.rs`, `reader.rs`, `tail.rs` (out again), `watch.rs` (waiting).
//!
//! **Invariants.** No network, no async runtime, no clock but for pacing. `unsafe` in `map.rs` and
//! `crc.rs` only. Every byte of the ring is loaded, stored and synced through `memory.rs`. Nothing
//! is acknowledged after a failed sync. The layout is in `format.rs` only, and specified in
//! `docs/storage-format.md`.

mod crc;
mod creation;
mod cursor;
mod directory;
mod door;
mod error;
mod faults;
#[cfg(feature = "floor")]
#[doc(hidden)]
pub mod floor;
mod format;
mod groups;
mod line;
mod log;
mod map;
mod memory;
mod open;
mod options;
mod pace;
mod queue;
mod reader;
mod recovery;
mod ring;
mod seq;
mod stat;
mod sync;
mod tail;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;
pub mod tools;
mod watch;

pub use creation::Making;
pub use error::{Error, Result};
pub use options::{Durability, Options};
pub use queue::Queue;
pub use reader::{Batch, Entry, Reader};
pub use seq::{QueueId, Seq, SeqSpan};
pub use stat::{ReaderStat, Recovery, Stat};
pub use tail::{Gap, Tail, TailBatch};
