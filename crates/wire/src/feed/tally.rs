//! What a consumer has accounted for: the figures of the conservation check.

use crate::frame::{Header, u64_at};

/// Length of a [`Tally`] on the wire.
pub const TALLY_BYTES: usize = 7 * 8;

/// What has become of everything that a consumer has committed, counted by the consumer itself
/// from its first commit on.
///
/// Absolute figures, so that a commit may be repeated. They belong to the number that is committed
/// with them: a consumer that goes on after a death begins with what the middle has kept, and
/// counts what it reads again once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Records of the log, markers among them.
    pub records: u64,
    /// Messages among these.
    pub messages: u64,
    /// Messages that are set aside as a whole, because they cannot be read.
    pub unreadable: u64,
    /// Rows that the others gave.
    pub rows: u64,
    /// Rows that the store has acknowledged.
    pub stored: u64,
    /// Rows that the store refused, set aside.
    pub dead: u64,
    /// Rows that have no place in the store by their kind, or were replaced by a newer one of the
    /// same range.
    pub left_out: u64,
}

impl Tally {
    /// What this and `more` account for together.
    #[must_use]
    pub fn plus(self, more: &Self) -> Self {
        Self::of(std::array::from_fn(|at| self.figures()[at].saturating_add(more.figures()[at])))
    }

    /// Its bytes: the figures in the order of the fields, little-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; TALLY_BYTES] {
        let mut bytes = [0; TALLY_BYTES];
        for (place, figure) in bytes.chunks_exact_mut(8).zip(self.figures()) {
            place.copy_from_slice(&figure.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; TALLY_BYTES]) -> Self {
        Self::of(std::array::from_fn(|at| u64_at(bytes, at * 8)))
    }

    fn figures(&self) -> [u64; 7] {
        let Self { records, messages, unreadable, rows, stored, dead, left_out } = *self;
        [records, messages, unreadable, rows, stored, dead, left_out]
    }

    fn of([records, messages, unreadable, rows, stored, dead, left_out]: [u64; 7]) -> Self {
        Self { records, messages, unreadable, rows, stored, dead, left_out }
    }

    /// Begins a body with the tally, and says so in the header's count.
    pub(super) fn put(tally: Option<Self>, header: &mut Header) -> Vec<u8> {
        let Some(tally) = tally else { return Vec::new() };
        header.count = TALLY_BYTES as u32;
        tally.to_bytes().to_vec()
    }

    /// Takes off a body what [`Self::put`] began it with.
    pub(super) fn take(count: u32, body: &[u8]) -> Result<(Option<Self>, &[u8]), &'static str> {
        match (count as usize, body.split_first_chunk()) {
            (0, _) => Ok((None, body)),
            (TALLY_BYTES, Some((tally, body))) => Ok((Some(Self::from_bytes(tally)), body)),
            _ => Err("wrong length of the tally"),
        }
    }
}
