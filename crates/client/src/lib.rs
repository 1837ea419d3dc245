//! Device and reader client.
#![forbid(unsafe_code)]

mod connection;

pub use connection::{Connection, ConnectionError, Welcome};
