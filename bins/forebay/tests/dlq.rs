//! Dead letters are listed and shown without a change, what cannot be sent again stays, and what
//! can is stored once.
//!
//! Method: the real command, over a folder filled as a sink fills it, and over what a real
//! PostgreSQL refused of what a device sent to a real node.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path, process::Command, time::Duration};

use forebay_client::Device;
use forebay_model::{Body, Reading, Value};
use forebay_storage::{
    rows::{Cell, RowView},
    sink::{DeadLetters, Gap, Letter, Token},
};
use forebay_testkit::{Child, Port, Victoria, or_skip, postgres, postgres::Postgres, wait_until};
use forebay_wire::{QueueId, Seq};

const DEADLINE: Duration = Duration::from_secs(60);

/// The command by the configuration in `storage.toml` of a folder.
fn dlq(dir: &Path, words: &[&str]) -> (String, bool) {
    let config = dir.join("storage.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .arg("dlq")
        .args(words)
        .arg("--config")
        .arg(config)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.success())
}

/// A row that no store was asked for.
fn row() -> RowView<'static> {
    RowView {
        tenant: "default",
        device: "pump-7",
        session: 1,
        seq: 2,
        index: 0,
        key: Some("t"),
        value: Cell::Float(1.5),
        unit: None,
        time_us: None,
        received_us: 1_700_000_000_000_000,
        entry: Seq::from_parts(1, 2),
        name: None,
        device_type: None,
        location: None,
        known: false,
        suspect: false,
    }
}

