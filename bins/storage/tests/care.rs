//! The caretaker knows the lake as it is, whoever changes it: another process, or a human with `rm`.
//! What is not ours in it stays.
//!
//! Method: files are put through a gate of another's, which the caretaker under test does not see,
//! into hours of the past; folders are removed by hand, and files of others lie in an hour that is
//! compacted. What is counted is awaited. A death is a panic at a step.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs::{self, TryLockError},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, atomic::Ordering},
};

use common::{
    DEADLINE, Log, Served, eventually,
    lake::{all_hours, compact_all, fill, hidden, soon},
    rows::{START_US, all_rows, hours_ago, lake_rows, messages, simple, visible_rows},
};
use forebay_link::{QueueId, Seq};
use forebay_model::Timestamp;
use forebay_ops::{ByteSize, Shutdown};
use forebay_storage::{
    config::LakeRetention,
    lake::{
        Caretaker, FileName, Gate, Hour, LakeSink,
        compact::{Compactor, Step, sweep},
        encode,
    },
    read::LakeFiles,
    rows::Rows,
};
use prometheus::Registry;

const HOUR_US: i64 = 3_600_000_000;
/// Taken once: an hour may end while a test runs.
static NOW_US: LazyLock<i64> = LazyLock::new(|| Timestamp::now().micros());

fn care(files: &Arc<LakeFiles>, retention: LakeRetention) -> Caretaker {
    Caretaker::start(files.clone(), soon(), retention).unwrap()
}

/// Puts a file of some rows into the hour so long ago, as another process does; its folder and size.
fn put(lake: &Path, hours_ago: i64, queue: u128, count: u64) -> (PathBuf, u64) {
    let mut rows = Rows::new(QueueId::new(queue));
    for seq in 1..=count {
        let mut message = simple("a", seq, seq as f64);
        let received = Hour::of(*NOW_US - hours_ago * HOUR_US).start_us();
        message.received = Timestamp::from_micros(received).unwrap();
        rows.append(Seq::from_parts(1, seq), &message);
    }
    let file = encode::encode(&rows).unwrap().remove(0);
    let name = file.name.to_string();
    let observer = Arc::new(|_| {}) as _;
    assert!(Gate::new(lake).put(file.hour, &name, &file.bytes, &observer).unwrap());
    (lake.join(file.hour.folder()), file.bytes.len() as u64)
}

#[test]
fn hours_that_others_write_or_remove_are_noticed_and_retention_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let lake = dir.path().join("lake");
    let (first, first_bytes) = put(&lake, 9, 1, 100);
    let (second, second_bytes) = put(&lake, 8, 1, 100);
    let (third, third_bytes) = put(&lake, 7, 1, 100);
    let files = Arc::new(LakeFiles::open(&lake).unwrap());
    let bytes_max = ByteSize::new(first_bytes + second_bytes + third_bytes);
    let caretaker = care(&files, LakeRetention { bytes_max, ..LakeRetention::default() });
    let status = caretaker.status();
    let bytes = || status.bytes.load(Ordering::Relaxed);
    eventually("all is measured", || bytes() == bytes_max.get());

    // The oldest is removed by hand.
    fs::remove_dir_all(&first).unwrap();
    eventually("it is gone", || bytes() == second_bytes + third_bytes);
    // A file comes into an hour that is long settled.
    let (_, late_bytes) = put(&lake, 7, 2, 1);
    eventually("it is seen", || bytes() == second_bytes + third_bytes + late_bytes);
    // Too much now, in an hour that was not there.
    let (fourth, fourth_bytes) = put(&lake, 6, 1, 100);
    eventually("the oldest that is left is dropped", || !second.exists());
    let looks = status.looks.load(Ordering::Relaxed);
    eventually("and counted", || status.looks.load(Ordering::Relaxed) > looks + 1);
    assert_eq!(bytes(), third_bytes + late_bytes + fourth_bytes);
    assert_eq!(status.dropped.load(Ordering::Relaxed), 1);
    assert_eq!(status.dropped_bytes.load(Ordering::Relaxed), second_bytes);
    assert_eq!(status.hours.load(Ordering::Relaxed), 2);
    assert_eq!(status.failures.load(Ordering::Relaxed), 0, "nothing failed");
    assert!(third.exists() && fourth.exists());
    // A query of this process sees it too, and looks for none that is gone.
    assert_eq!(files.latest_hour(), Some(Hour::of(*NOW_US - 6 * HOUR_US)));
    caretaker.stop();
}

#[test]
fn an_hour_that_cannot_be_dropped_does_not_keep_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let lake = dir.path().join("lake");
    let (stuck, stuck_bytes) = put(&lake, 9, 1, 100);
    let (second, second_bytes) = put(&lake, 8, 1, 100);
    let files = Arc::new(LakeFiles::open(&lake).unwrap());
    let bytes_max = ByteSize::new(stuck_bytes + second_bytes);
    let caretaker = care(&files, LakeRetention { bytes_max, ..LakeRetention::default() });
    let status = caretaker.status();
    eventually("all is measured", || status.bytes.load(Ordering::Relaxed) == bytes_max.get());
    // A name that cannot be looked at: a link to itself.
    let seq = Seq::from_parts(9, 9);
    let name = FileName { queue: QueueId::new(9), first: seq, last: seq }.to_string();
    std::os::unix::fs::symlink(&name, stuck.join(&name)).unwrap();
    eventually("it is told", || status.failures.load(Ordering::Relaxed) > 0);

    let (third, _) = put(&lake, 7, 1, 100);
    eventually("the next one is dropped", || !second.exists());
    eventually("and counted", || status.dropped.load(Ordering::Relaxed) == 1);
    assert!(stuck.exists() && third.exists());
    caretaker.stop();
}

