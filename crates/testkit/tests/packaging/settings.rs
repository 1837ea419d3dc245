//! Settings as a tier itself reads them, from a file and from variables: what `config check` does.

use std::net::SocketAddr;
use std::path::PathBuf;

use forebay_ops::config::load_from;

/// What the packaging must agree with, of any tier.
pub(crate) struct Settings {
    /// `listen` or `http`: where devices or readers come in.
    pub(crate) open: Option<SocketAddr>,
    /// Of the admin port.
    pub(crate) admin: SocketAddr,
    /// Addresses for other tiers, by port name.
    pub(crate) links: Vec<(&'static str, String)>,
    /// Endpoints of other tiers that it connects to.
    pub(crate) reaches: Vec<String>,
    /// Folders and files that it writes.
    pub(crate) writes: Vec<PathBuf>,
    /// Bytes of all its rings.
    pub(crate) ring_bytes: u64,
    /// Longest time from SIGTERM to the end.
    pub(crate) end: std::time::Duration,
    /// The file of API keys, and whether one may come in without.
    pub(crate) keys: Option<PathBuf>,
    pub(crate) anonymous: bool,
    /// Names of the middles it knows.
    pub(crate) partitions: Vec<String>,
    /// Consumers: required by a middle, or used by a storage tier.
    pub(crate) consumers: Vec<String>,
}

/// The settings of `tier` from `(name, text)` of a file and from variables, or all faults.
pub(crate) fn load(
    tier: &str,
    file: Option<(&str, &str)>,
    variables: &[(String, String)],
) -> Result<Settings, String> {
    let variables = variables.iter().cloned();
    match tier {
        "front" => load_from(file, variables).map(front).map_err(|error| error.to_string()),
        "middle" => load_from(file, variables).map(middle).map_err(|error| error.to_string()),
        "storage" => load_from(file, variables).map(storage).map_err(|error| error.to_string()),
        _ => Err(format!("no tier {tier}")),
    }
}

fn front(config: forebay_front::Config) -> Settings {
    let mut reaches: Vec<String> = config.uplink.partitions.values().cloned().collect();
    if reaches.is_empty() {
        reaches.push(config.uplink.middle.clone());
    }
    Settings {
        open: Some(config.listen.address),
        admin: config.admin.address,
        links: Vec::new(),
        ring_bytes: config.queue.capacity.get() * reaches.len() as u64,
        reaches,
        writes: vec![config.queue.dir],
        end: config.shutdown.timeout.get(),
        keys: config.auth.keys,
        anonymous: config.listen.allow_anonymous,
        partitions: config.uplink.partitions.into_keys().collect(),
        consumers: Vec::new(),
    }
}

fn middle(config: forebay_middle::Config) -> Settings {
    Settings {
        open: None,
        admin: config.admin.address,
        links: vec![
            ("uplink", config.uplink.listen),
            ("feed", config.feed.listen),
            ("fetch", config.fetch.listen),
        ],
        reaches: Vec::new(),
        writes: vec![config.queue.dir],
        ring_bytes: config.queue.capacity.get(),
        end: config.shutdown.timeout.get(),
        keys: None,
        anonymous: false,
        partitions: config.uplink.partitions,
        consumers: config.consumers.required,
    }
}

fn storage(config: forebay_storage::Config) -> Settings {
    let mut writes = vec![config.last.snapshot];
    let mut consumers = Vec::new();
    if config.lake.enabled {
        writes.extend([config.lake.dir, config.lake.dead_letters]);
        consumers.push(config.lake.consumer);
    }
    if config.clickhouse.enabled {
        consumers.push(config.clickhouse.consumer);
    }
    if config.postgres.enabled {
        consumers.push(config.postgres.consumer);
    }
    if config.redis.enabled {
        consumers.push(config.redis.consumer);
    }
    if config.remote_write.enabled {
        consumers.push(config.remote_write.consumer);
    }
    let tiers = config.http.tiers.values().map(|admin| format!("tcp://{admin}"));
    let middles = config.middles.iter().flat_map(|one| [one.feed.clone(), one.fetch.clone()]);
    Settings {
        open: Some(config.http.address),
        admin: config.admin.address,
        links: Vec::new(),
        reaches: middles.chain(tiers).collect(),
        writes,
        ring_bytes: 0,
        end: config.shutdown.timeout.get(),
        keys: config.auth.keys,
        anonymous: config.http.allow_anonymous,
        partitions: config.middles.into_iter().map(|middle| middle.name).collect(),
        consumers,
    }
}

/// `tcp://host:port` as host and port.
pub(crate) fn host_and_port(endpoint: &str) -> (&str, u16) {
    let address = endpoint.strip_prefix("tcp://").expect("tcp");
    let (host, port) = address.rsplit_once(':').expect("host:port");
    (host, port.parse().expect("a port"))
}

#[test]
fn a_misspelt_setting_is_refused() {
    let error = load("front", Some(("x.toml", "[lisen]\naddress = \"1.2.3.4:5\"\n")), &[]);
    assert!(error.err().is_some_and(|error| error.contains("lisen")));
}
