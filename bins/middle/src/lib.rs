//! The middle tier: fan-in from many fronts, fan-out to storage.
//!
//! ```text
//!  fronts ──▶ collector ──▶ log ──▶ publisher ──▶ storage, live
//!             dedup         │  └──▶ replay   ◀──▶ fetch, prepare, commit
//!             snapshot ◀────┘
//! ```
//!
//! The collector appends each message once to the middle's own log, and a front is acked when the
//! log has it durably; the publisher sends what is durable as it comes; the replay server serves
//! what a reader missed, and keeps the durable consumers' cursors. The log reclaims below the
//! slowest of them, and below what a dedup snapshot proves ([`snapshot`]).
//!
//! Each is a thread of its own, run by `forebay-link`, which knows no disk; here is the disk.
//!
//! **Architecture invariant**: nothing here parses what a message carries, only whose it is.
#![forbid(unsafe_code)]

mod accounts;
mod balance;
mod beginning;
mod clock;
mod collector;
mod config;
mod consumers;
pub mod dedup;
mod detach;
mod feed;
mod gaps;
mod metrics;
mod place;
#[cfg(feature = "planted-faults")]
mod planted;
mod recover;
pub mod snapshot;
mod snapshotter;
mod tier;
mod tls;

#[cfg(test)]
mod books_tests;
#[cfg(test)]
mod middle_tests;
#[cfg(test)]
mod testing;

pub use config::{
    Admin, CONSUMER_BYTES_MAX, CONSUMERS_MAX, Config, Consumers, Dedup as DedupSettings,
    Durability, Feed, Fetch, QueueSettings, Uplink, is_consumer_name,
};
pub use recover::RecoverError;
pub use tier::{Addresses, Drained, Running, StartError, run, start};
