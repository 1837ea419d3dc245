//! The front's settings: a sub-struct for each component, the reason beside each default.

mod listen;
mod network;
mod rate;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use forebay_access::Auth;
use forebay_ops::{
    ByteSize, Duration, Faults, Validate,
    drain::ShutdownSettings,
    tls::{ClientCertificate, MutualTls, ServerTls},
};
use forebay_wire::{device, limits};
use serde::{Deserialize, Serialize};

pub use crate::registry::{RegistrySettings, Validation};
pub use listen::{Listen, Proxy, ProxyProtocol};
pub use network::Network;
pub use rate::Rate;

/// Everything that can be set about a front.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where devices connect.
    pub listen: Listen,
    /// TLS of the WebSocket port. With client certificates a device is whom its certificate names
    /// by a URI `forebay://tenant/device`.
    pub tls: ServerTls,
    /// Who is let in.
    pub auth: Auth,
    /// The load balancer in front of this front.
    pub proxy: Proxy,
    /// Health, readiness and metrics.
    pub admin: Admin,
    /// The way from a TCP connection to a session.
    pub handshake: Handshake,
    /// Bounds of a session.
    pub limits: Limits,
    /// What an ack promises, and how many messages may wait for one.
    pub ack: Ack,
    /// How fast one device, and one tenant, may send.
    pub rate: Rate,
    /// The device registry.
    pub registry: RegistrySettings,
    /// The rings on disk.
    pub queue: QueueSettings,
    /// The way to the middle.
    pub uplink: Uplink,
    /// How devices are sent away at a drain.
    pub drain: Drain,
    /// The end of the process.
    pub shutdown: ShutdownSettings,
}

/// Health, readiness and metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address of the admin HTTP port; reading asks for no password.
    pub address: SocketAddr,
    /// File with the token that `/v1/drain` asks for. None: the variable FOREBAY_ADMIN_TOKEN;
    /// without either nobody may drain.
    pub token_file: Option<PathBuf>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: (Ipv4Addr::LOCALHOST, 7401).into(), token_file: None }
    }
}

/// The way from a TCP connection to a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Handshake {
    /// Longest time from accept to the end of the handshake.
    pub deadline: Duration,
    /// Handshakes in flight on each core; more wait in the kernel.
    pub in_flight_max: u16,
    /// When that many are in flight, one older than this gives way to the next.
    pub crowded_deadline: Duration,
    /// Bytes in the request's header.
    pub header_max: ByteSize,
    /// Let a device show its credential in its hello instead of in the request.
    pub first_message: bool,
    /// Connections that may wait for such a hello at a time; more are answered 503.
    pub first_message_max: u32,
}

impl Default for Handshake {
    fn default() -> Self {
        Self {
            deadline: limits::HANDSHAKE_TIME_MAX.into(),
            // Silent ones cost 1 to 2 KiB each; 10,000 of them are worked off in ten seconds a core,
            // while devices' own requests go through among them.
            in_flight_max: limits::HANDSHAKES_PER_CORE_MAX,
            // A device on a slow link sends its request within a second; a socket that was silent
            // for longer may not keep others out.
            crowded_deadline: Duration::from_secs(1),
            header_max: ByteSize::new(limits::HEADER_BYTES_MAX as u64),
            // A stranger then holds a session for `limits.hello` instead of a handshake: only for
            // devices that can set no header.
            first_message: false,
            // At 5 s each, 200 devices a second.
            first_message_max: 1024,
        }
    }
}

