//! How a device speaks: encoding, session, window, waits.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use forebay_model::{MessageId, SessionId};
use forebay_wire::{
    device::{Format, Token},
    limits::CREDIT_DEFAULT,
};

use crate::{Backoff, Observer, Tls};

/// Options of a [`crate::Device`].
///
/// ```
/// use forebay_client::Options;
/// use forebay_wire::device::Format;
/// let options = Options { format: Format::Json, window: 16, ..Options::default() };
/// assert_eq!(options.next_seq.get(), 1);
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    /// The encoding; CBOR is smaller and three times cheaper to write.
    pub format: Format,
    /// The session of a counter that was kept; `None` draws a new one.
    pub session: Option<SessionId>,
    /// The number of the first message, if the counter was kept: one above the last that was given.
    pub next_seq: MessageId,
    /// Messages that may be unacked; `send` waits while there are so many. Memory is bounded by
    /// this times the largest message. With a spool: how many of its messages are in memory.
    pub window: usize,
    /// A credential, sent as `Authorization: Bearer`.
    pub token: Option<Token<'static>>,
    /// TLS for `wss://`; none trusts whom the system trusts.
    pub tls: Option<Tls>,
    /// How long [`crate::Device::connect`] tries before it gives up.
    pub connect_time_max: Duration,
    /// From the first packet of a connection to its welcome.
    pub handshake_time_max: Duration,
    /// Waits between connections.
    pub backoff: Backoff,
    /// The local address to connect from; a fleet needs several above 28,000 connections.
    pub local_address: Option<IpAddr>,
    /// Hears of acks, rejections and connections.
    pub observer: Option<Arc<dyn Observer>>,
    /// Keeps messages on disk until they are acked.
    pub spool: Option<SpoolOptions>,
}

/// A queue of the device's own, on its disk: messages survive the device's restart.
///
/// Session and counter are kept in it; `session` and `next_seq` count only for a new spool.
#[derive(Debug, Clone)]
pub struct SpoolOptions {
    /// The directory; made if it is not there.
    pub dir: PathBuf,
    /// Capacity and durability. With [`forebay_queue::Durability::Process`] a power cut may take
    /// back numbers that were already sent: use it only where the device cannot lose power alone.
    pub queue: forebay_queue::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            format: Format::Cbor,
            session: None,
            next_seq: MessageId::FIRST,
            window: CREDIT_DEFAULT as usize,
            token: None,
            tls: None,
            connect_time_max: Duration::from_secs(10),
            handshake_time_max: Duration::from_secs(5),
            backoff: Backoff::default(),
            local_address: None,
            observer: None,
            spool: None,
        }
    }
}
