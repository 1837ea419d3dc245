//! The bytes of a dedup snapshot, little-endian; no I/O here.
//!
//! ```text
//! offset 0      header, 88 bytes, the rest of its 4 KiB page zero
//!   0  magic            u64   "FBDEDUP1"
//!   8  version          u32   1
//!  12  chunks           u32   how many follow the header's page
//!  16  log              u128  queue id of the log that it speaks of
//!  32  generation       u64   one more at each snapshot; the higher of two slots is the newer
//!  40  position         u64   every log entry up to this Seq is covered
//!  48  body_bytes       u64   length of all chunks
//!  56  sessions         u64   rows in all chunks
//!  64  sources          u64   front queues in all chunks
//!  72  running_seconds  u32   how long this middle has run
//!  76  reserved         u64
//!  84  crc              u32   CRC-32C of bytes 0..84
//! offset 4096   chunks, one after the other
//!   0  payload_bytes    u32
//!   4  crc              u32   CRC-32C of (generation, index of the chunk, payload)
//!   8  payload
//! ```
//! A payload is a kind in one byte, a count in four, and that many items: (1) sources of queue id
//! u128, position u64, seen u32; (2) sessions of tenant length u8, device length u8, tenant, device,
//! session varint, seen u32, number of ranges varint, and each range as its distance from the end
//! of the one before (or from 0) and its count, both varint.
//!
//! The generation in each chunk's CRC makes a chunk of an overwritten snapshot invalid in its place.
//! Any bytes are safe to decode. History: 1, the first.

use crc_fast::{CrcAlgorithm, Digest};
use forebay_model::{DeviceId, SAFE_INTEGER_MAX, TenantId};

use super::varint;
use crate::dedup::{
    Key, Row, RunningTime,
    ranges::{RANGES_MAX, Range, Ranges},
    sources::Source,
};

/// Where the chunks begin: the header has a page of its own, so that one write never tears both.
pub const BODY_OFFSET: u64 = 4096;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 88;
/// Bytes in front of each chunk's payload.
pub const CHUNK_HEADER_BYTES: usize = 8;

const MAGIC: u64 = u64::from_le_bytes(*b"FBDEDUP1");
const VERSION: u32 = 1;
const CRC_OFFSET: usize = HEADER_BYTES - 4;
const KIND_SOURCES: u8 = 1;
const KIND_SESSIONS: u8 = 2;
const PAYLOAD_HEAD_BYTES: usize = 5;

/// Why bytes are not a snapshot, or not a whole one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// The header is not there: an empty slot, or a torn one.
    #[error("no snapshot header: {0}")]
    Header(&'static str),
    /// Written by a later version of this program.
    #[error("snapshot version {0} is not known to this program (it knows {VERSION})")]
    Version(u32),
    /// A chunk is torn, corrupt, or missing.
    #[error("chunk {index} of the snapshot: {what}")]
    Chunk {
        /// Which one, from 0.
        index: u32,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A snapshot's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Chunks in the body.
    pub chunks: u32,
    /// The log that it speaks of.
    pub log: u128,
    /// Its number.
    pub generation: u64,
    /// Every log entry up to this Seq is covered.
    pub position: u64,
    /// Length of the body.
    pub body_bytes: u64,
    /// Sessions in the body.
    pub sessions: u64,
    /// Front queues in the body.
    pub sources: u64,
    /// How long the middle had run.
    pub running: RunningTime,
}

/// One thing that a chunk tells.
#[derive(Debug)]
pub enum Item {
    /// A front's queue and its position.
    Source(u128, Source),
    /// A session and its stored numbers.
    Session(Row),
}

impl Header {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.chunks.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.log.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.generation.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.position.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.sessions.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.sources.to_le_bytes());
        bytes[72..76].copy_from_slice(&self.running.0.to_le_bytes());
        let crc = crc32c(&[&bytes[..CRC_OFFSET]]);
        bytes[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`Bad::Header`]: there is none, the slot is empty or torn. [`Bad::Version`]: stop.
    pub fn decode(bytes: &[u8]) -> Result<Self, Bad> {
        let mut at = Cursor { bytes };
        let short = Bad::Header("too short");
        if at.u64().ok_or(short)? != MAGIC {
            return Err(Bad::Header("wrong magic number"));
        }
        let version = at.u32().ok_or(short)?;
        let stored_crc = bytes.get(CRC_OFFSET..HEADER_BYTES).ok_or(short)?;
        if crc32c(&[&bytes[..CRC_OFFSET]]).to_le_bytes() != stored_crc {
            return Err(Bad::Header("wrong checksum"));
        }
        if version != VERSION {
            return Err(Bad::Version(version));
        }
        let header = (|| {
            Some(Self {
                chunks: at.u32()?,
                log: at.u128()?,
                generation: at.u64()?,
                position: at.u64()?,
                body_bytes: at.u64()?,
                sessions: at.u64()?,
                sources: at.u64()?,
                running: RunningTime(at.u32()?),
            })
        })();
        header.ok_or(short)
    }
}

/// One chunk under construction. Its buffer is reused.
#[derive(Debug)]
pub struct Chunk {
    bytes: Vec<u8>,
    count: u32,
    kind: u8,
}

impl Default for Chunk {
    fn default() -> Self {
        Self { bytes: Vec::new(), count: 0, kind: KIND_SESSIONS }
    }
}

impl Chunk {
    /// Adds a front queue's position. A chunk holds either these or sessions.
    pub fn push_source(&mut self, queue: u128, source: Source) {
        self.open(KIND_SOURCES);
        self.bytes.extend_from_slice(&queue.to_le_bytes());
        self.bytes.extend_from_slice(&source.position.to_le_bytes());
        self.bytes.extend_from_slice(&source.seen.0.to_le_bytes());
        self.count += 1;
    }

