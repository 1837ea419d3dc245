//! A crash-safe memory-mapped ring queue with durable named readers.

mod crc;
mod cursor;
mod directory;
mod error;
mod faults;
#[cfg(feature = "floor")]
#[doc(hidden)]
pub mod floor;
mod format;
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

pub use error::{Error, Result};
pub use options::{Durability, Options};
pub use queue::Queue;
pub use reader::{Batch, Entry, Reader};
pub use seq::{QueueId, Seq, SeqSpan};
pub use stat::{ReaderStat, Recovery, Stat};
pub use tail::{Gap, Tail, TailBatch};
