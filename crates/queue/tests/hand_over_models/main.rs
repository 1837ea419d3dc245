//! No order of instructions loses an entry, a promise or a wake-up between threads.
//!
//! Method: loom runs small models of the hand-overs through every interleaving, and every
//! value that a relaxed load may see: producers that reserve and publish (`line.rs`), the watermark
//! from the syncer to those who wait (`sync.rs`, `pace.rs`, `groups.rs`, `watch.rs`), a reader that
//! goes to sleep while a producer appends (`reader.rs`, `watch.rs`), and producers that sleep until
//! the line moves (`door.rs`), and the end of a rest against a task that asks (`pace.rs`). A thread that sleeps for ever is a
//! deadlock, which loom reports. Each model has twins with one step out of place, which must fail.
//!
//! Cannot show: that the models are the code. They have the same steps in the same order, and
//! `the_models_have_the_orderings_of_the_code` fails when those of these files change.
//! loom treats `SeqCst` accesses as `AcqRel`, so that a fence stands beside each in `watch.rs`'s
//! place; a futex is a lock and a condition.

mod door;
mod gather;
mod orderings;
mod threads;

use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use loom::sync::{Condvar, Mutex};
use loom::thread;
// Not loom's: dropped while a deadlock unwinds, that one would end the process.
use std::sync::Arc;

use threads::Threads;

fn check(model: impl Fn() + Sync + Send + 'static) {
    check_with(3, model);
}

/// At most so many times a thread is interrupted where it need not be.
fn check_with(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// What is out of place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slip {
    None,
    TurnPublishedRelaxed,
    TurnNotAwaited,
    TailReadForTurn,
    MarkNotCompared,
    AckBeforeSync,
    UnparkBeforeDemand,
    GenerationReadLate,
    OtherGroupForgotten,
    NoLightBarrier,
    WakeNotPassedOn,
    NoFence,
}

/// `line.rs`, with one word of payload for each eight bytes of position.
struct Line {
    reserved: AtomicU64,
    tail: AtomicU64,
    seq: AtomicU64,
    turn: AtomicU64,
    words: [AtomicU64; 3],
}

impl Line {
    fn new() -> Self {
        Line {
            reserved: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            seq: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            words: [AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)],
        }
    }

    fn append(&self, slip: Slip) -> u64 {
        let mut start = self.reserved.load(Ordering::Relaxed);
        while let Err(current) =
            self.reserved.compare_exchange(start, start + 8, Ordering::Relaxed, Ordering::Relaxed)
        {
            start = current;
        }
        if slip != Slip::TurnNotAwaited {
            while self.turn.load(Ordering::Acquire) != start {
                thread::yield_now();
            }
        }
        let seq = self.seq.load(Ordering::Relaxed) + 1;
        self.words[start as usize / 8].store(seq, Ordering::Relaxed);
        let publish =
            if slip == Slip::TurnPublishedRelaxed { Ordering::Relaxed } else { Ordering::Release };
        self.tail.store(start + 8, Ordering::Release);
        self.seq.store(seq, publish);
        self.turn.store(start + 8, publish);
        seq
    }

    fn mark(&self, slip: Slip) -> (u64, u64) {
        loop {
            let turn = self.turn.load(Ordering::Acquire);
            let seq = self.seq.load(Ordering::Acquire);
            let tail = self.tail.load(Ordering::Acquire);
            if tail == turn || slip == Slip::MarkNotCompared {
                return (turn, seq);
            }
            thread::yield_now();
        }
    }
}

/// Two producers, and somebody who reads what is published.
fn producers(slip: Slip) {
    check(move || {
        let line = Arc::new(Line::new());
        let other = {
            let line = Arc::clone(&line);
            thread::spawn(move || line.append(slip))
        };
        let reader = {
            let line = Arc::clone(&line);
            thread::spawn(move || {
                let end = if slip == Slip::TailReadForTurn { &line.tail } else { &line.turn };
                let tail = end.load(Ordering::Acquire);
                let seq = line.seq.load(Ordering::Acquire);
                assert!(seq >= tail / 8, "an entry before its seq");
                for place in 0..tail / 8 {
                    let word = line.words[place as usize].load(Ordering::Relaxed);
                    assert_eq!(word, place + 1, "published, and not there");
                }
            })
        };
        let own = line.append(slip);
        let others = other.join().expect("no panic");
        reader.join().expect("no panic");
        assert_ne!(own, others, "one seq for two entries");
    });
}

