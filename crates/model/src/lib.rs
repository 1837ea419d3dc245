//! What the data is.
#![forbid(unsafe_code)]
