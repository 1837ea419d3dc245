//! The middle tier.
#![forbid(unsafe_code)]

pub mod dedup;
pub mod snapshot;
