//! The lake holds every row exactly once, whatever dies when.
//!
//! Method: a middle in memory outlives the sinks that read it. A process that dies is played by one
//! that stops for ever at a step: its files stay as they are, its thread never moves again, and the
//! next session of the consumer fences it. This cannot show what a power cut does to files that
//! were not synced; the order of the calls is what guards that.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use common::{
    DEADLINE, Log, eventually,
    rows::{START_US, all_rows, lake_rows, messages, simple},
};
use forebay_link::Seq;
use forebay_ops::Shutdown;
use forebay_storage::{
    lake::{
        FileName, Gate, Hour, LakeSink,
        compact::Compactor,
        encode,
        file::{Observer, Step},
    },
    registry::Current,
    rows::Rows,
    sink::{Limits, SinkTask, SinkTaskConfig},
};

const ROWS: usize = 500;

fn limits() -> Limits {
    Limits {
        rows: ROWS,
        held_bytes: 1 << 20,
        outstanding_bytes: 1 << 20,
        age: Duration::from_secs(3600),
    }
}

fn config(dir: &Path, limits: Limits) -> SinkTaskConfig {
    SinkTaskConfig {
        name: "lake".to_owned(),
        limits,
        registry: Current::default(),
        dead_letters: dir.join("dead"),
        stored: Box::new(|_| {}),
    }
}

fn start(log: &Log, dir: &Path, limits: Limits) -> SinkTask {
    let sink = LakeSink::open(&dir.join("lake")).unwrap();
    SinkTask::start(config(dir, limits), log.consumer("lake"), sink, Shutdown::new()).unwrap()
}

/// Starts a sink, lets it store everything, and ends it.
fn store_all(log: &Log, dir: &Path, limits: Limits) {
    let task = start(log, dir, limits);
    assert_eq!(task.drain(Instant::now() + DEADLINE), 0);
    assert_eq!(log.state("lake").committed, log.head());
}

/// Every file below a folder with its bytes, by path.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn lake_files_read_back_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    let sent = messages(1, 3000);
    for (number, message) in sent.iter().enumerate() {
        if number % 100 == 0 {
            log.append_marker();
        }
        log.append(message);
    }
    store_all(&log, dir.path(), limits());
    assert_eq!(lake_rows(&dir.path().join("lake")), all_rows(&sent));
    let names = files(&dir.path().join("lake"));
    for hour in ["dt=2026-11-22/hour=13/", "dt=2026-11-22/hour=14/", "dt=2026-11-22/hour=15/"] {
        assert!(names.keys().any(|name| name.starts_with(hour)), "{hour} of {:?}", names.keys());
    }
    assert!(names.len() > 10, "closed by rows: {}", names.len());
}

#[test]
fn equal_entries_give_byte_identical_files_in_any_process() {
    let sent = messages(2, 2000);
    let encoded = || {
        let mut rows = Rows::new(forebay_link::QueueId::new(7));
        // Memory that was used before must not show.
        for (number, message) in sent.iter().rev().enumerate() {
            rows.append(Seq::from_parts(3, number as u64 + 1), message);
        }
        rows.clear(forebay_link::QueueId::new(7));
        for (number, message) in sent.iter().enumerate() {
            rows.append(Seq::from_parts(4, number as u64 + 1), message);
        }
        let files = encode::encode(&rows).unwrap();
        files.into_iter().map(|file| (file.hour, file.name, file.bytes)).collect::<Vec<_>>()
    };
    let once = encoded();
    assert_eq!(once.len(), 3);
    assert_eq!(once, encoded());
}

#[test]
fn a_lost_cursor_replays_everything_into_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    let sent = messages(3, 1000);
    log.append_all(&sent);
    store_all(&log, dir.path(), limits());
    let before = files(&dir.path().join("lake"));
    // Another consumer of the same log has no cursor: it writes every range again.
    let sink = LakeSink::open(&dir.path().join("lake")).unwrap();
    let again = log.consumer("again");
    let task = SinkTask::start(config(dir.path(), limits()), again, sink, Shutdown::new()).unwrap();
    assert_eq!(task.drain(Instant::now() + DEADLINE), 0);
    assert_eq!(files(&dir.path().join("lake")), before);
}

#[test]
fn an_announced_range_is_repeated_exactly_though_limits_have_changed() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    let sent = messages(4, 1000);
    log.append_all(&sent[..700]);
    let first = start(&log, dir.path(), limits());
    eventually("the first range is announced", || log.state("lake").committed > Seq::ZERO);
    let _ = first.drain(Instant::now());
    let committed = log.state("lake").committed;
    // As if it had died between the announcement and the commit.
    let end = Seq::new(committed.get() + 37);
    let session = log.consumer("lake");
    forebay_storage::feed::Consumer::prepare(
        &*session,
        log.queue(),
        committed.next().unwrap(),
        end,
        &[1],
        DEADLINE,
    )
    .unwrap();
    log.append_all(&sent[700..]);
    store_all(&log, dir.path(), Limits { rows: 10, ..limits() });
    assert_eq!(lake_rows(&dir.path().join("lake")), all_rows(&sent));
    let names = files(&dir.path().join("lake"));
    let mut names = names.keys().filter_map(|name| FileName::parse(name.rsplit('/').next()?));
    assert!(names.any(|name| name.last == end && name.first > committed), "{end}");
}

