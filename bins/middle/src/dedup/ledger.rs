//! What has become of everything that fronts have sent, since the log was made (I15).
//!
//! Each record of the log adds to it, and nothing else: entries themselves, and markers by what they
//! tell of numbers without a record. So it is as durable as the log. What was reclaimed is in a note
//! beside the log's reader `dedup`, which holds everything above the note's place; a start reads
//! the note and adds the records above it.

use forebay_wire::feed::Stored;

/// Figures from the first record of the log on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ledger {
    /// Records appended, markers among them.
    pub records: u64,
    /// Messages appended.
    pub entries: u64,
    /// Messages that were stored before, and dropped.
    pub duplicates: u64,
    /// Numbers that a front gave and that never came, though later ones did.
    pub lost: u64,
}

/// Length of a [`Note`].
const NOTE_BYTES: usize = 5 * 8;

/// The ledger at one place of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Note {
    /// The last record that is counted.
    pub position: u64,
    /// The figures there.
    pub ledger: Ledger,
}

impl Ledger {
    /// What fronts have sent, by their own numbering.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.entries + self.duplicates + self.lost
    }

    /// Adds figures.
    pub fn add(&mut self, more: &Self) {
        self.records += more.records;
        self.entries += more.entries;
        self.duplicates += more.duplicates;
        self.lost += more.lost;
    }

    /// Adds a record of the log.
    pub fn count(&mut self, stored: Option<&Stored<'_>>) {
        self.records += 1;
        let Some(stored) = stored else { return };
        let uncounted = stored.uncounted();
        self.entries += u64::from(!stored.is_marker());
        self.duplicates += u64::from(uncounted.duplicates);
        self.lost += uncounted.lost;
    }
}

impl Note {
    /// Its bytes, little-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; NOTE_BYTES] {
        let Ledger { records, entries, duplicates, lost } = self.ledger;
        let mut bytes = [0; NOTE_BYTES];
        let figures = [self.position, records, entries, duplicates, lost];
        for (place, figure) in bytes.chunks_exact_mut(8).zip(figures) {
            place.copy_from_slice(&figure.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote. `None`: it is something else, or nothing.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; NOTE_BYTES] = bytes.try_into().ok()?;
        let mut figures = bytes.chunks_exact(8).map(|figure| {
            figure.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
        });
        let mut next = || figures.next().unwrap_or_default();
        let position = next();
        let ledger = Ledger { records: next(), entries: next(), duplicates: next(), lost: next() };
        Some(Self { position, ledger })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_comes_back_as_it_was() {
        let ledger = Ledger { records: 9, entries: 1 << 40, duplicates: 3, lost: u64::MAX };
        let note = Note { position: 0x0102_0304_0506_0708, ledger };
        assert_eq!(Note::from_bytes(&note.to_bytes()), Some(note));
        assert_eq!((Note::from_bytes(&[]), Note::from_bytes(&[0; 39])), (None, None));
    }
}