    /// Adds a session.
    pub fn push_session(&mut self, row: &Row) {
        self.open(KIND_SESSIONS);
        let (tenant, device) = (row.tenant(), row.device());
        self.bytes.push(u8::try_from(tenant.len()).expect("a tenant id has at most 64 bytes"));
        self.bytes.push(u8::try_from(device.len()).expect("a device id has at most 128 bytes"));
        self.bytes.extend_from_slice(tenant);
        self.bytes.extend_from_slice(device);
        varint::put(&mut self.bytes, row.session());
        self.bytes.extend_from_slice(&row.seen.0.to_le_bytes());
        varint::put(&mut self.bytes, row.stored.len() as u64);
        let mut end = 0;
        for range in row.stored.iter() {
            varint::put(&mut self.bytes, range.first - end);
            varint::put(&mut self.bytes, range.count());
            end = range.last;
        }
        self.count += 1;
    }

    /// How many items it holds.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How long it is by now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Completes it as chunk `index` of `generation`; the bytes as they go to the slot.
    ///
    /// # Panics
    /// A chunk of 4 GiB: the writer ends one at a few hundred KiB.
    pub fn finish(&mut self, generation: u64, index: u32) -> &[u8] {
        self.open(self.kind);
        let payload = &mut self.bytes[CHUNK_HEADER_BYTES..];
        payload[1..PAYLOAD_HEAD_BYTES].copy_from_slice(&self.count.to_le_bytes());
        let crc = chunk_crc(generation, index, payload);
        let length = u32::try_from(payload.len()).expect("a chunk is far below 4 GiB");
        self.bytes[0..4].copy_from_slice(&length.to_le_bytes());
        self.bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        &self.bytes
    }

    /// Empties it for the next one.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
    }

    fn open(&mut self, kind: u8) {
        if self.bytes.is_empty() {
            self.kind = kind;
            self.bytes.extend_from_slice(&[0; CHUNK_HEADER_BYTES]);
            self.bytes.extend_from_slice(&[kind, 0, 0, 0, 0]);
        }
        debug_assert_eq!(self.kind, kind, "a chunk holds items of one kind");
    }
}

/// The payload's length and checksum that a chunk begins with.
#[must_use]
pub fn chunk_header(bytes: [u8; CHUNK_HEADER_BYTES]) -> (u32, u32) {
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    (word(0), word(4))
}

/// Reads the payload of chunk `index` of `generation` and hands over what it tells.
///
/// Nothing is handed over unless the checksum holds. Allocates in proportion to `payload` only.
///
/// # Errors
/// [`Bad::Chunk`]: the slot is torn or corrupt from here on.
pub fn decode_chunk(
    generation: u64,
    index: u32,
    crc: u32,
    payload: &[u8],
    mut take: impl FnMut(Item),
) -> Result<(), Bad> {
    let bad = |what| Bad::Chunk { index, what };
    if chunk_crc(generation, index, payload) != crc {
        return Err(bad("wrong checksum"));
    }
    let mut at = Cursor { bytes: payload };
    let kind = at.u8().ok_or(bad("no kind"))?;
    let count = at.u32().ok_or(bad("no count"))?;
    for _ in 0..count {
        let item = match kind {
            KIND_SOURCES => at.source(),
            KIND_SESSIONS => at.session(),
            _ => return Err(bad("unknown kind")),
        };
        take(item.ok_or(bad("malformed item"))?);
    }
    if at.bytes.is_empty() { Ok(()) } else { Err(bad("bytes after the last item")) }
}

fn chunk_crc(generation: u64, index: u32, payload: &[u8]) -> u32 {
    crc32c(&[&generation.to_le_bytes(), &index.to_le_bytes(), payload])
}

fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize() as u32
}

/// Reads from the front of a slice; `None` where it is too short or the value impossible.
struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        let (value, rest) = varint::take(self.bytes)?;
        self.bytes = rest;
        Some(value)
    }

    fn source(&mut self) -> Option<Item> {
        let queue = self.u128()?;
        let (position, seen) = (self.u64()?, RunningTime(self.u32()?));
        Some(Item::Source(queue, Source { position, seen }))
    }

    fn session(&mut self) -> Option<Item> {
        let (tenant_bytes, device_bytes) = (self.u8()?, self.u8()?);
        let tenant = std::str::from_utf8(self.take(tenant_bytes.into())?).ok()?;
        let device = std::str::from_utf8(self.take(device_bytes.into())?).ok()?;
        TenantId::check(tenant).and(DeviceId::check(device)).ok()?;
        let session = self.varint().filter(|session| *session <= SAFE_INTEGER_MAX)?;
        let seen = RunningTime(self.u32()?);
        let ranges = self.varint().filter(|count| (1..=RANGES_MAX as u64).contains(count))?;
        let mut stored = Ranges::of(self.range(0, 1)?);
        let mut end = stored.last();
        for _ in 1..ranges {
            let range = self.range(end, 2)?;
            stored.insert(range);
            end = range.last;
        }
        Some(Item::Session(Row::new(Key { tenant, device, session }, seen, stored)))
    }

    /// A range that begins at least `distance_min` above `end` and stays within what JSON carries.
    fn range(&mut self, end: u64, distance_min: u64) -> Option<Range> {
        let distance = self.varint().filter(|distance| *distance >= distance_min)?;
        let count = self.varint().filter(|count| *count >= 1)?;
        let first = end.checked_add(distance)?;
        let last = first.checked_add(count - 1).filter(|last| *last <= SAFE_INTEGER_MAX)?;
        Some(Range { first, last })
    }
}