#[test]
fn torn_files_of_a_dead_process_are_ignored_and_swept() {
    let dir = tempfile::tempdir().unwrap();
    let lake = dir.path().join("lake");
    let log = Log::new(1);
    let sent = messages(5, 300);
    log.append_all(&sent);
    store_all(&log, dir.path(), limits());
    let (name, bytes) = files(&lake).pop_first().unwrap();
    let (folder, file) = name.rsplit_once('/').unwrap();
    let torn = lake.join(folder).join(format!(".{file}.0123456789abcdef.tmp"));
    fs::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(lake_rows(&lake), all_rows(&sent));
    LakeSink::open(&lake).unwrap();
    assert!(!torn.exists());
    assert_eq!(lake_rows(&lake), all_rows(&sent));
}

/// Starts a sink that stops for ever at the `nth` time of a step, and waits until it has.
fn die_at(log: &Log, dir: &Path, step: Step, nth: usize) {
    let (died, dead) = mpsc::sync_channel(1);
    let left = Mutex::new(nth);
    let observer = move |now: Step| {
        let mut left = left.lock().unwrap();
        if now != step {
            return;
        }
        *left -= 1;
        if *left == 0 {
            let _ = died.send(());
            drop(left);
            loop {
                std::thread::park();
            }
        }
    };
    let sink = LakeSink::open(&dir.join("lake")).unwrap().with_observer(Arc::new(observer));
    let consumer = log.consumer("lake");
    let task = SinkTask::start(config(dir, limits()), consumer, sink, Shutdown::new()).unwrap();
    dead.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("{step:?} {nth} was never reached"));
    // Neither drained nor dropped: a process that was killed does not tidy up.
    std::mem::forget(task);
}

#[test]
fn death_at_each_step_of_a_file_neither_loses_nor_doubles_a_row() {
    for step in Step::ALL {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new(1);
        let sent = messages(6, 1500);
        log.append_all(&sent);
        // A process makes each of the three hours once.
        let last = if step == Step::FolderMade { 3 } else { 4 };
        for nth in [1, 2, last] {
            die_at(&log, dir.path(), step, nth);
        }
        let sent_later = messages(7, 200);
        let later: Vec<_> = sent_later
            .into_iter()
            .map(|message| forebay_model::Message {
                device: format!("late-{}", message.device).into(),
                ..message
            })
            .collect();
        log.append_all(&later);
        store_all(&log, dir.path(), limits());
        let lake = dir.path().join("lake");
        assert_eq!(
            lake_rows(&lake),
            all_rows(sent.iter().chain(&later)),
            "after death at {step:?}"
        );
        let unfinished = files(&lake).into_keys().filter(|name| name.ends_with(".tmp")).count();
        assert_eq!(unfinished, 0, "swept after death at {step:?}");
    }
}

#[test]
fn the_folder_of_an_hour_is_put_on_the_medium_once_by_each_process() {
    let dir = tempfile::tempdir().unwrap();
    let hour = Hour::of(START_US);
    // As a process leaves it that was killed before the folder's name was on the medium.
    fs::create_dir_all(dir.path().join(hour.folder())).unwrap();
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let observer: Observer = Arc::new(move |step| {
        count.fetch_add(usize::from(step == Step::FolderMade), Ordering::SeqCst);
    });
    let gate = Arc::new(Gate::new(dir.path()));
    let mut next = 0;
    let mut put = || {
        next += 1;
        let seq = Seq::from_parts(1, next);
        let name = FileName { queue: forebay_link::QueueId::new(1), first: seq, last: seq };
        assert!(gate.put(hour, &name.to_string(), b"rows", &observer).unwrap());
        made.load(Ordering::SeqCst)
    };
    assert_eq!([put(), put(), put()], [1, 1, 1]);
    // Removed by retention, or by hand: it is made again.
    Compactor::new(gate.clone()).drop_hour(hour).unwrap();
    assert_eq!([put(), put()], [2, 2]);
    fs::remove_dir_all(dir.path().join(hour.folder())).unwrap();
    assert_eq!([put(), put()], [3, 3]);
}

#[test]
fn a_range_is_closed_by_age_and_by_what_its_entries_take() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    log.append(&simple("a", 1, 1.0));
    let by_age = Limits { age: Duration::from_millis(50), ..limits() };
    let task = start(&log, dir.path(), by_age);
    eventually("stored by age", || log.state("lake").committed == log.head());
    assert_eq!(lake_rows(&dir.path().join("lake")).len(), 1);
    assert_eq!(task.drain(Instant::now() + DEADLINE), 0);

    let by_bytes = Limits { outstanding_bytes: 2000, ..limits() };
    let task = start(&log, dir.path(), by_bytes);
    for seq in 2..100 {
        log.append(&simple("a", seq, 1.0));
    }
    eventually("stored by bytes", || log.state("lake").committed.counter() > 50);
    let _ = task.drain(Instant::now() + DEADLINE);
    assert_eq!(lake_rows(&dir.path().join("lake")).len(), 99);
}

#[test]
fn markers_alone_move_the_cursor_and_make_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    for _ in 0..10 {
        log.append_marker();
    }
    store_all(&log, dir.path(), limits());
    assert!(files(&dir.path().join("lake")).is_empty());
}

#[test]
fn an_entry_that_is_none_is_kept_and_the_rest_flows() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    let sent = messages(8, 100);
    log.append_all(&sent[..50]);
    let mut bad =
        forebay_wire::feed::Stored::prefix(forebay_link::QueueId::new(9), Seq::from_parts(1, 1))
            .to_vec();
    bad.extend_from_slice(b"not an entry");
    log.append_raw(bad.clone());
    log.append_raw(b"short".to_vec());
    log.append_all(&sent[50..]);
    store_all(&log, dir.path(), limits());
    assert_eq!(lake_rows(&dir.path().join("lake")), all_rows(&sent));
    let dead = files(&dir.path().join("dead"));
    assert_eq!(dead.into_values().collect::<Vec<_>>(), [bad, b"short".to_vec()]);
}
