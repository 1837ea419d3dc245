//! The device protocol: what a device and a front say to each other over one WebSocket.
//!
//! A frame is one map; the keys it has tell its kind. `forebay.v1.cbor` carries it in a binary
//! message, `forebay.v1.json` in a text message. Without a subprotocol the connection is in
//! [`raw`] mode: every message is one opaque entry, the answers are the JSON server frames.
//!
//! What a device sends is decoded strictly: an unknown or repeated key, a wrong type, a part out of
//! bounds refuse the message, with the place in words. What a front sends is decoded tolerantly:
//! a device ignores keys it does not know, so that a front may say more in a later version.

mod client_frame;
mod close;
mod encoding;
mod error;
mod frame;
mod negotiate;
pub mod raw;
mod senml;
mod server_frame;

pub use close::{CloseCode, Reconnect};
pub use error::{DecodeError, Fault, Place};
pub use frame::{ClientFrame, Level, NackCode, ServerFrame, Token};
pub use negotiate::{Format, Offer, RAW_SUBPROTOCOL, TOKEN_ENTRY, token_entry};

/// Where devices connect: this path, followed by the device id.
pub const PATH_PREFIX: &str = "/v1/ingest/";
