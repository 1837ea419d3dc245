//! How fast entries become lake files, and how fast a series is read back. Not a check: run by hand
//! with `cargo test --release -p forebay-storage --test speed -- --ignored --nocapture`.
//!
//! Method: CPU time of the one thread, best of some rounds, since the machine is shared.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Instant;

use common::rows::START_US;
use forebay_link::{QueueId, Seq};
use forebay_model::{Body, Message, MessageId, Reading, SessionId, Timestamp, Value};
use forebay_storage::{
    lake::{encode, file},
    read::{Filter, LakeFiles, NoTail, Order, history, trend},
    rows::Rows,
};
use forebay_wire::entry;
use rustix::time::{ClockId, clock_gettime};

const DEVICES: usize = 200;
const RANGE_ROWS: usize = 131_072;

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Canonical entries of a fleet that sends quantised, jittered series in turn.
fn entries(messages: usize, readings: usize) -> Vec<Vec<u8>> {
    let keys = ["temperature", "pressure", "humidity", "vibration_rms"];
    (0..messages)
        .map(|number| {
            let at = START_US - 3_000_000_000 + number as i64 * 3;
            let reading = |place: usize| Reading {
                key: keys[place % keys.len()].into(),
                value: Value::Float(((number * 7919 + place * 31) % 1000) as f64 / 10.0),
                unit: Some("C".into()),
                time: Timestamp::from_micros(at - ((number * 37) % 1000) as i64).ok(),
            };
            let message = Message {
                tenant: "default".into(),
                device: format!("device-{:05}", number % DEVICES).into(),
                session: SessionId::new(7_000_000_000 + (number % DEVICES) as u64).unwrap(),
                seq: MessageId::new(1 + (number / DEVICES) as u64).unwrap(),
                rejected_before: 0,
                received: Timestamp::from_micros(at).unwrap(),
                body: Body::Readings((0..readings).map(reading).collect()),
            };
            let mut bytes = Vec::new();
            entry::encode(&message, &mut bytes);
            bytes
        })
        .collect()
}

#[test]
#[ignore = "a measurement, not a check"]
fn rows_a_second_into_the_lake() {
    for readings in [1, 4] {
        let entries = entries(RANGE_ROWS / readings, readings);
        let mut rows = Rows::new(QueueId::new(1));
        let (mut decode, mut encoding, mut both) = (f64::MAX, f64::MAX, f64::MAX);
        let mut bytes = 0;
        for _ in 0..12 {
            let began = cpu_seconds();
            rows.clear(QueueId::new(1));
            for (number, entry) in entries.iter().enumerate() {
                rows.append_entry(Seq::from_parts(1, number as u64 + 1), entry).unwrap();
            }
            let decoded = cpu_seconds();
            bytes = encode::encode(&rows).unwrap().iter().map(|file| file.bytes.len()).sum();
            let ended = cpu_seconds();
            decode = decode.min(decoded - began);
            encoding = encoding.min(ended - decoded);
            both = both.min(ended - began);
        }
        let million = |seconds: f64| RANGE_ROWS as f64 / seconds / 1e6;
        println!(
            "{readings} readings a message: decode {:.2}, encode {:.2}, both {:.2} M rows/s a core; \
             {:.1} B a row, {:.1} MB held",
            million(decode),
            million(encoding),
            million(both),
            bytes as f64 / RANGE_ROWS as f64,
            rows.held_bytes() as f64 / 1e6,
        );
    }
}

#[test]
#[ignore = "a measurement, not a check"]
fn reading_a_series_back() {
    let dir = tempfile::tempdir().unwrap();
    let entries = entries(RANGE_ROWS * 8, 1);
    for (number, range) in entries.chunks(RANGE_ROWS).enumerate() {
        let mut rows = Rows::new(QueueId::new(1));
        for (place, entry) in range.iter().enumerate() {
            let counter = (number * RANGE_ROWS + place + 1) as u64;
            rows.append_entry(Seq::from_parts(1, counter), entry).unwrap();
        }
        for file in encode::encode(&rows).unwrap() {
            let name = file.name.to_string();
            let observer: file::Observer = std::sync::Arc::new(|_| {});
            file::make_hour(dir.path(), file.hour, &observer).unwrap();
            let folder = dir.path().join(file.hour.folder());
            file::write(&folder, &name, &file.bytes, &observer).unwrap();
        }
    }
    let lake = LakeFiles::open(dir.path()).unwrap();
    let filter = Filter {
        device: Some("device-00042".to_owned()),
        key: Some("temperature".to_owned()),
        from_us: Some(0),
        to_us: Some(i64::MAX),
        ..Filter::default()
    };
    for round in 0..3 {
        let began = Instant::now();
        let points = history(&lake, &NoTail, &filter, Order::Descending, 1000).unwrap();
        let history_took = began.elapsed();
        let began = Instant::now();
        let buckets = trend(&lake, &NoTail, &filter, 1_000_000).unwrap();
        println!(
            "round {round}: of {} rows in 8 files, the last {} of a series in {history_took:.1?}, \
             {} buckets of it in {:.1?}",
            entries.len(),
            points.points.len(),
            buckets.buckets.len(),
            began.elapsed()
        );
    }
}
