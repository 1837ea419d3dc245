//! What a crash left: finds the end of the ring, and what is damaged before it.
//!
//! The scan only looks. It starts at the checkpoint's head and accepts record after record while
//! checksums, the order of seqs and the epochs hold. The first record that does not hold is either
//! the torn tail, which is cut, or damage to something that had been promised, which is passed
//! over and reported. It was promised if it lies below the checkpoint's mark, or if a later head
//! says that everything up to here was durable when that later entry was appended.

use crate::faults::Fault;
use crate::format::{ALIGN, Geometry, HEAD_BYTES, Head, Mark, SLOT_BYTES, Slot};
use crate::log::{Log, Step};
use crate::memory::Memory;
use crate::seq::Seq;

/// The two checkpoints as found.
#[derive(Debug)]
pub(crate) struct Slots {
    /// The newer valid one.
    pub(crate) newest: Slot,
    /// Where it stands.
    pub(crate) place: usize,
    /// Whether the other one is invalid.
    pub(crate) damaged: bool,
    /// The largest epoch that either names.
    pub(crate) epoch: u32,
}

/// Reads both slots; `None` if neither is valid.
pub(crate) fn read_slots(memory: &Memory, geometry: &Geometry) -> Option<Slots> {
    let read = |place| {
        let bytes = memory.view(geometry.slot_offset(place), SLOT_BYTES);
        Slot::decode(bytes, geometry.capacity)
    };
    match (read(0), read(1)) {
        (None, None) => None,
        (Some(slot), None) => {
            Some(Slots { epoch: slot.epoch, newest: slot, place: 0, damaged: true })
        }
        (None, Some(slot)) => {
            Some(Slots { epoch: slot.epoch, newest: slot, place: 1, damaged: true })
        }
        (Some(first), Some(second)) => {
            let epoch = first.epoch.max(second.epoch);
            let place = usize::from(second.generation > first.generation);
            let newest = if place == 0 { first } else { second };
            Some(Slots { newest, place, damaged: false, epoch })
        }
    }
}

/// A damaged range of positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Entries known to be missing by their seqs.
    pub(crate) lost: u64,
    /// The last of them, as far as known.
    pub(crate) last: Seq,
}

/// What the scan found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// The end: the boundary behind the last accepted entry.
    pub(crate) tail: Mark,
    pub(crate) entries: u64,
    pub(crate) entries_above_mark: u64,
    /// Whether unfinished bytes stand behind the end.
    pub(crate) torn: bool,
    pub(crate) damage: Vec<Damage>,
    /// Boundaries on the way, not closer than the spacing asked for.
    pub(crate) index: Vec<Mark>,
}

struct Scanner<'a> {
    log: Log<'a>,
    slot: &'a Slot,
    /// Behind the last byte that can belong to this lap.
    limit: u64,
}

/// Scans from the checkpoint's head to the end, which lies at `limit` at the furthest: the head
/// and a lap, or less if somebody is appending meanwhile.
pub(crate) fn scan(log: Log<'_>, slot: &Slot, limit: u64, index_bytes: u64) -> Scan {
    let scanner = Scanner { log, slot, limit };
    let mut found = Scan { tail: slot.head, ..Scan::default() };
    let mut promised = slot.promised().position;
    let mut indexed = slot.head.position;
    // The last sound boundary, where damage without a known number of entries came behind it.
    let mut gap: Option<Mark> = None;
    loop {
        let at = found.tail;
        let step = log.next(at.position, limit);
        let fits = |head: &Head, place| match gap {
            Some(before) => scanner.fits_after_gap(head, place, before),
            None => scanner.fits(head, place, at.seq),
        };
        let (resume, skipped) = match step {
            Step::End => break,
            Step::Entry { head, at: place, next } if fits(&head, place) => {
                gap = None;
                found.entries += 1;
                found.entries_above_mark += u64::from(place >= slot.durable.position);
                found.tail = Mark { position: next, seq: head.seq };
                if next - indexed >= index_bytes {
                    found.index.push(found.tail);
                    indexed = next;
                }
                continue;
            }
            Step::Gap { head, next } if head.seq >= at.seq && at.position < promised => {
                found.tail = Mark { position: next, seq: head.seq };
                gap = None;
                continue;
            }
            Step::BadPayload { head, next } if fits(&head, at.position) => (next, Some(head.seq)),
            Step::BadPayload { .. }
            | Step::Entry { .. }
            | Step::Gap { .. }
            | Step::BadHead { .. } => (at.position + ALIGN, None),
        };
        if at.position >= promised {
            promised = promised.max(scanner.proven(resume, gap.unwrap_or(at), at.position));
        }
        if at.position >= promised {
            found.torn = scanner.is_written(at.position);
            break;
        }
        let before = gap.unwrap_or(at);
        let (next, lost, known) = scanner.pass_over(before, resume, skipped, promised);
        found.damage.push(Damage { from: at.position, to: next.position, lost, last: next.seq });
        found.tail = next;
        gap = if known { None } else { Some(before) };
    }
    found
}

