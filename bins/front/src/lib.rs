//! The front tier.
#![forbid(unsafe_code)]
