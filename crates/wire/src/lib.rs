//! The bytes that cross a socket: the device protocol, the canonical entry, uplink, feed and live.
//!
//! Each module encodes and decodes one language and says what it refuses. No sockets, no clock,
//! no state: time and addresses come from the caller. The byte-exact description, with vectors
//! that a test of this package runs, is docs/protocol.md.
//!
//! Not here: when to send what (`forebay-link` between tiers, the front and `forebay-client`
//! towards devices).
#![forbid(unsafe_code)]

pub mod base64;
mod cbor;
pub mod device;
pub mod entry;
pub mod feed;
pub mod frame;
mod id;
pub mod limits;
pub mod live;
pub mod partition;
pub mod records;
pub mod uplink;

pub use id::{ParseIdError, QueueId, Seq};
