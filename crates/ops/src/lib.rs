//! How a process is run.
#![forbid(unsafe_code)]
