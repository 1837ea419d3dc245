//! The storage tier's settings: a sub-struct for each component, the reason beside each default.

mod clickhouse;
mod flush;
mod lake;
mod postgres;
mod redis;
mod registry;
mod remote_write;
mod tls;

pub use self::clickhouse::{Clickhouse, Partition, Retention};
pub use self::flush::Flush;
pub use self::lake::{Compaction, Lake, LakeRetention};
pub use self::postgres::Postgres;
pub use self::redis::Redis;
pub use self::registry::{Registry, RegistryTable};
pub use remote_write::RemoteWrite;
pub use tls::Exposure;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use forebay_access::Auth;
use forebay_ops::{
    ByteSize, Duration, Faults, Validate,
    drain::ShutdownSettings,
    tls::{MutualTls, ServerTls},
};
use serde::{Deserialize, Serialize};

/// Everything that can be set about a storage tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The middles whose logs are stored and shown.
    pub middles: Vec<Middle>,
    /// REST, live feed and web page.
    pub http: Http,
    /// Who may read.
    pub auth: Auth,
    /// Health, readiness and metrics.
    pub admin: Admin,
    /// The way to the middles.
    pub feed: Feed,
    /// The device registry.
    pub registry: Registry,
    /// The Parquet lake.
    pub lake: Lake,
    /// A ClickHouse server.
    pub clickhouse: Clickhouse,
    /// Rows in PostgreSQL.
    pub postgres: Postgres,
    /// Numbers in VictoriaMetrics, or at another endpoint of Prometheus remote write.
    pub remote_write: RemoteWrite,
    /// Last values in Redis or Valkey.
    pub redis: Redis,
    /// The last values.
    pub last: Last,
    /// The live feed.
    pub live: Live,
    /// The end of the process.
    pub shutdown: ShutdownSettings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            middles: vec![Middle::default()],
            http: Http::default(),
            auth: Auth::default(),
            admin: Admin::default(),
            feed: Feed::default(),
            registry: Registry::default(),
            lake: Lake::default(),
            clickhouse: Clickhouse::default(),
            postgres: Postgres::default(),
            remote_write: RemoteWrite::default(),
            redis: Redis::default(),
            last: Last::default(),
            live: Live::default(),
            shutdown: ShutdownSettings::default(),
        }
    }
}

/// One middle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Middle {
    /// A name of its own, in logs, metrics and the snapshot of last values.
    pub name: String,
    /// Its feed: `tcp://host:port` or `ipc://path`.
    pub feed: String,
    /// Where it answers fetches and keeps cursors.
    pub fetch: String,
}

impl Default for Middle {
    fn default() -> Self {
        Self {
            name: "middle".to_owned(),
            feed: "tcp://127.0.0.1:7411".to_owned(),
            fetch: "tcp://127.0.0.1:7412".to_owned(),
        }
    }
}

/// The way to the middles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Feed {
    /// Mutual TLS to the feed and fetch ports of all middles. Off while `certificate` is empty.
    pub tls: MutualTls,
    /// Bytes that a middle's log grows by in a second at most, as planned: no store may then hold
    /// back more than half of `ring`. `0B`: not stated, and not checked.
    pub peak_rate: ByteSize,
    /// What the smallest middle's log holds, its `queue.capacity`.
    pub ring: ByteSize,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            tls: MutualTls::default(),
            peak_rate: ByteSize::new(0),
            // The middle's default.
            ring: ByteSize::mib(256),
        }
    }
}

/// REST, live feed and web page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address of the port.
    pub address: SocketAddr,
    /// Let everybody read everything who shows no credential. Always so on loopback while `[auth]`
    /// is not set.
    pub allow_anonymous: bool,
    /// TLS of the port.
    pub tls: ServerTls,
    /// Connections at most; beyond, new ones wait.
    pub connections_max: usize,
    /// Longest time a client may take to send the head of a request.
    pub header_timeout: Duration,
    /// Queries of the lake at a time; others wait.
    pub queries_max: usize,
    /// Admin addresses (`host:port`) of the other tiers, by a name: the web page shows their queues.
    pub tiers: BTreeMap<String, String>,
}

impl Default for Http {
    fn default() -> Self {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let tier = |name: &str, port| (name.to_owned(), local(port).to_string());
        Self {
            address: local(7420),
            // What is reachable from outside is somebody's decision, never a default.
            allow_anonymous: false,
            tls: ServerTls::default(),
            // At 64 KiB for a slow one: 64 MiB.
            connections_max: 1024,
            header_timeout: Duration::from_secs(5),
            // Each decodes at the speed of a core.
            queries_max: 2,
            tiers: BTreeMap::from([tier("front", 7401), tier("middle", 7413)]),
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
        Self { address: (Ipv4Addr::LOCALHOST, 7421).into(), token_file: None }
    }
}

/// The last values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Last {
    /// Where they are kept over a restart; losing it costs a longer start.
    pub snapshot: PathBuf,
    /// How often they are kept.
    pub snapshot_every: Duration,
    /// Series (device and key) at most, about 200 B each; those beyond are refused and counted.
    pub series_max: usize,
}

