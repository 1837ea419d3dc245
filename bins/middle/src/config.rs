//! The middle's settings: a sub-struct for each component, the reason beside each default.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use forebay_ops::{ByteSize, Duration, Faults, Validate, drain::ShutdownSettings, tls::MutualTls};
use forebay_wire::{frame, partition};
use serde::{Deserialize, Serialize};

/// Everything that can be set about a middle.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where fronts connect.
    pub uplink: Uplink,
    /// Where storage tiers and live readers follow.
    pub feed: Feed,
    /// Where they fetch what they missed, and keep their cursors.
    pub fetch: Fetch,
    /// Health, readiness and metrics.
    pub admin: Admin,
    /// The log on disk.
    pub queue: QueueSettings,
    /// What is kept to recognise resends.
    pub dedup: Dedup,
    /// Who must have read an entry before its space is used again.
    pub consumers: Consumers,
    /// The end of the process.
    pub shutdown: ShutdownSettings,
}

/// Where fronts connect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Uplink {
    /// `tcp://address:port` or `ipc://path`. Without `tls`, peers are not authenticated.
    pub listen: String,
    /// Let `listen` be an address that is neither loopback nor private without `tls`.
    pub allow_public: bool,
    /// Mutual TLS: who connects must show a certificate. Off while `certificate` is empty.
    pub tls: MutualTls,
    /// Bytes that one front may have sent and not acked.
    pub window: ByteSize,
    /// Which of `partitions` this middle is.
    pub partition: String,
    /// The names of all middles; every front must name the same.
    pub partitions: Vec<String>,
}

impl Default for Uplink {
    fn default() -> Self {
        Self {
            listen: "tcp://127.0.0.1:7410".to_owned(),
            allow_public: false,
            tls: MutualTls::default(),
            // 128 frames: at a sync of 1 ms it is never what limits, and 50 fronts take 400 MiB at
            // most of the sockets' memory if the disk stands still.
            window: ByteSize::mib(8),
            partition: partition::SINGLE.to_owned(),
            partitions: vec![partition::SINGLE.to_owned()],
        }
    }
}

/// Where storage tiers and live readers follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Feed {
    /// `tcp://address:port` or `ipc://path`. Without `tls`, peers are not authenticated.
    pub listen: String,
    /// Let `listen` be an address that is neither loopback nor private without `tls`.
    pub allow_public: bool,
    /// Mutual TLS: who connects must show a certificate. Off while `certificate` is empty.
    pub tls: MutualTls,
    /// How often the head is published when nothing else is; shows a lost tail.
    pub head_every: Duration,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            listen: "tcp://127.0.0.1:7411".to_owned(),
            allow_public: false,
            tls: MutualTls::default(),
            head_every: Duration::from_millis(100),
        }
    }
}

/// Where readers fetch what they missed, and keep their cursors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fetch {
    /// `tcp://address:port` or `ipc://path`. Without `tls`, peers are not authenticated.
    pub listen: String,
    /// Let `listen` be an address that is neither loopback nor private without `tls`.
    pub allow_public: bool,
    /// Mutual TLS: who connects must show a certificate. Off while `certificate` is empty.
    pub tls: MutualTls,
    /// Bytes answered to one fetch at most, whatever it asks for.
    pub credit_max: ByteSize,
}

impl Default for Fetch {
    fn default() -> Self {
        Self {
            listen: "tcp://127.0.0.1:7412".to_owned(),
            allow_public: false,
            tls: MutualTls::default(),
            // 64 frames: enough to keep a connection busy, little to hold for a slow one.
            credit_max: ByteSize::mib(4),
        }
    }
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
        Self { address: (Ipv4Addr::LOCALHOST, 7413).into(), token_file: None }
    }
}

/// What an entry has survived before it is acked and published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The death of the process.
    Process,
    /// The death of the machine.
    #[default]
    Disk,
}

/// The log on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSettings {
    /// Directory of the log and of the dedup snapshots.
    pub dir: PathBuf,
    /// Bytes of the log, allocated when it is made.
    pub capacity: ByteSize,
    /// `process` or `disk`.
    pub durability: Durability,
    /// Accept file systems that cannot promise `disk`: tmpfs, overlay, NFS, btrfs and others.
    pub any_filesystem: bool,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            dir: "forebay-data/middle".into(),
            // Four default fronts' rings; at 3,000 messages of 256 B a second, the storage tier
            // may be away for five minutes before fronts begin to fill.
            capacity: ByteSize::mib(256),
            durability: Durability::Disk,
            any_filesystem: false,
        }
    }
}

