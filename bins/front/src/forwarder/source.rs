//! A ring as the link's sender reads it.
//!
//! Fills frames from the reader's position on, and commits what the middle has acked. The feature
//! `planted-faults` adds the one mistake that this tier must never make, to prove that the tests
//! would see it: committing what was merely sent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use forebay_link::{BatchBuilder, Bounds, EntrySource, Fault, Pushed, QueueId, Seq};
use forebay_queue::{Queue, Reader, Seq as RingSeq};
use forebay_wire::records::RECORD_HEADER_BYTES;

use super::pace::Pace;
use crate::watermark::Watermark;

/// Entry size assumed before the first is seen.
const ENTRY_BYTES_GUESS: usize = 256;

/// One ring, read for one middle.
pub(super) struct RingSource {
    queue: Queue,
    reader: Reader,
    acked: Arc<Watermark>,
    replays: Arc<AtomicU64>,
    /// The entry that the reader delivered last.
    read: RingSeq,
    /// The highest entry ever delivered; what is read again below it is a replay.
    read_max: RingSeq,
    /// Average length of an entry, for asking for as many as fit a frame.
    entry_bytes: usize,
    pace: Pace,
    #[cfg(feature = "planted-faults")]
    pub(super) commits_before_ack: bool,
}

impl RingSource {
    /// A ring read for one middle, that rests so long after a frame that is not full.
    pub(super) fn new(
        queue: Queue,
        reader: Reader,
        acked: Arc<Watermark>,
        replays: Arc<AtomicU64>,
        rest: Duration,
    ) -> Self {
        let cursor = reader.cursor();
        Self {
            queue,
            reader,
            acked,
            replays,
            read: cursor,
            read_max: cursor,
            entry_bytes: ENTRY_BYTES_GUESS,
            pace: Pace::new(rest),
            #[cfg(feature = "planted-faults")]
            commits_before_ack: std::env::var("FOREBAY_PLANTED_FAULT")
                .is_ok_and(|name| name == "commit-before-ack"),
        }
    }

    /// How many entries were sent again.
    #[cfg(test)]
    pub(super) fn replays(&self) -> u64 {
        self.replays.load(Ordering::Relaxed)
    }

    /// Makes the entry above `after` the next one read.
    fn seek(&mut self, after: RingSeq) -> Result<(), Fault> {
        if after != self.read {
            self.reader.rewind(after)?;
            self.read = after;
        }
        Ok(())
    }

    /// Moves what the reader has into `batch` until one of the two has no more; true if it was the
    /// room.
    fn fill_on(&mut self, batch: &mut BatchBuilder) -> Result<bool, Fault> {
        loop {
            // As many as fit by their average length; the byte limit then holds for any length.
            let room = batch.room_bytes() + RECORD_HEADER_BYTES;
            let entries = (room / (self.entry_bytes + RECORD_HEADER_BYTES)).max(1);
            let bytes = room.saturating_sub(entries * RECORD_HEADER_BYTES);
            let peeked = self.reader.peek(entries, bytes)?;
            let (mut taken, mut taken_bytes, mut replayed) = (0, 0, 0);
            let mut refused = None;
            for entry in peeked.iter() {
                let seq = Seq::new(entry.seq.get());
                match batch.push(seq, entry.time_us, entry.payload) {
                    Pushed::Taken => {}
                    pushed => {
                        refused = Some((pushed, entry.seq));
                        break;
                    }
                }
                taken += 1;
                taken_bytes += entry.payload.len();
                replayed += u64::from(entry.seq <= self.read_max);
                self.read = entry.seq;
            }
            if let Some((Pushed::TooLarge, seq)) = refused {
                return Err(format!("entry {seq} of the ring is too large for any frame").into());
            }
            if taken == 0 {
                return Ok(refused.is_some());
            }
            if refused.is_none() {
                peeked.advance();
            } else {
                // Only those that were taken are read; the others are the next frame's.
                self.reader.peek(taken, usize::MAX)?.advance();
            }
            self.entry_bytes = taken_bytes / taken;
            self.read_max = self.read_max.max(self.read);
            self.replays.fetch_add(replayed, Ordering::Relaxed);
            if refused.is_some() {
                return Ok(true);
            }
        }
    }
}

impl EntrySource for RingSource {
    fn queue(&self) -> QueueId {
        QueueId::new(self.queue.id().get())
    }

    fn bounds(&mut self) -> Result<Bounds, Fault> {
        self.pace.restart();
        let committed = self.reader.cursor();
        let appended = self.queue.appended();
        let epoch = self.queue.recovery().epoch;
        // Nothing is appended in an epoch before this open's, so what is not read yet goes on here.
        let after = |seq: RingSeq| {
            if seq.epoch() == epoch {
                RingSeq::new(epoch, seq.counter() + 1)
            } else {
                RingSeq::new(epoch, 1)
            }
        };
        self.seek(committed)?;
        let first = self.reader.peek(1, 0)?.iter().next().map(|entry| entry.seq);
        let oldest = first.unwrap_or_else(|| after(committed));
        Ok(Bounds {
            committed: Seq::new(committed.get()),
            oldest: Seq::new(oldest.get()),
            next: Seq::new(after(appended).get()),
        })
    }

    fn fill(&mut self, after: Seq, batch: &mut BatchBuilder) -> Result<(), Fault> {
        if self.pace.is_resting() {
            return Ok(());
        }
        self.seek(RingSeq::from_u64(after.get()))?;
        if !self.fill_on(batch)? && !batch.is_empty() {
            self.pace.was_not_full();
        }
        #[cfg(feature = "planted-faults")]
        if self.commits_before_ack && !batch.is_empty() {
            self.reader.commit(RingSeq::from_u64(batch.last().get()))?;
        }
        Ok(())
    }

    fn commit(&mut self, upto: Seq) -> Result<(), Fault> {
        // The middle may name an entry that a power cut took from us: all that are not above it.
        let upto = RingSeq::from_u64(upto.get()).min(self.queue.durable());
        if upto > self.reader.cursor() {
            self.reader.commit(upto)?;
        }
        self.acked.advance(upto);
        Ok(())
    }

    fn poll_ready(&mut self, after: Seq, waker: &Waker) -> Result<bool, Fault> {
        if !self.pace.poll_rested(waker) {
            return Ok(false);
        }
        self.seek(RingSeq::from_u64(after.get()))?;
        Ok(self.reader.poll_ready(waker))
    }
}
