//! Compacting an hour changes no row, whatever dies when and whoever reads or writes meanwhile.
//!
//! Method: a lake is filled through the real sink with many small files. A death is a panic at a
//! step; what the disk holds then is read as any other tool would read it, before anything is
//! mended. This cannot show what a power cut does: the order of the syncs guards that. Real
//! processes are killed in `compaction_kills.rs`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use common::{
    DEADLINE, Log, eventually,
    lake::{all_hours, compact_all, fill, hidden, soon, start},
    rows::{
        START_US, all_rows, hours_ago, lake_rows, messages, simple, visible_files, visible_rows,
    },
};
use forebay_link::{QueueId, Seq};
use forebay_ops::ByteSize;
use forebay_storage::{
    config::{Compaction, LakeRetention},
    http::Tails,
    lake::{
        Caretaker, FileName, Gate, Hour,
        compact::{Compacted, Compactor, Step, sweep},
        merge::merge,
    },
    read::{Columns, Filter, LakeFiles, Order, history, scan::scan, trend},
};

#[test]
fn a_compacted_hour_is_one_sorted_file_for_each_queue_with_the_same_rows() {
    let dir = tempfile::tempdir().unwrap();
    let lake = dir.path().join("lake");
    let mut sent = Vec::new();
    for queue in [1, 2] {
        let log = Log::new(queue);
        let part = messages(queue as u64, 2000);
        let part: Vec<_> = part
            .into_iter()
            .map(|message| forebay_model::Message {
                device: format!("{queue}-{}", message.device).into(),
                ..message
            })
            .collect();
        log.append_all(&part);
        // More files than are merged at a time: rounds are needed.
        fill(&log, &lake, 50);
        sent.extend(part);
    }
    let before = visible_files(&lake).len();
    assert!(before > 150, "{before} files");
    assert!(compact_all(&lake) >= 2);
    assert_eq!(visible_rows(&lake), all_rows(&sent));
    assert_eq!(lake_rows(&lake), all_rows(&sent));
    assert_eq!(hidden(&lake), Vec::<PathBuf>::new());
    let files = visible_files(&lake);
    assert_eq!(files.len(), 6, "two queues in three hours: {files:?}");
    for path in &files {
        let mut last = None;
        scan(path, &Filter::default(), Columns::All, &mut |row| {
            let place = (
                row.tenant.to_owned(),
                row.device.to_owned(),
                row.key.map(str::to_owned),
                row.at_us(),
                row.entry,
                row.index,
            );
            assert!(last.as_ref().is_none_or(|last| *last < place), "{last:?} before {place:?}");
            last = Some(place);
        })
        .unwrap();
    }
    assert_eq!(compact_all(&lake), 0, "there is nothing left to do");
}

#[test]
fn death_at_each_step_of_a_compaction_leaves_every_row_once_for_any_reader() {
    for step in Step::ALL {
        for nth in [1, 2] {
            let dir = tempfile::tempdir().unwrap();
            let lake = dir.path().join("lake");
            let log = Log::new(1);
            let sent = messages(6, 600);
            log.append_all(&sent);
            fill(&log, &lake, 100);
            let expected = all_rows(&sent);

            let left = AtomicUsize::new(nth);
            let observer = move |now: Step| {
                if now == step && left.fetch_sub(1, Ordering::SeqCst) == 1 {
                    panic!("dies at {step:?}");
                }
            };
            let gate = Arc::new(Gate::new(&lake));
            let compactor = Compactor::new(gate).with_observer(Arc::new(observer));
            let died = catch_unwind(AssertUnwindSafe(|| {
                for hour in all_hours(&lake) {
                    compactor.compact(hour, &|| false).unwrap();
                    compactor.remove_unneeded().unwrap();
                }
            }));
            assert!(died.is_err(), "{step:?} {nth} was never reached");
            assert_eq!(visible_rows(&lake), expected, "after death at {step:?} {nth}");
            assert_eq!(lake_rows(&lake), expected, "after death at {step:?} {nth}");

            sweep(&lake).unwrap();
            assert_eq!(hidden(&lake), Vec::<PathBuf>::new(), "after death at {step:?} {nth}");
            assert_eq!(visible_rows(&lake), expected, "swept after death at {step:?} {nth}");
            compact_all(&lake);
            assert_eq!(visible_rows(&lake), expected, "done after death at {step:?} {nth}");
            assert_eq!(visible_files(&lake).len(), 3);
        }
    }
}

