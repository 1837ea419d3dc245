//! The books of a middle (I15): they agree over restarts, deaths and damage, whoever joins when.
//!
//! Method: as `middle_tests`, on a real log without sockets and threads; a death is what is on the
//! disk then. Gaps of detached consumers are in `tests/detach.rs`, with the sockets.

use std::cell::Cell;

use forebay_link::{ReplayStore, Seq};

use crate::{
    accounts::Account,
    balance::standings,
    testing::{CONSUMER, FRONT_A, FRONT_B, Middle, copy_dir, entry},
};

const MIB: u64 = 1 << 20;

#[test]
fn what_never_comes_is_in_the_books() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut middle = Middle::open(dir.path(), MIB);
    let a = middle.send_all(FRONT_A, Seq::ZERO, "pump", 1..=10);
    assert_eq!(middle.balance_after_all().0.lost, 0);
    // Two numbers are passed over.
    middle.send(FRONT_A, Seq::from_parts(1, a.counter() + 3), &[entry("pump", 11, 60)]).unwrap();
    assert_eq!(middle.balance_after_all().0.lost, 2);
    // The next epoch begins with 4; a resend among it is a duplicate, not a loss.
    let late: Vec<_> = [12, 11, 13].iter().map(|seq| entry("pump", *seq, 60)).collect();
    middle.send(FRONT_A, Seq::from_parts(2, 4), &late).expect("room");
    let (ledger, missing) = middle.balance_after_all();
    assert_eq!((ledger.entries, ledger.duplicates, ledger.lost, missing), (13, 1, 5, 0));
    middle.snapshot(|_| ());
    middle.snapshot(|_| ());
    middle.send_all(FRONT_B, Seq::ZERO, "pump", 5..=14);
    drop(middle);
    let mut middle = Middle::open(dir.path(), MIB);
    let (ledger, missing) = middle.balance_after_all();
    assert_eq!((ledger.entries, ledger.duplicates, ledger.lost, missing), (14, 10, 5, 0));
    // A consumer that commits what it has not counted.
    middle.send_all(FRONT_B, Seq::from_parts(1, 10), "pump", 15..=17);
    let mut state = middle.replay.consumer(CONSUMER).expect("log").expect("known");
    state.committed = middle.replay.head();
    middle.replay.record(CONSUMER, &state).expect("log");
    assert_eq!(middle.balance().1, 3);
    drop(middle);
    assert_eq!(Middle::open(dir.path(), MIB).balance().1, 3);
}

/// Under steady traffic no commit is ever at the log's end: a consumer that joined later was then
/// never counted, and lost messages without anybody seeing it.
#[test]
fn who_joins_later_is_counted_though_traffic_never_rests() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut middle = Middle::open(dir.path(), MIB);
    let mut a = middle.send_all(FRONT_A, Seq::ZERO, "pump", 1..=10);
    middle.consume();
    // From here on it is as one without a past: neither of the two files knows it.
    for _ in 0..2 {
        middle.accounts.lock().expect("one thread").put(CONSUMER, None).expect("written");
    }
    let mut b = Seq::ZERO;
    for round in 1..=6 {
        let (_, state) = middle.take();
        a = middle.send_all(FRONT_A, a, "pump", round * 10 + 1..=round * 10 + 10);
        // Markers are in between.
        b = middle.send_all(FRONT_B, b, "pump", round * 10 + 1..=round * 10 + 3);
        middle.replay.record(CONSUMER, &state).expect("log");
    }
    let counted = middle.counted().expect("counted by now");
    assert_eq!((counted.held, counted.missing_messages), (10, 0));
    assert_eq!(counted.tally.messages, 50);
    // What it loses from now on is seen.
    let (_, mut state) = middle.take();
    state.tally.as_mut().expect("its tally").messages -= 2;
    middle.send_all(FRONT_A, a, "pump", 71..=75);
    middle.replay.record(CONSUMER, &state).expect("log");
    assert_eq!(middle.balance_after_all().1, 2);
    drop(middle);
    assert_eq!(Middle::open(dir.path(), MIB).balance().1, 2);
}

/// The note beside the log's reader has counted what damage takes below its place: counted again,
/// that was missing for ever.
#[test]
fn damage_around_the_notes_place_is_counted_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut middle = Middle::open(dir.path(), MIB);
    let a = middle.send_all(FRONT_A, Seq::ZERO, "pump", 1..=98);
    middle.snapshot(|_| ());
    middle.consume();
    let a = middle.send_all(FRONT_A, a, "damaged", 1..=2);
    // The note stands at record 100.
    middle.snapshot(|_| ());
    let a = middle.send_all(FRONT_A, a, "damaged", 3..=3);
    middle.send_all(FRONT_A, a, "pump", 99..=102);
    drop(middle);
    let ring = dir.path().join("log/ring");
    let mut bytes = std::fs::read(&ring).expect("the ring");
    let is_damaged = |at: &usize| bytes[*at..].starts_with(b"damaged");
    let places: Vec<_> = (0..bytes.len()).filter(is_damaged).collect();
    assert_eq!(places.len(), 3);
    places.into_iter().for_each(|at| bytes[at] ^= 1);
    std::fs::write(&ring, bytes).expect("written");
    // Without the newer snapshot the scan begins below the note.
    for slot in ["dedup-0.snapshot", "dedup-1.snapshot"] {
        let copy = tempfile::tempdir().expect("a directory");
        copy_dir(dir.path(), copy.path());
        let slot = copy.path().join(slot);
        let mut bytes = std::fs::read(&slot).expect("a slot");
        bytes[4096 + 40] ^= 1;
        std::fs::write(&slot, bytes).expect("written");
        let (ledger, missing) = Middle::open(copy.path(), MIB).balance_after_all();
        assert_eq!((ledger.records, ledger.entries, missing), (105, 105, 3), "{slot:?}");
    }
}

/// The older of the two files has the account of a cursor that did not move any more. Forgetting
/// somebody else first overwrote it.
#[test]
fn a_death_before_the_cursor_moved_and_a_consumer_removed_leave_the_books_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut middle = Middle::open(dir.path(), MIB);
    middle.send_all(FRONT_A, Seq::ZERO, "pump", 1..=10);
    middle.consume();
    {
        let mut accounts = middle.accounts.lock().expect("one thread");
        let account = accounts.latest(CONSUMER).expect("an account");
        accounts.put("removed", Some(account)).expect("written");
        let later = Seq::from_parts(account.committed.epoch(), 99);
        accounts.put(CONSUMER, Some(Account { committed: later, ..account })).expect("written");
    }
    drop(middle);
    let middle = Middle::open(dir.path(), MIB);
    assert_eq!(middle.balance().1, 0);
    assert_eq!(middle.accounts.lock().expect("one thread").latest("removed"), None);
}

/// Who writes a gap down holds the gaps over two syncs: appends and commits do not wait for that
/// because somebody asks how consumers stand.
#[test]
fn nothing_is_locked_while_gaps_are_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let middle = Middle::open(dir.path(), MIB);
    let asked = Cell::new(0);
    standings(&middle.log, &middle.dedup, &middle.accounts, |_| {
        asked.set(asked.get() + 1);
        assert!(middle.dedup.try_lock().is_ok() && middle.accounts.try_lock().is_ok());
        0
    });
    assert_eq!(asked.get(), 1);
}