/// Bounds of a session: what one connection may cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections of this front; more are answered 503.
    pub connections: u32,
    /// Connections from one IP address, those in a handshake included; more are answered 429.
    /// 0 is without limit.
    pub connections_per_address: u32,
    /// Bytes in one WebSocket message, and in one frame.
    pub message: ByteSize,
    /// Memory a connection takes at first when frames come, and gives back when they are read.
    pub read_buffer: ByteSize,
    /// Bytes of answers that are gathered before they are written.
    pub write_buffer: ByteSize,
    /// Bytes of answers a connection may have waiting; beyond, it is dropped.
    pub write_buffer_max: ByteSize,
    /// From the end of the handshake to the hello.
    pub hello: Duration,
    /// A connection that takes no byte of what we send for so long is dropped.
    pub write_stall: Duration,
    /// A device that is silent for so long is pinged; after twice that its connection ends. Time in
    /// which the front itself had no CPU does not count.
    pub ping: Duration,
    /// How long a socket is not read when there is no room, before a nack is sent instead.
    pub read_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Some 10 KB each with the kernel's share: 1 GB when all are used.
            connections: 100_000,
            // Whole sites sit behind one address; who has none of those sets it.
            connections_per_address: 0,
            message: ByteSize::new(limits::MESSAGE_BYTES_MAX as u64),
            // A few usual messages: what lies in the core's buffer passes through in such portions.
            read_buffer: ByteSize::kib(1),
            // Acks are tens of bytes, one for many messages.
            write_buffer: ByteSize::kib(4),
            write_buffer_max: ByteSize::kib(64),
            hello: limits::HELLO_TIME_MAX.into(),
            write_stall: limits::WRITE_STALL_MAX.into(),
            // Below the minute after which common NATs and load balancers forget a connection.
            ping: limits::PING_INTERVAL.into(),
            read_pause: limits::READ_PAUSE_MAX.into(),
        }
    }
}

/// What an ack promises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The message survives the death of this process.
    Process,
    /// The message survives the death of this machine: it is on the medium.
    #[default]
    Disk,
    /// The message is durable in the middle.
    Middle,
}

impl From<Level> for device::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Process => Self::Process,
            Level::Disk => Self::Disk,
            Level::Middle => Self::Middle,
        }
    }
}

/// What an ack promises, and how many messages may wait for one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ack {
    /// `process`, `disk` or `middle`. `process` and `middle` suit a front without a volume of its
    /// own on ext4 or XFS; `middle` waits for a second machine.
    pub level: Level,
    /// Messages a device may have unacked; beyond, its socket is not read.
    pub credit: u32,
}

impl Default for Ack {
    fn default() -> Self {
        Self {
            level: Level::Disk,
            // At one sync of 0.1 to 5 ms an ack, enough for 50,000 messages a second of one device.
            credit: limits::CREDIT_DEFAULT,
        }
    }
}

/// What an entry has survived before an ack of level `middle` is due, or readers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The death of the process.
    Process,
    /// The death of the machine.
    Disk,
}

/// The rings on disk, one for each partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSettings {
    /// Directory in which each ring has its own.
    pub dir: PathBuf,
    /// Bytes of each ring, allocated when it is made.
    pub capacity: ByteSize,
    /// Bytes of the largest entry: a message with its identity, in canonical form.
    pub entry_max: ByteSize,
    /// `process` or `disk`; none: `disk` for acks of level `disk`, else `process`.
    pub durability: Option<Durability>,
    /// Percent of each ring that one tenant's messages may fill while the front knows of more than
    /// one tenant.
    pub tenant_share: u8,
    /// Accept file systems that cannot promise `disk`: tmpfs, overlay, NFS, btrfs and others.
    pub any_filesystem: bool,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            dir: "forebay-data/front".into(),
            // A minute and a half of 3,000 messages of 256 B a second while the middle is away, and
            // a quarter of the memory of a small container.
            capacity: ByteSize::mib(64),
            // The largest message, and as much again for what a SenML base spreads over records.
            entry_max: ByteSize::kib(128),
            durability: None,
            // While the middle is away, a tenant that floods leaves the others half the ring.
            tenant_share: 50,
            any_filesystem: false,
        }
    }
}

/// The way to the middle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Uplink {
    /// Endpoint of the only middle: `tcp://host:port` or `ipc://path`.
    pub middle: String,
    /// Several middles: partition name to endpoint, in place of `middle`. Every front of the
    /// installation must name the same set; changing it needs a drain first.
    pub partitions: BTreeMap<String, String>,
    /// The least a middle must promise, `process` or `disk`; none: `process` for acks of level
    /// `process`, else `disk`. A middle that promises less is refused.
    pub require: Option<Durability>,
    /// Mutual TLS to the middles. Off while `certificate` is empty.
    pub tls: MutualTls,
}

