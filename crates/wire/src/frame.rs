//! The frame that every message between tiers is: a header of 64 bytes and a body.
//!
//! One layout serves uplink, feed and fetch; the kind says what the fields mean (docs/protocol.md,
//! "Frames between tiers"). All numbers are little-endian. A frame is refused, with the reason,
//! before anything is allocated for it. The first 32 bytes (magic, version, kind, round, queue,
//! session) and the form of REFUSE keep their place in every version, so that peers of different
//! versions can tell each other so.
//!
//! Not here: packed records ([`crate::records`]), what a kind means ([`crate::uplink`],
//! [`crate::feed`]).

use bytes::Bytes;

use crate::{QueueId, Seq};

/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"FBY1";
/// Version this package writes. 1: the first.
pub const VERSION: u8 = 1;
/// Oldest version this package reads.
pub const VERSION_MIN: u8 = 1;
/// Length of the header, in bytes.
pub const HEADER_BYTES: usize = 64;
/// Length at which a batch closes, in bytes with its header: large enough that the cost of a
/// message between sockets vanishes, small enough to share a connection fairly.
pub const FRAME_BYTES_TARGET: usize = 64 * 1024;
/// Longest body that is read, in bytes: a batch holds at least one record, however long, and an
/// entry is bounded by the limits of a message far below this.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

const HEADER_CRC_AT: usize = 60;

/// What a frame is. The numbers are those on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A source opens a session on the uplink.
    Hello = 1,
    /// The receiver's answer: from where to go on.
    Welcome = 2,
    /// Records of one epoch.
    Batch = 3,
    /// All up to a number are durable here.
    Ack = 4,
    /// Go back: something is missing, or there is no room.
    Nack = 5,
    /// Are you there, and have you got all up to this?
    Ping = 6,
    /// Yes.
    Pong = 7,
    /// No, and why.
    Refuse = 8,
    /// Published records.
    Data = 16,
    /// The highest number published.
    Head = 17,
    /// Send what comes after a number.
    Fetch = 32,
    /// Fetched records.
    Records = 33,
    /// The end of what one fetch gets.
    End = 34,
    /// A consumer asks for its state, or claims a session.
    Open = 35,
    /// A consumer says which range it is about to write.
    Prepare = 36,
    /// A consumer has all up to a number safe.
    Commit = 37,
    /// The answer to the three before.
    Answer = 38,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Welcome,
            3 => Self::Batch,
            4 => Self::Ack,
            5 => Self::Nack,
            6 => Self::Ping,
            7 => Self::Pong,
            8 => Self::Refuse,
            16 => Self::Data,
            17 => Self::Head,
            32 => Self::Fetch,
            33 => Self::Records,
            34 => Self::End,
            35 => Self::Open,
            36 => Self::Prepare,
            37 => Self::Commit,
            38 => Self::Answer,
            _ => return None,
        })
    }
}

/// The fields of a header; lengths and checksums are made when it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// How often the sender has gone back within its session; 0 where that has no meaning.
    pub round: u16,
    /// The queue it speaks of.
    pub queue: QueueId,
    /// Drawn or granted when the session was opened.
    pub session: u64,
    /// The number before the first one carried.
    pub prev: Seq,
    /// The first number carried.
    pub base: Seq,
    /// Records carried, or bytes of credit.
    pub count: u32,
}

impl Header {
    /// Writes a whole frame: this header and `body`.
    ///
    /// # Panics
    /// If `body` is longer than [`BODY_BYTES_MAX`]: bounded by every caller.
    #[must_use]
    pub fn encode(&self, body: &[u8]) -> Bytes {
        let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
        frame.resize(HEADER_BYTES, 0);
        frame.extend_from_slice(body);
        self.seal(&mut frame);
        Bytes::from(frame)
    }

