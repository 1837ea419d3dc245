//! The bytes on the medium, and nothing else: sizes, places, encoding, decoding.
//!
//! The specification is `docs/storage-format.md`; a test binds the two by a hash. Everything is
//! little-endian. A decoder takes any bytes and says `None` or why, and never panics.

use crate::seq::Seq;
use crate::{QueueId, crc};

/// First bytes of the file.
pub(crate) const MAGIC: [u8; 8] = *b"forebayQ";
/// Version 1: the first.
pub(crate) const VERSION: u32 = 1;

/// Name of the ring file in its directory.
pub(crate) const FILE_NAME: &str = "ring";

/// Pages before the ring: the super-block and the two checkpoint slots.
const LEAD_PAGES: u64 = 3;
/// Bytes of the super-block that mean something.
pub(crate) const SUPER_BYTES: usize = 64;
/// Bytes of a checkpoint slot; a page may be larger.
pub(crate) const SLOT_BYTES: usize = 4096;
/// First bytes of a checkpoint slot.
const SLOT_MAGIC: u64 = u64::from_le_bytes(*b"forebayC");
/// Where the table of readers starts within a slot.
const SLOT_HEAD_BYTES: usize = 96;
/// Bytes of a reader's row.
const READER_BYTES: usize = 24 + NAME_BYTES_MAX + NOTE_BYTES_MAX;
/// The longest name of a reader.
pub(crate) const NAME_BYTES_MAX: usize = 40;
/// The longest note beside a cursor.
pub(crate) const NOTE_BYTES_MAX: usize = 96;
/// How many named readers a queue has at most.
pub(crate) const READERS_MAX: usize = 24;

/// Bytes of a record's head.
pub(crate) const HEAD_BYTES: u64 = 32;
/// Records start at multiples of this.
pub(crate) const ALIGN: u64 = 8;
/// The record is an entry.
const KIND_ENTRY: u32 = 0;
/// The record fills the ring up to its end.
const KIND_PAD: u32 = 1;
/// The record stands for damage that a repair has taken note of.
const KIND_GAP: u32 = 2;
/// The kind's bits in the flags; the lag has the others.
const KIND_MASK: u32 = 0xff;
/// The lag's unit is [`ALIGN`]; this value says "further than that".
const LAG_MAX: u64 = 0xff_ffff;

/// The largest ring.
pub(crate) const CAPACITY_BYTES_MAX: u64 = 1 << 40;

const _: () = {
    assert!(SLOT_HEAD_BYTES + READERS_MAX * READER_BYTES <= SLOT_BYTES - 4);
    assert!(HEAD_BYTES.is_multiple_of(ALIGN) && SUPER_BYTES <= SLOT_BYTES);
};

/// The largest payload that a ring of this capacity takes: a record and the padding before it
/// must fit an empty ring wherever its head stands.
pub(crate) const fn entry_bytes_limit(capacity: u64) -> u64 {
    let limit = capacity / 2 - HEAD_BYTES;
    if limit < u32::MAX as u64 { limit } else { u32::MAX as u64 }
}

/// Bytes that a record takes, head and alignment included.
#[inline]
pub(crate) const fn record_bytes(payload_bytes: u64) -> u64 {
    HEAD_BYTES + payload_bytes.next_multiple_of(ALIGN)
}

/// The first block of the file: what never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SuperBlock {
    pub(crate) id: QueueId,
    pub(crate) capacity: u64,
    pub(crate) page_bytes: u32,
}

