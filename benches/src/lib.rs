//! What the benchmarks have in common: how figures are summed up and printed, a load generator that
//! costs little, and servers in processes of their own with what they cost.
#![forbid(unsafe_code)]

pub mod load;
pub mod options;
pub mod process;
mod report;
pub mod served;
pub mod sink;

pub use report::{Goal, Report, median, spread};
