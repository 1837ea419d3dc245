//! What the middle appends to its log: entries with their origin, and markers.

use crate::frame::{array_at, u64_at};
use crate::{QueueId, Seq};

/// Bytes that [`Stored`] puts before an entry.
pub const STORED_PREFIX_BYTES: usize = 24;
/// First byte of what a marker tells. No entry of any version begins so: each is a CBOR array.
const UNCOUNTED: u8 = 0;

/// What the middle appends for one entry of a source: whose it is, its number there, and itself.
///
/// Without a canonical entry it is a position marker, and no message: it proves that all of the
/// source up to `seq` were taken, and tells what became of those that have no record of their own
/// ([`Uncounted`]). So each number of a source that the log has passed is accounted for in the log
/// itself, whatever cuts its end off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored<'a> {
    /// The queue it came from.
    pub source: QueueId,
    /// Its number there.
    pub seq: Seq,
    /// The canonical entry; of a position marker, what [`Self::uncounted`] reads.
    pub entry: &'a [u8],
}

/// Numbers of a source that have no record of their own between the record before and a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uncounted {
    /// Messages that were stored before.
    pub duplicates: u32,
    /// Numbers that the source passed over, or whose entries were gone: lost.
    pub lost: u64,
}

impl Uncounted {
    /// Length of [`Self::to_bytes`].
    pub const BYTES: usize = 13;

    /// What follows the prefix in a marker.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [UNCOUNTED; Self::BYTES];
        bytes[1..5].copy_from_slice(&self.duplicates.to_le_bytes());
        bytes[5..].copy_from_slice(&self.lost.to_le_bytes());
        bytes
    }
}

impl<'a> Stored<'a> {
    /// The 24 bytes before an entry: queue id and number, little-endian.
    #[must_use]
    pub fn prefix(source: QueueId, seq: Seq) -> [u8; STORED_PREFIX_BYTES] {
        let mut prefix = [0; STORED_PREFIX_BYTES];
        prefix[..16].copy_from_slice(&source.to_bytes());
        prefix[16..].copy_from_slice(&seq.get().to_le_bytes());
        prefix
    }

    /// Reads a payload of the middle's queue; `None` if it is shorter than the prefix.
    #[must_use]
    pub fn decode(payload: &'a [u8]) -> Option<Self> {
        let (prefix, entry) = payload.split_first_chunk::<STORED_PREFIX_BYTES>()?;
        let source = QueueId::from_bytes(array_at(prefix, 0));
        Some(Self { source, seq: Seq::new(u64_at(prefix, 16)), entry })
    }

    /// Whether it only marks a position.
    #[must_use]
    pub const fn is_marker(&self) -> bool {
        match self.entry {
            [] => true,
            [first, ..] => *first == UNCOUNTED && self.entry.len() == Uncounted::BYTES,
        }
    }

    /// What a marker tells of the numbers before it; nothing of an entry.
    #[must_use]
    pub fn uncounted(&self) -> Uncounted {
        if self.entry.is_empty() || !self.is_marker() {
            return Uncounted::default();
        }
        let duplicates = u32::from_le_bytes(array_at(self.entry, 1));
        Uncounted { duplicates, lost: u64_at(self.entry, 5) }
    }
}