impl SuperBlock {
    pub(crate) fn encode(&self) -> [u8; SUPER_BYTES] {
        let mut block = [0; SUPER_BYTES];
        block[..8].copy_from_slice(&MAGIC);
        block[8..12].copy_from_slice(&VERSION.to_le_bytes());
        block[12..16].copy_from_slice(&self.page_bytes.to_le_bytes());
        block[16..32].copy_from_slice(&self.id.get().to_le_bytes());
        block[32..40].copy_from_slice(&self.capacity.to_le_bytes());
        let crc = crc::checksum(&block[..SUPER_BYTES - 4]);
        block[SUPER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// Decodes, or says what stands there instead. `block` holds at least [`SUPER_BYTES`].
    pub(crate) fn decode(block: &[u8]) -> Result<Self, String> {
        if block[..8] != MAGIC {
            return Err("not a forebay queue: the magic number is another".into());
        }
        let version = u32_at(block, 8);
        if version == VERSION.swap_bytes() {
            return Err("written in another byte order".into());
        }
        if version != VERSION {
            return Err(format!("format version {version}, this program reads {VERSION}"));
        }
        if crc::checksum(&block[..SUPER_BYTES - 4]) != u32_at(block, SUPER_BYTES - 4) {
            return Err("the super-block's checksum does not match".into());
        }
        let page_bytes = u32_at(block, 12);
        let capacity = u64_at(block, 32);
        let id = u128::from(u64_at(block, 16)) | u128::from(u64_at(block, 24)) << 64;
        let sound = page_bytes.is_power_of_two()
            && page_bytes as usize >= SLOT_BYTES
            && capacity.is_multiple_of(u64::from(page_bytes))
            && (1..=CAPACITY_BYTES_MAX).contains(&capacity);
        if !sound {
            return Err(format!("impossible sizes: page {page_bytes}, capacity {capacity}"));
        }
        Ok(SuperBlock { id: QueueId::from_u128(id), capacity, page_bytes })
    }

    /// Bytes of the whole file.
    pub(crate) fn file_bytes(&self) -> u64 {
        LEAD_PAGES * u64::from(self.page_bytes) + self.capacity
    }
}

/// Where things are in the file, and the queue's part of every head's checksum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) capacity: u64,
    pub(crate) page_bytes: u64,
    /// Capacity less one where that is a mask, else zero.
    mask: u64,
    /// State of the head checksum after the queue id.
    seed: u32,
}

impl Geometry {
    pub(crate) fn new(block: &SuperBlock) -> Self {
        let mask = if block.capacity.is_power_of_two() { block.capacity - 1 } else { 0 };
        let seed = crc::update(crc::START, &block.id.get().to_le_bytes());
        let page_bytes = u64::from(block.page_bytes);
        Geometry { capacity: block.capacity, page_bytes, mask, seed }
    }

    /// Where in the ring a position lies.
    #[inline]
    fn within(&self, position: u64) -> u64 {
        if self.mask != 0 { position & self.mask } else { position % self.capacity }
    }

    /// Where in the file a position lies.
    #[inline]
    pub(crate) fn offset(&self, position: u64) -> usize {
        (LEAD_PAGES * self.page_bytes + self.within(position)) as usize
    }

    /// Bytes from a position to the end of its lap.
    #[inline]
    pub(crate) fn rest(&self, position: u64) -> u64 {
        self.capacity - self.within(position)
    }

    /// Where in the file a slot lies.
    pub(crate) fn slot_offset(&self, slot: usize) -> usize {
        (1 + slot) * self.page_bytes as usize
    }

    /// The one or two pieces, offset and length, that `from..to` lies in; at most one lap.
    pub(crate) fn pieces(&self, from: u64, to: u64) -> [(usize, usize); 2] {
        let len = to - from;
        let first = len.min(self.rest(from));
        [(self.offset(from), first as usize), (self.offset(from + first), (len - first) as usize)]
    }

    /// How many bytes before the next record are skipped or padded, if it takes `bytes`.
    #[inline]
    pub(crate) fn skip(&self, position: u64, bytes: u64) -> u64 {
        let rest = self.rest(position);
        if bytes > rest { rest } else { 0 }
    }
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) len: u32,
    pub(crate) payload_crc: u32,
    pub(crate) seq: Seq,
    pub(crate) time_us: u64,
    flags: u32,
}

impl Head {
    /// An entry's head. `lag` is how far behind this record everything was durable when it was
    /// published: what lets recovery tell a damaged entry from a torn tail.
    #[inline]
    pub(crate) fn entry(len: u32, payload_crc: u32, seq: Seq, time_us: u64, lag: u64) -> Self {
        let lag = (lag / ALIGN).min(LAG_MAX) as u32;
        Head { len, payload_crc, seq, time_us, flags: KIND_ENTRY | lag << 8 }
    }

    /// A filler's head; `seq` is that of the entry behind it, `bytes` the filler's whole size.
    pub(crate) fn pad(bytes: u64, seq: Seq) -> Self {
        let len = (bytes - HEAD_BYTES) as u32;
        Head { len, payload_crc: 0, seq, time_us: 0, flags: KIND_PAD | (LAG_MAX as u32) << 8 }
    }

