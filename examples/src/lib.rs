//! Programs that show each way of using Forebay.
#![forbid(unsafe_code)]
