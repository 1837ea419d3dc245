//! Many simulated devices.
#![forbid(unsafe_code)]
