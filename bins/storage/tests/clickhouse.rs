//! Every row stands in a real ClickHouse exactly once, as it was sent, and so do its rollups.
//!
//! Method: the sink with its consumer over a middle in memory, tables in a server of testkit's. A
//! consumer that is set back is played by one of another name: the middle knows nothing of it, so
//! it reads all again, and cuts as its own limits say. Counts use neither FINAL nor DISTINCT.
//! Seen on ClickHouse 26.7. Kills of both sides are in the storm of `bins/forebay`.
#![cfg(feature = "clickhouse")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{path::Path, sync::Arc, time::Instant};

use common::{
    DEADLINE, Log,
    clickhouse::{self, Cut, drain, settings},
    eventually,
    rows::{OwnedCell, OwnedRow, START_US, all_rows, messages, rows_of, simple},
};
use forebay_model::{
    Timestamp,
    registry::{Builder, Listing, Registry},
};
use forebay_ops::Duration;
use forebay_storage::{
    clickhouse::{Schema, VERSION},
    config::{Clickhouse, Retention},
    registry::Current,
    sink::SinkState,
};
use forebay_testkit::{clickhouse::ClickHouse, or_skip};
use serde_json::Value as Json;

fn server(folder: &Path) -> Option<ClickHouse> {
    or_skip(ClickHouse::start(folder))
}

fn number(server: &ClickHouse, sql: &str) -> u64 {
    server.query(sql).unwrap().parse().unwrap()
}

/// All rows of the table, by identity.
fn stored(server: &ClickHouse, table: &str) -> Vec<OwnedRow> {
    let sql = format!(
        "SELECT tenant, device, session, seq, index, key, unit, kind, float, int, bool, text, \
         content_type, hex(payload) AS payload, toUnixTimestamp64Micro(time) AS time, timed, \
         toUnixTimestamp64Micro(received) AS received FROM {table} \
         SETTINGS output_format_json_quote_64bit_integers = 0 FORMAT JSONEachRow"
    );
    let answer = server.query(&sql).unwrap();
    let mut rows: Vec<_> = answer.lines().map(|line| row(&line.parse().unwrap())).collect();
    rows.sort_by_key(OwnedRow::identity);
    rows
}

fn row(json: &Json) -> OwnedRow {
    let text = |name: &str| json[name].as_str().unwrap().to_owned();
    let some = |name: &str| Some(text(name)).filter(|text| !text.is_empty());
    let hex = text("payload");
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let held = ["float", "int", "bool", "text"].iter().filter(|name| !json[**name].is_null());
    let (value, columns) = match text("kind").as_str() {
        "float" => (OwnedCell::Float(json["float"].as_f64().unwrap()), 1),
        "int" => (OwnedCell::Int(json["int"].as_i64().unwrap()), 1),
        "bool" => (OwnedCell::Bool(json["bool"].as_bool().unwrap()), 1),
        "text" => (OwnedCell::Text(text("text")), 1),
        "opaque" => {
            let payload = (0..hex.len()).step_by(2).map(byte).collect();
            (OwnedCell::Opaque(text("content_type"), payload), 0)
        }
        other => panic!("{other}"),
    };
    assert_eq!(held.count(), columns, "only its own column is set: {json}");
    OwnedRow {
        device: text("device"),
        session: json["session"].as_u64().unwrap(),
        seq: json["seq"].as_u64().unwrap(),
        index: json["index"].as_u64().unwrap() as u16,
        tenant: text("tenant"),
        key: some("key"),
        value,
        unit: some("unit"),
        time_us: json["timed"].as_bool().unwrap().then(|| json["time"].as_i64().unwrap()),
        received_us: json["received"].as_i64().unwrap(),
    }
}

fn registry() -> Arc<Registry> {
    let mut builder = Builder::default();
    builder
        .add(Listing {
            device: "device-1".to_owned(),
            name: Some("Press 1".to_owned()),
            device_type: Some("press".to_owned()),
            location: Some("Hall A".to_owned()),
            ..Listing::default()
        })
        .unwrap();
    Arc::new(builder.build())
}

#[test]
fn rows_of_every_kind_read_back_as_they_were_sent() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = server(folder.path()) else { return };
    let log = Log::new(1);
    let sent = messages(1, 3000);
    log.append_all(&sent);
    let known = Current::default();
    known.set(registry());
    let settings = settings(&server, "kinds");
    let cut = Cut { registry: known, ..Cut::rows(700) };
    drain(clickhouse::start(&log, "clickhouse", &settings, cut));
    assert_eq!(log.state("clickhouse").committed, log.head());
    assert_eq!(stored(&server, "kinds.readings"), all_rows(&sent));
    let described = "SELECT groupUniqArray((device, name, type, location)) FROM kinds.readings \
                     WHERE known";
    assert_eq!(server.query(described).unwrap(), "[('device-1','Press 1','press','Hall A')]");
}

