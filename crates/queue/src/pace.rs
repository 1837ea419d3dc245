//! When to sync: the steps of the sync thread, and how long it rests between them.
//!
//! Whoever waits is served at once. What nobody waits for is synced after `sync_delay`, so that a
//! lone waiter, who syncs by itself, is not disturbed, and appends come together. A thread that
//! has nothing to do sleeps without a deadline: an idle queue causes no wake-up.
// Public for `testing`, which is not in every build.
#![allow(unreachable_pub)]

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::sync::Parker;

use crate::error::{Error, Result};
use crate::ring::{ATTENTION_SYNC, Ring};

/// What the last step saw.
#[derive(Debug, Default)]
pub struct Pace {
    tail: u64,
    version: u64,
    /// Up to where pages were made present and writable ahead of the tail.
    populated: u64,
}

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
        if self.settings.syncs() {
            if self.is_wanted() || syncer.durable.position < pace.tail {
                self.group.store(self.waiters.load(Ordering::Relaxed), Ordering::Relaxed);
                self.sync_entries(&mut syncer)?;
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
                Ok(Rest::None) => {}
                Ok(Rest::For(rest)) => parker.park_timeout(rest),
                Ok(Rest::UntilTold(rest)) => self.sleep(parker, &pace, rest),
            }
        }
        // An error is kept in the ring; close() reports it.
        let _ = self.finish();
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
