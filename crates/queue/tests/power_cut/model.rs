//! What must be true of a queue, whatever happened to it.
//!
//! The model knows every entry that may be stored, what was promised about them, and how far each
//! reader's cursor was committed. What a queue says after a cut, nobody has heard: the driver does
//! not tell it.

use std::collections::BTreeMap;

use forebay_queue::{Queue, Reader, Result, Seq};

/// One named reader.
#[derive(Default)]
pub(crate) struct Known {
    /// The durable cursor that was promised.
    committed: Seq,
    /// As far as a commit was ever asked for.
    asked: Seq,
    /// The note that was promised.
    note: u64,
}

/// Everything known.
#[derive(Default)]
pub(crate) struct Model {
    /// Every entry that may still be stored, and what it holds.
    appended: BTreeMap<Seq, Vec<u8>>,
    /// Durable by the queue's word, or seen by a reader.
    promised: Seq,
    readers: BTreeMap<String, Known>,
    /// The cursor that each note was committed with.
    notes: Vec<Seq>,
}

impl Model {
    /// An append began, or is known to have been done.
    pub(crate) fn may_hold(&mut self, seq: Seq, payload: Vec<u8>) {
        self.appended.insert(seq, payload);
    }

    /// Everything up to here was promised.
    pub(crate) fn promise(&mut self, upto: Seq) {
        // Counter 0 names no entry: nothing of this epoch yet.
        if upto.counter() > 0 {
            self.promised = self.promised.max(upto);
        }
    }

    /// What an entry holds must be what was appended as it.
    pub(crate) fn check_entry(&self, seq: Seq, payload: &[u8]) {
        let known = self.appended.get(&seq).map(Vec::as_slice);
        assert_eq!(known, Some(payload), "{seq} is a ghost, or not what was appended");
    }

    /// A commit up to `upto` begins.
    pub(crate) fn will_commit(&mut self, name: &str, upto: Seq) {
        let known = self.readers.entry(name.to_owned()).or_default();
        known.asked = known.asked.max(upto);
    }

    /// The next note, for a durable commit at `upto` that begins.
    pub(crate) fn next_note(&mut self, upto: Seq) -> u64 {
        self.notes.push(upto);
        self.notes.len() as u64
    }

    /// A durable commit returned.
    pub(crate) fn has_committed(&mut self, name: &str, upto: Seq, note: u64) {
        let known = self.readers.entry(name.to_owned()).or_default();
        (known.committed, known.note) = (known.committed.max(upto), note);
    }

    /// The reader is being removed: nothing is promised about it any more.
    pub(crate) fn forget(&mut self, name: &str) {
        self.readers.remove(name);
    }

    /// Compares what an open found with what is known, and takes it over.
    pub(crate) fn check(&mut self, queue: &Queue) -> Result<()> {
        assert_eq!(queue.recovery().corrupt_ranges, 0, "nothing was damaged");
        let mut stored = Vec::new();
        let mut tail = queue.tail(Some(Seq::NONE));
        loop {
            let batch = tail.read(64, 1 << 20)?;
            assert_eq!(batch.gap(), None, "no gap");
            if batch.is_empty() {
                break;
            }
            for entry in batch.iter() {
                self.check_entry(entry.seq, entry.payload);
                stored.push(entry.seq);
            }
        }
        for pair in stored.windows(2) {
            assert!(pair[1].follows(pair[0]), "gap between {} and {}", pair[0], pair[1]);
        }
        assert_eq!(queue.recovery().entries, stored.len() as u64, "all that was found is given");
        // Nothing stored: then all of it was committed, by every reader.
        let asked = self.readers.values().map(|known| known.asked).min().unwrap_or_default();
        let last = stored.last().copied().unwrap_or(asked);
        assert!(last >= self.promised, "promised {}, stored up to {last}", self.promised);
        let oldest = stored.first().copied();
        for (name, known) in &self.readers {
            // Space is reused behind the durable cursor, never behind a promise that was not asked.
            let is_held = oldest.is_none_or(|first| {
                first <= known.asked || first.follows(known.asked) || known.asked == Seq::NONE
            });
            assert!(is_held, "{name} asked for {}, oldest {oldest:?}", known.asked);
        }
        // What was not found now must never come back.
        self.appended.retain(|seq, _| *seq <= last && oldest.is_none_or(|first| *seq >= first));
        self.promise(last);
        Ok(())
    }

    /// Compares where a reader stands with what is known, and takes it over.
    pub(crate) fn check_reader(&mut self, reader: &Reader) {
        let known = self.readers.entry(reader.name().to_owned()).or_default();
        let cursor = reader.cursor();
        assert!(cursor >= known.committed, "cursor {cursor} behind {}", known.committed);
        let note = reader.note();
        let note = note.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        assert!(note >= known.note, "note {note} older than {}", known.note);
        if let Some(index) = note.checked_sub(1) {
            let with = self.notes[index as usize];
            assert!(cursor >= with, "note {note} came with {with}, the cursor is {cursor}");
        }
        if let Some((first, _)) = self.appended.first_key_value() {
            assert!(*first <= cursor || first.follows(cursor) || cursor == Seq::NONE);
        }
        *known = Known { committed: cursor, asked: known.asked.max(cursor), note };
    }
}