/// A producer, and a syncer that takes a mark.
fn marks(slip: Slip) {
    check(move || {
        let line = Arc::new(Line::new());
        let producer = {
            let line = Arc::clone(&line);
            thread::spawn(move || {
                line.append(Slip::None);
                line.append(Slip::None);
            })
        };
        let known = line.seq.load(Ordering::Acquire);
        let (position, seq) = line.mark(slip);
        assert_eq!(position, seq * 8, "another entry's seq");
        assert!(seq >= known, "a sync to there would not reach what was asked for");
        producer.join().expect("no panic");
    });
}

#[test]
fn what_is_published_is_there_and_has_a_seq_of_its_own() {
    producers(Slip::None);
}

#[test]
#[should_panic]
fn a_turn_published_without_release_is_noticed() {
    producers(Slip::TurnPublishedRelaxed);
}

#[test]
#[should_panic(expected = "an entry before its seq")]
fn a_reader_that_looks_at_the_tail_before_the_turn_has_ended_is_noticed() {
    producers(Slip::TailReadForTurn);
}

#[test]
#[should_panic]
fn producers_that_do_not_wait_for_their_turn_are_noticed() {
    producers(Slip::TurnNotAwaited);
}

#[test]
fn a_mark_is_a_position_with_the_seq_of_the_entry_before_it() {
    marks(Slip::None);
}

#[test]
#[should_panic(expected = "another entry's seq")]
fn a_mark_that_is_not_compared_is_noticed() {
    marks(Slip::MarkNotCompared);
}

/// `Groups` of `groups.rs`.
struct Groups {
    round: AtomicU64,
    sides: [Threads; 2],
}

impl Groups {
    fn begin(&self) {
        self.round.fetch_add(1, Ordering::SeqCst);
    }

    fn finish(&self, slip: Slip, is_more_wanted: impl FnOnce() -> bool) {
        let round = self.round.load(Ordering::SeqCst);
        self.side(round).notify();
        if !is_more_wanted() && slip != Slip::OtherGroupForgotten {
            self.side(round + 1).notify();
        }
    }

    fn wait(&self, slip: Slip, mut ready: impl FnMut() -> bool) {
        loop {
            let round = self.round.load(Ordering::SeqCst);
            if self.side(round + 1).doze(slip, &mut ready) {
                break;
            }
        }
    }

    fn side(&self, round: u64) -> &Threads {
        &self.sides[(round & 1) as usize]
    }
}

/// What waiters and the sync thread share.
struct Durable {
    tail: AtomicU64,
    demand: AtomicU64,
    /// What is on the medium; the relaxed store stands for the sync.
    medium: AtomicU64,
    durable_seq: AtomicU64,
    on_durable: Groups,
    /// crossbeam's parker: a token, and a sleep that takes it.
    token: Mutex<bool>,
    unparked: Condvar,
}

impl Durable {
    fn unpark(&self) {
        *self.token.lock().expect("no panic") = true;
        self.unparked.notify_one();
    }

    fn park(&self) {
        let mut token = self.token.lock().expect("no panic");
        while !*token {
            token = self.unparked.wait(token).expect("no panic");
        }
        *token = false;
    }
}

impl Durable {
    fn is_wanted(&self) -> bool {
        self.demand.load(Ordering::Acquire) > self.durable_seq.load(Ordering::Acquire)
    }