impl Default for Last {
    fn default() -> Self {
        Self {
            snapshot: "forebay-data/storage/last.jsonl".into(),
            snapshot_every: Duration::from_secs(30),
            series_max: 1_000_000,
        }
    }
}

/// The live feed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Live {
    /// Whether there is one, and last values with it.
    pub enabled: bool,
    /// Readers at most; beyond, they are refused.
    pub clients_max: usize,
    /// Events one reader may leave unread; then the oldest fall out and are counted.
    pub client_events: usize,
    /// Bytes likewise.
    pub client_bytes: ByteSize,
    /// Readers brought back from an older position at a time; others wait.
    pub resumes_max: usize,
    /// Bytes of the feed held unread at most; what comes beyond is fetched later.
    pub buffer: ByteSize,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            enabled: true,
            clients_max: 1024,
            // Ten seconds of 400 events a second.
            client_events: 4096,
            client_bytes: ByteSize::mib(1),
            resumes_max: 4,
            buffer: ByteSize::mib(4),
        }
    }
}

impl Config {
    /// Whether readers without a credential are let in: if it is said so, and on loopback as long
    /// as no credential could be shown.
    #[must_use]
    pub fn anonymous(&self) -> bool {
        let local = self.http.address.ip().is_loopback();
        self.http.allow_anonymous || (local && !self.auth.has_sources())
    }

    /// What crosses the network to stores unprotected, though the settings hold.
    #[must_use]
    pub fn exposures(&self) -> Vec<Exposure> {
        let mut found = Vec::new();
        let (clickhouse, redis) = (&self.clickhouse, &self.redis);
        let remote_write = &self.remote_write;
        found.extend(clickhouse.enabled.then(|| clickhouse.exposure()).flatten());
        found.extend(remote_write.enabled.then(|| remote_write.exposure()).flatten());
        found.extend(redis.enabled.then(|| redis.exposure()).flatten());
        #[cfg(feature = "postgres")]
        {
            let (postgres, table) = (&self.postgres, &self.registry.table);
            let of = |section, enabled: bool, url: &str, file: bool, tls| {
                enabled.then(|| tls::postgres::exposure(section, url, file, tls)).flatten()
            };
            let file = postgres.password_file.is_some();
            found.extend(of("postgres", postgres.enabled, &postgres.url, file, &postgres.tls));
            let file = table.password_file.is_some();
            found.extend(of("registry.table", table.enabled, &table.url, file, &table.tls));
        }
        found
    }
}

impl Validate for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.within("shutdown", |faults| self.shutdown.validate(faults));
        faults.check(!self.middles.is_empty(), "middles", "at least one middle is needed");
        for (place, middle) in self.middles.iter().enumerate() {
            faults.within(&format!("middles[{place}]"), |faults| {
                const ENDPOINT: &str = "must be tcp://host:port or ipc://path";
                faults.check(forebay_link::is_endpoint(&middle.feed), "feed", ENDPOINT);
                faults.check(forebay_link::is_endpoint(&middle.fetch), "fetch", ENDPOINT);
                faults.check(is_name(&middle.name), "name", NAME);
                let twice = self.middles[..place].iter().any(|other| other.name == middle.name);
                faults.check(!twice, "name", format!("{:?} is there twice", middle.name));
            });
        }
        faults.within("feed", |faults| {
            let tls = &self.feed.tls;
            let tcp = |middle: &Middle| {
                middle.feed.starts_with("tcp://") && middle.fetch.starts_with("tcp://")
            };
            let fits = !tls.is_on() || self.middles.iter().all(tcp);
            faults.check(fits, "tls.certificate", "TLS is for tcp:// only");
            faults.within("tls", |faults| tls.validate(faults));
        });
        self.validate_hold_backs(faults);
        let stores = [
            self.lake.enabled,
            self.clickhouse.enabled,
            self.postgres.enabled,
            self.remote_write.enabled,
            self.redis.enabled,
        ];
        let something = self.live.enabled || stores.contains(&true);
        faults.check(something, "lake.enabled", "neither a store nor the live feed is enabled");
        faults.within("http", |faults| {
            faults.check(self.http.connections_max > 0, "connections_max", POSITIVE);
            faults.check(self.http.queries_max > 0, "queries_max", POSITIVE);
            faults.check(!self.http.header_timeout.is_zero(), "header_timeout", POSITIVE);
            faults.check(
                self.anonymous() || self.auth.has_sources(),
                "allow_anonymous",
                "must be true for an address beyond loopback, unless [auth] says who may read",
            );
            faults.within("tls", |faults| self.http.tls.validate(faults));
            for (name, admin) in &self.http.tiers {
                faults.check(is_host_and_port(admin), &format!("tiers.{name}"), HOST_AND_PORT);
            }
        });
        faults.within("auth", |faults| self.auth.validate(faults));
        faults.within("registry", |faults| self.registry.validate(faults));
        faults.within("lake", |faults| self.lake.validate(faults));
        faults.within("clickhouse", |faults| self.clickhouse.validate(faults));
        faults.within("postgres", |faults| self.postgres.validate(faults));
        faults.within("remote_write", |faults| self.remote_write.validate(faults));
        faults.within("redis", |faults| self.redis.validate(faults));
        faults.within("last", |faults| {
            let often = self.last.snapshot_every.as_millis() >= 100;
            faults.check(often, "snapshot_every", "must be at least 100ms");
        });
        faults.within("live", |faults| {
            for (key, number) in [
                ("clients_max", self.live.clients_max),
                ("client_events", self.live.client_events),
                ("client_bytes", self.live.client_bytes.as_usize()),
                ("resumes_max", self.live.resumes_max),
            ] {
                faults.check(number > 0, key, POSITIVE);
            }
            faults.check(self.live.buffer >= BUFFER_MIN, "buffer", "must be at least 256KiB");
        });
    }
}

