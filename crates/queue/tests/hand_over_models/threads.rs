//! `Threads` of `watch.rs`: its futex is a lock and a condition.

use loom::sync::atomic::{AtomicU32, Ordering, fence};
use loom::sync::{Condvar, Mutex};

use crate::Slip;

pub(crate) struct Threads {
    generation: AtomicU32,
    sleepers: AtomicU32,
    futex: Mutex<()>,
    woken: Condvar,
}

impl Threads {
    pub(crate) fn new() -> Self {
        Threads {
            generation: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
            futex: Mutex::new(()),
            woken: Condvar::new(),
        }
    }

    pub(crate) fn notify(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _held = self.futex.lock().expect("no panic");
            self.woken.notify_all();
        }
    }

    /// `notify_up_to(1)`.
    pub(crate) fn notify_one(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.pass_on();
    }

    pub(crate) fn pass_on(&self) {
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _held = self.futex.lock().expect("no panic");
            self.woken.notify_one();
        }
    }

    /// Whether `ready` said yes.
    pub(crate) fn doze(&self, slip: Slip, mut ready: impl FnMut() -> bool) -> bool {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let mut generation = self.generation.load(Ordering::SeqCst);
        let is_ready = ready();
        if !is_ready {
            if slip == Slip::GenerationReadLate {
                generation = self.generation.load(Ordering::SeqCst);
            }
            // The kernel compares under its lock, and sleeps if nothing has changed.
            let held = self.futex.lock().expect("no panic");
            if self.generation.load(Ordering::SeqCst) == generation {
                drop(self.woken.wait(held).expect("no panic"));
            }
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        is_ready
    }
}