    fn sync(&self, slip: Slip) {
        self.on_durable.begin();
        let tail = self.tail.load(Ordering::Acquire);
        if slip == Slip::AckBeforeSync {
            self.durable_seq.store(tail, Ordering::Release);
            self.medium.store(tail, Ordering::Relaxed);
        } else {
            self.medium.store(tail, Ordering::Relaxed);
            self.durable_seq.store(tail, Ordering::Release);
        }
        self.on_durable.finish(slip, || self.is_wanted());
    }

    fn append_and_wait(&self, slip: Slip) {
        let seq = self.tail.fetch_add(1, Ordering::AcqRel) + 1;
        if slip == Slip::UnparkBeforeDemand {
            self.unpark();
            self.demand.fetch_max(seq, Ordering::AcqRel);
        } else {
            self.demand.fetch_max(seq, Ordering::AcqRel);
            self.unpark();
        }
        self.on_durable.wait(slip, || self.durable_seq.load(Ordering::Acquire) >= seq);
        let on_medium = self.medium.load(Ordering::Relaxed);
        assert!(on_medium >= seq, "acknowledged, and not on the medium");
    }
}

/// Two who append and wait, and the sync thread.
fn durability(slip: Slip) {
    // Three threads: a third interruption takes a minute.
    check_with(2, move || {
        let shared = Arc::new(Durable {
            tail: AtomicU64::new(0),
            demand: AtomicU64::new(0),
            medium: AtomicU64::new(0),
            durable_seq: AtomicU64::new(0),
            on_durable: Groups {
                round: AtomicU64::new(0),
                sides: [Threads::new(), Threads::new()],
            },
            token: Mutex::new(false),
            unparked: Condvar::new(),
        });
        let syncer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                while shared.durable_seq.load(Ordering::Acquire) < 2 {
                    while !shared.is_wanted() {
                        shared.park();
                    }
                    shared.sync(slip);
                }
            })
        };
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.append_and_wait(slip))
        };
        shared.append_and_wait(slip);
        other.join().expect("no panic");
        syncer.join().expect("no panic");
    });
}

#[test]
fn whoever_waits_is_woken_once_its_entry_is_on_the_medium() {
    durability(Slip::None);
}

#[test]
#[should_panic(expected = "acknowledged, and not on the medium")]
fn an_acknowledgement_before_the_sync_is_noticed() {
    durability(Slip::AckBeforeSync);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_syncer_woken_before_it_can_see_the_demand_is_noticed() {
    durability(Slip::UnparkBeforeDemand);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_waiter_that_looks_before_it_reads_the_generation_is_noticed() {
    durability(Slip::GenerationReadLate);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_group_that_no_further_sync_will_wake_is_noticed_when_forgotten() {
    durability(Slip::OtherGroupForgotten);
}

/// A producer, and a reader that sleeps until something is appended.
fn reading(slip: Slip) {
    check(move || {
        let shared = Arc::new((AtomicU64::new(0), AtomicU32::new(0), Threads::new()));
        let reader = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (tail, attention, on_readable) = &*shared;
                let is_ready = || {
                    if tail.load(Ordering::Acquire) > 0 {
                        return true;
                    }
                    attention.fetch_or(2, Ordering::SeqCst);
                    fence(Ordering::SeqCst); // heavy
                    tail.load(Ordering::Acquire) > 0
                };
                while !on_readable.doze(slip, is_ready) {}
            })
        };
        let (tail, attention, on_readable) = &*shared;
        tail.store(8, Ordering::Release);
        if slip != Slip::NoLightBarrier {
            fence(Ordering::SeqCst); // light: membarrier makes it one
        }
        if attention.load(Ordering::Relaxed) != 0 && attention.swap(0, Ordering::SeqCst) != 0 {
            on_readable.notify();
        }
        reader.join().expect("no panic");
    });
}

#[test]
fn a_reader_that_goes_to_sleep_sees_the_append_or_is_woken() {
    reading(Slip::None);
}

#[test]
#[should_panic(expected = "deadlock")]
fn an_append_without_a_barrier_before_it_looks_for_sleepers_is_noticed() {
    reading(Slip::NoLightBarrier);
}
