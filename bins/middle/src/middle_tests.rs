//! The middle's promise without sockets: what is acked is in the log exactly once, whatever
//! restarts, reclaims, resends and roaming do to it.
//!
//! Method: frames are handed to the collector as the link does, on a real log in a directory of the
//! test's own; a kill is a copy of the directory at that moment. It cannot show power cuts (the
//! queue's simulator and `snapshot::slot_tests` do) nor the sockets (`tests/`).

use std::collections::BTreeSet;

use forebay_link::{EntryStore, ReplayStore, Seq, StoreError};
use forebay_queue::Durability;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    dedup::Key,
    snapshot::Step,
    testing::{CONSUMER, FRONT_A, FRONT_B, Middle, copy_dir, counted, entry},
};

const MIB: u64 = 1 << 20;

fn numbers(got: &[(String, u64)]) -> Vec<u64> {
    got.iter().map(|(_, seq)| *seq).collect()
}

#[test]
fn a_device_that_roams_and_returns_is_stored_once_and_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut middle = Middle::open(dir.path(), 4 * MIB);
    // Front A is cut off after 1 and 2; 3 to 5 wait in its queue.
    let a = middle.send_all(FRONT_A, Seq::ZERO, "pump", 1..=2);
    // Of these 4 and 5 were not acked in time: the device sends them again, to B.
    let b = middle.send_all(FRONT_B, Seq::ZERO, "pump", 4..=20);
    // It comes back to A, whose queue still holds 3 to 5, before 21 and on.
    let a = middle.send_all(FRONT_A, a, "pump", (3..=5).chain(21..=30));
    middle.send_all(FRONT_B, b, "pump", 20..=21);
    let got = middle.consume();
    assert_eq!(numbers(&got), (1..=2).chain(4..=20).chain([3]).chain(21..=30).collect::<Vec<_>>());
    assert_eq!(middle.counts.duplicates.get(), 4);
    // The same after a restart, from the log alone.
    drop(middle);
    let mut middle = Middle::open(dir.path(), 4 * MIB);
    middle.send_all(FRONT_A, a, "pump", 1..=31);
    assert_eq!(numbers(&middle.consume()), [31]);
}

#[test]
fn a_frame_of_nothing_but_duplicates_moves_the_position_durably() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut middle = Middle::open(dir.path(), 4 * MIB);
    middle.send_all(FRONT_A, Seq::ZERO, "pump", 1..=5);
    let b = middle.send_all(FRONT_B, Seq::ZERO, "pump", 1..=5);
    assert_eq!((middle.counts.markers.get(), b), (1, Seq::from_parts(1, 5)));
    let killed = tempfile::tempdir().expect("a directory");
    copy_dir(dir.path(), killed.path());
    let mut again = Middle::open(killed.path(), 4 * MIB);
    assert_eq!(again.position(FRONT_B), b);
    assert_eq!(again.position(FRONT_A), Seq::from_parts(1, 5));
    assert_eq!(numbers(&again.consume()), [1, 2, 3, 4, 5]);
}

#[test]
fn a_frame_that_ends_in_a_duplicate_is_marked_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut middle = Middle::open(dir.path(), 4 * MIB);
    middle.send_all(FRONT_A, Seq::ZERO, "pump", [1]);
    let b = middle.send_all(FRONT_B, Seq::ZERO, "pump", [2, 1]);
    drop(middle);
    let mut middle = Middle::open(dir.path(), 4 * MIB);
    assert_eq!(middle.position(FRONT_B), b);
    assert_eq!(numbers(&middle.consume()), [1, 2]);
}

#[test]
fn a_late_resend_is_known_after_its_entry_was_reclaimed() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut middle = Middle::open(dir.path(), MIB);
    let mut a = middle.send_all(FRONT_A, Seq::ZERO, "late", 1..=3);
    let mut got = middle.consume();
    // Several laps of the ring.
    for lap in 0..40 {
        a = middle.send_all(FRONT_A, a, "busy", lap * 600 + 1..=lap * 600 + 600);
        got.extend(middle.consume());
        middle.snapshot(|_| ());
    }
    assert!(middle.log.stat().used_bytes < MIB / 2, "nothing was reclaimed");
    middle.send_all(FRONT_B, Seq::ZERO, "late", 1..=4);
    got.extend(middle.consume());
    drop(middle);
    let mut middle = Middle::open(dir.path(), MIB);
    assert!(middle.complete);
    assert_eq!(middle.position(FRONT_A), a);
    middle.send_all(FRONT_B, Seq::from_parts(1, 4), "late", 1..=5);
    got.extend(middle.consume());
    let counts = counted(got);
    assert_eq!(counts.len(), 40 * 600 + 5);
    assert!(counts.values().all(|count| *count == 1));
}

