//! The uplink: what a front and a middle say to each other.
//!
//! A source (one queue of a front) opens a session with [`Hello`]; the receiver answers
//! [`Welcome`] with the number up to which it has everything durable, and the source goes on
//! above it. [`Batch`] names the number before its first record, so that a gap is seen at once;
//! [`Ack`] is cumulative and durable; [`Nack`] sends the source back. [`Ping`] names the last
//! number sent: it finds a lost tail as well as a dead peer. [`Refuse`] says why not.
//!
//! Byte tables and vectors: docs/protocol.md, "Uplink". When to send what: `forebay-link`.

use bytes::Bytes;

use crate::frame::{Frame, FrameError, Header, Kind, VERSION, VERSION_MIN, u32_at, u64_at};
use crate::records::Records;
use crate::{QueueId, Seq};

/// Longest reason in a [`Refuse`], in bytes.
pub const REASON_BYTES_MAX: usize = 200;

/// How much an ack promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// It survives the process.
    Process = 1,
    /// It survives the machine.
    Disk = 2,
}

impl Level {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Process),
            2 => Some(Self::Disk),
            _ => None,
        }
    }

    /// Its name in configuration, logs and refusals.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Disk => "disk",
        }
    }
}

/// A source opens a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The source's queue.
    pub queue: QueueId,
    /// Drawn at random for this session.
    pub session: u64,
    /// The last number the source has committed; [`Seq::ZERO`] if it knows of none. Everything up
    /// to it was acked by a receiver once and may be gone from the source.
    pub committed: Seq,
    /// The first number it can still send; equal to `next` if it has nothing to send.
    pub oldest: Seq,
    /// The number its next append will get.
    pub next: Seq,
    /// Lowest level of ack it accepts.
    pub level: Level,
    /// Hash of the partition map it was configured with; both ends must agree.
    pub partitions: u64,
}

/// Welcome and ack share their fields: where the receiver stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The source's queue.
    pub queue: QueueId,
    /// The session it answers.
    pub session: u64,
    /// Everything of the source up to here is durable; [`Seq::ZERO`] for nothing.
    pub durable: Seq,
    /// Bytes the source may have sent and unacked; 0 says wait.
    pub credit: u32,
}

/// The receiver's answer to [`Hello`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// Where the receiver stands.
    pub standing: Standing,
    /// The level its acks have.
    pub level: Level,
}

/// Records of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch<'a> {
    /// The source's queue.
    pub queue: QueueId,
    /// The session it belongs to.
    pub session: u64,
    /// How often the source has gone back within the session.
    pub round: u16,
    /// The number before the first record: the last one the source has sent or seen acked.
    pub prev: Seq,
    /// The records.
    pub records: Records<'a>,
}

/// All up to a number are durable.
pub type Ack = Standing;

/// Why a source must go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum NackCode {
    /// Something before the batch, or before the ping, is missing here.
    Gap = 1,
    /// No room: wait for credit.
    Full = 2,
}

/// Go back to the first number above `standing.durable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nack {
    /// Where the receiver stands.
    pub standing: Standing,
    /// The round it answers; one of an earlier round is stale.
    pub round: u16,
    /// Why.
    pub code: NackCode,
    /// When to try again at the earliest, in milliseconds; 0 for at once.
    pub retry_ms: u32,
}

/// Asks for a sign of life, and whether everything up to `sent` has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// The queue spoken of.
    pub queue: QueueId,
    /// The session it belongs to.
    pub session: u64,
    /// How often the source has gone back within the session.
    pub round: u16,
    /// The last number sent.
    pub sent: Seq,
}

/// The answer to [`Ping`].
pub type Pong = Standing;

