//! The Parquet lake: a folder that any Parquet tool reads, written exactly once without a server.
//!
//! `name` says where a range of entries lies, `schema` what a file's columns are, `encode` turns
//! rows into the bytes of files, `file` puts bytes in place atomically.
//!
//! Not here: when a range is closed (`sink`) and how the lake is queried (`read`).

pub mod encode;
pub mod file;
pub mod name;
#[cfg(feature = "planted-faults")]
mod planted;
pub mod schema;
mod sink;

pub use name::{FileName, Hour};
pub use sink::{LakeSink, split};
