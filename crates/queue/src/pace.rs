//! When to sync: the steps of the sync thread, and how long it rests between them.
//!
//! Whoever waits is served at once. What nobody waits for is synced after `sync_delay`, so that a
//! lone waiter, who syncs by itself, is not disturbed, and appends come together. While many entries
//! come that only tasks wait for, syncs take a quarter of the time and no more: each costs processor
//! time that those who append need, and a task that waits keeps nobody from appending. A thread that
//! has nothing to do sleeps without a deadline: an idle queue causes no wake-up.
// Public for `testing`, which is not in every build.
#![allow(unreachable_pub)]

use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use crossbeam::sync::Parker;

use crate::error::{Error, Result};
use crate::ring::{ATTENTION_SYNC, Ring};
use crate::seq::Seq;

/// What the last step saw.
#[derive(Debug, Default)]
pub struct Pace {
    tail: u64,
    version: u64,
    /// Up to where pages were made present and writable ahead of the tail.
    populated: u64,
    /// How long to let entries come together before the next step.
    gather: Duration,
}

/// A sync of fewer entries serves few: what follows it is not kept waiting.
const CROWD_ENTRIES_MIN: u64 = 16;
/// How much longer than a sync entries come together, and at most how long.
const GATHER_SYNCS: u32 = 3;
const GATHER_MAX: Duration = Duration::from_millis(1);

/// How far ahead of the tail pages are made present, at most; an eighth of smaller rings.
const AHEAD_BYTES_MAX: u64 = 8 << 20;
/// How much of that at a time, so that no waiter waits for it.
const AHEAD_STEP_BYTES: u64 = 512 << 10;

/// How long the thread may rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Not at all: somebody waits.
    None,
    /// This long; producers need not wake it.
    For(Duration),
    /// Until the next append or commit, or this long.
    UntilTold(Option<Duration>),
}

impl Ring {
    /// One step: syncs what is due, writes a checkpoint if one is due.
    pub(crate) fn step(&self, pace: &mut Pace, now: Instant) -> Result<Rest> {
        let tail = self.line.tail();
        let version = self.cursor_version.load(Ordering::Acquire);
        let mut syncer = self.lock_sync();
        pace.gather = Duration::ZERO;
        if self.settings.syncs() {
            if self.is_wanted() || syncer.durable.position < pace.tail {
                let waiters = self.waiters.load(Ordering::Relaxed);
                self.group.store(waiters, Ordering::Relaxed);
                let (before, began) = (syncer.durable.seq.counter(), Instant::now());
                self.sync_entries(&mut syncer)?;
                // Threads that wait are a group already, and gather while the next sync runs.
                let entries = syncer.durable.seq.counter().saturating_sub(before);
                if waiters == 0 && entries >= CROWD_ENTRIES_MIN {
                    pace.gather = (began.elapsed() * GATHER_SYNCS).min(GATHER_MAX);
                }
            }
        } else {
            self.index_push(self.line.mark());
        }
        let due_at = syncer.written + self.settings.checkpoint_interval;
        if self.is_checkpoint_due(&syncer)
            && (now >= due_at || self.is_head_far(syncer.newest.head.position))
        {
            self.checkpoint(&mut syncer)?;
        }
        let unsynced = self.settings.syncs() && syncer.durable.position < self.line.tail();
        let moving = tail != pace.tail || version != pace.version;
        pace.populated = self.populate_ahead(tail, pace.populated);
        (pace.tail, pace.version) = (tail, version);
        Ok(if self.is_wanted() {
            Rest::None
        } else if unsynced || moving {
            Rest::For(self.settings.sync_delay)
        } else if self.is_checkpoint_due(&syncer) {
            let due_at = syncer.written + self.settings.checkpoint_interval;
            Rest::UntilTold(Some(due_at.saturating_duration_since(now)))
        } else {
            Rest::UntilTold(None)
        })
    }

    /// Takes the page faults ahead of producers: every sync protects its pages against stores
    /// again, and each first store to one would cost a producer half a microsecond.
    fn populate_ahead(&self, tail: u64, populated: u64) -> u64 {
        let ahead = (self.geometry.capacity / 8).min(AHEAD_BYTES_MAX);
        let free = self.limits.reclaimed.load(Ordering::Acquire) + self.geometry.capacity;
        let from = populated.max(tail);
        let to = (tail + ahead).min(free).min(from + AHEAD_STEP_BYTES);
        if !self.settings.syncs() || to < from + AHEAD_STEP_BYTES {
            return from;
        }
        for (offset, len) in self.geometry.pieces(from, to) {
            self.memory.populate(offset, len);
        }
        to
    }

    pub(crate) fn is_wanted(&self) -> bool {
        let demand = self.demand.load(Ordering::Acquire);
        self.settings.syncs() && demand > self.durable_seq().get()
    }

    /// Whether commits have freed an eighth of the ring since the checkpoint.
    fn is_head_far(&self, head: u64) -> bool {
        let live = self.cursors.slowest().map_or(head, |mark| mark.position);
        live - head >= self.geometry.capacity / 8
    }

