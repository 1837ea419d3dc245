//! What the benchmarks have in common: how figures are summed up and printed.
#![forbid(unsafe_code)]

mod report;

pub use report::{Goal, Report, median, spread};
