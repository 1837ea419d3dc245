//! Redis: a last value is the newest there ever was, whatever comes when.

use std::{collections::HashMap, process::Command};

use forebay_ops::Duration;
use forebay_storage::{
    config,
    redis::RedisSink,
    sink::{Outcome, Sink as _},
};
use forebay_testkit::{Redis, or_skip};

use crate::{
    common::rows::{OwnedCell, OwnedRow, all_rows, messages, simple},
    fixture::{misconfigured, rows, runtime, send_on, transient},
};

pub(crate) fn settings(server: &Redis) -> config::Redis {
    let timeout = Duration::from_secs(1);
    config::Redis { enabled: true, url: server.url(), timeout, ..config::Redis::default() }
}

pub(crate) fn ask(server: &Redis, words: &[&str]) -> String {
    let mut cli: Command = server.program("redis-cli").unwrap();
    let output = cli.args(["-p", &server.port().to_string()]).args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// The value that each (device, key) of these rows must have.
fn newest(all: &[OwnedRow]) -> HashMap<(String, String), &OwnedRow> {
    let order = |row: &OwnedRow| (row.at_us(), row.seq, row.index, row.session);
    let mut newest: HashMap<_, &OwnedRow> = HashMap::new();
    for row in all {
        let Some(key) = row.key.clone() else { continue };
        let hash = format!("forebay:last:{}/{}", row.tenant, row.device);
        let place = newest.entry((hash, key)).or_insert(row);
        if order(row) > order(place) {
            *place = row;
        }
    }
    newest
}

fn check(server: &Redis, all: &[OwnedRow]) {
    for ((hash, key), row) in newest(all) {
        let found = ask(server, &["HGET", &hash, &key]);
        let found: serde_json::Value = serde_json::from_str(&found).unwrap();
        let value = match &row.value {
            OwnedCell::Float(number) => serde_json::json!(number),
            OwnedCell::Int(number) => serde_json::json!(number),
            OwnedCell::Bool(on) => serde_json::json!(on),
            OwnedCell::Text(text) => serde_json::json!(text),
            OwnedCell::Opaque(..) => unreachable!("it has no key"),
        };
        assert_eq!(found["value"], value, "{hash} {key}");
        assert_eq!(found["time"], row.at_us(), "{hash} {key}");
        assert_eq!(found["seq"], row.seq, "{hash} {key}");
        let location = (row.device == "device-0").then_some("cellar");
        assert_eq!(found["location"].as_str(), location, "{hash} {key}");
    }
}

#[test]
fn a_last_value_in_redis_never_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut server) = or_skip(Redis::start(folder.path(), &["--appendonly", "yes"])) else {
        return;
    };
    let sent = messages(5, 1200);
    let all = all_rows(&sent);
    let settings = settings(&server);
    let (mut sink, mut other, runtime) =
        (RedisSink::new(&settings), RedisSink::new(&settings), runtime());
    // Backwards, then again in order by another process: what is older changes nothing.
    for start in (0..1200).step_by(200).rev() {
        assert_eq!(send_on(&runtime, &mut sink, &rows(&sent, start..start + 200)), Outcome::Ack);
    }
    check(&server, &all);
    for start in (0..1200).step_by(150) {
        assert_eq!(send_on(&runtime, &mut other, &rows(&sent, start..start + 150)), Outcome::Ack);
        check(&server, &all[..0]);
    }
    check(&server, &all);
    server.stop().unwrap();
    server.restart().unwrap();
    assert_eq!(send_on(&runtime, &mut sink, &rows(&sent, 0..10)), Outcome::Ack);
    check(&server, &all);
    let opaque = all.iter().filter(|row| row.key.is_none()).count() as u64;
    let counted = sink.not_applicable().load(std::sync::atomic::Ordering::Relaxed);
    assert!(counted >= opaque, "{counted} of {opaque}");
}

#[test]
fn what_is_wrong_with_redis_is_told_apart_and_mends_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut server) = or_skip(Redis::start(folder.path(), &[])) else { return };
    let sent: Vec<_> = (1..=20).map(|seq| simple("d", seq, seq as f64)).collect();
    let (runtime, password) = (runtime(), folder.path().join("password"));
    std::fs::write(&password, "wrong").unwrap();
    let config = config::Redis { password_file: Some(password.clone()), ..settings(&server) };
    let sink = &mut RedisSink::new(&config);
    let mut places = 0..20;
    let mut next = || {
        let place = places.next().unwrap();
        rows(&sent, place..place + 1)
    };
    let value = |server: &Redis| ask(server, &["HGET", "forebay:last:default/d", "value"]);

    let block = next();
    server.ask("CONFIG SET requirepass right").unwrap();
    misconfigured(send_on(&runtime, sink, &block));
    std::fs::write(&password, "right\n").unwrap();
    assert_eq!(send_on(&runtime, sink, &block), Outcome::Ack);
    ask(&server, &["-a", "right", "CONFIG", "SET", "requirepass", ""]);
    assert!(value(&server).contains("\"value\":1.0"), "{}", value(&server));
    std::fs::write(&password, "").unwrap();
    let config = settings(&server);
    let sink = &mut RedisSink::new(&config);

    let block = next();
    ask(&server, &["SET", "forebay:last:default/d", "mine"]);
    misconfigured(send_on(&runtime, sink, &block));
    ask(&server, &["DEL", "forebay:last:default/d"]);
    assert_eq!(send_on(&runtime, sink, &block), Outcome::Ack);

    let block = next();
    ask(&server, &["CONFIG", "SET", "maxmemory", "1"]);
    misconfigured(send_on(&runtime, sink, &block));
    ask(&server, &["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(send_on(&runtime, sink, &block), Outcome::Ack);

    let block = next();
    ask(&server, &["SCRIPT", "FLUSH"]);
    transient(send_on(&runtime, sink, &block));
    assert_eq!(send_on(&runtime, sink, &block), Outcome::Ack);

    let block = next();
    server.set_paused(true).unwrap();
    transient(send_on(&runtime, sink, &block));
    server.set_paused(false).unwrap();
    assert_eq!(send_on(&runtime, sink, &block), Outcome::Ack);

    let block = next();
    server.kill().unwrap();
    transient(send_on(&runtime, sink, &block));
    server.restart().unwrap();
    assert_eq!(send_on(&runtime, sink, &block), Outcome::Ack);
    assert!(value(&server).contains("\"value\":6.0"), "{}", value(&server));
}

/// PING that was answered by an error dropped the connection at each look, which was then taken for
/// a death: all that was held back was sent again for ever.
#[test]
fn a_redis_whose_user_may_not_ping_is_not_taken_to_have_died() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut server) = or_skip(Redis::start(folder.path(), &[])) else { return };
    let (runtime, mut sink) = (runtime(), RedisSink::new(&settings(&server)));
    let block = rows(&[simple("d", 1, 1.0)], 0..1);
    assert_eq!(send_on(&runtime, &mut sink, &block), Outcome::Ack);
    let life = runtime.block_on(sink.life());
    assert_eq!(ask(&server, &["ACL", "SETUSER", "default", "-ping"]), "OK");
    assert!(ask(&server, &["PING"]).contains("NOPERM"));
    assert_eq!(runtime.block_on(sink.life()), life);
    server.kill().unwrap();
    assert_ne!(runtime.block_on(sink.life()), life);
}
