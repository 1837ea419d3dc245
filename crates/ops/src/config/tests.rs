//! The whole of loading: defaults, file, environment, and every kind of fault at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::*;
use crate::{ByteSize, Duration};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    name: String,
    partitions: Vec<String>,
    tls: Option<Tls>,
    labels: BTreeMap<String, String>,
    peers: BTreeMap<String, SocketAddr>,
    queue: Queue,
    uplink: Uplink,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Queue {
    capacity: ByteSize,
    high_water: ByteSize,
    durability: Durability,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Uplink {
    listen: SocketAddr,
    silence_max: Duration,
    window_batches: u32,
    token: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Durability {
    Process,
    Disk,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    certificate: String,
    key: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            name: "middle".into(),
            partitions: vec![],
            tls: None,
            labels: BTreeMap::new(),
            peers: BTreeMap::from([("front".to_owned(), SocketAddr::from(([127, 0, 0, 1], 1)))]),
            queue: Queue::default(),
            uplink: Uplink::default(),
        }
    }
}

impl Default for Queue {
    fn default() -> Queue {
        Queue {
            capacity: ByteSize::mib(64),
            high_water: ByteSize::mib(48),
            durability: Durability::Disk,
        }
    }
}

impl Default for Uplink {
    fn default() -> Uplink {
        Uplink {
            listen: SocketAddr::from(([127, 0, 0, 1], 7410)),
            silence_max: Duration::from_secs(3),
            window_batches: 128,
            token: None,
        }
    }
}

impl Validate for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.within("queue", |faults| {
            faults.check(
                self.queue.high_water <= self.queue.capacity,
                "high_water",
                format!("is above the capacity of {}", self.queue.capacity),
            );
        });
        faults.check(!self.name.is_empty(), "name", "must not be empty");
    }
}

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    load_from(Some(("middle.toml", text)), variables)
}

fn faults(result: Result<Config, ConfigError>) -> Vec<String> {
    match result {
        Err(ConfigError::Faults(faults)) => faults
            .found()
            .iter()
            .map(|fault| format!("{}: {}", fault.path, fault.message))
            .collect(),
        other => panic!("faults were expected: {other:?}"),
    }
}

#[test]
fn nothing_given_is_the_defaults() {
    assert_eq!(load("", &[]).unwrap(), Config::default());
    assert_eq!(load_from::<Config>(None, []).unwrap(), Config::default());
}

#[test]
fn a_file_overrides_defaults_and_the_environment_overrides_the_file() {
    let config = load(
        r#"
        name = "north"
        partitions = ["a", "b"]
        labels = { site = "quay" }
        [queue]
        capacity = "1GiB"
        durability = "process"
        [uplink]
        silence_max = "5s"
        "#,
        &[
            ("FOREBAY__QUEUE__CAPACITY", "2GiB"),
            ("FOREBAY__UPLINK__WINDOW_BATCHES", "7"),
            ("FOREBAY__UPLINK__LISTEN", "127.0.0.1:0"),
            ("FOREBAY__PARTITIONS", "[\"c\"]"),
            ("FOREBAY__LABELS__ROW", "9"),
            ("FOREBAY_LOG", "debug"),
            ("HOME", "/nowhere"),
        ],
    )
    .unwrap();
    assert_eq!((config.name.as_str(), config.partitions), ("north", vec!["c".to_owned()]));
    assert_eq!(config.queue.capacity.to_string(), "2GiB");
    assert_eq!(config.queue.durability, Durability::Process);
    assert_eq!(config.uplink.silence_max, Duration::from_secs(5));
    assert_eq!((config.uplink.window_batches, config.uplink.listen.port()), (7, 0));
    let labels: Vec<_> = config.labels.into_iter().collect();
    assert_eq!(labels, [("row".into(), "9".into()), ("site".into(), "quay".into())]);
}

#[test]
fn a_variable_that_looks_like_a_number_is_a_string_where_a_string_is_wanted() {
    let config = load("", &[("FOREBAY__UPLINK__TOKEN", "12345"), ("FOREBAY__NAME", "true")]);
    let config = config.unwrap();
    assert_eq!((config.uplink.token.as_deref(), config.name.as_str()), (Some("12345"), "true"));
}

#[test]
fn all_faults_are_reported_at_once_with_full_path_and_suggestion() {
    let found = faults(load(
        r#"
        nmae = "north"
        partitions = "a"
        capacity = "1GiB"
        [queue]
        capactiy = "1GiB"
        high_water = "1TiB"
        durability = "paper"
        [uplnk]
        listen = "127.0.0.1:1"
        [uplink]
        silence_max = 5
        [tls]
        certificate = 1
        "#,
        &[
            ("FOREBAY__UPLINK__WINDOW_BATCHES", "-1"),
            ("FOREBAY__QUEUE__WATER", "1"),
            ("FOREBAY__ZZZ", "1"),
        ],
    ));
    for expected in [
        "nmae: no such key, did you mean `name`?",
        "partitions: invalid type: string \"a\", expected a sequence",
        "capacity: no such key, did you mean `queue.capacity`?",
        "queue.capactiy: no such key, did you mean `queue.capacity`?",
        "queue.durability: unknown variant `paper`, expected `process` or `disk`",
        "uplnk: no such key, did you mean `uplink`?",
        "uplink.silence_max: invalid type: integer `5`, expected a duration with its unit, such as \"5s\" or \"250ms\"",
        "tls: invalid type: integer `1`, expected a string",
        "uplink.window_batches: invalid value: integer `-1`, expected u32",
        "queue.water: no such key, did you mean `queue.high_water`?",
        "zzz: no such key",
        "queue.high_water: is above the capacity of 64MiB",
    ] {
        assert!(found.iter().any(|fault| fault == expected), "{expected} is not in {found:#?}");
    }
    assert_eq!(found.len(), 12, "{found:#?}");
}