impl Default for Uplink {
    fn default() -> Self {
        Self {
            middle: "tcp://127.0.0.1:7410".to_owned(),
            partitions: BTreeMap::new(),
            require: None,
            tls: MutualTls::default(),
        }
    }
}

impl Uplink {
    /// Name and endpoint of each partition, in the order of the names; at least one.
    #[must_use]
    pub fn middles(&self) -> Vec<(String, String)> {
        if self.partitions.is_empty() {
            return vec![("0".to_owned(), self.middle.clone())];
        }
        self.partitions.iter().map(|(name, address)| (name.clone(), address.clone())).collect()
    }
}

/// How devices are sent away at a drain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// The connections are closed one after another over this time, so that they do not all
    /// reconnect elsewhere at once.
    pub spread: Duration,
    /// What a closed device is told to wait before it connects again.
    pub retry: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { spread: Duration::from_secs(3), retry: Duration::from_secs(1) }
    }
}

impl Config {
    /// Whether devices without a credential are let in: if it is said so, and on loopback as long
    /// as no credential could be shown.
    #[must_use]
    pub fn anonymous(&self) -> bool {
        let local = self.listen.address.ip().is_loopback();
        self.listen.allow_anonymous || (local && !self.has_credentials())
    }

    /// Whether a device can show a credential.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.auth.has_sources() || self.tls.client_certificate != ClientCertificate::None
    }

    /// The least a middle must promise.
    #[must_use]
    pub fn required_of_middle(&self) -> Durability {
        self.uplink.require.unwrap_or(match self.ack.level {
            Level::Process => Durability::Process,
            Level::Disk | Level::Middle => Durability::Disk,
        })
    }

    /// What the rings call durable.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.queue.durability.unwrap_or(match self.ack.level {
            Level::Disk => Durability::Disk,
            Level::Process | Level::Middle => Durability::Process,
        })
    }
}

/// A message needs a header and an identity around it in the ring.
const ENTRY_HEADROOM: u64 = 1024;

impl Validate for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.within("listen", |faults| {
            faults.check(self.listen.cores != Some(0), "cores", "must be at least 1");
            faults.check(
                self.anonymous() || self.has_credentials(),
                "allow_anonymous",
                "must be true for an address beyond loopback, unless [auth] or \
                 tls.client_certificate says who is let in",
            );
        });
        faults.within("tls", |faults| self.tls.validate(faults));
        faults.within("auth", |faults| self.auth.validate(faults));
        faults.within("proxy", |faults| self.proxy.validate(faults));
        faults.within("handshake", |faults| self.handshake.validate(faults));
        faults.within("limits", |faults| self.limits.validate(faults));
        faults.within("ack", |faults| {
            faults.check(self.ack.credit > 0, "credit", "must be at least 1");
        });
        let message = self.limits.message.get();
        faults.within("registry", |faults| self.registry.validate(faults));
        faults.within("queue", |faults| {
            let disk = self.durability() == Durability::Disk;
            faults.check(
                self.ack.level != Level::Disk || disk,
                "durability",
                "must be \"disk\" for acks of level disk",
            );
            let share = (1..=100).contains(&self.queue.tenant_share);
            faults.check(share, "tenant_share", "must be between 1 and 100");
            faults.check(
                self.queue.entry_max.get() >= message + ENTRY_HEADROOM,
                "entry_max",
                format!("must exceed limits.message by at least {ENTRY_HEADROOM} bytes"),
            );
            faults.check(
                self.queue.capacity.get() >= self.queue.entry_max.get().saturating_mul(4),
                "capacity",
                "must hold at least four of the largest entries",
            );
        });
        faults.within("uplink", |faults| self.uplink.validate(faults));
        faults.within("shutdown", |faults| self.shutdown.validate(faults));
        faults.within("drain", |faults| {
            let spread = self.drain.spread.get() <= self.shutdown.timeout.get() / 2;
            faults.check(spread, "spread", "must be at most half of shutdown.timeout");
        });
    }
}

