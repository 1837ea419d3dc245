//! The storage tier: follows the middles' logs, stores every entry exactly once, and shows it.
//!
//! One log, N cursors: each sink has its own durable consumer at the middle and its own threads,
//! the live feed reads without a cursor, and none of them waits for another. The lake is the sink
//! that needs no server; last values, history and trends are answered from it and from memory.
//!
//! | for | see |
//! | --- | --- |
//! | running the tier | [`Config`], [`start`], [`Running`] |
//! | a new store | [`sink::Sink`] |
//! | the files | [`lake`] |
//! | tables in ClickHouse | [`clickhouse`] |
//! | questions about what is stored | [`read`], [`last`] |
//! | what is known of devices | [`registry`] |
//! | events as they come | [`live`], [`http`] |
//!
//! **Architecture invariant**: a cursor moves only after the store has acked, and what is sent
//! again is byte for byte what was sent before.
#![forbid(unsafe_code)]

pub mod clickhouse;
pub mod config;
pub mod dead;
#[cfg(any(feature = "redis", feature = "remote-write"))]
mod dial;
pub mod feed;
mod feed_link;
pub mod http;
pub mod lake;
pub mod last;
pub mod live;
mod metrics;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod read;
#[cfg(feature = "redis")]
pub mod redis;
pub mod registry;
#[cfg(feature = "remote-write")]
pub mod remote_write;
pub mod rows;
mod silent;
pub mod sink;
mod sinks;
mod tier;

pub use config::Config;
pub use tier::{Addresses, Drained, Running, StartError, run, start};