    /// The head that a repair puts over `bytes` of damage; `seq` is the last entry lost there.
    pub(crate) fn gap(bytes: u64, seq: Seq) -> Self {
        Head { flags: KIND_GAP | (LAG_MAX as u32) << 8, ..Self::pad(bytes, seq) }
    }

    #[inline]
    pub(crate) fn is_gap(&self) -> bool {
        self.flags & KIND_MASK == KIND_GAP
    }

    #[inline]
    pub(crate) fn is_entry(&self) -> bool {
        self.flags & KIND_MASK == KIND_ENTRY
    }

    /// Bytes of the record.
    #[inline]
    pub(crate) fn record_bytes(&self) -> u64 {
        record_bytes(u64::from(self.len))
    }

    /// How far behind `position` everything is known to be durable, if it is known.
    pub(crate) fn proven(&self, position: u64) -> Option<u64> {
        let lag = u64::from(self.flags >> 8);
        (lag != LAG_MAX).then(|| position.saturating_sub(lag * ALIGN))
    }

    #[inline(always)]
    fn crc(&self, geometry: &Geometry, position: u64) -> u32 {
        let words = [position, self.sizes(), self.seq.get(), self.time_us];
        crc::finish(crc::update_words(geometry.seed, words, self.flags))
    }

    /// By words, and in the caller: bytes that are put together piece by piece in memory keep the
    /// load that copies them from there waiting until all pieces have left the store buffer.
    #[inline(always)]
    pub(crate) fn encode(&self, geometry: &Geometry, position: u64) -> [u8; HEAD_BYTES as usize] {
        let words = [
            self.sizes(),
            self.seq.get(),
            self.time_us,
            u64::from(self.flags) | u64::from(self.crc(geometry, position)) << 32,
        ];
        let mut bytes = [0; HEAD_BYTES as usize];
        let (places, _) = bytes.as_chunks_mut();
        for (place, word) in places.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        bytes
    }

    /// The first word: length and checksum of the payload.
    #[inline]
    fn sizes(&self) -> u64 {
        u64::from(self.len) | u64::from(self.payload_crc) << 32
    }

    /// Decodes the head at `position`; `None` if none was written for this very position of this
    /// very queue, or if its record would leave the lap.
    #[inline(always)]
    pub(crate) fn decode(bytes: &[u8], geometry: &Geometry, position: u64) -> Option<Self> {
        let bytes: &[u8; HEAD_BYTES as usize] = bytes.first_chunk()?;
        let head = Head {
            len: u32_at(bytes, 0),
            payload_crc: u32_at(bytes, 4),
            seq: Seq::from_u64(u64_at(bytes, 8)),
            time_us: u64_at(bytes, 16),
            flags: u32_at(bytes, 24),
        };
        // Cheap refusals first: a search for the next head comes here at every eighth byte.
        let rest = geometry.rest(position);
        let fits = match head.flags & KIND_MASK {
            KIND_ENTRY | KIND_GAP => head.record_bytes() <= rest,
            KIND_PAD => head.record_bytes() == rest,
            _ => false,
        };
        let named = head.seq.counter() != 0;
        (fits && named && head.crc(geometry, position) == u32_at(bytes, 28)).then_some(head)
    }

    /// [`decode`](Self::decode) without the checksum, for the planted fault.
    pub(crate) fn decode_unchecked(
        bytes: &[u8],
        geometry: &Geometry,
        position: u64,
    ) -> Option<Self> {
        let mut bytes: [u8; HEAD_BYTES as usize] = *bytes.first_chunk()?;
        let head = Head {
            len: u32_at(&bytes, 0),
            payload_crc: u32_at(&bytes, 4),
            seq: Seq::from_u64(u64_at(&bytes, 8)),
            time_us: u64_at(&bytes, 16),
            flags: u32_at(&bytes, 24),
        };
        bytes[28..].copy_from_slice(&head.crc(geometry, position).to_le_bytes());
        Self::decode(&bytes, geometry, position)
    }
}

/// A boundary between records: a position, and the seq of the entry before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) position: u64,
    pub(crate) seq: Seq,
}

/// A named reader as a checkpoint knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) cursor: Mark,
    pub(crate) note: Vec<u8>,
}

