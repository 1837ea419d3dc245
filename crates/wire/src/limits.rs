//! Default bounds of what crosses a socket, in one place; docs/protocol.md repeats them.
//!
//! A front's configuration may lower or raise those of the device protocol; `welcome` tells the
//! device what holds. Bounds of the data itself are in `forebay_model::limits`.

use std::time::Duration;

/// Bytes in one WebSocket message of a device.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Bytes in one WebSocket frame of a device.
pub const FRAME_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
/// Bytes in the HTTP request that opens a WebSocket.
pub const HEADER_BYTES_MAX: usize = 8 * 1024;
/// From accept to the end of the WebSocket handshake.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// From the end of the handshake to the device's hello.
pub const HELLO_TIME_MAX: Duration = Duration::from_secs(5);
/// A socket that takes no byte for so long is closed.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(10);
/// Handshakes in flight on each core.
pub const HANDSHAKES_PER_CORE_MAX: u16 = 1024;
/// A side that has sent nothing for so long sends a ping; silence of twice that ends the session.
pub const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Longest time a front stops reading a socket before it sends a nack instead.
pub const READ_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Unacked messages a device may have in flight unless `welcome` says otherwise.
pub const CREDIT_DEFAULT: u32 = 256;
/// Bytes in a token of `hello`.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// Bytes of a reason in `reject` and in an error; longer ones are cut.
pub const REASON_BYTES_MAX: usize = 256;

/// Bytes in one message of a live client: its subscription.
pub const SUBSCRIBE_BYTES_MAX: usize = 64 * 1024;
/// Entries in each list of a subscription.
pub const SUBSCRIBE_LIST_MAX: usize = 1024;
/// Values in one part of a snapshot.
pub const SNAPSHOT_VALUES_MAX: usize = 512;

const _: () = assert!(FRAME_BYTES_MAX <= MESSAGE_BYTES_MAX);