#[test]
fn death_while_an_hour_is_dropped_leaves_the_other_hours() {
    for step in [Step::Exchanged, Step::Settled, Step::FileRemoved, Step::Removed] {
        let dir = tempfile::tempdir().unwrap();
        let lake = dir.path().join("lake");
        let log = Log::new(1);
        let sent = messages(7, 600);
        log.append_all(&sent);
        fill(&log, &lake, 100);
        let oldest = all_hours(&lake)[0];
        let kept = |row: &common::rows::OwnedRow| row.received_us >= oldest.end_us();
        let expected: Vec<_> = all_rows(&sent).into_iter().filter(kept).collect();

        let observer = move |now: Step| assert!(now != step, "dies at {step:?}");
        let gate = Arc::new(Gate::new(&lake));
        let compactor = Compactor::new(gate).with_observer(Arc::new(observer));
        let died = catch_unwind(AssertUnwindSafe(|| {
            compactor.drop_hour(oldest).unwrap();
            compactor.remove_unneeded().unwrap();
        }));
        assert!(died.is_err(), "{step:?} was never reached");
        assert_eq!(visible_rows(&lake), expected, "after death at {step:?}");
        sweep(&lake).unwrap();
        assert_eq!(hidden(&lake), Vec::<PathBuf>::new());
        assert_eq!(visible_rows(&lake), expected, "swept after death at {step:?}");
    }
}

#[test]
fn ranges_stored_again_after_their_hours_were_compacted_are_not_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let lake = dir.path().join("lake");
    let log = Log::new(1);
    let sent = messages(8, 1000);
    log.append_all(&sent);
    fill(&log, &lake, 100);
    compact_all(&lake);
    // A consumer without a cursor writes every range again.
    let task = start(&log, "again", &Arc::new(Gate::new(&lake)), 100);
    assert_eq!(task.drain(Instant::now() + DEADLINE), 0);
    assert_eq!(visible_rows(&lake), all_rows(&sent));
    assert_eq!(visible_files(&lake).len(), 3);
    // What came later is beside the compacted file, and is merged into it.
    let later: Vec<_> = (1..50).map(|seq| simple("late", seq, 1.0)).collect();
    log.append_all(&later);
    fill(&log, &lake, 100);
    let expected = all_rows(sent.iter().chain(&later));
    assert_eq!(visible_rows(&lake), expected);
    assert!(visible_files(&lake).len() > 3);
    assert!(compact_all(&lake) > 0);
    assert_eq!(visible_rows(&lake), expected);
    assert_eq!(visible_files(&lake).len(), 3);
}

#[test]
fn rows_that_two_overlapping_files_hold_are_merged_to_one() {
    let dir = tempfile::tempdir().unwrap();
    let lake = dir.path().join("lake");
    let log = Log::new(1);
    let sent = messages(9, 400);
    log.append_all(&sent);
    fill(&log, &lake, 100);
    // The cursor is lost, and ranges are cut elsewhere this time.
    let task = start(&log, "elsewhere", &Arc::new(Gate::new(&lake)), 77);
    assert_eq!(task.drain(Instant::now() + DEADLINE), 0);
    assert!(visible_rows(&lake).len() > all_rows(&sent).len(), "rows lie there twice");
    compact_all(&lake);
    assert_eq!(visible_rows(&lake), all_rows(&sent));
}

#[test]
fn a_file_that_another_process_puts_there_at_the_last_moment_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let lake = dir.path().join("lake");
    let log = Log::new(1);
    let sent = messages(10, 300);
    log.append_all(&sent);
    fill(&log, &lake, 100);
    let hour = all_hours(&lake)[1];
    let folder = lake.join(hour.folder());
    let donor = visible_files(&folder)[0].clone();
    let stray = FileName {
        queue: QueueId::new(77),
        first: Seq::from_parts(1, 1),
        last: Seq::from_parts(1, 9),
    };
    // Into the old folder, in the moment after the exchange.
    let (bytes, of_lake) = (std::fs::read(donor).unwrap(), lake.clone());
    let observer = move |now: Step| {
        if now == Step::Exchanged {
            let old = hidden(&of_lake).pop().unwrap();
            std::fs::write(old.join(stray.to_string()), &bytes).unwrap();
        }
    };
    let gate = Arc::new(Gate::new(&lake));
    let compactor = Compactor::new(gate).with_observer(Arc::new(observer));
    assert!(matches!(compactor.compact(hour, &|| false), Ok(Compacted::Exchanged { .. })));
    assert!(folder.join(stray.to_string()).exists());
    compactor.remove_unneeded().unwrap();
    assert!(folder.join(stray.to_string()).exists());
    assert_eq!(hidden(&lake), Vec::<PathBuf>::new());
}

