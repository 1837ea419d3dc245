//! Raw mode: a connection without a subprotocol, for wscat, browsers and very small devices.
//!
//! Every message is one opaque entry and is answered by the JSON form of the server frames,
//! `{"ack":n}` with n counting the connection's messages from 1. There is no session, so a message
//! sent again after a broken connection is stored again: at-least-once.

use std::borrow::Cow;

use forebay_model::Body;

/// Content type of a text message.
pub const TEXT: &str = "text/plain;charset=utf-8";
/// Content type of a binary message.
pub const BINARY: &str = "application/octet-stream";

/// The body of a raw text message.
#[must_use]
pub fn text(text: &str) -> Body<'_> {
    Body::Opaque { content_type: Cow::Borrowed(TEXT), payload: Cow::Borrowed(text.as_bytes()) }
}

/// The body of a raw binary message.
#[must_use]
pub fn binary(bytes: &[u8]) -> Body<'_> {
    Body::Opaque { content_type: Cow::Borrowed(BINARY), payload: Cow::Borrowed(bytes) }
}
