//! Fan-in: entries of many fronts into one log, each message once.
//!
//! The link's receiver hands over the records of one frame that follow what was taken before; here
//! it is decided which of them are new, they are appended at once with 24 bytes of origin in front,
//! and the receiver acks when they are durable. Where numbers of a source have no record of their
//! own, as duplicates have none, a marker stands in their place and tells how many: the position of
//! every source, and what became of each of its numbers, can be read from the log alone.
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
    feed::{STORED_PREFIX_BYTES, Stored, Uncounted},
    records::Record,
};
use hashbrown::HashMap;

use crate::{
    clock::{Clock, wall_us},
    dedup::{Dedup, Key, RunningTime, Verdict, ledger::Ledger},
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
    markers: Vec<[u8; Uncounted::BYTES]>,
    /// Sources that had given away what is not here: how far, and how much. The next frame's
    /// marker tells of it.
    joined: HashMap<QueueId, (Seq, u64)>,
}

/// What one frame came to.
#[derive(Debug, Default)]
struct Tally {
    ledger: Ledger,
    bytes: u64,
    undecodable: u64,
}

/// Numbers of a source that were taken and have no record yet: the next marker tells of them.
#[derive(Debug, Default)]
struct Run {
    /// The last of all numbers accounted for.
    upto: Option<Seq>,
    uncounted: Uncounted,
}

impl Run {
    /// The next number is `seq`: what the source passed over before it is lost.
    fn reach(&mut self, seq: Seq) {
        let passed = match self.upto {
            Some(upto) if upto.epoch() == seq.epoch() => {
                seq.counter().saturating_sub(upto.counter() + 1)
            }
            // Each epoch begins with 1, and what the one before ended with is not known here.
            Some(_) => seq.counter().saturating_sub(1),
            // A source that joins: the link says what it had given away before.
            None => 0,
        };
        self.uncounted.lost += passed;
    }
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
        let (prefixes, markers) = (Vec::new(), Vec::new());
        let joined = HashMap::new();
        Self { log, dedup, clock, counts, bell, closed, prefixes, markers, joined }
    }

    /// Appends what is new of `records`, and markers for what is not; all or none.
    fn take(
        &mut self,
        dedup: &mut Dedup,
        source: QueueId,
        records: &Records<'_>,
    ) -> Result<(LogSeq, Tally), Error> {
        let now = self.clock.running();
        let mut tally = Tally::default();
        self.prefixes.clear();
        self.markers.clear();
        let mut entries: Vec<Option<&[u8]>> = Vec::with_capacity(records.count() as usize + 1);
        let upto = dedup.sources.position(source.get()).map(Seq::new);
        let mut run = Run { upto, ..Run::default() };
        if let Some(&(committed, lost)) = self.joined.get(&source) {
            run = Run { upto: Some(committed), uncounted: Uncounted { duplicates: 0, lost } };
        }
        for record in records {
            #[cfg(feature = "planted-faults")]
            if crate::planted::skips(&record) {
                continue;
            }
            run.reach(record.seq);
            if is_new(dedup, &record, now, &mut tally) {
                // What was passed over ends before this record: cut here, the log is right.
                if run.uncounted != Uncounted::default() {
                    let before = Seq::new(record.seq.get() - 1);
                    self.mark(source, before, &mut run, &mut tally, &mut entries);
                }
                self.prefixes.push(Stored::prefix(source, record.seq));
                entries.push(Some(record.payload));
                tally.ledger.entries += 1;
                tally.bytes += record.payload.len() as u64;
            } else {
                run.uncounted.duplicates += 1;
            }
            run.upto = Some(record.seq);
        }
        if self.prefixes.last() != Some(&Stored::prefix(source, records.last())) {
            if run.upto != Some(records.last()) {
                run.reach(records.last());
                run.uncounted.lost += 1;
            }
            self.mark(source, records.last(), &mut run, &mut tally, &mut entries);
        }
        let mut markers = self.markers.iter();
        let parts: Vec<[&[u8]; 2]> = self
            .prefixes
            .iter()
            .zip(&entries)
            .map(|(prefix, entry)| {
                let marker = || markers.next().map_or(&[][..], |marker| &marker[..]);
                [&prefix[..], entry.unwrap_or_else(marker)]
            })
            .collect();
        tally.ledger.records = parts.len() as u64;
        match self.log.append_batch_parts(wall_us(), &parts) {
            Ok(span) => {
                dedup.sources.advance(source.get(), records.last().get(), now);
                dedup.ledger.add(&tally.ledger);
                self.joined.remove(&source);
                Ok((span.last, tally))
            }
            Err(error) => {
                let entries = entries.iter().flatten();
                for head in entries.filter_map(|payload| entry::head(payload).ok()) {
                    dedup.table.retract(&key(&head), head.seq.get());
                }
                Err(error)
            }
        }
    }

    /// Puts a marker that accounts for all up to `seq`.
    fn mark(
        &mut self,
        source: QueueId,
        seq: Seq,
        run: &mut Run,
        tally: &mut Tally,
        entries: &mut Vec<Option<&[u8]>>,
    ) {
        let uncounted = std::mem::take(&mut run.uncounted);
        self.prefixes.push(Stored::prefix(source, seq));
        self.markers.push(uncounted.to_bytes());
        entries.push(None);
        tally.ledger.duplicates += u64::from(uncounted.duplicates);
        tally.ledger.lost += uncounted.lost;
    }
}

/// Whether the record is to be stored.
fn is_new(dedup: &mut Dedup, record: &Record<'_>, now: RunningTime, tally: &mut Tally) -> bool {
    match entry::head(record.payload) {
        Ok(head) => {
            let rejected = head.rejected_before;
            let verdict = dedup.table.admit(&key(&head), head.seq.get(), rejected, now);
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
                let Ledger { records: appended, entries, duplicates, lost } = tally.ledger;
                self.counts.entries.inc_by(entries);
                self.counts.bytes.inc_by(tally.bytes);
                self.counts.duplicates.inc_by(duplicates);
                self.counts.markers.inc_by(appended - entries);
                if lost > 0 {
                    tracing::error!(
                        source = %source, count = lost, seq = %records.last(),
                        "a front's numbering has a hole: these entries never reached the log"
                    );
                }
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
        let lost = joined.lost.unwrap_or(1);
        self.counts.lost.inc_by(lost);
        // Of a source that was never here, another log had what it gave away.
        if joined.after != Seq::ZERO {
            self.joined.insert(joined.source, (joined.committed, lost));
        }
        tracing::error!(
            source = %joined.source, after = %joined.after, committed = %joined.committed,
            count = joined.lost,
            "entries are lost: the front has committed them, and this middle does not have them"
        );
    }
}