#[test]
fn a_kill_at_any_step_of_a_snapshot_forgets_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut middle = Middle::open(dir.path(), MIB);
    let mut a = Seq::ZERO;
    let mut last = 0;
    let mut kills = Vec::new();
    for round in 0..4u64 {
        let device = format!("device-{round}");
        a = middle.send_all(FRONT_A, a, &device, 1..=500);
        middle.consume();
        last = round;
        let (path, kills) = (dir.path().to_owned(), &mut kills);
        middle.snapshot(|step: Step| {
            let copy = tempfile::tempdir().expect("a directory");
            copy_dir(&path, copy.path());
            kills.push((round, step, a, copy));
        });
    }
    assert!(kills.len() >= 4 * 6, "{} steps", kills.len());
    assert_eq!(last, 3);
    for (round, step, position, copy) in kills {
        let mut middle = Middle::open(copy.path(), MIB);
        assert!(middle.complete, "{round} {step:?}");
        assert_eq!(middle.position(FRONT_A), position, "{round} {step:?}");
        let dedup = middle.dedup.lock().expect("one thread");
        for known in 0..=round {
            let device = format!("device-{known}");
            let key = Key { tenant: "default", device: &device, session: 7 };
            assert!((1..=500).all(|seq| dedup.table.contains(&key, seq)), "{round} {step:?}");
            assert!(!dedup.table.contains(&key, 501));
        }
    }
}

#[test]
fn a_damaged_snapshot_costs_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut middle = Middle::open(dir.path(), MIB);
    let mut a = Seq::ZERO;
    for round in 0..6 {
        a = middle.send_all(FRONT_A, a, "pump", round * 100 + 1..=round * 100 + 100);
        middle.consume();
        middle.snapshot(|_| ());
    }
    drop(middle);
    for name in ["dedup-0.snapshot", "dedup-1.snapshot"] {
        let copy = tempfile::tempdir().expect("a directory");
        copy_dir(dir.path(), copy.path());
        let mut bytes = std::fs::read(copy.path().join(name)).expect("a slot");
        bytes[4096 + 40] ^= 1;
        std::fs::write(copy.path().join(name), bytes).expect("written");
        let mut middle = Middle::open(copy.path(), MIB);
        assert!(middle.complete, "without {name}");
        assert_eq!(middle.position(FRONT_A), a);
        middle.send_all(FRONT_B, Seq::ZERO, "pump", 1..=601);
        assert_eq!(numbers(&middle.consume()), [601]);
    }
    // Without both, what was reclaimed is not known any more, and that is said.
    for name in ["dedup-0.snapshot", "dedup-1.snapshot"] {
        std::fs::remove_file(dir.path().join(name)).expect("removed");
    }
    assert!(!Middle::open(dir.path(), MIB).complete);
}

#[test]
fn a_required_consumer_holds_the_log_before_it_first_appears() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut middle = Middle::open(dir.path(), MIB);
    let (mut a, mut sent) = (Seq::ZERO, 0);
    let payloads: Vec<_> = (1..=100_000).map(|seq| entry("pump", seq, 200)).collect();
    for chunk in payloads.chunks(100) {
        match middle.send(FRONT_A, Seq::from_parts(1, a.counter() + 1), chunk) {
            Ok(()) => (a, sent) = (Seq::from_parts(1, a.counter() + 100), sent + 100),
            Err(StoreError::Full) => break,
            Err(error) => panic!("{error}"),
        }
        middle.snapshot(|_| ());
    }
    assert!(sent > 2000, "full after {sent}");
    // A restart does not let it go either.
    drop(middle);
    let mut middle = Middle::open(dir.path(), MIB);
    assert_eq!(numbers(&middle.consume()), (1..=sent).collect::<Vec<_>>());
}