/// Rollups equal the same aggregates over the readings themselves.
fn assert_rollups_exact(server: &ClickHouse, database: &str) {
    for (bucket, seconds) in [("minute", 60), ("hour", 3600)] {
        let direct = format!(
            "SELECT tenant, device, key, type, location, intDiv(toUnixTimestamp(time), {seconds}) * \
             {seconds} AS b, count(), round(sum(number), 6), min(number), max(number), \
             argMin(number, (time, session, seq, index)), \
             argMax(number, (time, session, seq, index)) FROM {database}.readings \
             WHERE number IS NOT NULL GROUP BY ALL ORDER BY ALL"
        );
        let rolled = format!(
            "SELECT tenant, device, key, type, location, toUnixTimestamp({bucket}) AS b, sum(count), \
             round(sum(sum), 6), min(min), max(max), argMinMerge(first), argMaxMerge(last) \
             FROM {database}.readings_{bucket} GROUP BY ALL ORDER BY ALL"
        );
        let (direct, rolled) = (server.query(&direct).unwrap(), server.query(&rolled).unwrap());
        assert!(direct.lines().count() > 3, "{direct}");
        assert_eq!(rolled, direct, "rollup by {bucket}");
    }
}

#[test]
fn full_replays_store_nothing_twice_however_they_are_cut_and_rollups_stay_exact() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut server) = server(folder.path()) else { return };
    let settings = settings(&server, "replays");
    let log = Log::new(7);
    let sent = messages(2, 6000);
    let (early, late) = sent.split_at(4000);
    log.append_all(early);
    drain(clickhouse::start(&log, "first", &settings, Cut::rows(501)));
    // Every cursor is gone; what is read again is cut otherwise, and more has come.
    drain(clickhouse::start(&log, "second", &settings, Cut::rows(97)));
    log.append_all(late);
    drain(clickhouse::start(&log, "third", &settings, Cut::rows(1013)));
    server.kill().unwrap();
    server.restart().unwrap();
    drain(clickhouse::start(&log, "fourth", &settings, Cut::rows(330)));
    // The first one takes up its old cursor; all that follows was stored by others.
    drain(clickhouse::start(&log, "first", &settings, Cut::rows(64)));
    let expected = all_rows(&sent);
    assert_eq!(number(&server, "SELECT count() FROM replays.readings"), expected.len() as u64);
    assert_eq!(stored(&server, "replays.readings"), expected);
    assert_rollups_exact(&server, "replays");
}

#[test]
fn a_block_sent_again_under_its_token_counts_once_in_every_table() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = server(folder.path()) else { return };
    let settings = settings(&server, "tokens");
    let rows = clickhouse::batch(&messages(3, 800));
    for described in [false, true] {
        // Without a ledger: what the server itself remembers. The registry may have changed since.
        if described {
            server.query("TRUNCATE TABLE tokens.ranges").unwrap();
        }
        for _ in 0..3 {
            clickhouse::send_once(&settings, &rows);
        }
    }
    assert_eq!(number(&server, "SELECT count() FROM tokens.readings"), rows.len() as u64);
    assert_rollups_exact(&server, "tokens");
}

#[test]
fn older_tables_are_migrated_with_their_rows_and_newer_ones_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = server(folder.path()) else { return };
    let settings = settings(&server, "versions");
    let schema = Schema::new(&settings);
    let mut first = vec![schema.create_database(), schema.create_versions()];
    first.extend(schema.step(1));
    first.push("INSERT INTO versions.schema_versions (version) VALUES (1)".to_owned());
    for statement in &first {
        server.query(statement).unwrap();
    }
    let old = "INSERT INTO versions.readings (device, seq) VALUES ('kept', 1)";
    server.query(old).unwrap();
    let log = Log::new(1);
    log.append_all(&messages(4, 200));
    drain(clickhouse::start(&log, "clickhouse", &settings, Cut::rows(1000)));
    let version = "SELECT max(version) FROM versions.schema_versions";
    assert_eq!(number(&server, version), u64::from(VERSION));
    assert_eq!(number(&server, "SELECT count() FROM versions.readings WHERE device = 'kept'"), 1);
    assert!(number(&server, "SELECT sum(count) FROM versions.readings_hour") > 0);

    server.query("INSERT INTO versions.schema_versions (version) VALUES (1000)").unwrap();
    log.append_all(&[simple("late", 1, 1.0)]);
    let task = clickhouse::start(&log, "clickhouse", &settings, Cut::rows(1000));
    eventually("it waits for a human", || task.status().state().0 == SinkState::Alarmed);
    assert!(task.status().state().1.contains("version 1000"), "{:?}", task.status().state());
    assert!(log.state("clickhouse").committed < log.head());
    task.drain(Instant::now());
}

