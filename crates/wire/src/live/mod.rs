//! The live protocol: what a reader and the storage tier say over `/v1/live`, in JSON text frames.
//!
//! Each frame is an object with one key that names its kind, such as `{"event":{..}}`; SSE carries
//! the same objects. The client sends one `subscribe` (a later one replaces it); the server answers
//! `subscribed`, then `snapshot` parts if asked for, then `event` after `event`, and `missed` in the
//! place of events that a slow client did not get.
//!
//! Not here: which device has which type or location (the storage tier's registry), and how far
//! back a resume reaches (the middle's queue).

mod frame;
mod subscription;
mod text;

pub use frame::{Event, LastValue, LiveReading, Missed, Opaque, Position, ServerFrame, Snapshot};
pub use subscription::{ClientFrame, Mode, Subscribed, Subscription};

/// The protocol's name in `Sec-WebSocket-Protocol`, for those whose WebSocket needs one in the
/// answer, such as a browser that offers a token beside it. It may be left out.
pub const SUBPROTOCOL: &str = "forebay.live.v1";

/// Where readers connect.
pub const PATH: &str = "/v1/live";
