//! Before the line: a producer that finds others in line lets them finish first.
//!
//! Publishing is in order, so that a producer in line depends on all before it. Two that run at the
//! same time and reserve in turns hand the ends of the ring from one processor to the other at every
//! append; each does better with them for a few microseconds alone. And if there are more producers
//! than processors, the first in line may be one that does not run: whoever reserves behind it can
//! only wait, and a crowd that waits by yielding keeps it from running. So a producer waits before
//! it reserves, as long as it may help, and sleeps if the line does not move.
//!
//! Nothing here decides the order, which is `line.rs`'s; a producer that did not wait would only be
//! slower.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::ring::{ATTENTION_DOOR, Ring};

/// How often a producer looks whether the line is free before it gets in all the same.
const LOOKS: u32 = 4;
/// Pauses of the processor, some 40 ns each, between two looks: they take a processor's hold on the
/// line from whoever appends.
const PAUSES: u32 = 32;
/// Sleepers woken at a time; each of them wakes as many.
const WOKEN: u32 = 2;
/// After so long a sleeper looks for itself. No wake-up is known to be missed.
const SLEEP_MAX: Duration = Duration::from_secs(1);

impl Ring {
    /// Waits while it is better for all not to be in line.
    #[inline]
    pub(crate) fn hold_back(&self) {
        if self.line.is_occupied() {
            self.wait_at_the_door();
        }
    }

    #[cold]
    fn wait_at_the_door(&self) {
        let tail = self.line.tail();
        let is_free = |_| {
            (0..PAUSES).for_each(|_| std::hint::spin_loop());
            !self.line.is_occupied()
        };
        let moves = || self.line.tail() != tail;
        // A line that moves takes one more: nobody waits for ever behind one who is faster.
        if (0..LOOKS).any(is_free) || moves() {
            return;
        }
        // Whoever is first does not run. Perhaps it is this processor that it waits for.
        std::thread::yield_now();
        while !moves() && !self.limits.is_ended.load(Ordering::Acquire) {
            self.door.wait(SLEEP_MAX, || {
                if moves() {
                    return true;
                }
                self.attention.fetch_or(ATTENTION_DOOR, Ordering::SeqCst);
                self.barrier.heavy();
                moves()
            });
            self.door.pass_on(WOKEN);
        }
    }

    /// The line has moved: wakes who sleeps for it.
    pub(crate) fn open_door(&self) {
        self.door.notify_up_to(WOKEN);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use crate::{Durability, Options, Queue};

    use super::*;

    /// Once 256 producers with a wait for durability each took turns at yielding while one of them
    /// was off the processor with its place in line, and four entries a sync were what got through.
    #[test]
    fn a_crowd_sleeps_behind_a_producer_that_does_not_run_and_all_get_in_once_it_leaves() {
        const CROWD: u64 = 64;
        let dir = tempfile::tempdir().expect("a folder");
        let options = Options {
            capacity_bytes: 1 << 18,
            durability: Durability::Process,
            any_filesystem: true,
            ..Options::default()
        };
        let queue = Queue::create(dir.path(), &options).expect("creates");
        let ring = queue.ring();
        let taken = ring.line.reserve(|start| Ok::<_, ()>(start + 40));
        let (start, end) = taken.expect("never refuses");
        std::thread::scope(|scope| {
            for _ in 0..CROWD {
                scope.spawn(|| queue.append(0, b"crowd").expect("room"));
            }
            let began = Instant::now();
            while u64::from(ring.door.sleeping()) < CROWD {
                assert!(began.elapsed() < Duration::from_secs(60), "they do not sleep");
                std::thread::yield_now();
            }
            assert_eq!(ring.line.tail(), start);
            let before = ring.line.enter(start);
            ring.line.leave(end, crate::Seq::from_u64(before.get() + 1), 8);
            ring.tell();
        });
        assert_eq!(queue.appended().counter(), CROWD + 1);
    }
}
