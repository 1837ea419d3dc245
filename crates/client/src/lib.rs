//! For devices and readers.
#![forbid(unsafe_code)]