#[test]
fn letters_are_listed_and_shown_and_stay_when_they_cannot_be_sent() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("lake.dead_letters = {:?}\n", dir.path().join("dead"));
    fs::write(dir.path().join("storage.toml"), config).unwrap();
    let (text, well) = dlq(dir.path(), &["list"]);
    assert!(well && text.contains("0 dead letters"), "{text}");
    let letters = DeadLetters::new(&dir.path().join("dead"), "lake");
    letters.keep_entry(QueueId::new(7), Seq::from_parts(1, 5), b"\xff").unwrap();
    let token = Token::whole(QueueId::new(7), Seq::from_parts(1, 1), Seq::from_parts(1, 9));
    letters.keep_row(&Letter::new("lake", "year 9999\u{1b}", &token, 3, &row())).unwrap();
    let (text, well) = dlq(dir.path(), &["list"]);
    assert!(well && text.contains("2 dead letters") && text.contains("row pump-7"), "{text}");
    assert!(!text.contains('\u{1b}'), "a reason cannot move the cursor");
    let (text, _) = dlq(dir.path(), &["list", "--json"]);
    let names: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|letter| letter["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names.len(), 2);
    for name in &names {
        let (text, well) = dlq(dir.path(), &["show", name]);
        assert!(well && serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
    }
    assert!(!dlq(dir.path(), &["show", "nothing"]).1);
    assert!(dlq(dir.path(), &["list"]).0.contains("2 dead letters, 0 gaps"));
    let gap = Gap {
        sink: "lake".to_owned(),
        queue: QueueId::new(7).to_string(),
        after: "1:50".to_owned(),
        upto: "1:300".to_owned(),
        entries: Some(250),
        announced: Some(("1:51".to_owned(), "1:300".to_owned())),
    };
    letters.keep_gap(QueueId::new(7), Seq::from_parts(1, 50), &gap).unwrap();
    let (text, _) = dlq(dir.path(), &["list"]);
    assert!(text.contains("lake lacks 250 entries") && text.contains("1:50"), "{text}");
    assert!(text.contains("may have 1:51 to 1:300"), "{text}");
    assert!(text.contains("2 dead letters, 1 gaps"), "{text}");
    let (text, _) = dlq(dir.path(), &["list", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let expected = serde_json::json!({
        "kind": "gap", "sink": "lake", "queue": gap.queue, "after": "1:50", "upto": "1:300",
        "entries": 250, "announced": { "first": "1:51", "last": "1:300" },
    });
    assert_eq!(shown, expected);
    let (text, well) = dlq(dir.path(), &["replay"]);
    assert!(!well && text.contains("refuses no row"), "{text}");
    assert!(dlq(dir.path(), &["list"]).0.contains("2 dead letters"));
}

/// Settings of a storage tier below `dir` that stores in PostgreSQL alone.
fn storage(dir: &Path, server: &Postgres, ports: &[Port]) -> String {
    let (registry, password) = (dir.join("devices.toml"), dir.join("password"));
    let listed = "[[devices]]\nid = \"press-1\"\nlocation = \"Hall 3\"\n";
    fs::write(&registry, listed).unwrap();
    fs::write(&password, postgres::PASSWORD).unwrap();
    let port = |at: usize| ports[at].number();
    format!(
        "http.address = \"127.0.0.1:{}\"\nadmin.address = \"127.0.0.1:{}\"\n\
         middles = [{{ feed = \"tcp://127.0.0.1:{}\", fetch = \"tcp://127.0.0.1:{}\" }}]\n\
         live.enabled = false\nlake.enabled = false\nlake.dead_letters = {:?}\n\
         registry.files = [{registry:?}]\npostgres.enabled = true\n\
         postgres.url = \"host=127.0.0.1 port={} user={} dbname=postgres\"\n\
         postgres.password_file = {password:?}\npostgres.flush.age = \"50ms\"\n",
        port(6),
        port(7),
        port(3),
        port(4),
        dir.join("dead"),
        server.port(),
        postgres::USER,
    )
}

/// A front and a middle for it.
fn others(dir: &Path, ports: &[Port]) -> String {
    let port = |at: usize| ports[at].number();
    let dir = dir.display();
    format!(
        "[front]\nlisten.address = \"127.0.0.1:{}\"\nadmin.address = \"127.0.0.1:{}\"\n\
         ack.level = \"process\"\nqueue.dir = \"{dir}/front\"\nqueue.capacity = \"4MiB\"\n\
         queue.any_filesystem = true\nuplink.middle = \"tcp://127.0.0.1:{}\"\n\
         [middle]\nuplink.listen = \"tcp://127.0.0.1:{}\"\nfeed.listen = \"tcp://127.0.0.1:{}\"\n\
         fetch.listen = \"tcp://127.0.0.1:{}\"\nadmin.address = \"127.0.0.1:{}\"\n\
         queue.dir = \"{dir}/middle\"\nqueue.capacity = \"8MiB\"\nqueue.durability = \"process\"\n\
         queue.any_filesystem = true\nconsumers.required = [\"postgres\"]\n",
        port(0),
        port(1),
        port(2),
        port(2),
        port(3),
        port(4),
        port(5),
    )
}

fn ask(server: &Postgres, sql: &str) -> String {
    let mut psql = server.client("psql").unwrap();
    let output = psql.args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-c", sql]).output();
    String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
}

/// Sends these numbers, and waits until the node has acknowledged them.
fn send(device: &Device, runtime: &tokio::runtime::Runtime, numbers: &[f64]) {
    runtime.block_on(async {
        for &number in numbers {
            let value = Value::Float(number);
            let reading = Reading { key: "load".into(), value, unit: None, time: None };
            device.send(Body::Readings(vec![reading])).await.unwrap();
        }
        tokio::time::timeout(DEADLINE, device.flush()).await.unwrap().unwrap();
    });
}

/// VictoriaMetrics answers before it has written. What it forgot in its death is no letter done.
#[test]
fn a_letter_that_victoria_forgot_when_killed_within_the_hold_back_stays() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["-dedup.minScrapeInterval=1ms", "-retentionPeriod=100y"];
    let Some(mut server) = or_skip(Victoria::start(dir.path(), &flags)) else { return };
    let configure = |hold_back: &str, address: &str| {
        let config = format!(
            "lake.dead_letters = {:?}\nremote_write.enabled = true\n\
             remote_write.url = \"http://{address}/api/v1/write\"\n\
             remote_write.hold_back = \"{hold_back}\"\n",
            dir.path().join("dead"),
        );
        fs::write(dir.path().join("storage.toml"), config).unwrap();
    };
    // Longer than the test may take: only the look at the connection can end it.
    configure("600s", &server.address());
    let letters = DeadLetters::new(&dir.path().join("dead"), "remote-write");
    let token = Token::whole(QueueId::new(7), Seq::from_parts(1, 1), Seq::from_parts(1, 9));
    letters.keep_row(&Letter::new("remote-write", "why", &token, 3, &row())).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(["dlq", "replay", "--config"]).arg(dir.path().join("storage.toml"));
    let mut replay = Child::spawn("replay", &mut command, dir.path()).unwrap();
    replay.wait_for("all are sent", DEADLINE).unwrap();
    server.kill().unwrap();
    assert!(!replay.wait(DEADLINE).unwrap().success());
    let said = replay.log();
    assert!(said.contains("may have lost the row"), "{said}");
    assert!(said.contains("0 stored, 1 not stored"), "{said}");
    assert!(dlq(dir.path(), &["list"]).0.contains("1 dead letters"));
    configure("2s", &server.address());
    server.restart().unwrap();
    let (text, well) = dlq(dir.path(), &["replay"]);
    assert!(well && text.contains("1 stored, 0 not stored"), "{text}");
    assert!(dlq(dir.path(), &["list"]).0.contains("0 dead letters"));
    wait_until("the sample can be queried", DEADLINE, || {
        server.get("/api/v1/export?match[]=t").unwrap().contains("1700000000000")
    });
}

#[test]
fn a_row_that_postgres_refused_is_replayed_into_its_table_once_the_cause_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(Postgres::start(dir.path(), &["fsync=off"])) else { return };
    let ports: Vec<Port> = (0..8).map(|_| Port::free().unwrap()).collect();
    let settings = storage(dir.path(), &server, &ports);
    fs::write(dir.path().join("storage.toml"), &settings).unwrap();
    let node = format!("{}[storage]\n{settings}", others(dir.path(), &ports));
    fs::write(dir.path().join("node.toml"), node).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.arg("run").arg("--config").arg(dir.path().join("node.toml"));
    let mut node = Child::spawn("node", &mut command, dir.path()).unwrap();
    node.wait_for("front ready", DEADLINE).unwrap();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
    let front = format!("ws://127.0.0.1:{}", ports[0].number());
    let device = Device::connect(&front, "press-1", forebay_client::Options::default());
    let device = runtime.block_on(device).unwrap();

    let count = |what: &str| ask(&server, &format!("SELECT count(*) FROM forebay.readings {what}"));
    send(&device, &runtime, &[1.0, 2.0, 3.0]);
    wait_until("the first are stored", DEADLINE, || count("") == "3");
    ask(&server, "ALTER TABLE forebay.readings ADD CONSTRAINT mine CHECK (value < 100)");
    send(&device, &runtime, &[4.0, 5.0, 500.0, 6.0, 7.0, 8.0, 9.0]);
    let list = |words: &[&str]| dlq(dir.path(), words).0;
    wait_until("all others are stored", DEADLINE, || count("") == "9");
    wait_until("one is set aside", DEADLINE, || list(&["list"]).contains("1 dead letters"));
    assert!(list(&["list"]).contains("row press-1 to postgres"), "{}", list(&["list"]));

    let (text, well) = dlq(dir.path(), &["replay"]);
    assert!(!well && text.contains("mine") && text.contains("0 stored, 1 not stored"), "{text}");
    assert!(list(&["list"]).contains("1 dead letters"));
    ask(&server, "ALTER TABLE forebay.readings DROP CONSTRAINT mine");
    let (text, well) = dlq(dir.path(), &["replay"]);
    assert!(well && text.contains("1 stored, 0 not stored"), "{text}");
    assert_eq!(count("WHERE value = 500 AND known AND location = 'Hall 3'"), "1");
    assert!(list(&["list"]).contains("0 dead letters"));
    let (text, well) = dlq(dir.path(), &["replay"]);
    assert!(well && text.contains("0 stored, 0 not stored"), "{text}");

    // As if the command had died between the store's ack and its own mark.
    let done = fs::read_dir(dir.path().join("dead")).unwrap().next().unwrap().unwrap().path();
    fs::rename(&done, done.with_extension("")).unwrap();
    let (text, well) = dlq(dir.path(), &["replay"]);
    assert!(well && text.contains("1 stored, 0 not stored"), "{text}");
    assert_eq!((count(""), count("WHERE value = 500")), ("10".to_owned(), "1".to_owned()));
    let distinct = "SELECT count(*) FROM (SELECT DISTINCT session, seq, index
                    FROM forebay.readings) AS identities";
    assert_eq!(ask(&server, distinct), "10");
    node.terminate(DEADLINE).unwrap();
}