#[test]
fn queries_see_every_row_once_while_files_appear_and_are_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("lake");
    std::fs::create_dir_all(&root).unwrap();
    let log = Log::new(1);
    let lake = LakeFiles::open(&root).unwrap();
    let task = start(&log, "lake", lake.gate(), 100);
    let tails = Tails(vec![task.buffer()]);
    let filter = Filter { device: Some("a".to_owned()), ..Filter::default() };
    let (count, done) = (12_000_u64, AtomicBool::new(false));
    let (mut queries, exchanges) = (0, AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for seq in 1..=count {
                log.append(&simple("a", seq, 1.0));
            }
        });
        scope.spawn(|| {
            let compactor = Compactor::new(lake.gate().clone());
            while !done.load(Ordering::SeqCst) {
                for hour in all_hours(&root) {
                    // An hour that files still come into is disturbed now and then.
                    let compacted = compactor.compact(hour, &|| false).unwrap();
                    if matches!(compacted, Compacted::Exchanged { .. }) {
                        exchanges.fetch_add(1, Ordering::SeqCst);
                    }
                    compactor.remove_unneeded().unwrap();
                }
            }
        });
        let deadline = Instant::now() + DEADLINE;
        loop {
            for hour in 0..8 {
                lake.published(Hour::of(START_US + hour * 3_600_000_000));
            }
            let found = history(&lake, &tails, &filter, Order::Ascending, 1_000_000).unwrap();
            let seqs: Vec<u64> = found.points.iter().map(|point| point.seq).collect();
            let expected: Vec<u64> = (1..=seqs.len() as u64).collect();
            if seqs != expected {
                done.store(true, Ordering::SeqCst);
                panic!("a row is missing or doubled after {queries} queries");
            }
            let bounds = Filter { from_us: Some(0), to_us: Some(i64::MAX), ..filter.clone() };
            let counted = trend(&lake, &tails, &bounds, 86_400_000_000).unwrap();
            let counted: u64 = counted.buckets.iter().map(|bucket| bucket.count).sum();
            if counted < seqs.len() as u64 || counted > count {
                done.store(true, Ordering::SeqCst);
                panic!("{counted} numbers after {} rows were seen", seqs.len());
            }
            queries += 1;
            if seqs.len() as u64 == count || Instant::now() > deadline {
                done.store(true, Ordering::SeqCst);
                assert_eq!(seqs.len() as u64, count, "not in time: all rows");
                break;
            }
        }
    });
    let exchanges = exchanges.into_inner();
    println!("{queries} queries, {exchanges} exchanges");
    assert!(exchanges > 0, "nothing was exchanged");
    assert_eq!(task.drain(Instant::now() + DEADLINE), 0);
    compact_all(&root);
    assert_eq!(visible_rows(&root).len() as u64, count);
}

#[test]
fn a_query_that_listed_files_before_an_exchange_still_finds_them() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("lake");
    let log = Log::new(1);
    let sent = messages(11, 600);
    log.append_all(&sent);
    fill(&log, &root, 100);
    let lake = LakeFiles::open(&root).unwrap();
    let listed = lake.wanted(&Filter::default()).unwrap();
    let compactor = Compactor::new(lake.gate().clone());
    for hour in all_hours(&root) {
        compactor.compact(hour, &|| false).unwrap();
    }
    compactor.remove_unneeded().unwrap();
    assert_eq!(lake.gate().retired(), 2, "kept for the query");
    let mut rows = 0;
    for file in &listed {
        lake.scan(file, &Filter::default(), Columns::All, &mut |_| rows += 1).unwrap();
    }
    assert_eq!(rows, all_rows(&sent).len());
    // A later query needs none of them.
    let later = lake.wanted(&Filter::default()).unwrap();
    drop(listed);
    compactor.remove_unneeded().unwrap();
    assert_eq!(lake.gate().retired(), 0);
    drop(later);
    assert_eq!(hidden(&root), Vec::<PathBuf>::new());
}

