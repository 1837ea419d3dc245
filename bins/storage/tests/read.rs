//! History and trends are what a naive reading of all messages gives, wherever the rows lie.
//!
//! Method: random messages over three hours, half of them in files and half still in memory,
//! random ranges and filters from a printed seed, compared with a loop over the messages.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use common::{
    DEADLINE, Log, eventually,
    rows::{OwnedCell, OwnedRow, START_US, all_rows, messages, simple},
};
use forebay_ops::Shutdown;
use forebay_storage::{
    http::Tails,
    lake::LakeSink,
    read::{Filter, LakeFiles, Order, PointValue, Tail as _, history, trend},
    registry::Current,
    sink::{Limits, SinkTask, SinkTaskConfig},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

fn start(log: &Log, dir: &std::path::Path, rows: usize) -> SinkTask {
    let config = SinkTaskConfig {
        name: "lake".to_owned(),
        limits: Limits {
            rows,
            held_bytes: 1 << 30,
            outstanding_bytes: 1 << 30,
            age: Duration::from_secs(3600),
        },
        registry: Current::default(),
        dead_letters: dir.join("dead"),
        stored: Box::new(|_| {}),
    };
    let sink = LakeSink::open(&dir.join("lake")).unwrap();
    SinkTask::start(config, log.consumer("lake"), sink, Shutdown::new()).unwrap()
}

/// Whether a row is wanted, written down anew.
fn wanted(row: &OwnedRow, filter: &Filter) -> bool {
    filter.tenant.as_ref().is_none_or(|tenant| *tenant == row.tenant)
        && filter.device.as_ref().is_none_or(|device| *device == row.device)
        && (filter.key.is_none() || filter.key == row.key)
        && filter.from_us.is_none_or(|from_us| from_us <= row.at_us())
        && filter.to_us.is_none_or(|to_us| row.at_us() < to_us)
}

fn number(cell: &OwnedCell) -> Option<f64> {
    match cell {
        OwnedCell::Float(number) => Some(*number),
        OwnedCell::Int(number) => Some(*number as f64),
        OwnedCell::Bool(on) => Some(if *on { 1.0 } else { 0.0 }),
        _ => None,
    }
}

fn random_filter(random: &mut StdRng) -> Filter {
    let mut time = || {
        let time_us = START_US + random.random_range(-20_000_000_000..8_000_000_000_i64);
        random.random_ratio(3, 4).then_some(time_us)
    };
    let (from_us, to_us) = (time(), time());
    let mut pick = |texts: &[&str]| -> Option<String> {
        let picked = texts[random.random_range(0..texts.len())].to_owned();
        random.random_ratio(2, 3).then_some(picked)
    };
    Filter {
        tenant: pick(&["default", "other"]),
        device: pick(&["device-0", "device-3", "device-7", "nobody"]),
        key: pick(&["temperature", "pressure", "über"]),
        from_us,
        to_us,
    }
}

#[test]
fn history_and_trend_agree_with_a_loop_over_all_messages() {
    let seed = 20_261_122;
    println!("seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    let sent = messages(seed, 6000);
    let rows = all_rows(&sent);
    log.append_all(&sent);
    // The last range stays open: its rows are read from memory.
    let task = start(&log, dir.path(), 1500);
    eventually("all is read", || task.status().received() == log.head());
    eventually("full ranges are stored", || task.buffer().held().1 < 1500);
    assert!(task.buffer().held().1 > 0, "something is left in memory");
    let tails = Tails(vec![task.buffer()]);
    let lake = LakeFiles::open(&dir.path().join("lake")).unwrap();

    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..200 {
        let filter = random_filter(&mut random);
        let mut expected: Vec<_> = rows.iter().filter(|row| wanted(row, &filter)).collect();
        expected.sort_by_key(|row| (row.at_us(), row.session, row.seq, row.index));

        let all = history(&lake, &tails, &filter, Order::Ascending, 1_000_000).unwrap();
        let shown: Vec<_> = all
            .points
            .iter()
            .map(|point| (point.time, point.session, point.seq, point.index, point.key.clone()))
            .collect();
        let naive: Vec<_> = expected
            .iter()
            .map(|row| (row.at_us(), row.session, row.seq, row.index, row.key.clone()))
            .collect();
        assert_eq!(shown, naive, "{filter:?}");
        assert!(!all.truncated);
        for (point, row) in all.points.iter().zip(&expected) {
            assert_eq!((&point.unit, point.received), (&row.unit, row.received_us));
            let same = match (&point.value, &row.value) {
                (PointValue::Float(a), OwnedCell::Float(b)) => a == b,
                (PointValue::Int(a), OwnedCell::Int(b)) => a == b,
                (PointValue::Bool(a), OwnedCell::Bool(b)) => a == b,
                (PointValue::Text(a), OwnedCell::Text(b)) => a == b,
                (PointValue::Opaque { content_type }, OwnedCell::Opaque(b, _)) => content_type == b,
                _ => false,
            };
            assert!(same, "{point:?} is not {row:?}");
        }

        let limit = random.random_range(1..50);
        let newest = history(&lake, &tails, &filter, Order::Descending, limit).unwrap();
        let shown: Vec<_> = newest.points.iter().map(|point| point.time).collect();
        let naive: Vec<_> = expected.iter().rev().take(limit).map(|row| row.at_us()).collect();
        assert_eq!((shown, newest.truncated), (naive, expected.len() > limit), "{filter:?}");

        let interval_us = [1_000_000, 60_000_000, 3_600_000_000][random.random_range(0..3)];
        let mut buckets: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
        for row in &expected {
            if let Some(number) = number(&row.value) {
                let start = row.at_us().div_euclid(interval_us) * interval_us;
                buckets.entry(start).or_default().push(number);
            }
        }
        let shown = trend(&lake, &tails, &filter, interval_us).unwrap();
        assert_eq!(shown.buckets.len(), buckets.len(), "{filter:?}");
        for (bucket, (start, numbers)) in shown.buckets.iter().zip(buckets) {
            let low = numbers.iter().copied().fold(f64::INFINITY, f64::min);
            let high = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
            let counted = (bucket.time, bucket.count, bucket.min, bucket.max);
            assert_eq!(counted, (start, numbers.len() as u64, low, high));
            assert!((bucket.avg - mean).abs() <= 1e-6 * mean.abs().max(1.0), "{bucket:?} {mean}");
        }
    }
    let _ = task.drain(Instant::now() + DEADLINE);
}

#[test]
fn every_row_is_seen_once_while_ranges_become_files() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    let task = start(&log, dir.path(), 200);
    let tails = Tails(vec![task.buffer()]);
    let lake = LakeFiles::open(&dir.path().join("lake")).unwrap();
    let filter = Filter { device: Some("a".to_owned()), ..Filter::default() };
    let count = 20_000_u64;
    let writer = {
        let log = log.clone();
        std::thread::spawn(move || {
            for seq in 1..=count {
                log.append(&simple("a", seq, seq as f64));
            }
        })
    };
    let mut queries = 0;
    let deadline = Instant::now() + DEADLINE;
    loop {
        // A reader that has not been told of new hours looks for them itself.
        lake.published(forebay_storage::lake::Hour::of(START_US));
        for hour in 1..8 {
            lake.published(forebay_storage::lake::Hour::of(START_US + hour * 3_600_000_000));
        }
        let before = log.state("lake").committed.counter();
        let found = history(&lake, &tails, &filter, Order::Ascending, 1_000_000).unwrap();
        let seqs: Vec<u64> = found.points.iter().map(|point| point.seq).collect();
        let expected: Vec<u64> = (1..=seqs.len() as u64).collect();
        assert_eq!(seqs, expected, "a row is missing or doubled after {queries} queries");
        assert!(seqs.len() as u64 >= before, "what was stored is seen");
        queries += 1;
        if seqs.len() as u64 == count {
            break;
        }
        assert!(Instant::now() < deadline, "not in time: all rows");
    }
    writer.join().unwrap();
    println!("{queries} queries");
    assert_eq!(task.drain(Instant::now() + DEADLINE), 0);
}

#[test]
fn a_tail_marks_where_files_must_not_repeat_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(5);
    log.append_marker();
    log.append(&simple("a", 1, 1.0));
    let task = start(&log, dir.path(), 1000);
    eventually("it is read", || task.buffer().held().1 == 1);
    let mut rows = 0;
    let marks = task.buffer().visit(&Filter::default(), &mut |_| rows += 1);
    assert_eq!((rows, marks.len()), (1, 1));
    assert_eq!((marks[0].queue, marks[0].first.counter()), (log.queue(), 1));
    let _ = task.drain(Instant::now() + DEADLINE);
}
