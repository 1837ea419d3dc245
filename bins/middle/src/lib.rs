//! The middle tier.
#![forbid(unsafe_code)]
