//! The log as the publisher and the replay server read it: durable entries, from anywhere.

use std::task::Waker;

use forebay_link::{BatchBuilder, Fault, FeedSource, Pushed, QueueId, Seq};
use forebay_queue::{Queue, Seq as LogSeq, Tail};
use forebay_wire::records::RECORD_HEADER_BYTES;

/// Entry size assumed before the first is seen.
const ENTRY_BYTES_GUESS: usize = 280;

/// A place in the log, that reads on from there. It holds no space.
#[derive(Debug)]
pub(crate) struct LogView {
    log: Queue,
    tail: Tail,
    /// The entry that was packed last, or was asked to be gone on from.
    after: LogSeq,
    /// Average length of an entry, for asking for as many as fit a frame.
    entry_bytes: usize,
}

impl LogView {
    /// Reads on from above `after`.
    pub(crate) fn new(log: &Queue, after: LogSeq) -> Self {
        let tail = log.tail(Some(after));
        Self { log: log.clone(), tail, after, entry_bytes: ENTRY_BYTES_GUESS }
    }

    /// The entry that it goes on from.
    pub(crate) fn after(&self) -> LogSeq {
        self.after
    }

    /// Makes the entry above `after` the next one.
    fn seek(&mut self, after: LogSeq) {
        self.tail.seek(after);
        self.after = after;
    }

    /// Packs what is durable above `after` until the batch does not take one more. Where entries
    /// are gone, it goes on with the first that is left.
    pub(crate) fn fill(&mut self, after: LogSeq, batch: &mut BatchBuilder) -> Result<(), Fault> {
        self.seek(after);
        loop {
            // As many as fit by their average length; the byte limit then holds for any length.
            let room = batch.room_bytes() + RECORD_HEADER_BYTES;
            let entries = (room / (self.entry_bytes + RECORD_HEADER_BYTES)).max(1);
            let bytes = room.saturating_sub(entries * RECORD_HEADER_BYTES);
            let read = self.tail.read(entries, bytes)?;
            let (mut taken, mut taken_bytes) = (0, 0);
            let mut refused = None;
            for entry in read.iter() {
                let pushed = batch.push(Seq::new(entry.seq.get()), entry.time_us, entry.payload);
                if pushed != Pushed::Taken {
                    refused = Some((pushed, entry.seq));
                    break;
                }
                taken += 1;
                taken_bytes += entry.payload.len();
                self.after = entry.seq;
            }
            if let Some(average) = taken_bytes.checked_div(taken) {
                self.entry_bytes = average;
            }
            match refused {
                Some((Pushed::TooLarge, seq)) => {
                    return Err(format!("entry {seq} of the log is too large for a frame").into());
                }
                Some(_) => {
                    // The tail has passed what was not taken.
                    self.tail.seek(self.after);
                    return Ok(());
                }
                None if taken == 0 => return Ok(()),
                None => {}
            }
        }
    }

    /// Whether there is something durable above `after`.
    pub(crate) fn poll_ready(&mut self, after: LogSeq, waker: &Waker) -> bool {
        self.seek(after);
        self.tail.poll_ready(waker)
    }

    /// The last durable entry.
    pub(crate) fn head(&self) -> Seq {
        Seq::new(self.log.durable().get())
    }

    /// The log's id.
    pub(crate) fn queue(&self) -> QueueId {
        QueueId::new(self.log.id().get())
    }
}

impl FeedSource for LogView {
    fn queue(&self) -> QueueId {
        self.queue()
    }

    fn head(&mut self) -> Seq {
        LogView::head(self)
    }

    fn fill(&mut self, after: Seq, batch: &mut BatchBuilder) -> Result<(), Fault> {
        LogView::fill(self, LogSeq::from_u64(after.get()), batch)
    }

    fn poll_ready(&mut self, after: Seq, waker: &Waker) -> Result<bool, Fault> {
        Ok(LogView::poll_ready(self, LogSeq::from_u64(after.get()), waker))
    }
}