/// A checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) generation: u64,
    /// The oldest retained boundary: below it space may be reused.
    pub(crate) head: Mark,
    /// Everything below is on the medium.
    pub(crate) durable: Mark,
    /// Everything below was appended.
    pub(crate) tail: Mark,
    pub(crate) epoch: u32,
    /// Where the epoch began: records from here on are of this epoch or a later one.
    pub(crate) epoch_position: u64,
    /// Whether entries were promised once appended, so that `tail` counts as `durable` does.
    pub(crate) process: bool,
    pub(crate) readers: Vec<Row>,
}

impl Slot {
    /// Below this boundary damage is corruption, not an unfinished tail.
    pub(crate) fn promised(&self) -> Mark {
        if self.process { self.tail } else { self.durable }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; SLOT_BYTES];
        let mut put =
            |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(0, SLOT_MAGIC);
        put(8, self.generation);
        put(16, self.head.position);
        put(24, self.head.seq.get());
        put(32, self.durable.position);
        put(40, self.durable.seq.get());
        put(48, self.tail.position);
        put(56, self.tail.seq.get());
        put(64, self.epoch_position);
        let counts = (self.readers.len() as u64) << 32 | u64::from(self.process) << 48;
        put(72, u64::from(self.epoch) | counts);
        for (row, reader) in self.readers.iter().enumerate() {
            let at = SLOT_HEAD_BYTES + row * READER_BYTES;
            put(at, reader.cursor.position);
            put(at + 8, reader.cursor.seq.get());
            put(at + 16, reader.name.len() as u64 | (reader.note.len() as u64) << 8);
        }
        for (row, reader) in self.readers.iter().enumerate() {
            let name = SLOT_HEAD_BYTES + row * READER_BYTES + 24;
            bytes[name..name + reader.name.len()].copy_from_slice(reader.name.as_bytes());
            let note = name + NAME_BYTES_MAX;
            bytes[note..note + reader.note.len()].copy_from_slice(&reader.note);
        }
        let crc = crc::checksum(&bytes[..SLOT_BYTES - 4]);
        bytes[SLOT_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Decodes a slot; `None` if it is half written, damaged, or contradicts itself.
    pub(crate) fn decode(bytes: &[u8], capacity: u64) -> Option<Self> {
        let sound = bytes.len() >= SLOT_BYTES
            && u64_at(bytes, 0) == SLOT_MAGIC
            && crc::checksum(&bytes[..SLOT_BYTES - 4]) == u32_at(bytes, SLOT_BYTES - 4);
        if !sound {
            return None;
        }
        let mark =
            |at| Mark { position: u64_at(bytes, at), seq: Seq::from_u64(u64_at(bytes, at + 8)) };
        let count = usize::from(u16_at(bytes, 76));
        let mut readers = Vec::new();
        for row in 0..count.min(READERS_MAX) {
            let at = SLOT_HEAD_BYTES + row * READER_BYTES;
            let (name, note) = (usize::from(bytes[at + 16]), usize::from(bytes[at + 17]));
            let text = bytes.get(at + 24..at + 24 + name.min(NAME_BYTES_MAX))?;
            let note_at = at + 24 + NAME_BYTES_MAX;
            readers.push(Row {
                name: std::str::from_utf8(text).ok()?.to_owned(),
                cursor: mark(at),
                note: bytes[note_at..note_at + note.min(NOTE_BYTES_MAX)].to_vec(),
            });
        }
        let slot = Slot {
            generation: u64_at(bytes, 8),
            head: mark(16),
            durable: mark(32),
            tail: mark(48),
            epoch_position: u64_at(bytes, 64),
            epoch: u32_at(bytes, 72),
            process: u16_at(bytes, 78) & 1 == 1,
            readers,
        };
        slot.is_sound(capacity).then_some(slot)
    }

    /// Whether the positions are in order and aligned. A checksum that matches over nonsense is a
    /// forgery or a bug; either way it must not steer a scan.
    fn is_sound(&self, capacity: u64) -> bool {
        let ordered = |mark: &Mark| {
            mark.position.is_multiple_of(ALIGN)
                && mark.position >= self.head.position
                && mark.position <= self.tail.position
        };
        self.head.position <= self.tail.position
            && self.tail.position - self.head.position <= capacity
            && self.tail.position < 1 << 62
            && self.head.position.is_multiple_of(ALIGN)
            && ordered(&self.durable)
            && ordered(&self.tail)
            && self.epoch_position <= self.tail.position
            && self.epoch <= Seq::EPOCH_MAX
            && self.readers.iter().all(|reader| ordered(&reader.cursor))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
