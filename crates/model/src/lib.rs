//! What the data is: who sent it, when, and what was measured, with the bounds each part must keep.
//!
//! Everything that enters the pipeline is checked here once, at the edge; what is behind the edge
//! holds these types and need not look again. The package has no I/O and imports nothing of ours.
//!
//! Not here: how any of it is written to bytes (`forebay-wire`) and where it rests
//! (`forebay-queue`).
#![forbid(unsafe_code)]

mod error;
mod id;
mod message;
mod reading;
pub mod registry;
mod time;

pub use error::Invalid;
pub use id::{DeviceId, MessageId, SessionId, TenantId};
pub use message::{Body, Message};
pub use reading::{Reading, Value};
pub use time::Timestamp;

/// Largest integer that every JSON and JavaScript client can carry exactly (2^53 - 1).
///
/// Sessions and message numbers stay at or below it, so that a device may be written in anything.
/// Source: RFC 8259 section 6, ECMA-262 `Number.MAX_SAFE_INTEGER`.
pub const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;

/// Bounds of each part of a message, in one place; the protocol document repeats them.
pub mod limits {
    /// Bytes in a device id.
    pub const DEVICE_BYTES_MAX: usize = 128;
    /// Bytes in a tenant id.
    pub const TENANT_BYTES_MAX: usize = 64;
    /// Bytes in a reading's key.
    pub const KEY_BYTES_MAX: usize = 128;
    /// Bytes in a unit.
    pub const UNIT_BYTES_MAX: usize = 32;
    /// Bytes in a content type.
    pub const CONTENT_TYPE_BYTES_MAX: usize = 128;
    /// Bytes in a device's name, type or location.
    pub const DESCRIPTION_BYTES_MAX: usize = 256;
    /// Readings in one message; an index fits 16 bits in every store.
    pub const READINGS_MAX: usize = 4096;
}