/// What is kept to recognise resends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dedup {
    /// A device session that is silent for so long is forgotten; a resend after that is stored
    /// again. Counted while the middle runs.
    pub retention: Duration,
    /// Likewise for a front's queue. Longer, for a front that was away may still resend.
    pub source_retention: Duration,
    /// Memory for device sessions, about 130 B each; beyond, the longest silent are forgotten.
    pub memory_max: ByteSize,
    /// Longest time between two snapshots while entries come in.
    pub snapshot_every: Duration,
}

impl Default for Dedup {
    fn default() -> Self {
        Self {
            // A device that spools keeps its session over a weekend and some days of repair.
            retention: Duration::from_secs(7 * 86_400),
            source_retention: Duration::from_secs(90 * 86_400),
            // Two million sessions.
            memory_max: ByteSize::mib(256),
            // A restart scans what came since; at full rate the size of the log sets the pace.
            snapshot_every: Duration::from_secs(60),
        }
    }
}

/// Who must have read an entry before its space is used again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Consumers {
    /// Durable consumers that exist from the first start on, so that nothing is reclaimed before
    /// they first appear. One for each sink of the storage tier.
    pub required: Vec<String>,
    /// Let a consumer that is not required begin a cursor by connecting.
    pub allow_others: bool,
    /// Consumers that are left behind rather than hold the log when it is nearly full: the oldest
    /// entries are given up for them, and the gap is recorded. All others hold it.
    pub detach: Vec<String>,
    /// Consumers whose cursors are removed at the start, because they will never come again.
    pub remove: Vec<String>,
}

impl Default for Consumers {
    fn default() -> Self {
        // A misspelt name would hold the log until it is full: others only by decision.
        Self {
            required: vec!["lake".to_owned()],
            allow_others: false,
            // Losing entries is somebody's decision, never a default.
            detach: Vec::new(),
            remove: Vec::new(),
        }
    }
}

/// Longest name of a consumer: a reader's name in the queue has 40 bytes with our prefix.
pub const CONSUMER_BYTES_MAX: usize = 32;
/// Most consumers: the queue has 24 readers, one of them the dedup snapshot's.
pub const CONSUMERS_MAX: usize = 20;
/// The least the log must hold: some of the largest frames.
const CAPACITY_MIN: u64 = 4 * frame::BODY_BYTES_MAX as u64;
const MEMORY_MIN: ByteSize = ByteSize::mib(1);

/// Whether `name` may name a consumer: 1 to 32 of `A-Z a-z 0-9 - _ .`.
#[must_use]
pub fn is_consumer_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= CONSUMER_BYTES_MAX && name.bytes().all(plain)
}

impl Validate for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.within("shutdown", |faults| self.shutdown.validate(faults));
        faults.within("uplink", |faults| {
            let uplink = &self.uplink;
            port(faults, &uplink.listen, uplink.allow_public, &uplink.tls);
            faults.check(uplink.window.get() >= 1 << 16, "window", "must be at least 64KiB");
            let known = uplink.partitions.contains(&uplink.partition);
            faults.check(known, "partition", "must be one of uplink.partitions");
        });
        faults.within("feed", |faults| {
            port(faults, &self.feed.listen, self.feed.allow_public, &self.feed.tls);
            let positive = !self.feed.head_every.is_zero();
            faults.check(positive, "head_every", "must be longer than zero");
        });
        faults.within("fetch", |faults| {
            port(faults, &self.fetch.listen, self.fetch.allow_public, &self.fetch.tls);
            let credit = self.fetch.credit_max.get();
            faults.check(credit >= 1 << 16, "credit_max", "must be at least 64KiB");
        });
        faults.within("queue", |faults| {
            let fits = self.queue.capacity.get() >= CAPACITY_MIN;
            let least = ByteSize::new(CAPACITY_MIN);
            faults.check(fits, "capacity", format!("must be at least {least}"));
        });
        faults.within("dedup", |faults| self.dedup.validate(faults));
        faults.within("consumers", |faults| self.consumers.validate(faults));
    }
}