#[test]
fn a_caretaker_compacts_what_is_over_and_drops_what_is_too_old() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("lake");
    let log = Log::new(1);
    // The last minute of an hour, which is one file, and two more hours.
    let sent = hours_ago(messages(12, 600), 6);
    log.append_all(&sent);
    fill(&log, &root, 50);
    let soon = soon();
    let lake = Arc::new(LakeFiles::open(&root).unwrap());
    let care = |compaction: &Compaction, retention| {
        Caretaker::start(lake.clone(), compaction.clone(), retention).unwrap()
    };

    // Not yet over: nothing happens.
    let patient = Compaction { after: forebay_ops::Duration::from_secs(86_400), ..soon.clone() };
    let files = visible_files(&root);
    let caretaker = care(&patient, LakeRetention::default());
    let status = caretaker.status();
    eventually("it has looked", || status.hours.load(Ordering::Relaxed) == 3);
    caretaker.stop();
    assert_eq!(visible_files(&root), files);

    let caretaker = care(&soon, LakeRetention::default());
    let status = caretaker.status();
    eventually("all hours are compacted", || status.compacted.load(Ordering::Relaxed) == 2);
    eventually("what was replaced is gone", || hidden(&root).is_empty());
    assert_eq!(visible_files(&root).len(), 3);
    assert_eq!(visible_rows(&root), all_rows(&sent));

    // A second one does nothing while the first holds the lake, and takes over after it.
    let drop_all = LakeRetention {
        drop_after: forebay_ops::Duration::from_secs(5 * 3600),
        ..LakeRetention::default()
    };
    let second = care(&soon, drop_all);
    let second_status = second.status();
    eventually("it has asked", || second_status.looks.load(Ordering::Relaxed) > 1);
    assert_eq!(second_status.holds.load(Ordering::Relaxed), 0);
    assert_eq!(second_status.dropped.load(Ordering::Relaxed), 0);
    caretaker.stop();
    eventually("old hours are dropped", || second_status.dropped.load(Ordering::Relaxed) > 0);
    eventually("and are gone", || hidden(&root).is_empty());
    second.stop();
    let kept = visible_rows(&root);
    assert!(!kept.is_empty() && kept.len() < all_rows(&sent).len());
    let shown = history(&lake, &Tails(Vec::new()), &Filter::default(), Order::Ascending, 1 << 20);
    assert_eq!(shown.unwrap().points.len(), kept.len(), "queries do not miss what is gone");

    // By bytes: the latest hour stays.
    let tiny = LakeRetention { bytes_max: ByteSize::new(1), ..LakeRetention::default() };
    let caretaker = care(&soon, tiny);
    let status = caretaker.status();
    eventually("it has looked", || status.hours.load(Ordering::Relaxed) == 1);
    caretaker.stop();
    assert_eq!(all_hours(&root).len(), 1);
    assert!(!visible_rows(&root).is_empty());
}

#[test]
fn a_damaged_file_stops_only_its_own_hour() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("lake");
    let log = Log::new(1);
    let sent = hours_ago(messages(13, 600), 6);
    log.append_all(&sent);
    fill(&log, &root, 50);
    let hours = all_hours(&root);
    let victim = visible_files(&root.join(hours[1].folder()))[0].clone();
    let bytes = std::fs::read(&victim).unwrap();
    std::fs::write(&victim, &bytes[..bytes.len() / 2]).unwrap();
    let error = merge(std::slice::from_ref(&victim), &dir.path().join("merged"), &|| false);
    let error = error.unwrap_err().to_string();
    assert!(error.contains(&victim.display().to_string()), "names the file: {error}");
    let lake = Arc::new(LakeFiles::open(&root).unwrap());
    let caretaker = Caretaker::start(lake, soon(), LakeRetention::default()).unwrap();
    let status = caretaker.status();
    eventually("the other hour is compacted", || status.compacted.load(Ordering::Relaxed) == 1);
    eventually("it is told", || status.failures.load(Ordering::Relaxed) == 1);
    eventually("which one waits", || status.waiting.load(Ordering::Relaxed) == 1);
    caretaker.stop();
    assert_eq!(hidden(&root), Vec::<PathBuf>::new());
    assert!(visible_files(&root.join(hours[1].folder())).len() > 1, "as it was");
}
