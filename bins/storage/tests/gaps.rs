//! A sink that the middle has left behind keeps what it missed, and goes on after it.
//!
//! The middle is one in memory that forgets entries; a real one does so in `crates/testkit`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use common::{
    DEADLINE, Log, eventually,
    rows::{all_rows, messages, visible_files, visible_rows},
};
use forebay_link::{Seq, Tally};
use forebay_ops::Shutdown;
use forebay_storage::{
    feed::Consumer as _,
    lake::{FileName, LakeSink},
    registry::Current,
    sink::{DeadLetters, Gap, Limits, SinkTask, SinkTaskConfig},
};

fn start(log: &Log, dir: &Path) -> SinkTask {
    let config = SinkTaskConfig {
        name: "lake".to_owned(),
        limits: Limits {
            rows: 100,
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

fn gap(log: &Log, after: u64, upto: u64, announced: Option<(u64, u64)>) -> Gap {
    let seq = |counter| Seq::from_parts(1, counter).to_string();
    Gap {
        sink: "lake".to_owned(),
        queue: log.queue().to_string(),
        after: seq(after),
        upto: seq(upto),
        entries: Some(upto - after),
        announced: announced.map(|(first, last)| (seq(first), seq(last))),
    }
}

#[test]
fn a_gap_is_kept_and_named_and_the_rest_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    let sent = messages(21, 1000);
    log.append_all(&sent[..400]);
    let task = start(&log, dir.path());
    // The open range too: it ends before the gap.
    eventually("it has read what there is", || task.status().received() == log.head());
    log.append_all(&sent[400..]);
    assert_eq!(task.drain(Instant::now() + DEADLINE), 0);
    assert_eq!(visible_rows(&dir.path().join("lake")), all_rows(&sent));

    let more = messages(22, 500);
    let more: Vec<_> = more
        .into_iter()
        .map(|message| forebay_model::Message {
            device: format!("more-{}", message.device).into(),
            ..message
        })
        .collect();
    log.append_all(&more);
    // 200 of them are gone before the sink is back.
    log.reclaim(Seq::from_parts(1, 1200));
    let task = start(&log, dir.path());
    let status = task.status();
    assert_eq!(task.drain(Instant::now() + DEADLINE), 0);
    assert_eq!(log.state("lake").committed, log.head());
    let expected = all_rows(sent.iter().chain(&more[200..]));
    assert_eq!(visible_rows(&dir.path().join("lake")), expected);
    let dead = dir.path().join("dead");
    assert_eq!(DeadLetters::gaps(&dead).unwrap(), [gap(&log, 1000, 1200, None)]);
    assert!(DeadLetters::list(&dead).unwrap().is_empty(), "a gap is no dead letter");
    assert_eq!(status.missed.load(Ordering::Relaxed), 1);
    assert_eq!(status.missed_entries.load(Ordering::Relaxed), 200);
    // No range that was sent reaches over the gap; a compacted file's may, it holds what was stored.
    for path in visible_files(&dir.path().join("lake")) {
        let name = FileName::parse(path.file_name().unwrap().to_str().unwrap()).unwrap();
        assert!(name.last.counter() <= 1000 || name.first.counter() > 1200, "{name}");
    }
}

#[test]
fn an_announced_range_that_cannot_be_read_again_is_part_of_the_gap() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    let sent = messages(23, 600);
    log.append_all(&sent);
    // As if it had died after it announced entries 51 to 300, and perhaps stored them.
    let session = log.consumer("lake");
    session.commit(log.queue(), Seq::from_parts(1, 50), Tally::default(), DEADLINE).unwrap();
    let (first, last) = (Seq::from_parts(1, 51), Seq::from_parts(1, 300));
    session.prepare(log.queue(), first, last, &[1], DEADLINE).unwrap();
    log.reclaim(Seq::from_parts(1, 100));
    let task = start(&log, dir.path());
    assert_eq!(task.drain(Instant::now() + DEADLINE), 0);
    // What is left of the range is not stored under another token: the store may have the whole.
    let dead = dir.path().join("dead");
    assert_eq!(DeadLetters::gaps(&dead).unwrap(), [gap(&log, 50, 300, Some((51, 300)))]);
    assert_eq!(visible_rows(&dir.path().join("lake")), all_rows(&sent[300..]));
    assert_eq!(log.state("lake").committed, log.head());
}

#[test]
fn a_gap_that_cannot_be_kept_holds_the_sink() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    let sent = messages(24, 300);
    log.append_all(&sent);
    log.consumer("lake")
        .commit(log.queue(), Seq::from_parts(1, 10), Tally::default(), DEADLINE)
        .unwrap();
    log.reclaim(Seq::from_parts(1, 100));
    // A file where the folder should be.
    let dead = dir.path().join("dead");
    std::fs::write(&dead, b"in the way").unwrap();
    let task = start(&log, dir.path());
    let status = task.status();
    eventually("it says why it waits", || status.state().1.contains("dead letter"));
    assert_eq!(log.state("lake").committed, Seq::from_parts(1, 10));
    assert_eq!(status.missed.load(Ordering::Relaxed), 0);
    std::fs::remove_file(&dead).unwrap();
    let status = Arc::clone(&status);
    eventually("it goes on", || status.missed.load(Ordering::Relaxed) == 1);
    assert_eq!(task.drain(Instant::now() + DEADLINE), 0);
    assert_eq!(visible_rows(&dir.path().join("lake")), all_rows(&sent[100..]));
}
