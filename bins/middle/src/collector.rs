//! Fan-in: entries of many fronts into one log, each message once.
//!
//! The link's receiver hands over the records of one frame that follow what was taken before; here
//! it is decided which of them are new, they are appended at once with 24 bytes of origin in front,
//! and the receiver acks when they are durable. If the last record is a duplicate, a marker takes
//! its place: the position of every source can be read from the log alone.
//!
//! The lock is held over deciding and appending, so that at any moment the table holds exactly what
//! the log holds. Nothing is allocated for an entry, and a few vectors for a frame.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};

use forebay_link::{EntryStore, Fault, Joined, Level, QueueId, Records, Seq, StoreError};
use forebay_queue::{Durability, Error, Queue, Seq as LogSeq};
use forebay_wire::{
    entry::{self, EntryHead},
    feed::{STORED_PREFIX_BYTES, Stored},
    records::Record,
};

use crate::{
    clock::{Clock, wall_us},
    dedup::{Dedup, Key, RunningTime, Verdict},
    metrics::Counts,
    snapshotter::Bell,
};

/// Share of the log that is never promised to fronts: what is on its way when credit runs out, and
/// the markers that a full log must still take.
const RESERVE_SHARE: u64 = 16;

/// The middle's log, as the uplink receiver fills it.
pub(crate) struct Collector {
    log: Queue,
    dedup: Arc<Mutex<Dedup>>,
    clock: Arc<Clock>,
    counts: Arc<Counts>,
    bell: Arc<Bell>,
    /// Set while the middle drains: fronts then keep what they have.
    closed: Arc<AtomicBool>,
    prefixes: Vec<[u8; STORED_PREFIX_BYTES]>,
}

/// What one frame came to.
#[derive(Debug, Default)]
struct Tally {
    entries: u64,
    bytes: u64,
    duplicates: u64,
    undecodable: u64,
    markers: u64,
}

impl Collector {
    pub(crate) fn new(
        log: Queue,
        dedup: Arc<Mutex<Dedup>>,
        clock: Arc<Clock>,
        counts: Arc<Counts>,
        bell: Arc<Bell>,
        closed: Arc<AtomicBool>,
    ) -> Self {
        Self { log, dedup, clock, counts, bell, closed, prefixes: Vec::new() }
    }

    /// Appends what is new of `records`, and a marker if the last is not; all or none.
    fn take(
        &mut self,
        dedup: &mut Dedup,
        source: QueueId,
        records: &Records<'_>,
    ) -> Result<(LogSeq, Tally), Error> {
        let now = self.clock.running();
        let mut tally = Tally::default();
        self.prefixes.clear();
        let mut entries: Vec<&[u8]> = Vec::with_capacity(records.count() as usize + 1);
        for record in records {
            if is_new(dedup, &record, now, &mut tally) {
                self.prefixes.push(Stored::prefix(source, record.seq));
                entries.push(record.payload);
                tally.entries += 1;
                tally.bytes += record.payload.len() as u64;
            }
        }
        let marker = Stored::prefix(source, records.last());
        if self.prefixes.last() != Some(&marker) {
            self.prefixes.push(marker);
            entries.push(&[]);
            tally.markers = 1;
        }
        let parts: Vec<[&[u8]; 2]> = self
            .prefixes
            .iter()
            .zip(&entries)
            .map(|(prefix, entry)| [&prefix[..], entry])
            .collect();
        match self.log.append_batch_parts(wall_us(), &parts) {
            Ok(span) => {
                dedup.sources.advance(source.get(), records.last().get(), now);
                Ok((span.last, tally))
            }
            Err(error) => {
                for head in entries.iter().filter_map(|payload| entry::head(payload).ok()) {
                    dedup.table.retract(&key(&head), head.seq.get());
                }
                Err(error)
            }
        }
    }
}

/// Whether the record is to be stored.
fn is_new(dedup: &mut Dedup, record: &Record<'_>, now: RunningTime, tally: &mut Tally) -> bool {
    match entry::head(record.payload) {
        Ok(head) => {
            let rejected = head.rejected_before;
            let verdict = dedup.table.admit(&key(&head), head.seq.get(), rejected, now);
            tally.duplicates += u64::from(verdict == Verdict::Duplicate);
            verdict == Verdict::New
        }
        // Perhaps a later release's: it was acked, so it is kept. The storage tier decides.
        Err(_) => {
            tally.undecodable += 1;
            !record.payload.is_empty()
        }
    }
}

fn key<'a>(head: &EntryHead<'a>) -> Key<'a> {
    Key { tenant: head.tenant, device: head.device, session: head.session.get() }
}

fn lock(dedup: &Mutex<Dedup>) -> MutexGuard<'_, Dedup> {
    dedup.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EntryStore for Collector {
    fn level(&self) -> Level {
        match self.log.stat().durability {
            Durability::Process => Level::Process,
            Durability::Disk => Level::Disk,
        }
    }

    fn position(&mut self, source: QueueId) -> Result<Seq, Fault> {
        let position = lock(&self.dedup).sources.position(source.get());
        Ok(position.map_or(Seq::ZERO, Seq::new))
    }

    fn append(&mut self, source: QueueId, records: &Records<'_>) -> Result<Seq, StoreError> {
        let dedup = Arc::clone(&self.dedup);
        match self.take(&mut lock(&dedup), source, records) {
            Ok((last, tally)) => {
                self.counts.entries.inc_by(tally.entries);
                self.counts.bytes.inc_by(tally.bytes);
                self.counts.duplicates.inc_by(tally.duplicates);
                self.counts.markers.inc_by(tally.markers);
                if tally.undecodable > 0 {
                    self.counts.undecodable.inc_by(tally.undecodable);
                    tracing::warn!(
                        source = %source, count = tally.undecodable, seq = %records.last(),
                        "entries of an unknown form were stored without a look for duplicates"
                    );
                }
                Ok(Seq::new(last.get()))
            }
            Err(Error::Full { .. }) => {
                self.counts.full.inc();
                // If nothing but the snapshot holds the space, a new one frees it.
                self.bell.ring();
                Err(StoreError::Full)
            }
            Err(error) => Err(StoreError::Fatal(error.into())),
        }
    }

    fn durable(&mut self) -> Seq {
        Seq::new(self.log.durable().get())
    }

    fn poll_durable(&mut self, seq: Seq, waker: &Waker) -> Result<bool, Fault> {
        Ok(self.log.poll_durable(LogSeq::from_u64(seq.get()), waker)?)
    }

    fn room_bytes(&self) -> u64 {
        if self.closed.load(Ordering::Relaxed) {
            return 0;
        }
        let stat = self.log.stat();
        let promised = stat.capacity_bytes - stat.capacity_bytes / RESERVE_SHARE;
        let room = promised.saturating_sub(stat.used_bytes);
        if room == 0 {
            self.bell.ring();
        }
        room
    }

    fn joined(&mut self, joined: &Joined) {
        self.counts.losses.inc();
        self.counts.lost.inc_by(joined.lost.unwrap_or(1));
        tracing::error!(
            source = %joined.source, after = %joined.after, committed = %joined.committed,
            count = joined.lost,
            "entries are lost: the front has committed them, and this middle does not have them"
        );
    }
}