impl Scanner<'_> {
    /// Whether an entry may stand at `place` behind the entry `previous`.
    fn fits(&self, head: &Head, place: u64, previous: Seq) -> bool {
        let in_order = head.seq.follows(previous) || self.log.faults.has(Fault::NoSeqCheck);
        in_order && self.epoch_fits(head, place)
    }

    /// What the checkpoint says about epochs: those before its own end where its own begins. A
    /// record of an older epoch behind that point is a ghost of a tail that was cut.
    fn epoch_fits(&self, head: &Head, place: u64) -> bool {
        let of_this_epoch = head.seq.epoch() >= self.slot.epoch;
        of_this_epoch == (place >= self.slot.epoch_position)
            || self.log.faults.has(Fault::EpochNotStored)
            || self.log.faults.has(Fault::NoEpochInRecord)
            || self.log.faults.has(Fault::NoSeqCheck)
    }

    /// Whether an entry may stand at `place` somewhere behind the boundary `before`, with others
    /// lost between them.
    fn fits_after_gap(&self, head: &Head, place: u64, before: Mark) -> bool {
        let (seq, previous) = (head.seq, before.seq);
        // Each lost entry took at least a head.
        let lost_max = (place - before.position) / HEAD_BYTES;
        let plausible = if seq.epoch() == previous.epoch() {
            seq.counter() > previous.counter() && seq.counter() - previous.counter() <= lost_max + 1
        } else {
            seq.epoch() > previous.epoch() && seq.counter() <= lost_max + 1
        };
        plausible && self.epoch_fits(head, place)
    }

    /// The first entry from `from` on, below `end`, that may stand behind the gap after `before`.
    fn search(&self, mut from: u64, end: u64, before: Mark) -> Option<(u64, Head)> {
        loop {
            let (place, head) = self.log.search(from, end)?;
            if self.fits_after_gap(&head, place, before) {
                return Some((place, head));
            }
            from = place + ALIGN;
        }
    }

    /// Up to where the heads behind a bad record at `bad` say that everything was durable: the
    /// largest claim along the chain that starts at the next head. Heads only; their claims are
    /// true whatever became of their payloads.
    fn proven(&self, resume: u64, before: Mark, bad: u64) -> u64 {
        // The record that stood here, if one did, is not larger than the largest.
        let window = resume + self.log.geometry.capacity / 2 + HEAD_BYTES;
        let Some((mut place, mut head)) = self.search(resume, self.limit.min(window), before)
        else {
            return 0;
        };
        let mut proven = 0;
        loop {
            proven = proven.max(head.proven(place).unwrap_or(0));
            if proven > bad {
                return proven;
            }
            match self.head_behind(place + head.record_bytes()) {
                Some((at, next)) if self.fits(&next, at, head.seq) => (place, head) = (at, next),
                _ => return proven,
            }
        }
    }

    /// The entry's head at the boundary `position`, fillers passed over.
    fn head_behind(&self, mut position: u64) -> Option<(u64, Head)> {
        loop {
            let rest = self.log.geometry.rest(position);
            if rest < HEAD_BYTES {
                position += rest;
            }
            if position + HEAD_BYTES > self.limit {
                return None;
            }
            let head = self.log.head_at(position)?;
            if head.is_entry() {
                return Some((position, head));
            }
            position += head.record_bytes();
        }
    }

    /// Where to go on behind damage; how many entries are missing; whether the order of seqs is
    /// known again.
    fn pass_over(
        &self,
        before: Mark,
        resume: u64,
        skipped: Option<Seq>,
        promised: u64,
    ) -> (Mark, u64, bool) {
        let missing = |upto: Seq| {
            let same_epoch = upto.epoch() == before.seq.epoch();
            upto.counter() - if same_epoch { before.seq.counter() } else { 0 }
        };
        if let Some(seq) = skipped {
            return (Mark { position: resume, seq }, missing(seq), true);
        }
        match self.search(resume, self.limit, before) {
            Some((place, head)) if place <= promised => {
                let seq = match head.seq.counter() {
                    1 => before.seq,
                    counter => Seq::new(head.seq.epoch(), counter - 1),
                };
                let lost = if seq == before.seq { 1 } else { missing(seq) };
                (Mark { position: place, seq }, lost, true)
            }
            _ => {
                let promise = self.slot.promised();
                if promise.position == promised && promise.seq > before.seq {
                    return (promise, missing(promise.seq), true);
                }
                (Mark { position: promised, seq: before.seq }, 1, false)
            }
        }
    }

    /// Whether something of this lap was begun at `position`: then the tail is torn, not just
    /// ended. Told by the kind of bytes there, so only a hint for the report.
    fn is_written(&self, position: u64) -> bool {
        let rest = self.log.geometry.rest(position).min(self.limit - position);
        rest >= HEAD_BYTES && self.log.head_at(position).is_some()
    }
}
