//! Every question in docs/stores.md is put to a real server, and the answers are right.
//!
//! Three devices report every ten seconds for three minutes; the numbers are such that each answer
//! can be written down here.

use forebay_model::Message;
use forebay_storage::{
    postgres::PostgresSink, redis::RedisSink, remote_write::RemoteWriteSink, sink::Outcome,
};
use forebay_testkit::{Redis, Victoria, or_skip, postgres::Postgres};

use crate::{
    common::{
        eventually,
        rows::{START_US, simple},
    },
    fixture::{rows, runtime, send_on},
    postgres, redis, remote_write,
};

/// The blocks of a language in the section below a heading of docs/stores.md.
fn blocks(heading: &str, language: &str) -> Vec<String> {
    let page = include_str!("../../../../docs/stores.md");
    let section = page.split("\n## ").find(|section| section.starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("docs/stores.md has no {heading}"));
    let fence = format!("```{language}\n");
    let blocks = section.split(&fence).skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// From a minute before 14:00 on: pump-1 counts 0, 1, 2, .. every ten seconds, pump-2 is at 100
/// above, fan-1 at 1000.
fn reported() -> Vec<Message<'static>> {
    let mut sent = Vec::new();
    for seq in 1..=18_u64 {
        for (device, base) in [("pump-1", 0.0), ("pump-2", 100.0), ("fan-1", 1000.0)] {
            let mut message = simple(device, seq, base + (seq - 1) as f64);
            let at_us = START_US + (seq as i64 - 1) * 10_000_000;
            message.received = forebay_model::Timestamp::from_micros(at_us + 7).unwrap();
            if let forebay_model::Body::Readings(readings) = &mut message.body {
                readings[0].key = "temperature".into();
                readings[0].time = forebay_model::Timestamp::from_micros(at_us).ok();
                readings[0].unit = Some("°C".into());
            }
            sent.push(message);
        }
    }
    sent
}

#[test]
fn documented_questions_to_postgres_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(Postgres::start(folder.path(), &[])) else { return };
    let sent = reported();
    let mut sink = PostgresSink::new(&postgres::settings(&server));
    assert_eq!(send_on(&runtime(), &mut sink, &rows(&sent, 0..sent.len())), Outcome::Ack);
    let [last, history, averages] = &blocks("PostgreSQL", "sql")[..] else {
        panic!("the page asks three questions")
    };
    assert_eq!(postgres::ask(&server, last), ["temperature|2026-11-22 14:01:50+00|17|°C"]);
    let found = postgres::ask(&server, history);
    let expected: Vec<_> = (0..12)
        .map(|n| format!("2026-11-22 14:{:02}:{:02}+00|{}|°C", n / 6, n % 6 * 10, n + 6))
        .collect();
    assert_eq!(found, expected);
    let minute = |minute: u8, first: u16| {
        let line = |of: &str, at: &str, average: f64| {
            format!("2026-11-22 14:0{minute}:00+00|{of}|{at}|{average}|6")
        };
        let average = f64::from(first) + 2.5;
        [
            line("fan", "hall 1", 1000.0 + average),
            line("pump", "hall 1", average),
            line("pump", "hall 2", 100.0 + average),
        ]
    };
    assert_eq!(postgres::ask(&server, averages), [minute(0, 6), minute(1, 12)].concat());
}

#[test]
fn documented_questions_to_victoria_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(Victoria::start(folder.path(), &remote_write::FLAGS)) else {
        return;
    };
    let sent = reported();
    let mut sink = RemoteWriteSink::new(&remote_write::settings(&server)).unwrap();
    assert_eq!(send_on(&runtime(), &mut sink, &rows(&sent, 0..sent.len())), Outcome::Ack);
    let [last, history, averages] = &blocks("VictoriaMetrics", "promql")[..] else {
        panic!("the page asks three questions")
    };
    let at = START_US / 1_000_000 + 170;
    let ask = |query: &str| -> Vec<serde_json::Value> {
        let query: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = server.get(&format!("/api/v1/query?nocache=1&time={at}&query={query}"));
        let answer: serde_json::Value = serde_json::from_str(&answer.unwrap()).unwrap();
        answer["data"]["result"].as_array().unwrap().clone()
    };
    eventually("the samples can be queried", || {
        ask("sum(count_over_time({__name__!=\"\"}[1h]))").iter().any(|sum| sum["value"][1] == "54")
    });
    let found = ask(last);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["value"][1], "17");
    assert_eq!(found[0]["metric"]["key"], "temperature");
    let found = ask(history);
    let values = found[0]["values"].as_array().unwrap();
    assert_eq!(values.last().unwrap()[1], "17", "{values:?}");
    assert_eq!(values.iter().rev().nth(11).unwrap()[1], "6", "{values:?}");
    let mut found: Vec<_> = ask(averages)
        .iter()
        .map(|sum| {
            let label = |name: &str| sum["metric"][name].as_str().unwrap().to_owned();
            (label("type"), label("location"), sum["value"][1].as_str().unwrap().to_owned())
        })
        .collect();
    found.sort();
    let line = |of: &str, at: &str, average: &str| (of.into(), at.into(), average.into());
    let expected: [(String, String, String); 3] = [
        line("fan", "hall 1", "1014.5"),
        line("pump", "hall 1", "14.5"),
        line("pump", "hall 2", "114.5"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn documented_questions_to_redis_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(Redis::start(folder.path(), &[])) else { return };
    let sent = reported();
    let mut sink = RedisSink::new(&redis::settings(&server));
    assert_eq!(send_on(&runtime(), &mut sink, &rows(&sent, 0..sent.len())), Outcome::Ack);
    let block = blocks("Redis", "redis").remove(0);
    let answers: Vec<_> = block
        .lines()
        .map(|line| redis::ask(&server, &line.split(' ').collect::<Vec<_>>()))
        .collect();
    let [value, all, devices] = &answers[..] else { panic!("the page asks three questions") };
    let value: serde_json::Value = serde_json::from_str(value).unwrap();
    assert_eq!((&value["value"], &value["unit"]), (&17.0.into(), &"°C".into()));
    assert_eq!(value["location"], "hall 1");
    assert!(all.starts_with("temperature\n"), "{all}");
    for device in ["pump-1", "pump-2", "fan-1"] {
        assert!(devices.contains(&format!("forebay:last:default/{device}")), "{devices}");
    }
}
