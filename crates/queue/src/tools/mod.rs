//! Looking at a queue from outside, and mending it: for command lines and tests.
//!
//! [`Image`] reads beside a live writer and changes nothing. [`repair`] and [`drain`] need the
//! queue for themselves. All work on an orphaned queue, whose process is gone for good.

mod drain;
mod image;
mod repair;

pub use drain::drain;
pub use image::{Damaged, Image, Verdict};
pub use repair::{Repaired, repair};

#[cfg(test)]
mod tests;