impl Validate for Handshake {
    fn validate(&self, faults: &mut Faults) {
        faults.check(!self.deadline.is_zero(), "deadline", "must be longer than zero");
        faults.check(self.in_flight_max > 0, "in_flight_max", "must be at least 1");
        let header = (256..=65_536).contains(&self.header_max.get());
        faults.check(header, "header_max", "must be between 256B and 64KiB");
    }
}

impl Validate for Limits {
    fn validate(&self, faults: &mut Faults) {
        faults.check(self.connections > 0, "connections", "must be at least 1");
        let message = (1024..=1024 * 1024).contains(&self.message.get());
        faults.check(message, "message", "must be between 1KiB and 1MiB");
        let read = (64..=1024 * 1024).contains(&self.read_buffer.get());
        faults.check(read, "read_buffer", "must be between 64B and 1MiB");
        faults.check(
            self.write_buffer_max.get() >= self.write_buffer.get() + 1024,
            "write_buffer_max",
            "must exceed write_buffer by at least 1KiB",
        );
        for (key, span) in [
            ("hello", self.hello),
            ("write_stall", self.write_stall),
            ("ping", self.ping),
            ("read_pause", self.read_pause),
        ] {
            faults.check(!span.is_zero(), key, "must be longer than zero");
        }
    }
}

impl Validate for Uplink {
    fn validate(&self, faults: &mut Faults) {
        const ENDPOINT: &str = "must be tcp://host:port or ipc://path";
        let partitions = !self.partitions.is_empty();
        faults.check(partitions || forebay_link::is_endpoint(&self.middle), "middle", ENDPOINT);
        faults.within("partitions", |faults| {
            for (name, endpoint) in &self.partitions {
                // The name becomes part of a directory's name.
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
                let fits = !name.is_empty() && name.len() <= 64 && name.bytes().all(plain);
                faults.check(fits, name, "a partition's name is 1 to 64 of A-Z a-z 0-9 - _");
                faults.check(forebay_link::is_endpoint(endpoint), name, ENDPOINT);
            }
        });
        let tcp = self.middles().iter().all(|(_, endpoint)| endpoint.starts_with("tcp://"));
        faults.check(tcp || !self.tls.is_on(), "tls.certificate", "TLS is for tcp:// only");
        faults.within("tls", |faults| self.tls.validate(faults));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(config: &Config) -> Vec<String> {
        let mut faults = Faults::default();
        config.validate(&mut faults);
        faults.found().iter().map(|fault| fault.path.clone()).collect()
    }

    #[test]
    fn the_defaults_hold() {
        assert_eq!(faults(&Config::default()), Vec::<String>::new());
        assert_eq!(Config::default().durability(), Durability::Disk);
    }

    #[test]
    fn every_fault_is_found_at_once() {
        let mut config = Config::default();
        config.listen.address = (Ipv4Addr::UNSPECIFIED, 7400).into();
        config.ack.credit = 0;
        config.queue.durability = Some(Durability::Process);
        config.queue.entry_max = ByteSize::kib(64);
        config.uplink.partitions.insert("a/b".to_owned(), "nowhere".to_owned());
        assert_eq!(
            faults(&config),
            [
                "listen.allow_anonymous",
                "ack.credit",
                "queue.durability",
                "queue.entry_max",
                "uplink.partitions.a/b",
                "uplink.partitions.a/b"
            ]
        );
    }

    #[test]
    fn strangers_are_let_in_on_loopback_or_where_it_is_said() {
        let mut config = Config::default();
        assert!(config.anonymous());
        config.listen.address = (Ipv4Addr::UNSPECIFIED, 7400).into();
        assert!(!config.anonymous());
        config.listen.allow_anonymous = true;
        assert!(config.anonymous());
    }
}