#[test]
fn old_rows_move_to_a_volume_and_then_go_as_the_settings_say() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = server(folder.path()) else { return };
    let now = Timestamp::now().micros();
    let aged = |device: &str, hours: i64| {
        let mut message = simple(device, 1, 1.0);
        message.received = Timestamp::from_micros(now - hours * 3_600_000_000).unwrap();
        message
    };
    let log = Log::new(1);
    let all = [aged("new", 0), aged("warm", 50 * 24), aged("old", 100 * 24)];
    log.append_all(&all);
    let before = settings(&server, "ages");
    drain(clickhouse::start(&log, "clickhouse", &before, Cut::rows(1000)));
    assert_eq!(number(&server, "SELECT count() FROM ages.readings"), 3);
    let retention = Retention {
        move_after: Duration::from_secs(40 * 86_400),
        move_to: "cold".to_owned(),
        drop_after: Duration::from_secs(80 * 86_400),
        drop_rollups_after: Duration::from_secs(10 * 365 * 86_400),
        storage_policy: Some("tiered".to_owned()),
    };
    let after = Clickhouse { retention, ..before };
    log.append_all(&[simple("later", 1, 1.0)]);
    drain(clickhouse::start(&log, "clickhouse", &after, Cut::rows(1000)));
    eventually("the old one is gone", || {
        server.query("OPTIMIZE TABLE ages.readings FINAL").unwrap();
        number(&server, "SELECT count() FROM ages.readings WHERE device = 'old'") == 0
    });
    let disk = "SELECT groupUniqArray(disk_name) FROM system.parts WHERE active AND \
                database = 'ages' AND table = 'readings' AND partition_id = \
                (SELECT toString(toYYYYMM(any(received))) FROM ages.readings WHERE device = 'warm')";
    eventually("the warm one has moved", || server.query(disk).unwrap() == "['cold']");
    assert_eq!(number(&server, "SELECT count() FROM ages.readings"), 3);
    let rolled = number(&server, "SELECT sum(count) FROM ages.readings_hour");
    assert_eq!(rolled, 4, "rollups outlive their readings");
    assert!(rows_of(&all[0])[0].received_us > START_US - 86_400_000_000_000);
}

#[test]
fn tables_on_a_cluster_are_replicated_and_sharded_by_device() {
    let settings = Clickhouse { cluster: Some("main".to_owned()), ..Clickhouse::default() };
    let schema = Schema::new(&settings);
    let made: String = (1..=VERSION).flat_map(|version| schema.step(version)).collect();
    for part in [
        "readings_local ON CLUSTER main",
        "ReplicatedMergeTree('/clickhouse/tables/{shard}/forebay/readings', '{replica}')",
        "Distributed(main, forebay, readings_local, cityHash64(tenant, device))",
        "ReplicatedReplacingMergeTree('/clickhouse/tables/all/forebay/ranges', '{replica}', first)",
        "replicated_deduplication_window = 10000",
    ] {
        assert!(made.contains(part), "{part} in {made}");
    }
    assert!(!made.contains("non_replicated"));
}

#[test]
fn a_drain_ends_in_time_though_the_server_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut server) = server(folder.path()) else { return };
    let settings = settings(&server, "hangs");
    let log = Log::new(1);
    log.append_all(&messages(5, 100));
    drain(clickhouse::start(&log, "clickhouse", &settings, Cut::rows(1000)));
    let task = clickhouse::start(&log, "clickhouse", &settings, Cut::rows(1000));
    eventually("it has opened", || task.status().committed() == log.head());
    server.pause().unwrap();
    log.append_all(&messages(6, 100));
    eventually("it has begun", || log.state("clickhouse").pending.is_some());
    let began = Instant::now();
    assert!(task.drain(began + std::time::Duration::from_millis(300)) > 0);
    assert!(began.elapsed() < DEADLINE / 6, "{:?}", began.elapsed());
    server.resume().unwrap();
}
