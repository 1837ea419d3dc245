//! A crash-safe memory-mapped ring queue with durable named readers.

mod error;
mod format;
mod options;
mod queue;
mod reader;
mod seq;
mod stat;
mod tail;

pub use error::{Error, Result};
pub use options::{Durability, Options};
pub use queue::Queue;
pub use reader::{Batch, Entry, Reader};
pub use seq::{QueueId, Seq, SeqSpan};
pub use stat::{ReaderStat, Recovery, Stat};
pub use tail::{Gap, Tail, TailBatch};
