//! The Parquet lake: a folder that any Parquet tool reads, written exactly once without a server.
//!
//! `name` says where a range of entries lies, `schema` what a file's columns are, `encode` turns
//! rows into the bytes of files, `file` puts bytes in place atomically. `gate` says who may change a
//! folder when, `merge` and `compact` make one file of many, `caretaker` does so in the background
//! and drops what is too old.
//!
//! Not here: when a range is closed (`sink`) and how the lake is queried (`read`).

pub mod caretaker;
pub mod compact;
pub mod encode;
pub mod file;
pub mod gate;
pub mod merge;
pub mod name;
#[cfg(feature = "planted-faults")]
mod planted;
pub mod schema;
mod sink;

pub use caretaker::{CareStatus, Caretaker};
pub use gate::Gate;
pub use name::{FileName, Hour};
pub use sink::{LakeSink, split};