impl Config {
    /// Checks that what stores hold back fits the middle's ring at the stated rate: more would push
    /// back on devices in ordinary operation.
    fn validate_hold_backs(&self, faults: &mut Faults) {
        let (rate, half) = (self.feed.peak_rate.get(), self.feed.ring.get() / 2);
        if rate == 0 {
            return;
        }
        let nothing = Duration::from_secs(0);
        for (store, enabled, hold_back, flush) in [
            ("lake", self.lake.enabled, nothing, &self.lake.flush),
            ("clickhouse", self.clickhouse.enabled, nothing, &self.clickhouse.flush),
            ("postgres", self.postgres.enabled, nothing, &self.postgres.flush),
            (
                "remote_write",
                self.remote_write.enabled,
                self.remote_write.hold_back,
                &self.remote_write.flush,
            ),
            ("redis", self.redis.enabled, self.redis.hold_back, &self.redis.flush),
        ] {
            if !enabled {
                continue;
            }
            let of = |span: Duration| (span.as_secs_f64() * rate as f64) as u64;
            // A range is closed by its age or by what it holds, and then held back.
            let open = of(flush.age).min(flush.outstanding.get());
            let held = of(hold_back).saturating_add(open);
            let key = if hold_back.is_zero() { "flush.outstanding" } else { "hold_back" };
            faults.check(
                held <= half,
                &format!("{store}.{key}"),
                format!(
                    "keeps {} of the middle's log at feed.peak_rate of {} a second, more than half \
                     of feed.ring, {}: shorten it, or enlarge the middle's queue.capacity",
                    ByteSize::new(held),
                    self.feed.peak_rate,
                    self.feed.ring
                ),
            );
        }
    }
}

const POSITIVE: &str = "must be above zero";
const HOST_AND_PORT: &str = "must be host:port";
const NAME: &str = "must be 1 to 32 of A-Z a-z 0-9 - _ .";
/// Room for some of the feed's batches.
const BUFFER_MIN: ByteSize = ByteSize::kib(256);

fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=32).contains(&name.len()) && name.bytes().all(plain)
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
    fn every_fault_is_reported_at_once() {
        let mut config = Config::default();
        config.middles.push(Middle { feed: "127.0.0.1:1".to_owned(), ..Middle::default() });
        config.lake.flush.rows = 0;
        config.lake.consumer = "a b".to_owned();
        config.live.clients_max = 0;
        config.http.queries_max = 0;
        config.http.tiers.insert("front".to_owned(), "front".to_owned());
        let expected = [
            "middles[1].feed",
            "middles[1].name",
            "http.queries_max",
            "http.tiers.front",
            "lake.consumer",
            "lake.flush.rows",
            "live.clients_max",
        ];
        assert_eq!(faults(&config), expected);
    }
    #[test]
    fn a_hold_back_that_takes_more_than_half_of_the_ring_at_the_peak_rate_is_refused() {
        let mut config = Config::default();
        config.remote_write.enabled = true;
        // 30 s and an age of 2 s: 4 MB/s is 128 MB, a little less than half of 256 MiB.
        config.feed.peak_rate = ByteSize::new(4_000_000);
        assert_eq!(faults(&config), Vec::<String>::new());
        config.feed.peak_rate = ByteSize::new(4_300_000);
        assert_eq!(faults(&config), ["remote_write.hold_back"]);
        config.feed.ring = ByteSize::mib(512);
        assert_eq!(faults(&config), Vec::<String>::new());
        config.remote_write.enabled = false;
        config.feed.ring = ByteSize::mib(64);
        // A range of up to 64 MiB must not be waited for in a ring of as much.
        config.feed.peak_rate = ByteSize::mib(10);
        assert_eq!(faults(&config), ["lake.flush.outstanding"]);
        config.lake.flush.outstanding = ByteSize::mib(16);
        assert_eq!(faults(&config), Vec::<String>::new());
        let mut told = Faults::default();
        config.lake.flush.outstanding = ByteSize::mib(64);
        config.validate(&mut told);
        let reason = told.found()[0].message.clone();
        assert!(reason.contains("feed.ring") && reason.contains("64MiB"), "{reason}");
    }
}
