//! Every question that the documents ask ClickHouse in SQL is answered by a real server.
//!
//! Method: a day of three devices is stored through the sink; each block of `docs/stores.md` is run
//! as it stands and must yield rows, and those whose answer is known must yield it.
#![cfg(feature = "clickhouse")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use common::{
    Log,
    clickhouse::{self, Cut, drain, settings},
};
use forebay_model::{
    Body, Message, MessageId, Reading, SessionId, Timestamp, Value,
    registry::{Builder, Listing},
};
use forebay_testkit::{clickhouse::ClickHouse, documents, or_skip};

/// One message of a temperature and a state.
fn message(device: &str, seq: u64, at_us: i64, temperature: f64) -> Message<'static> {
    let at = Timestamp::from_micros(at_us).unwrap();
    let reading = |key: &'static str, value, unit: Option<&'static str>| Reading {
        key: key.into(),
        value,
        unit: unit.map(Into::into),
        time: Some(at),
    };
    Message {
        tenant: "default".into(),
        device: device.to_owned().into(),
        session: SessionId::new(1).unwrap(),
        seq: MessageId::new(seq).unwrap(),
        rejected_before: 0,
        received: at,
        body: Body::Readings(vec![
            reading("temperature", Value::Float(temperature), Some("°C")),
            reading("state", Value::Text(format!("state {seq}").into()), None),
        ]),
    }
}

#[test]
fn every_question_of_the_documents_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(ClickHouse::start(folder.path())) else { return };
    let mut known = Builder::default();
    for device in ["press-1", "press-2"] {
        known
            .add(Listing {
                device: device.to_owned(),
                device_type: Some("press".to_owned()),
                location: Some("hall A".to_owned()),
                ..Listing::default()
            })
            .unwrap();
    }
    let cut = Cut::rows(1000);
    cut.registry.set(Arc::new(known.build()));
    let (now, minute) = (Timestamp::now().micros(), 60_000_000);
    let log = Log::new(1);
    // A device's later message may arrive first, and one device has been silent for three hours.
    for seq in [2, 1, 3] {
        log.append(&message("press-1", seq, now - (4 - seq as i64) * minute, seq as f64 * 10.0));
    }
    log.append(&message("press-2", 1, now - 3 * minute, 30.0));
    log.append(&message("stranger", 1, now - 180 * minute, 1.0));
    drain(clickhouse::start(&log, "clickhouse", &settings(&server, "forebay"), cut));

    let blocks = documents::blocks("stores.md", "ClickHouse", "sql");
    let answers: Vec<String> = blocks.iter().map(|sql| server.query(sql).unwrap()).collect();
    for (sql, answer) in blocks.iter().zip(&answers) {
        assert!(!answer.is_empty(), "nothing is the answer to {sql}");
    }
    let find = |word: &str| {
        let at = blocks.iter().position(|sql| sql.contains(word)).unwrap();
        answers[at].as_str()
    };
    let last = find("argMax(coalesce");
    assert!(last.starts_with("state\tstate 3\t"), "{last}");
    assert!(last.contains("temperature\t30\t°C\t"), "{last}");
    assert!(find("argMaxMerge(last)").starts_with("press-1\ttemperature\t30\t"));
    assert_eq!(find("SELECT time, number, unit").lines().count(), 3);
    let averages = find("readings_minute");
    assert!(averages.contains("press\thall A\ttemperature\t20\t10\t30\t2"), "{averages}");
    assert_eq!(find("HAVING heard").split('\t').next(), Some("stranger"));
    assert_eq!(find("countIf(NOT known)"), "stranger\tstate\t0\t1\nstranger\ttemperature\t0\t1");
}
