//! Producers that sleep at the door until the line moves: `wait_at_the_door` of `door.rs`.

use std::sync::Arc;

use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use loom::thread;

use crate::threads::Threads;
use crate::{Slip, check_with};

struct Shared {
    turn: AtomicU64,
    attention: AtomicU32,
    door: Threads,
}

impl Shared {
    fn wait_at_the_door(&self, slip: Slip) {
        let moves = || self.turn.load(Ordering::Acquire) > 0;
        let is_ready = || {
            if moves() {
                return true;
            }
            self.attention.fetch_or(4, Ordering::SeqCst);
            fence(Ordering::SeqCst); // heavy
            moves()
        };
        while !self.door.doze(slip, is_ready) {}
        if slip != Slip::WakeNotPassedOn {
            self.door.pass_on();
        }
    }

    fn leave(&self, slip: Slip) {
        self.turn.store(8, Ordering::Release);
        if slip != Slip::NoLightBarrier {
            fence(Ordering::SeqCst); // light: membarrier makes it one
        }
        if self.attention.load(Ordering::Relaxed) != 0
            && self.attention.swap(0, Ordering::SeqCst) != 0
        {
            self.door.notify_one();
        }
    }
}

/// One who leaves the line, and two who wait for it; woken one at a time.
fn the_door(slip: Slip) {
    check_with(2, move || {
        let shared = Arc::new(Shared {
            turn: AtomicU64::new(0),
            attention: AtomicU32::new(0),
            door: Threads::new(),
        });
        let crowd = [(), ()].map(|()| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.wait_at_the_door(slip))
        });
        shared.leave(slip);
        for one in crowd {
            one.join().expect("no panic");
        }
    });
}

#[test]
fn whoever_waits_at_the_door_sees_the_line_move_or_is_woken() {
    the_door(Slip::None);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_line_that_moves_without_a_barrier_before_it_looks_for_sleepers_is_noticed() {
    the_door(Slip::NoLightBarrier);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_wake_up_that_is_not_passed_on_is_noticed() {
    the_door(Slip::WakeNotPassedOn);
}