#[test]
fn a_full_log_pushes_back_and_goes_on_when_it_drains() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut middle = Middle::open(dir.path(), MIB);
    let payloads: Vec<_> = (1..=30_000).map(|seq| entry("pump", seq, 100)).collect();
    let (mut got, mut pushed_back) = (Vec::new(), 0);
    for (at, chunk) in payloads.chunks(150).enumerate() {
        let base = Seq::from_parts(1, at as u64 * 150 + 1);
        while let Err(error) = middle.send(FRONT_A, base, chunk) {
            assert!(matches!(error, StoreError::Full), "{error}");
            assert!(pushed_back < 1000, "no room comes");
            pushed_back += 1;
            assert!(middle.collector.room_bytes() < MIB / 8);
            got.extend(middle.consume());
            middle.snapshot(|_| ());
            middle.snapshot(|_| ());
        }
    }
    got.extend(middle.consume());
    assert!(pushed_back > 3, "only {pushed_back} times full");
    assert_eq!(middle.counts.full.get(), pushed_back);
    assert_eq!(numbers(&got), (1..=30_000).collect::<Vec<_>>());
}

#[test]
fn an_entry_of_an_unknown_form_is_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut middle = Middle::open(dir.path(), MIB);
    let strange = vec![vec![0x82, 0x18, 0x63, 0xf6], entry("pump", 1, 60)];
    middle.send(FRONT_A, Seq::from_parts(1, 1), &strange).expect("room");
    assert_eq!((middle.counts.undecodable.get(), middle.counts.entries.get()), (1, 2));
    assert_eq!(numbers(&middle.consume()), [1]);
}

#[test]
fn a_consumers_state_survives_with_its_pending_range() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut middle = Middle::open(dir.path(), MIB);
    middle.send_all(FRONT_A, Seq::ZERO, "pump", 1..=10);
    let mut state = middle.replay.consumer(CONSUMER).expect("log").expect("required");
    // Of a log that began with it, its tally is known from the beginning.
    let tally = Some(forebay_link::Tally::default());
    assert_eq!(state, forebay_link::ConsumerState { tally, ..Default::default() });
    let end = middle.replay.head();
    state.session = 3;
    state.nonce = 99;
    state.committed = Seq::from_parts(end.epoch(), 4);
    let start = Seq::from_parts(end.epoch(), 5);
    state.pending = Some(forebay_link::Pending { start, end, plan: vec![1, 2, 3] });
    middle.replay.record(CONSUMER, &state).expect("log");
    assert_eq!(middle.replay.consumer("other").expect("log"), None, "nobody asked for it");
    drop(middle);
    let mut middle = Middle::open(dir.path(), MIB);
    assert_eq!(middle.replay.consumer(CONSUMER).expect("log"), Some(state));
    assert_eq!(numbers(&middle.consume()), (5..=10).collect::<Vec<_>>());
}

/// A hole in a front's numbering, an epoch that begins late, a frame that was not read to its end,
/// and a log whose consumer was passed over: each is in the books, also after a restart.
/// Fronts as the link sees them: a queue of messages, of which a prefix is acked.
#[derive(Default)]
struct Front {
    queue: Vec<(u64, u64)>,
}

/// Random life: messages reach any of three fronts, several times; fronts go back to what the
/// middle says it has; snapshots, commits, kills and full logs come at any time.
fn life(seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut dir = tempfile::tempdir().expect("a directory");
    // A kill leaves what is in the mapping: there is nothing to sync for.
    let open = |dir: &std::path::Path| Middle::open_at(dir, MIB / 2, Durability::Process);
    let mut middle = open(dir.path());
    let mut fronts: Vec<Front> = (0..3).map(|_| Front::default()).collect();
    let mut got = Vec::new();
    let mut next = [1u64; 8];
    for _ in 0..400 {
        match random.random_range(0..10) {
            0..=5 => {
                let front = random.random_range(0..fronts.len());
                for _ in 0..random.random_range(1..60) {
                    let device = random.random_range(0..next.len());
                    // Mostly the next one, sometimes one of the last few again.
                    let again = random.random_range(0..4) == 0;
                    let back = if again { random.random_range(1..30) } else { 0 };
                    let seq = next[device].saturating_sub(back).max(1);
                    next[device] = next[device].max(seq + 1);
                    fronts[front].queue.push((device as u64, seq));
                }
                forward(&mut middle, front, &fronts[front], &mut random);
            }
            6 => got.extend(middle.consume()),
            7 => middle.snapshot(|_| ()),
            8 => {
                let copy = tempfile::tempdir().expect("a directory");
                copy_dir(dir.path(), copy.path());
                drop(middle);
                dir = copy;
                middle = open(dir.path());
                assert!(middle.complete, "seed {seed}");
            }
            _ => {
                let front = random.random_range(0..fronts.len());
                forward(&mut middle, front, &fronts[front], &mut random);
            }
        }
    }
    for (at, front) in fronts.iter().enumerate() {
        loop {
            got.extend(middle.consume());
            middle.snapshot(|_| ());
            middle.snapshot(|_| ());
            if forward(&mut middle, at, front, &mut random) == front.queue.len() {
                break;
            }
        }
    }
    got.extend(middle.consume());
    let sent: BTreeSet<(String, u64)> = fronts
        .iter()
        .flat_map(|front| &front.queue)
        .map(|(device, seq)| (format!("device-{device}"), *seq))
        .collect();
    let all: usize = fronts.iter().map(|front| front.queue.len()).sum();
    let (ledger, missing) = middle.balance();
    assert_eq!((ledger.received(), ledger.lost, missing), (all as u64, 0, 0), "seed {seed}");
    assert_eq!(ledger.entries, sent.len() as u64, "seed {seed}");
    let counts = counted(got);
    assert!(counts.values().all(|count| *count == 1), "seed {seed}: doubled");
    assert_eq!(counts.into_keys().collect::<BTreeSet<_>>(), sent, "seed {seed}");
}

