//! Who waits for which sync: a sync wakes the threads whose group it serves, and lets the others,
//! who came while it ran, sleep until the next.
//!
//! A waiter joins the group of the sync that begins next. It may be wrong: the sync that runs may
//! have taken its entry along. That does no harm, because either somebody wants still more, and
//! then that next sync comes and wakes it, or nobody does, and then the end of a sync wakes both
//! groups. Waking everybody each time instead costs more than the syncs: with 64 waiters, some 40
//! wake-ups in vain for every 20 that were due.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::watch::{Tasks, Threads, Woken};

/// Threads and tasks that wait for a watermark which moves by one sync after another.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// The sync that runs, or ran last. Only the one who syncs moves it.
    round: AtomicU64,
    /// By the parity of the round.
    sides: [Threads; 2],
    tasks: Tasks,
}

impl Groups {
    /// A sync begins; what it will reach is read after this.
    pub(crate) fn begin(&self) {
        self.round.fetch_add(1, Ordering::SeqCst);
    }

    /// The sync has ended: wakes its group, and tasks that wait for `reached` or less.
    /// `is_more_wanted` says whether another sync is certain to follow.
    pub(crate) fn finish(&self, reached: u64, is_more_wanted: impl FnOnce() -> bool) {
        let round = self.round.load(Ordering::SeqCst);
        self.side(round).notify();
        if !is_more_wanted() {
            self.side(round + 1).notify();
        }
        self.tasks.notify(reached);
    }

    /// Wakes everybody: no sync will follow.
    pub(crate) fn end(&self) {
        self.sides.iter().for_each(Threads::notify);
        self.tasks.notify(u64::MAX);
    }

    /// Registers a task; the caller looks at its condition again afterwards.
    pub(crate) fn register(&self, wanted: u64, waker: &Waker) {
        self.tasks.register(wanted, waker);
    }

    /// Sleeps until `ready` says yes; false if the time passed first. The caller has asked for the
    /// sync before.
    pub(crate) fn wait(&self, timeout: Duration, mut ready: impl FnMut() -> bool) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let round = self.round.load(Ordering::SeqCst);
            match self.side(round + 1).doze(deadline, &mut ready) {
                Woken::Ready => return true,
                Woken::Late => return false,
                Woken::Perhaps => {}
            }
        }
    }

    fn side(&self, round: u64) -> &Threads {
        &self.sides[(round & 1) as usize]
    }
}
