//! How a link is set up. Every limit has its default and its reason here.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use forebay_wire::Seq;
use forebay_wire::uplink::Level;

use crate::pump::{AcceptTls, ConnectTls};

/// A socket that others connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindConfig {
    /// `tcp://address:port` (port 0: any) or `ipc://path` (an old socket file is removed first).
    pub endpoint: String,
    /// Whether an address that is neither loopback nor private may be bound without TLS, where
    /// peers are not authenticated: off by default.
    pub allow_public: bool,
    /// Whether TCP connections pass the pump, which checks and bounds what a peer may cost. Off
    /// only where no other process can connect: the ZeroMQ socket behind it believes what it reads.
    pub pump: bool,
    /// TLS of TCP connections, which needs the pump; `None` for plain ones.
    pub tls: Option<AcceptTls>,
}

impl BindConfig {
    /// Loopback or private addresses only, behind the pump.
    #[must_use]
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self { endpoint: endpoint.into(), allow_public: false, pump: true, tls: None }
    }
}

/// A socket that connects to another, again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectConfig {
    /// `tcp://host:port` (resolved anew at each attempt) or `ipc://path`.
    pub endpoint: String,
    /// Longest time a connection may take, handshake included.
    pub connect_timeout: Duration,
    /// First pause after a failure; doubles up to `backoff_max`, with full jitter.
    pub backoff_min: Duration,
    /// Longest pause after a failure.
    pub backoff_max: Duration,
    /// How often the peer is asked for a sign of life.
    pub ping_every: Duration,
    /// How long a peer may be silent before its socket is dropped and a new one built.
    pub silence_max: Duration,
    /// TLS of TCP connections, to the name of the endpoint's host; `None` for plain ones.
    pub tls: Option<ConnectTls>,
}

impl ConnectConfig {
    /// The defaults for `endpoint`.
    #[must_use]
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            connect_timeout: Duration::from_secs(2),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            ping_every: Duration::from_secs(1),
            silence_max: Duration::from_secs(3),
            tls: None,
        }
    }
}

/// An uplink sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderConfig {
    /// Name of its thread: at most 15 bytes show in the system's tools.
    pub thread: String,
    /// Where the middle's receiver is.
    pub connect: ConnectConfig,
    /// The lowest level of ack it accepts.
    pub level: Level,
    /// Hash of the partition map; the receiver must have the same.
    pub partitions: u64,
    /// Length at which a batch closes, in bytes.
    pub batch_bytes: usize,
    /// Most bytes sent and unacked.
    pub window_bytes: usize,
    /// Most batches sent and unacked: far below what the socket library queues (100,000), where it
    /// would stop taking more without a way out.
    pub window_batches: usize,
}

impl SenderConfig {
    /// The defaults for a sender to `endpoint`, which requires the level `disk`.
    #[must_use]
    pub fn new(thread: impl Into<String>, endpoint: impl Into<String>) -> Self {
        Self {
            thread: thread.into(),
            connect: ConnectConfig::new(endpoint),
            level: Level::Disk,
            partitions: 0,
            batch_bytes: forebay_wire::frame::FRAME_BYTES_TARGET,
            window_bytes: 8 * 1024 * 1024,
            window_batches: 128,
        }
    }
}

/// An uplink receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverConfig {
    /// Name of its thread.
    pub thread: String,
    /// Where it listens.
    pub bind: BindConfig,
    /// Hash of the partition map; a source with another is refused.
    pub partitions: u64,
    /// Most bytes one source may have unacked.
    pub window_bytes: usize,
}

impl ReceiverConfig {
    /// The defaults for a receiver at `endpoint`.
    #[must_use]
    pub fn new(thread: impl Into<String>, endpoint: impl Into<String>) -> Self {
        Self {
            thread: thread.into(),
            bind: BindConfig::new(endpoint),
            partitions: 0,
            window_bytes: 8 * 1024 * 1024,
        }
    }
}

/// A publisher of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublisherConfig {
    /// Name of its thread.
    pub thread: String,
    /// Where it listens.
    pub bind: BindConfig,
    /// Length at which a batch closes, in bytes.
    pub batch_bytes: usize,
    /// How often the head is published when nothing else is.
    pub head_every: Duration,
}

impl PublisherConfig {
    /// The defaults for a publisher at `endpoint`.
    #[must_use]
    pub fn new(thread: impl Into<String>, endpoint: impl Into<String>) -> Self {
        Self {
            thread: thread.into(),
            bind: BindConfig::new(endpoint),
            batch_bytes: forebay_wire::frame::FRAME_BYTES_TARGET,
            head_every: Duration::from_millis(100),
        }
    }
}

/// A replay server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayConfig {
    /// Name of its thread.
    pub thread: String,
    /// Where it listens.
    pub bind: BindConfig,
    /// Length at which a batch of records closes, in bytes.
    pub batch_bytes: usize,
    /// Most bytes answered to one fetch, whatever credit it names.
    pub credit_bytes_max: usize,
}

impl ReplayConfig {
    /// The defaults for a replay server at `endpoint`.
    #[must_use]
    pub fn new(thread: impl Into<String>, endpoint: impl Into<String>) -> Self {
        Self {
            thread: thread.into(),
            bind: BindConfig::new(endpoint),
            batch_bytes: forebay_wire::frame::FRAME_BYTES_TARGET,
            credit_bytes_max: 4 * 1024 * 1024,
        }
    }
}

/// Where a subscriber without a durable cursor begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    Head,
    /// With the oldest record the middle still has.
    Oldest,
    /// Above this number.
    After(Seq),
}

/// A subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriberConfig {
    /// Name of its thread.
    pub thread: String,
    /// Where the middle publishes.
    pub feed: ConnectConfig,
    /// Where the middle serves fetches.
    pub fetch: ConnectConfig,
    /// The durable consumer it is; `None` for a reader that keeps no cursor at the middle and may
    /// miss records, which it says.
    pub consumer: Option<String>,
    /// Where a reader without a cursor begins.
    pub start: Start,
    /// Bytes held for the reader at most; what is published beyond is dropped and fetched later.
    pub buffer_bytes: usize,
}

impl SubscriberConfig {
    /// The defaults for a subscriber of the middle at `feed` and `fetch`.
    #[must_use]
    pub fn new(
        thread: impl Into<String>,
        feed: impl Into<String>,
        fetch: impl Into<String>,
    ) -> Self {
        Self {
            thread: thread.into(),
            feed: ConnectConfig::new(feed),
            fetch: ConnectConfig::new(fetch),
            consumer: None,
            start: Start::Head,
            buffer_bytes: 8 * 1024 * 1024,
        }
    }
}

/// Whether the text names a ZeroMQ endpoint of the kinds we use: `tcp://HOST:PORT` or `ipc://PATH`.
#[must_use]
pub fn is_endpoint(text: &str) -> bool {
    let address = |rest: &str| {
        rest.rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    text.strip_prefix("tcp://").is_some_and(address)
        || text.strip_prefix("ipc://").is_some_and(|path| !path.is_empty())
}

/// Whether the endpoint names, by number, an address that others than this machine's private
/// network may reach: binding it needs TLS, or [`BindConfig::allow_public`]. What a host name
/// stands for is known only when it is bound.
#[must_use]
pub fn is_public(endpoint: &str) -> bool {
    let address = endpoint.strip_prefix("tcp://").and_then(|host| host.parse::<SocketAddr>().ok());
    address.is_some_and(|address| !is_private(address.ip()))
}

/// Whether packets to the address stay on this machine or in this network.
pub(crate) fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}