/// Sends from what the middle says it has, in frames of any size, until all is acked or it is full.
fn forward(middle: &mut Middle, at: usize, front: &Front, random: &mut SmallRng) -> usize {
    let id = forebay_link::QueueId::new(at as u128 + 1);
    loop {
        let acked = middle.position(id).counter() as usize;
        assert!(acked <= front.queue.len(), "a position beyond the queue");
        let count = random.random_range(1..80).min(front.queue.len() - acked);
        if count == 0 {
            return acked;
        }
        let payloads: Vec<_> = front.queue[acked..acked + count]
            .iter()
            .map(|(device, seq)| entry(&format!("device-{device}"), *seq, 150))
            .collect();
        match middle.send(id, Seq::from_parts(1, acked as u64 + 1), &payloads) {
            Ok(()) => {}
            Err(StoreError::Full) => return acked,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn any_life_stores_each_message_once() {
    for seed in 0..20 {
        println!("seed {seed}");
        life(seed);
    }
}

/// This thread's CPU time: other work on the machine does not count.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    stat.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).expect("a number") / 1e9
}

/// `cargo test --release -p forebay-middle --lib -- --ignored --nocapture takes_half_a_million`
#[test]
#[ignore = "a measurement: run it alone, in release"]
fn the_collector_takes_half_a_million_entries_a_second() {
    const FRAMES: u64 = 2000;
    const ENTRIES: u64 = 200;
    let dir = tempfile::tempdir().expect("a directory");
    for devices in [1000, 100_000] {
        let path = dir.path().join(devices.to_string());
        let mut middle = Middle::open(&path, 256 * MIB);
        let number = |n: u64| entry(&format!("device-{:06}", n % devices), n / devices + 1, 215);
        let frames: Vec<_> = (0..FRAMES)
            .map(|frame| {
                let payloads: Vec<_> =
                    (0..ENTRIES).map(|at| number(frame * ENTRIES + at)).collect();
                crate::testing::pack(&payloads)
            })
            .collect();
        for pass in ["new", "resent"] {
            let front = if pass == "new" { FRONT_A } else { FRONT_B };
            let start = cpu_seconds();
            for (at, (count, body)) in frames.iter().enumerate() {
                let base = Seq::from_parts(1, at as u64 * ENTRIES + 1);
                let records = forebay_link::Records::new(base, *count, body).expect("a body");
                middle.collector.append(front, &records).expect("room");
            }
            let seconds = cpu_seconds() - start;
            let nanos = seconds * 1e9 / (FRAMES * ENTRIES) as f64;
            let rate = (FRAMES * ENTRIES) as f64 / seconds;
            println!(
                "{devices} devices, {pass}: {rate:.0} entries/s of a core, {nanos:.0} ns each"
            );
        }
        let dedup = middle.dedup.lock().expect("one thread");
        let (sessions, bytes) = (dedup.table.sessions(), dedup.table.bytes());
        println!("{sessions} sessions in {bytes} bytes: {} each", bytes / sessions);
        drop(dedup);
        let start = std::time::Instant::now();
        middle.snapshot(|_| ());
        println!("snapshot in {:?}", start.elapsed());
        drop(middle);
        let start = std::time::Instant::now();
        drop(Middle::open(&path, 256 * MIB));
        println!("open in {:?}", start.elapsed());
    }
}