/// Why a peer is refused. Numbers above those known are read as [`RefuseCode::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum RefuseCode {
    /// A reason this version has no number for; the text says it.
    Other = 0,
    /// No common version; the refusal names those understood.
    Version = 1,
    /// The partition maps differ.
    Partitions = 2,
    /// The receiver's acks promise less than the source requires.
    Level = 3,
    /// The session is not, or no longer, open: say hello again.
    Session = 4,
    /// The frame makes no sense.
    Malformed = 5,
    /// The consumer is not one of those configured.
    Consumer = 6,
    /// A newer session of the same consumer exists: stop.
    Fenced = 7,
}

impl RefuseCode {
    fn from_number(number: u16) -> Self {
        match number {
            1 => Self::Version,
            2 => Self::Partitions,
            3 => Self::Level,
            4 => Self::Session,
            5 => Self::Malformed,
            6 => Self::Consumer,
            7 => Self::Fenced,
            _ => Self::Other,
        }
    }
}

/// No, and why. Its form is the same in every version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refuse<'a> {
    /// The queue spoken of.
    pub queue: QueueId,
    /// The session it answers.
    pub session: u64,
    /// Why, for the program.
    pub code: RefuseCode,
    /// Oldest and newest version understood.
    pub versions: (u8, u8),
    /// When to try again at the earliest, in milliseconds.
    pub retry_ms: u32,
    /// Why, for the reader of a log.
    pub reason: &'a str,
}

/// A frame of the uplink, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uplink<'a> {
    /// Opens a session.
    Hello(Hello),
    /// Answers it.
    Welcome(Welcome),
    /// Records.
    Batch(Batch<'a>),
    /// Durable up to.
    Ack(Ack),
    /// Go back.
    Nack(Nack),
    /// Are you there?
    Ping(Ping),
    /// Yes.
    Pong(Pong),
    /// No.
    Refuse(Refuse<'a>),
}

impl<'a> Uplink<'a> {
    /// Reads one whole frame.
    ///
    /// # Errors
    /// [`FrameError`]; nothing was allocated.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        Self::of(&Frame::decode(bytes)?)
    }

    /// Reads a frame whose header and checksums are checked.
    ///
    /// # Errors
    /// [`FrameError`] if the kind is not of the uplink, or the body is not the kind's.
    pub fn of(frame: &Frame<'a>) -> Result<Self, FrameError> {
        let head = &frame.header;
        let malformed = |reason| FrameError::Body { kind: head.kind, reason };
        let exactly = |bytes: usize| {
            if frame.body.len() == bytes { Ok(()) } else { Err(malformed("wrong length")) }
        };
        let standing = || Standing {
            queue: head.queue,
            session: head.session,
            durable: head.prev,
            credit: head.count,
        };
        let level = |byte| Level::from_byte(byte).ok_or(malformed("unknown level"));
        Ok(match head.kind {
            Kind::Hello => {
                exactly(24)?;
                Self::Hello(Hello {
                    queue: head.queue,
                    session: head.session,
                    committed: head.prev,
                    oldest: head.base,
                    next: Seq::new(u64_at(frame.body, 8)),
                    level: level(frame.body[0])?,
                    partitions: u64_at(frame.body, 16),
                })
            }
            Kind::Welcome => {
                exactly(8)?;
                Self::Welcome(Welcome { standing: standing(), level: level(frame.body[0])? })
            }
            Kind::Batch => Self::Batch(Batch {
                queue: head.queue,
                session: head.session,
                round: head.round,
                prev: head.prev,
                records: {
                    if head.prev >= head.base {
                        return Err(malformed("prev is not before the first record"));
                    }
                    Records::of(frame)?
                },
            }),
            Kind::Ack => {
                exactly(0)?;
                Self::Ack(standing())
            }
            Kind::Nack => {
                exactly(8)?;
                let code = match frame.body[0] {
                    1 => NackCode::Gap,
                    2 => NackCode::Full,
                    _ => return Err(malformed("unknown code")),
                };
                let retry_ms = u32_at(frame.body, 4);
                Self::Nack(Nack { standing: standing(), round: head.round, code, retry_ms })
            }
            Kind::Ping => {
                exactly(0)?;
                Self::Ping(Ping {
                    queue: head.queue,
                    session: head.session,
                    round: head.round,
                    sent: head.prev,
                })
            }
            Kind::Pong => {
                exactly(0)?;
                Self::Pong(standing())
            }
            Kind::Refuse => Self::Refuse(Refuse::of(frame)?),
            kind => return Err(FrameError::Unexpected { kind }),
        })
    }
}

