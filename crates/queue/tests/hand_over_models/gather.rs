//! The end of the sync thread's rest, and a task that asks for a sync: `gather` and
//! `want_durable_soon` of `pace.rs`. How long the rest takes is left out: it may end at any moment.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use loom::sync::{Condvar, Mutex};
use loom::thread;

use crate::{Slip, check};

fn the_rest(slip: Slip) {
    check(move || {
        let shared = Arc::new((
            AtomicBool::new(true),
            AtomicU64::new(0),
            (Mutex::new(false), Condvar::new()),
        ));
        let task = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (gathering, demand, (token, unparked)) = &*shared;
                demand.fetch_max(1, Ordering::AcqRel);
                if slip != Slip::NoFence {
                    fence(Ordering::SeqCst);
                }
                if !gathering.load(Ordering::Relaxed) {
                    *token.lock().expect("no panic") = true;
                    unparked.notify_one();
                }
            })
        };
        let (gathering, demand, (token, unparked)) = &*shared;
        gathering.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        while demand.load(Ordering::Acquire) == 0 {
            let mut token = token.lock().expect("no panic");
            while !*token {
                token = unparked.wait(token).expect("no panic");
            }
            *token = false;
        }
        task.join().expect("no panic");
    });
}

#[test]
fn a_task_that_asks_at_the_end_of_a_rest_is_seen_or_wakes_the_thread() {
    the_rest(Slip::None);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_task_that_looks_for_the_rest_without_a_fence_is_noticed() {
    the_rest(Slip::NoFence);
}
