//! What the middle knows of stored messages, on disk: two slots, written in turn.
//!
//! A snapshot taken at position P holds everything that log entries up to P prove, so that the log
//! may reclaim them; the scan from P completes it at the next start (`recover`).
//!
//! It is copied shard by shard beside traffic, so it also holds some of what came after P. That is
//! harmless, for the scan adds it again, as long as it is true: before the header is written, all
//! that was in the log when the last shard was copied is durable there. Otherwise a power cut could
//! take back an entry that the snapshot calls stored, and its resend would be dropped.
//!
//! The log may reclaim up to the position of the *older* of the two slots: either slot alone, with
//! the scan behind it, is complete, so that one unreadable slot costs nothing.

pub mod format;
#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod golden_tests;
pub mod slot;
#[cfg(test)]
mod slot_tests;
mod varint;

use std::sync::{Mutex, PoisonError};

use crate::dedup::{Dedup, RunningTime, SHARDS};
use format::{BODY_OFFSET, Bad, Chunk, Header, Item};
use slot::{Medium, ReadError, SlotWriter, WriteError};

/// A chunk is written when it has this size: large enough to be cheap, small enough to be held.
const CHUNK_BYTES: usize = 256 << 10;

/// What a snapshot needs of the log.
pub trait Log {
    /// The last Seq appended, as a number.
    fn appended(&self) -> u64;

    /// Returns when everything up to `seq` is durable. Ends the process if it cannot become so.
    fn wait_durable(&self, seq: u64);
}

/// The steps of taking a snapshot, in their order. A kill between any two must do no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A chunk was written, after it the slot's old content is torn.
    ChunkWritten,
    /// All chunks are on the medium.
    BodySynced,
    /// Everything that the chunks may speak of is durable in the log.
    LogDurable,
    /// The header is written.
    HeaderWritten,
    /// The header is on the medium.
    HeaderSynced,
}

/// A snapshot that is durable.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// Its header.
    pub header: Header,
    /// Up to where the log may reclaim, because both slots prove it; none before there are two.
    pub proven: Option<u64>,
}

/// What was found at the start.
#[derive(Debug)]
pub struct Found {
    /// The log's entries above this Seq are to be scanned; none: all that are retained.
    pub scan_after: Option<u64>,
    /// How long the middle had run.
    pub running: RunningTime,
    /// Slots that hold something unreadable; an empty or half-written one is not counted.
    pub unreadable: Vec<ReadError>,
}

/// The two slots.
#[derive(Debug)]
pub struct Snapshots<M> {
    slots: [M; 2],
    log: u128,
    /// The slot to write next.
    next: usize,
    generation: u64,
    /// Position of the snapshot in the other slot, if it is whole.
    newest: Option<u64>,
    /// A chunk is written once it is this long; tiny in tests.
    chunk_bytes: usize,
}

impl<M: Medium> Snapshots<M> {
    /// Reads the newer whole snapshot of `log` into `dedup`.
    ///
    /// If the newer one has an unreadable chunk, the older one completes it. Snapshots of another
    /// log are left alone: they speak of entries that this one does not have.
    ///
    /// # Errors
    /// [`ReadError`]: the medium fails, or a slot was written by a later version. Stop.
    pub fn open(slots: [M; 2], log: u128, dedup: &mut Dedup) -> Result<(Self, Found), ReadError> {
        let mut found = Found { scan_after: None, running: RunningTime(0), unreadable: Vec::new() };
        let mut this =
            Self { slots, log, next: 0, generation: 0, newest: None, chunk_bytes: CHUNK_BYTES };
        let mut whole: Vec<(usize, Header)> = Vec::new();
        for (at, slot) in this.slots.iter().enumerate() {
            match slot::read_header(slot) {
                Ok(header) if header.log == log => whole.push((at, header)),
                Ok(_) => {}
                Err(ReadError::Bad(Bad::Header(_))) => {}
                Err(error) => return Err(error),
            }
        }
        whole.sort_by_key(|(_, header)| std::cmp::Reverse(header.generation));
        for (at, header) in whole {
            this.generation = this.generation.max(header.generation);
            found.running = found.running.max(header.running);
            match slot::read_body(&this.slots[at], &header, |item| restore(dedup, item)) {
                Ok(()) => {
                    found.scan_after = Some(header.position);
                    (this.newest, this.next) = (Some(header.position), 1 - at);
                    break;
                }
                Err(error @ ReadError::Read(_)) => return Err(error),
                Err(error) => found.unreadable.push(error),
            }
        }
        Ok((this, found))
    }

    /// Takes a snapshot into the slot whose turn it is; forgets what was last heard of before
    /// `oldest` on the way.
    ///
    /// Holds the lock for one shard at a time. `at` is told each step; tests kill there.
    ///
    /// # Errors
    /// [`WriteError::Write`]: try again later. [`WriteError::Sync`]: end the process.
    pub fn take(
        &mut self,
        dedup: &Mutex<Dedup>,
        log: &impl Log,
        running: RunningTime,
        oldest: RunningTime,
        mut at: impl FnMut(Step),
    ) -> Result<Taken, WriteError> {
        self.generation += 1;
        let mut header = self.header(running);
        let mut chunk = Chunk::default();
        let mut writer = SlotWriter::begin(&mut self.slots[self.next], self.generation);
        {
            let dedup = dedup.lock().unwrap_or_else(PoisonError::into_inner);
            header.position = log.appended();
            dedup.sources.iter().for_each(|(queue, source)| chunk.push_source(queue, source));
        }
        for shard in 0..SHARDS {
            if !chunk.is_empty() && (shard == 0 || chunk.len() >= self.chunk_bytes) {
                let items = u64::from(chunk.count());
                *(if shard == 0 { &mut header.sources } else { &mut header.sessions }) += items;
                writer.chunk(&mut chunk)?;
                at(Step::ChunkWritten);
            }
            let mut dedup = dedup.lock().unwrap_or_else(PoisonError::into_inner);
            dedup.table.expire(shard, oldest);
            dedup.table.rows_of(shard).for_each(|row| chunk.push_session(row));
        }
        if !chunk.is_empty() {
            header.sessions += u64::from(chunk.count());
            writer.chunk(&mut chunk)?;
            at(Step::ChunkWritten);
        }
        writer.sync_body()?;
        at(Step::BodySynced);
        log.wait_durable(log.appended());
        at(Step::LogDurable);
        let header = writer.header(header)?;
        at(Step::HeaderWritten);
        writer.sync_header()?;
        at(Step::HeaderSynced);
        self.next = 1 - self.next;
        let proven = self.newest.replace(header.position);
        Ok(Taken { header, proven })
    }

    /// Bytes of a snapshot with its header's page.
    #[must_use]
    pub fn bytes_of(header: &Header) -> u64 {
        BODY_OFFSET + header.body_bytes
    }

    fn header(&self, running: RunningTime) -> Header {
        Header {
            chunks: 0,
            log: self.log,
            generation: self.generation,
            position: 0,
            body_bytes: 0,
            sessions: 0,
            sources: 0,
            running,
        }
    }
}

fn restore(dedup: &mut Dedup, item: Item) {
    match item {
        Item::Source(queue, source) => dedup.sources.advance(queue, source.position, source.seen),
        Item::Session(row) => dedup.table.restore(row),
    }
}