    /// Writes this header into the first 64 bytes of `frame`, over the body that follows them.
    ///
    /// # Panics
    /// If `frame` is shorter than a header or its body longer than [`BODY_BYTES_MAX`].
    pub(crate) fn seal(&self, frame: &mut [u8]) {
        let body_len = frame.len() - HEADER_BYTES;
        assert!(body_len <= BODY_BYTES_MAX, "body of {body_len} bytes is above the limit");
        let (head, body) = frame.split_at_mut(HEADER_BYTES);
        head[0..4].copy_from_slice(&MAGIC);
        head[4] = VERSION;
        head[5] = self.kind as u8;
        head[6..8].copy_from_slice(&self.round.to_le_bytes());
        head[8..24].copy_from_slice(&self.queue.to_bytes());
        head[24..32].copy_from_slice(&self.session.to_le_bytes());
        head[32..40].copy_from_slice(&self.prev.get().to_le_bytes());
        head[40..48].copy_from_slice(&self.base.get().to_le_bytes());
        head[48..52].copy_from_slice(&self.count.to_le_bytes());
        head[52..56].copy_from_slice(&(body_len as u32).to_le_bytes());
        head[56..60].copy_from_slice(&crc32c(body).to_le_bytes());
        let crc = crc32c(&head[..HEADER_CRC_AT]);
        head[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    }
}

/// A frame that was read: header and body both checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// Its body, of the length and checksum the header names.
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads one frame that fills `bytes` exactly.
    ///
    /// # Errors
    /// [`FrameError`] says what is wrong; [`FrameError::Version`] deserves an answer
    /// ([`origin`] tells whose frame it is), the others are damage or a stranger.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let Some((head, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(FrameError::Short { bytes: bytes.len() });
        };
        if head[0..4] != MAGIC {
            return Err(FrameError::Magic);
        }
        let version = head[4];
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return Err(FrameError::Version { version });
        }
        if u32_at(head, HEADER_CRC_AT) != crc32c(&head[..HEADER_CRC_AT]) {
            return Err(FrameError::HeaderChecksum);
        }
        let kind = Kind::from_byte(head[5]).ok_or(FrameError::Kind { kind: head[5] })?;
        let named = u32_at(head, 52) as usize;
        if named > BODY_BYTES_MAX {
            return Err(FrameError::Large { bytes: named });
        }
        if named != body.len() {
            return Err(FrameError::Length { named, found: body.len() });
        }
        if u32_at(head, 56) != crc32c(body) {
            return Err(FrameError::BodyChecksum);
        }
        let header = Header {
            kind,
            round: u16::from_le_bytes([head[6], head[7]]),
            queue: QueueId::from_bytes(array_at(head, 8)),
            session: u64_at(head, 24),
            prev: Seq::new(u64_at(head, 32)),
            base: Seq::new(u64_at(head, 40)),
            count: u32_at(head, 48),
        };
        Ok(Self { header, body })
    }
}

/// Queue and session of a frame of any version, to address a refusal; `None` if it is no frame.
#[must_use]
pub fn origin(bytes: &[u8]) -> Option<(QueueId, u64)> {
    let head = bytes.first_chunk::<HEADER_BYTES>()?;
    (head[0..4] == MAGIC).then(|| (QueueId::from_bytes(array_at(head, 8)), u64_at(head, 24)))
}

/// Why bytes are no frame, or not one this version reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Shorter than a header.
    #[error("a frame has at least {HEADER_BYTES} bytes, found {bytes}")]
    Short {
        /// Bytes found.
        bytes: usize,
    },
    /// Not ours.
    #[error("no frame of this protocol")]
    Magic,
    /// Another version's.
    #[error("version {version} is not among {VERSION_MIN} to {VERSION}")]
    Version {
        /// Version found.
        version: u8,
    },
    /// Damaged header.
    #[error("header checksum does not match")]
    HeaderChecksum,
    /// A kind this version does not know.
    #[error("unknown kind {kind}")]
    Kind {
        /// Kind found.
        kind: u8,
    },
    /// A body above the limit.
    #[error("a body has at most {BODY_BYTES_MAX} bytes, the header names {bytes}")]
    Large {
        /// Bytes named.
        bytes: usize,
    },
    /// Cut off, or more than it says.
    #[error("the header names {named} bytes of body, found {found}")]
    Length {
        /// Bytes named in the header.
        named: usize,
        /// Bytes that follow it.
        found: usize,
    },
    /// Damaged body.
    #[error("body checksum does not match")]
    BodyChecksum,
    /// The records do not fill the body, or their numbers are impossible.
    #[error("malformed records: {reason}")]
    Records {
        /// What is wrong with them.
        reason: &'static str,
    },
    /// A body that is not what its kind has.
    #[error("malformed {kind:?} body: {reason}")]
    Body {
        /// Kind of the frame.
        kind: Kind,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A kind that does not belong on this connection.
    #[error("{kind:?} does not belong here")]
    Unexpected {
        /// Kind of the frame.
        kind: Kind,
    },
}

/// CRC-32C (Castagnoli), as in iSCSI.
#[must_use]
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}