#[test]
fn what_is_not_ours_stays_in_its_hour_though_the_compaction_dies() {
    // After the last step nothing has died.
    for step in [Step::Marked, Step::Exchanged, Step::Settled, Step::FileRemoved, Step::Removed] {
        let dir = tempfile::tempdir().unwrap();
        let lake = dir.path().join("lake");
        let log = Log::new(1);
        let sent = messages(14, 300);
        log.append_all(&sent);
        fill(&log, &lake, 50);
        let hours = all_hours(&lake);
        let folder = lake.join(hours[1].folder());
        let theirs = ["part-0.parquet", "_metadata", "backfill/part-1.parquet"];
        fs::create_dir(folder.join("backfill")).unwrap();
        for name in theirs {
            fs::write(folder.join(name), name).unwrap();
        }
        // With a dot it is no part of the lake; it must not be in the way.
        fs::create_dir_all(folder.join(".cache.tmp/x")).unwrap();

        let observer = move |now: Step| assert!(now != step, "dies at {step:?}");
        let compactor =
            Compactor::new(Arc::new(Gate::new(&lake))).with_observer(Arc::new(observer));
        let died = catch_unwind(AssertUnwindSafe(|| {
            compactor.compact(hours[1], &|| false).unwrap();
            compactor.remove_unneeded().unwrap();
        }));
        assert!(died.is_err(), "{step:?} was never reached");
        // A sink's start, then a caretaker's.
        LakeSink::open(&lake).unwrap();
        sweep(&lake).unwrap();
        compact_all(&lake);
        for name in theirs {
            let found = fs::read_to_string(folder.join(name));
            assert_eq!(found.unwrap(), name, "after death at {step:?}");
        }
        assert_eq!(hidden(&lake), Vec::<PathBuf>::new(), "after death at {step:?}");
        assert_eq!(lake_rows(&lake), all_rows(&sent), "after death at {step:?}");
    }
}

#[test]
fn a_folder_that_cannot_be_swept_keeps_nothing_else_from_care() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("lake");
    let log = Log::new(1);
    let sent = hours_ago(messages(15, 600), 6);
    log.append_all(&sent);
    fill(&log, &root, 50);
    // A file where a folder is to be, before and behind what can be swept.
    let day = root.join(all_hours(&root)[0].folder()).parent().unwrap().to_owned();
    for hour in ["hour=00", "hour=99"] {
        fs::write(day.join(format!(".{hour}.0123456789abcdef.tmp")), "in the way").unwrap();
    }
    let unfinished = day.join(".hour=50.0123456789abcdef.tmp");
    fs::create_dir_all(unfinished.join(".folder")).unwrap();
    let lake = Arc::new(LakeFiles::open(&root).unwrap());
    let caretaker = Caretaker::start(lake, soon(), LakeRetention::default()).unwrap();
    let status = caretaker.status();
    eventually("hours are compacted", || status.compacted.load(Ordering::Relaxed) == 2);
    assert!(!unfinished.exists());
    assert_eq!(status.failures.load(Ordering::Relaxed), 1, "it is told");
    caretaker.stop();
    assert_eq!(visible_rows(&root), all_rows(&sent));
}

#[test]
fn a_drain_ends_the_caretaker_while_sinks_still_store() {
    let dir = tempfile::tempdir().unwrap();
    let lake = dir.path().join("lake");
    let log = Log::new(1);
    let sent = messages(16, 100);
    log.append_all(&sent);
    let served = Served::start(&log);
    let config = served.settings(dir.path());
    // Nothing can be stored yet: there is a link to nowhere where the first hour's folder should be.
    let in_the_way = lake.join(Hour::of(START_US).folder());
    fs::create_dir_all(in_the_way.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("nowhere", &in_the_way).unwrap();
    let shutdown = Shutdown::new();
    let running = forebay_storage::start(config, &Registry::new(), shutdown.clone()).unwrap();
    let is_cared_for = || {
        let lock = fs::OpenOptions::new().write(true).open(lake.join(".caretaker"));
        lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
    };
    eventually("the lake is cared for", is_cared_for);
    let status = running.sinks().next().unwrap().1;
    eventually("all is read", || status.received() == log.head());
    shutdown.begin("the test drains it");
    let draining = std::thread::spawn(move || running.drain(2 * DEADLINE));
    eventually("the caretaker has ended", || !is_cared_for());
    assert!(!draining.is_finished(), "it has ended with all else");
    fs::remove_file(in_the_way).unwrap();
    assert!(draining.join().unwrap().is_complete(), "the sink was at work still");
    assert_eq!(lake_rows(&lake), all_rows(&sent));
}
