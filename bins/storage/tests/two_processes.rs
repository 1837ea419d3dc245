//! A query sees every row once though another process compacts or drops the hours that it reads.
//!
//! Method: a compactor behind a gate of its own, which knows nothing of the query's lease, as in
//! another process. Once it exchanges all hours after the query has seen its first row; then it does
//! so at any moment, while queries run. A file that is listed and cannot be found is played by a
//! link that leads nowhere.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{
    Log,
    lake::{all_hours, compact_all, fill},
    rows::{OwnedRow, all_rows, messages, visible_files},
};
use forebay_storage::{
    lake::{Gate, compact::Compactor},
    read::{Filter, LakeFiles, NoTail, Order, history, scan_lake},
};

/// All there is, found by the bounds of footers.
fn bounded() -> Filter {
    Filter { from_us: Some(0), to_us: Some(i64::MAX), ..Filter::default() }
}

fn count(lake: &LakeFiles) -> usize {
    history(lake, &NoTail, &bounded(), Order::Ascending, 1 << 20).unwrap().points.len()
}

#[test]
fn hours_that_another_process_compacts_after_the_first_row_are_read_once() {
    for filter in [Filter::default(), bounded()] {
        let dir = tempfile::tempdir().unwrap();
        let lake = dir.path().join("lake");
        let log = Log::new(1);
        let sent = messages(31, 600);
        log.append_all(&sent);
        fill(&log, &lake, 50);
        let (mut rows, mut exchanged) = (Vec::new(), 0);
        scan_lake(&lake, &filter, &mut |row| {
            if rows.is_empty() {
                exchanged = compact_all(&lake);
            }
            rows.push(OwnedRow::of(&row));
        })
        .unwrap();
        assert_eq!(exchanged, 2, "an hour of one file stays");
        rows.sort_by_key(OwnedRow::identity);
        assert!(rows == all_rows(&sent), "{} of {} rows", rows.len(), all_rows(&sent).len());
    }
}

#[test]
fn an_hour_that_is_read_in_part_when_another_process_compacts_it_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let lake = dir.path().join("lake");
    let log = Log::new(1);
    let sent = messages(32, 600);
    log.append_all(&sent);
    fill(&log, &lake, 50);
    let half = all_rows(&sent).len() / 2;
    let mut rows = Vec::new();
    scan_lake(&lake, &Filter::default(), &mut |row| {
        rows.push(OwnedRow::of(&row));
        if rows.len() == half {
            compact_all(&lake);
        }
    })
    .unwrap();
    rows.sort_by_key(OwnedRow::identity);
    assert!(rows == all_rows(&sent), "{} of {} rows", rows.len(), all_rows(&sent).len());
}

#[test]
fn hours_that_another_process_drops_meanwhile_are_no_longer_there() {
    let dir = tempfile::tempdir().unwrap();
    let lake = dir.path().join("lake");
    let log = Log::new(1);
    let sent = messages(33, 600);
    log.append_all(&sent);
    fill(&log, &lake, 50);
    let last = *all_hours(&lake).last().unwrap();
    let mut rows = Vec::new();
    scan_lake(&lake, &Filter::default(), &mut |row| {
        if rows.is_empty() {
            let other = Compactor::new(Gate::new(&lake).into());
            other.drop_hour(last).unwrap();
            other.remove_unneeded().unwrap();
        }
        rows.push(OwnedRow::of(&row));
    })
    .unwrap();
    rows.sort_by_key(OwnedRow::identity);
    let mut expected = all_rows(&sent);
    expected.retain(|row| row.received_us < last.start_us());
    assert!(rows == expected, "{} of {} rows", rows.len(), expected.len());
}

#[test]
fn queries_see_every_row_once_whenever_another_process_compacts() {
    let mut queries = 0;
    for round in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("lake");
        let log = Log::new(1);
        let sent = messages(round, 300);
        log.append_all(&sent);
        fill(&log, &root, 20);
        let lake = LakeFiles::open(&root).unwrap();
        let (expected, done) = (all_rows(&sent).len(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(compact_all(&root), 2);
                done.store(true, Ordering::SeqCst);
            });
            loop {
                let is_last = done.load(Ordering::SeqCst);
                for hour in all_hours(&root) {
                    lake.published(hour);
                }
                assert_eq!(count(&lake), expected, "round {round}");
                queries += 1;
                if is_last {
                    break;
                }
            }
        });
        // By what it remembers.
        assert_eq!(count(&lake), expected, "round {round}");
    }
    println!("{queries} queries");
}

#[test]
fn an_hour_whose_files_were_gone_is_not_taken_for_empty() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("lake");
    let log = Log::new(1);
    let sent = messages(34, 100);
    log.append_all(&sent);
    fill(&log, &root, 1000);
    let lake = LakeFiles::open(&root).unwrap();
    let victim = visible_files(&root)[1].clone();
    let aside = dir.path().join("aside");
    std::fs::rename(&victim, &aside).unwrap();
    std::os::unix::fs::symlink("nowhere", &victim).unwrap();
    let error = history(&lake, &NoTail, &bounded(), Order::Ascending, 1 << 20).unwrap_err();
    let hour = victim.parent().unwrap().display().to_string();
    assert!(error.to_string().contains(&hour), "{error}");
    std::fs::rename(&aside, &victim).unwrap();
    assert_eq!(count(&lake), all_rows(&sent).len());
    // Nor is one that was dropped, and that late rows came for.
    let folder = victim.parent().unwrap();
    let gone = LakeFiles::open(&root).unwrap();
    std::fs::rename(folder, dir.path().join("hour")).unwrap();
    assert!(count(&gone) < all_rows(&sent).len());
    std::fs::rename(dir.path().join("hour"), folder).unwrap();
    assert_eq!(count(&gone), all_rows(&sent).len());
}
