//! The storage tier.
#![forbid(unsafe_code)]
