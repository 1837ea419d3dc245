//! The storage tier.
#![forbid(unsafe_code)]

pub mod lake;
pub mod last;
pub mod read;
pub mod rows;
pub mod sink;
