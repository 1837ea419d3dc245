//! Ends with a disk: two real queues, as a front and a middle have, without what those do besides.

use std::path::Path;
use std::task::Waker;
use std::time::Duration;

use forebay_link::{
    BatchBuilder, Bounds, EntrySource, EntryStore, Fault, Joined, Level, Pushed, QueueId, Records,
    Seq, StoreError,
};
use forebay_queue::{Options, Queue, Reader, Seq as RingSeq};
use forebay_wire::feed::Stored;
use forebay_wire::records::RECORD_HEADER_BYTES;

use crate::ENTRY_BYTES;

/// A front's queue and a middle's, kept over all rounds.
#[derive(Debug)]
pub(crate) struct Rings {
    front: Queue,
    middle: Queue,
}

impl Rings {
    pub(crate) fn create(dir: &Path, entries: u64) -> Self {
        let capacity_bytes =
            (entries * (ENTRY_BYTES as u64 + 64) * 5 / 4).next_multiple_of(1 << 20);
        let options = Options { capacity_bytes, any_filesystem: true, ..Options::default() };
        let queue = |name: &str| {
            let path = dir.join(name);
            let _ = std::fs::remove_dir_all(&path);
            Queue::create(path, &options).expect("queue")
        };
        Self { front: queue("front"), middle: queue("middle") }
    }

    /// Appends as many entries to the front's queue, durably, and gives both ends.
    pub(crate) fn fill(&mut self, entries: u64) -> (RingSource, RingStore) {
        let position = self.front.appended();
        let batch = vec![[7; ENTRY_BYTES]; 100];
        for _ in 0..entries / 100 {
            self.front.append_batch(1, &batch).expect("append");
        }
        let wait = Duration::from_secs(60);
        self.front.wait_durable(self.front.appended(), wait).expect("durable");
        let mut reader = self.front.reader("uplink").expect("reader");
        reader.rewind(position).expect("rewind");
        let source = RingSource { queue: self.front.clone(), reader, read: position };
        let position = Seq::new(position.get());
        (source, RingStore { queue: self.middle.clone(), position, prefixes: Vec::new() })
    }

    /// Frees both.
    pub(crate) fn empty(&mut self) {
        for queue in [&self.front, &self.middle] {
            let mut reader = queue.reader("uplink").expect("reader");
            let upto = queue.appended();
            queue.wait_durable(upto, Duration::from_secs(60)).expect("durable");
            for note in 0..3 {
                reader.commit_durable(upto, Some(&[note])).expect("commit");
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct RingSource {
    queue: Queue,
    reader: Reader,
    read: RingSeq,
}

impl EntrySource for RingSource {
    fn queue(&self) -> QueueId {
        QueueId::new(self.queue.id().get())
    }

    fn bounds(&mut self) -> Result<Bounds, Fault> {
        let committed = Seq::new(self.reader.cursor().get());
        let appended = self.queue.appended();
        let next = Seq::from_parts(appended.epoch(), appended.counter() + 1);
        Ok(Bounds { committed, oldest: Seq::new(committed.get().max(1 << 40) + 1), next })
    }

    fn fill(&mut self, after: Seq, batch: &mut BatchBuilder) -> Result<(), Fault> {
        let after = RingSeq::from_u64(after.get());
        if after != self.read {
            self.reader.rewind(after)?;
            self.read = after;
        }
        let room = batch.room_bytes() + RECORD_HEADER_BYTES;
        let peeked = self.reader.peek(room / (ENTRY_BYTES + RECORD_HEADER_BYTES), room)?;
        for entry in peeked.iter() {
            if batch.push(Seq::new(entry.seq.get()), entry.time_us, entry.payload) != Pushed::Taken
            {
                return Err("entries of one size fill a frame evenly".into());
            }
            self.read = entry.seq;
        }
        peeked.advance();
        Ok(())
    }

    fn commit(&mut self, upto: Seq) -> Result<(), Fault> {
        Ok(self.reader.commit(RingSeq::from_u64(upto.get()))?)
    }

    fn poll_ready(&mut self, _: Seq, waker: &Waker) -> Result<bool, Fault> {
        Ok(self.reader.poll_ready(waker))
    }
}

#[derive(Debug)]
pub(crate) struct RingStore {
    queue: Queue,
    position: Seq,
    prefixes: Vec<[u8; 24]>,
}

impl EntryStore for RingStore {
    fn level(&self) -> Level {
        Level::Disk
    }

    fn position(&mut self, _: QueueId) -> Result<Seq, Fault> {
        Ok(if self.position.counter() == 0 { Seq::ZERO } else { self.position })
    }

    fn append(&mut self, source: QueueId, records: &Records<'_>) -> Result<Seq, StoreError> {
        self.prefixes.clear();
        self.prefixes.extend(records.iter().map(|record| Stored::prefix(source, record.seq)));
        let parts: Vec<[&[u8]; 2]> = self
            .prefixes
            .iter()
            .zip(records)
            .map(|(prefix, record)| [&prefix[..], record.payload])
            .collect();
        let span = self.queue.append_batch_parts(1, &parts);
        let span = span.map_err(|error| StoreError::Fatal(error.into()))?;
        self.position = records.last();
        Ok(Seq::new(span.last.get()))
    }

    fn durable(&mut self) -> Seq {
        Seq::new(self.queue.durable().get())
    }

    fn poll_durable(&mut self, seq: Seq, waker: &Waker) -> Result<bool, Fault> {
        Ok(self.queue.poll_durable(RingSeq::from_u64(seq.get()), waker)?)
    }

    fn room_bytes(&self) -> u64 {
        let stat = self.queue.stat();
        stat.capacity_bytes - stat.used_bytes
    }

    fn joined(&mut self, joined: &Joined) {
        panic!("{joined:?}");
    }
}