#[test]
fn every_fault_names_where_it_came_from() {
    let error = load("[queue]\ncapactiy = 1", &[("FOREBAY__QUEUE__CAPACITY", "much")]).unwrap_err();
    assert_eq!(error.exit_code(), 78);
    let text = error.to_string();
    for line in [
        "the configuration has 2 faults:",
        "  queue.capactiy: no such key, did you mean `queue.capacity`? (middle.toml)",
        "  queue.capacity: `much` is not a size",
        "(FOREBAY__QUEUE__CAPACITY)",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
}

#[test]
fn a_section_is_not_a_value_and_a_value_is_not_a_section() {
    let found = faults(load("queue = 3\n[name]\nfirst = 1", &[("FOREBAY__NAME__FIRST", "a")]));
    for expected in [
        "name: invalid type: map, expected a string",
        "queue: is a section: give it keys, as in queue.key",
        "name.first: no such key, did you mean `name`?",
    ] {
        assert!(found.iter().any(|fault| fault == expected), "{expected} is not in {found:#?}");
    }
    assert_eq!(found.len(), 3, "{found:#?}");
}

#[test]
fn an_optional_section_is_taken_whole_from_file_and_environment() {
    let config = load("[tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"", &[]).unwrap();
    assert_eq!(config.tls, Some(Tls { certificate: "c.pem".into(), key: "k.pem".into() }));
    let both = [("FOREBAY__TLS__CERTIFICATE", "c.pem"), ("FOREBAY__TLS__KEY", "7")];
    let config = load("", &both).unwrap();
    assert_eq!(config.tls, Some(Tls { certificate: "c.pem".into(), key: "7".into() }));
    let config = load("[tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"", &both[1..]).unwrap();
    assert_eq!(config.tls, Some(Tls { certificate: "c.pem".into(), key: "7".into() }));
    let found = faults(load("", &both[..1]));
    assert_eq!(found, ["tls: missing field `key`"]);
}

#[test]
fn a_map_takes_any_key_and_a_file_replaces_the_default_one() {
    let names = |config: Config| config.peers.into_keys().collect::<Vec<_>>();
    let file = "[peers]\nnorth = \"10.0.0.1:1\"";
    let variable = [("FOREBAY__PEERS__SOUTH", "10.0.0.2:1")];
    assert_eq!(names(load("", &variable).unwrap()), ["front", "south"]);
    assert_eq!(names(load(file, &[]).unwrap()), ["north"]);
    assert_eq!(names(load(file, &variable).unwrap()), ["north", "south"]);
    assert_eq!(names(load("peers = {}", &[]).unwrap()), Vec::<String>::new());
    let found = faults(load("[peers]\nnorth = 1", &[("FOREBAY__PEERS__SOUTH", "far")]));
    assert!(found.iter().all(|fault| fault.starts_with("peers")), "{found:#?}");
    assert_eq!(found.len(), 2);
}

#[test]
fn what_is_not_toml_is_refused_with_line_and_column() {
    let error = load("[queue]\ncapacity = = 1", &[]).unwrap_err();
    assert!(matches!(error, ConfigError::Syntax { .. }));
    let text = error.to_string();
    assert!(text.contains("middle.toml") && text.contains("line 2"), "{text}");
}

#[test]
fn a_missing_file_is_refused_by_name() {
    let error = super::load::<Config>(Some(Path::new("no/such/file.toml"))).unwrap_err();
    assert!(error.to_string().contains("no/such/file.toml"), "{error}");
    assert_eq!(error.exit_code(), 78);
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    let found = faults(load("labels = { site = nan }", &[]));
    assert_eq!(found, ["labels: NaN is not a finite number"]);
}

#[test]
fn the_printed_configuration_loads_as_itself() {
    let config = load("[queue]\ncapacity = \"3GiB\"\n[uplink]\ntoken = \"t\"", &[]).unwrap();
    let printed = to_toml(&config).unwrap();
    assert!(printed.contains("capacity = \"3GiB\"") && printed.contains("window_batches = 128"));
    assert_eq!(load(&printed, &[]).unwrap(), config);
}

#[test]
fn keys_lists_every_leaf_with_its_default() {
    let keys = keys::<Config>();
    let shown: Vec<_> =
        keys.iter().map(|key| (key.path.as_str(), key.default.as_deref())).collect();
    assert_eq!(
        shown,
        [
            ("labels", Some("{}")),
            ("name", Some("\"middle\"")),
            ("partitions", Some("[]")),
            ("peers", Some("{\"front\":\"127.0.0.1:1\"}")),
            ("queue.capacity", Some("\"64MiB\"")),
            ("queue.durability", Some("\"disk\"")),
            ("queue.high_water", Some("\"48MiB\"")),
            ("tls", None),
            ("uplink.listen", Some("\"127.0.0.1:7410\"")),
            ("uplink.silence_max", Some("\"3s\"")),
            ("uplink.token", None),
            ("uplink.window_batches", Some("128")),
        ]
    );
}