impl Hello {
    /// Writes the frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut body = [0; 24];
        body[0] = self.level as u8;
        body[8..16].copy_from_slice(&self.next.get().to_le_bytes());
        body[16..24].copy_from_slice(&self.partitions.to_le_bytes());
        control(Kind::Hello, 0, self.queue, self.session, self.committed, self.oldest, 0)
            .encode(&body)
    }
}

impl Welcome {
    /// Writes the frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.standing.header(Kind::Welcome, 0).encode(&[self.level as u8, 0, 0, 0, 0, 0, 0, 0])
    }
}

impl Standing {
    fn header(&self, kind: Kind, round: u16) -> Header {
        control(kind, round, self.queue, self.session, self.durable, Seq::ZERO, self.credit)
    }

    /// Writes it as an ack.
    #[must_use]
    pub fn encode_ack(&self) -> Bytes {
        self.header(Kind::Ack, 0).encode(&[])
    }

    /// Writes it as a pong.
    #[must_use]
    pub fn encode_pong(&self) -> Bytes {
        self.header(Kind::Pong, 0).encode(&[])
    }
}

impl Nack {
    /// Writes the frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut body = [0; 8];
        body[0] = self.code as u8;
        body[4..8].copy_from_slice(&self.retry_ms.to_le_bytes());
        self.standing.header(Kind::Nack, self.round).encode(&body)
    }
}

impl Ping {
    /// Writes the frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        control(Kind::Ping, self.round, self.queue, self.session, self.sent, Seq::ZERO, 0)
            .encode(&[])
    }
}

impl<'a> Refuse<'a> {
    /// A refusal with this package's versions.
    #[must_use]
    pub fn new(queue: QueueId, session: u64, code: RefuseCode, reason: &'a str) -> Self {
        Self { queue, session, code, versions: (VERSION_MIN, VERSION), retry_ms: 0, reason }
    }

    /// Writes the frame; a reason longer than [`REASON_BYTES_MAX`] is cut.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut cut = self.reason.len().min(REASON_BYTES_MAX);
        while !self.reason.is_char_boundary(cut) {
            cut -= 1;
        }
        let mut body = Vec::with_capacity(8 + cut);
        body.extend_from_slice(&(self.code as u16).to_le_bytes());
        body.extend_from_slice(&[self.versions.0, self.versions.1]);
        body.extend_from_slice(&self.retry_ms.to_le_bytes());
        body.extend_from_slice(&self.reason.as_bytes()[..cut]);
        control(Kind::Refuse, 0, self.queue, self.session, Seq::ZERO, Seq::ZERO, 0).encode(&body)
    }

    pub(crate) fn of(frame: &Frame<'a>) -> Result<Self, FrameError> {
        let malformed = |reason| FrameError::Body { kind: Kind::Refuse, reason };
        let Some((head, reason)) = frame.body.split_first_chunk::<8>() else {
            return Err(malformed("wrong length"));
        };
        if reason.len() > REASON_BYTES_MAX {
            return Err(malformed("reason too long"));
        }
        Ok(Self {
            queue: frame.header.queue,
            session: frame.header.session,
            code: RefuseCode::from_number(u16::from_le_bytes([head[0], head[1]])),
            versions: (head[2], head[3]),
            retry_ms: u32_at(head, 4),
            reason: std::str::from_utf8(reason).map_err(|_| malformed("reason is not UTF-8"))?,
        })
    }
}

pub(crate) fn control(
    kind: Kind,
    round: u16,
    queue: QueueId,
    session: u64,
    prev: Seq,
    base: Seq,
    count: u32,
) -> Header {
    Header { kind, round, queue, session, prev, base, count }
}
