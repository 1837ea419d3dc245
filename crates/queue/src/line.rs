//! The order of producers: reserve in parallel, publish one after another.
//!
//! A producer takes its range of positions by compare-and-swap, fills it while others fill theirs,
//! and then waits for its turn: the moment at which everything before its range is published. In
//! its turn it learns its seq, writes the heads, and publishes. Between reserving and leaving
//! nothing may panic, wait for anything else, or allocate: everybody behind waits for it.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::{Backoff, CachePadded};

use crate::format::Mark;
use crate::seq::Seq;

/// The two ends of the ring: up to where it is reserved, and up to where it is published.
#[derive(Debug)]
pub(crate) struct Line {
    reserved: CachePadded<AtomicU64>,
    published: CachePadded<Published>,
}

/// Stored in this order in every turn, and only there. Who looks at `turn` sees all of the turns
/// before it; `tail` is for [`Line::mark`], which must notice a turn under way.
#[derive(Debug)]
struct Published {
    tail: AtomicU64,
    seq: AtomicU64,
    payload_bytes: AtomicU64,
    turn: AtomicU64,
}

impl Line {
    /// A line whose last published boundary is `mark`.
    pub(crate) fn new(mark: Mark) -> Self {
        Line {
            reserved: CachePadded::new(AtomicU64::new(mark.position)),
            published: CachePadded::new(Published {
                tail: AtomicU64::new(mark.position),
                seq: AtomicU64::new(mark.seq.get()),
                payload_bytes: AtomicU64::new(0),
                turn: AtomicU64::new(mark.position),
            }),
        }
    }

    /// Takes the range from the present end to `end_of(start)`, and returns both ends; passes on
    /// the error of `end_of`, which may be called again when another producer was faster.
    #[inline]
    pub(crate) fn reserve<E>(
        &self,
        mut end_of: impl FnMut(u64) -> Result<u64, E>,
    ) -> Result<(u64, u64), E> {
        let mut start = self.reserved.load(Ordering::Relaxed);
        loop {
            let end = end_of(start)?;
            // Relaxed: the range was released by whoever moved `reclaimed`, which `end_of` loads
            // with acquire; nothing is handed from one producer to the next here.
            match self.reserved.compare_exchange_weak(
                start,
                end,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok((start, end)),
                Err(current) => start = current,
            }
        }
    }

    /// Whether somebody has reserved and not yet published.
    #[inline]
    pub(crate) fn is_occupied(&self) -> bool {
        self.published.turn.load(Ordering::Relaxed) != self.reserved.load(Ordering::Relaxed)
    }

    /// Whether it is the turn of the range that starts at `start`.
    #[inline]
    pub(crate) fn is_turn(&self, start: u64) -> bool {
        self.published.turn.load(Ordering::Acquire) == start
    }

    /// Waits for the turn of the range that starts at `start`; returns the seq before it.
    #[inline]
    pub(crate) fn enter(&self, start: u64) -> Seq {
        if self.published.turn.load(Ordering::Acquire) != start {
            let backoff = Backoff::new();
            while self.published.turn.load(Ordering::Acquire) != start {
                backoff.snooze();
            }
        }
        Seq::from_u64(self.published.seq.load(Ordering::Relaxed))
    }

    /// Publishes up to `end`, where `seq` is the last entry's, and gives the turn to the next.
    #[inline]
    pub(crate) fn leave(&self, end: u64, seq: Seq, payload_bytes: u64) {
        let published = &*self.published;
        let before = published.payload_bytes.load(Ordering::Relaxed);
        published.payload_bytes.store(before + payload_bytes, Ordering::Relaxed);
        published.tail.store(end, Ordering::Release);
        published.seq.store(seq.get(), Ordering::Release);
        published.turn.store(end, Ordering::Release);
    }

    /// Up to where entries are published, with their seqs: [`seq`](Self::seq), asked afterwards, is
    /// not below that of the last of them.
    #[inline]
    pub(crate) fn tail(&self) -> u64 {
        self.published.turn.load(Ordering::Acquire)
    }

    /// The last seq published.
    #[inline]
    pub(crate) fn seq(&self) -> Seq {
        Seq::from_u64(self.published.seq.load(Ordering::Acquire))
    }

    /// Payload bytes published since the open.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.published.payload_bytes.load(Ordering::Relaxed)
    }

    /// The published end and the seq of exactly the entry before it.
    pub(crate) fn mark(&self) -> Mark {
        let backoff = Backoff::new();
        loop {
            let turn = self.published.turn.load(Ordering::Acquire);
            let seq = self.published.seq.load(Ordering::Acquire);
            let tail = self.published.tail.load(Ordering::Acquire);
            // A newer seq than that of `turn` was stored behind a newer tail, and acquire on the
            // seq makes that tail visible: if the tail is still `turn`, so is the seq.
            if tail == turn {
                return Mark { position: tail, seq: Seq::from_u64(seq) };
            }
            backoff.snooze();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_never_pairs_a_position_with_another_entrys_seq() {
        const EACH: u64 = 20_000;
        let line = Line::new(Mark { position: 0, seq: Seq::new(1, 0) });
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        let taken = line.reserve(|start| Ok::<_, ()>(start + 8));
                        let (start, end) = taken.expect("never refuses");
                        let seq = line.enter(start);
                        line.leave(end, Seq::from_u64(seq.get() + 1), 0);
                    }
                });
            }
            while line.tail() < 2 * EACH * 8 {
                let mark = line.mark();
                assert_eq!(mark.position, mark.seq.counter() * 8);
                // Once a reader saw an entry whose commit was then refused: its seq was not out yet.
                let tail = line.tail();
                assert!(tail <= line.seq().counter() * 8, "an entry before its seq");
            }
        });
        assert_eq!(line.mark().seq, Seq::new(1, 2 * EACH));
    }
}
