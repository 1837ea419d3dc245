//! For devices and readers: [`Device`] sends messages and keeps each until a front has acked it,
//! [`Live`] follows the live feed; both connect again by themselves.
//!
//! Below them, [`Connection`] is one session over one socket without any memory, for programs that
//! can make their messages again.
//!
//! All of them speak `ws://` and, with [`Tls`], `wss://`. Not here: what the bytes mean
//! (docs/protocol.md, `forebay-wire`).
#![forbid(unsafe_code)]

mod backoff;
mod connection;
mod device;
mod error;
mod live;
mod observe;
mod options;
mod tls;

pub use backoff::Backoff;
pub use connection::{Approach, Connection, ConnectionError, Welcome};
pub use device::Device;
pub use error::Error;
pub use live::{Live, LiveItem, LiveOptions};
pub use observe::{Observer, Rejection, Statistics};
pub use options::{Options, SpoolOptions};
pub use tls::{Tls, TlsError};