    /// The last step: everything durable, one more checkpoint, and then nothing any more.
    pub(crate) fn finish(&self) -> Result<()> {
        let mut syncer = self.lock_sync();
        self.sync_entries(&mut syncer)?;
        while self.is_checkpoint_due(&syncer) {
            self.checkpoint(&mut syncer)?;
        }
        self.end(Error::Closed);
        Ok(())
    }

    /// The sync thread.
    pub(crate) fn run(&self, parker: &Parker) {
        let mut pace = Pace::default();
        while !self.closing.load(Ordering::SeqCst) {
            match self.step(&mut pace, Instant::now()) {
                // Said to everybody who calls or waits; there is nothing left to do here.
                Err(_) => return,
                Ok(_) if !pace.gather.is_zero() => self.gather(parker, pace.gather),
                Ok(Rest::None) => {}
                Ok(Rest::For(rest)) => parker.park_timeout(rest),
                Ok(Rest::UntilTold(rest)) => self.sleep(parker, &pace, rest),
            }
        }
        // An error is kept in the ring; close() reports it.
        let _ = self.finish();
    }

    /// Rests, and lets tasks ask for a sync without ending the rest; threads end it.
    fn gather(&self, parker: &Parker, rest: Duration) {
        let until = Instant::now() + rest;
        self.gathering.store(true, Ordering::Relaxed);
        // A task that asked while the sync ran has left a token behind: that ends a park, not this.
        while !self.closing.load(Ordering::SeqCst) && self.waiters.load(Ordering::Acquire) == 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            parker.park_timeout(left);
        }
        self.gathering.store(false, Ordering::Relaxed);
        // Either a task that asks sees this, or the next step sees what it asks for.
        fence(Ordering::SeqCst);
    }

    /// Asks the sync thread to make `seq` durable, on behalf of a task: at once, or after its rest.
    pub(crate) fn want_durable_soon(&self, seq: Seq) {
        self.demand.fetch_max(seq.get(), Ordering::AcqRel);
        fence(Ordering::SeqCst);
        if !self.gathering.load(Ordering::Relaxed) {
            self.unpark();
        }
    }

    fn sleep(&self, parker: &Parker, pace: &Pace, rest: Option<Duration>) {
        self.attention.fetch_or(ATTENTION_SYNC, Ordering::SeqCst);
        self.barrier.heavy();
        let quiet = self.line.tail() == pace.tail
            && self.cursor_version.load(Ordering::SeqCst) == pace.version;
        // Waiters and close() unpark, and a token given before the park ends it at once.
        match rest {
            _ if !quiet => {}
            Some(rest) => parker.park_timeout(rest),
            None => parker.park(),
        }
        self.attention.fetch_and(!ATTENTION_SYNC, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use crate::{Durability, Options, Queue, testing};

    use super::*;

    #[test]
    fn a_token_left_behind_ends_no_rest_and_a_thread_that_waits_does() {
        let dir = tempfile::tempdir().expect("a folder");
        let options =
            Options { capacity_bytes: 1 << 18, any_filesystem: true, ..Options::default() };
        Queue::create(dir.path(), &options).expect("creates").close().expect("ends");
        let queue = testing::open_dir(dir.path(), &options, &[]).expect("opens");
        let (ring, parker) = (queue.ring(), Parker::new());
        let rest = Duration::from_millis(30);
        parker.unparker().unpark();
        let began = Instant::now();
        ring.gather(&parker, rest);
        assert!(began.elapsed() >= rest, "{:?}", began.elapsed());
        let long = Duration::from_secs(20);
        ring.waiters.store(1, Ordering::Relaxed);
        ring.gather(&parker, long);
        assert!(began.elapsed() < long);
    }

    #[test]
    fn entries_come_together_only_while_many_come_and_only_tasks_wait() {
        let dir = tempfile::tempdir().expect("a folder");
        let options = Options {
            capacity_bytes: 1 << 18,
            durability: Durability::Disk,
            any_filesystem: true,
            ..Options::default()
        };
        Queue::create(dir.path(), &options).expect("creates").close().expect("ends");
        let queue = testing::open_dir(dir.path(), &options, &[]).expect("opens");
        let ring = queue.ring();
        let mut pace = Pace::default();
        let mut rest_after = |entries: u64, threads: u32| {
            for _ in 0..entries {
                queue.append(0, b"entry").expect("room");
            }
            let asked = queue.poll_durable(queue.appended(), Waker::noop());
            assert!(!asked.expect("the queue lives"), "nobody has synced");
            ring.waiters.store(threads, Ordering::Relaxed);
            ring.step(&mut pace, Instant::now()).expect("syncs");
            assert_eq!(queue.durable(), queue.appended(), "served at once, whatever comes after");
            pace.gather
        };
        assert!(rest_after(CROWD_ENTRIES_MIN - 1, 0).is_zero(), "few came");
        let rest = rest_after(CROWD_ENTRIES_MIN, 0);
        assert!(!rest.is_zero() && rest <= GATHER_MAX, "{rest:?}");
        assert!(rest_after(10 * CROWD_ENTRIES_MIN, 1).is_zero(), "a thread waits");
    }
}