/// A port that other tiers connect to: whoever can reach it must be known, or be allowed to.
fn port(faults: &mut Faults, listen: &str, allow_public: bool, tls: &MutualTls) {
    let endpoint = forebay_link::is_endpoint(listen);
    faults.check(endpoint, "listen", "must be tcp://address:port or ipc://path");
    let guarded = allow_public || tls.is_on() || !forebay_link::is_public(listen);
    faults.check(
        guarded,
        "listen",
        "is a public address whose peers are not authenticated: set tls, bind a private address, \
         or set allow_public = true",
    );
    let tcp = !tls.is_on() || listen.starts_with("tcp://");
    faults.check(tcp, "tls.certificate", "TLS is for tcp:// only");
    faults.within("tls", |faults| tls.validate(faults));
}

impl Validate for Dedup {
    fn validate(&self, faults: &mut Faults) {
        for (key, span) in [
            ("retention", self.retention),
            ("source_retention", self.source_retention),
            ("snapshot_every", self.snapshot_every),
        ] {
            faults.check(span.as_secs() >= 1, key, "must be at least 1s");
        }
        let enough = self.memory_max >= MEMORY_MIN;
        faults.check(enough, "memory_max", format!("must be at least {MEMORY_MIN}"));
    }
}

impl Validate for Consumers {
    fn validate(&self, faults: &mut Faults) {
        const NAME: &str = "a consumer's name is 1 to 32 of A-Z a-z 0-9 - _ .";
        for (key, names) in
            [("required", &self.required), ("detach", &self.detach), ("remove", &self.remove)]
        {
            for name in names {
                faults.check(is_consumer_name(name), key, format!("{name:?}: {NAME}"));
            }
        }
        let few = self.required.len() <= CONSUMERS_MAX;
        faults.check(few, "required", format!("at most {CONSUMERS_MAX} consumers"));
        for name in self.detach.iter().filter(|name| !self.required.contains(name)) {
            // A misspelt name would leave the log held by the one that was meant.
            let known = self.allow_others || !is_consumer_name(name);
            faults.check(known, "detach", format!("{name:?} is not among required"));
        }
        for name in self.required.iter().filter(|name| self.remove.contains(name)) {
            faults.add("remove", format!("{name:?} is required too"));
        }
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
    fn the_defaults_are_valid() {
        assert_eq!(faults(&Config::default()), Vec::<String>::new());
    }

    #[test]
    fn a_public_address_needs_tls_or_an_explicit_word() {
        let mut config = Config::default();
        for listen in ["tcp://0.0.0.0:1", "tcp://[::]:1", "tcp://203.0.113.1:1"] {
            config.feed.listen = listen.to_owned();
            assert_eq!(faults(&config), ["feed.listen"], "{listen}");
        }
        config.feed.allow_public = true;
        assert_eq!(faults(&config), Vec::<String>::new());
        config.feed.allow_public = false;
        config.feed.tls.certificate = "middle.pem".into();
        assert_eq!(faults(&config), ["feed.tls.key", "feed.tls.ca"]);
        (config.feed.tls.key, config.feed.tls.ca) = ("middle.key".into(), "ca.pem".into());
        assert_eq!(faults(&config), Vec::<String>::new());
        config.feed.listen = "ipc://feed".to_owned();
        assert_eq!(faults(&config), ["feed.tls.certificate"]);
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let mut config = Config::default();
        config.uplink.listen = "127.0.0.1:7410".to_owned();
        config.uplink.partition = "9".to_owned();
        config.feed.head_every = Duration::from_secs(0);
        config.fetch.credit_max = ByteSize::new(1);
        config.queue.capacity = ByteSize::mib(1);
        config.dedup.retention = Duration::from_millis(5);
        config.dedup.memory_max = ByteSize::new(0);
        config.consumers.required = vec!["a b".to_owned(), "lake".to_owned()];
        config.consumers.remove = vec!["lake".to_owned()];
        config.consumers.detach = vec!["lak".to_owned()];
        let paths = [
            "uplink.listen",
            "uplink.partition",
            "feed.head_every",
            "fetch.credit_max",
            "queue.capacity",
            "dedup.retention",
            "dedup.memory_max",
            "consumers.required",
            "consumers.detach",
            "consumers.remove",
        ];
        assert_eq!(faults(&config), paths);
    }
}
