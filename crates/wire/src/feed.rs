//! The feed: what a middle publishes, what a reader fetches, and how a consumer keeps its cursor.
//!
//! DATA and HEAD go out over PUB behind the topic frame [`TOPIC`]; everything else goes over the
//! fetch connection. DATA names the number before its first record, so that a reader sees a gap
//! and mends it with [`Fetch`]; HEAD, every 100 ms, shows a lost tail. A durable consumer opens a
//! session ([`Open`]), says which range it is about to write ([`Prepare`]) and what is safe
//! ([`Commit`]); each is answered by [`Answer`], or refused.
//!
//! Byte tables and vectors: docs/protocol.md, "Feed". When to send what: `forebay-link`.

mod stored;
mod tally;

use bytes::Bytes;

pub use stored::{STORED_PREFIX_BYTES, Stored, Uncounted};
pub use tally::{TALLY_BYTES, Tally};

use crate::frame::{Frame, FrameError, Header, Kind, u64_at};
use crate::records::Records;
use crate::uplink::{Ping, Pong, Refuse, Standing, control};
use crate::{QueueId, Seq};

/// First frame of every published message; what a subscriber subscribes to.
pub const TOPIC: &str = "forebay.feed.1";
/// Longest name of a consumer, in bytes.
pub const CONSUMER_BYTES_MAX: usize = 64;
/// Longest plan of a pending range, in bytes: what the consumer needs to write it again exactly.
pub const PLAN_BYTES_MAX: usize = 48;
/// Longest [`ConsumerState`] as a note, in bytes.
pub const NOTE_BYTES_MAX: usize = NOTE_FIXED_BYTES + PLAN_BYTES_MAX;

// Session, nonce, committed, whether something is pending, length of the plan, start, end.
const NOTE_FIXED_BYTES: usize = 3 * 8 + 2 + 2 * 8;

/// Records in the order of the middle's queue, published or fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data<'a> {
    /// The middle's queue.
    pub queue: QueueId,
    /// The publisher's run, or the session of the fetch.
    pub session: u64,
    /// The number before the first record.
    pub prev: Seq,
    /// The records.
    pub records: Records<'a>,
}

/// The highest number published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The middle's queue.
    pub queue: QueueId,
    /// The publisher's run.
    pub session: u64,
    /// The last durable number; [`Seq::ZERO`] if there is none.
    pub head: Seq,
}

/// Asks for the records above `after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// The queue expected; zero if any.
    pub queue: QueueId,
    /// Chosen by the reader, returned with each record.
    pub session: u64,
    /// The last number the reader has.
    pub after: Seq,
    /// Bytes the reader has room for; 0 asks for the head only.
    pub credit: u32,
}

/// No more records for this fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The middle's queue.
    pub queue: QueueId,
    /// The session of the fetch.
    pub session: u64,
    /// The `after` of the fetch.
    pub after: Seq,
    /// The last durable number of the queue.
    pub head: Seq,
    /// If the records directly above `after` are gone: the number after which there are some
    /// again. [`Seq::ZERO`] if nothing is gone.
    pub resume: Seq,
}

/// A range a consumer is about to write, or is writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its first number.
    pub start: Seq,
    /// Its last number.
    pub end: Seq,
    /// Whatever the consumer needs to write exactly the same again, at most [`PLAN_BYTES_MAX`].
    pub plan: Vec<u8>,
}

/// What the middle keeps of a durable consumer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsumerState {
    /// The newest session granted; older ones are fenced. 0 before the first.
    pub session: u64,
    /// What the holder of the session drew, so that a repeated claim is known as its own.
    pub nonce: u64,
    /// All up to here are safe at the consumer.
    pub committed: Seq,
    /// The range announced and not yet committed.
    pub pending: Option<Pending>,
    /// What the consumer has accounted for up to `committed`, if it keeps a tally. Not part of the
    /// note: the middle keeps it apart.
    pub tally: Option<Tally>,
}

/// Asks for a consumer's state (`session` 0), or claims a session: the number after the newest,
/// or once more the one already held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open<'a> {
    /// Repeated in the answer.
    pub request: u64,
    /// 0, or the session claimed.
    pub session: u64,
    /// Drawn at random once by each process.
    pub nonce: u64,
    /// The consumer's name.
    pub consumer: &'a str,
}

/// Announces a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepare<'a> {
    /// The queue whose numbers these are; refused if it is another one now.
    pub queue: QueueId,
    /// Repeated in the answer.
    pub request: u64,
    /// The session held.
    pub session: u64,
    /// First number of the range.
    pub start: Seq,
    /// Last number of the range.
    pub end: Seq,
    /// The plan, at most [`PLAN_BYTES_MAX`].
    pub plan: &'a [u8],
    /// The consumer's name.
    pub consumer: &'a str,
}

/// Says that all up to `upto` are safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit<'a> {
    /// The queue whose number this is; refused if it is another one now.
    pub queue: QueueId,
    /// Repeated in the answer.
    pub request: u64,
    /// The session held.
    pub session: u64,
    /// The last number that is safe.
    pub upto: Seq,
    /// What has become of all up to `upto`, if the consumer keeps a tally.
    pub tally: Option<Tally>,
    /// The consumer's name.
    pub consumer: &'a str,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// Done, and durable.
    Done = 0,
    /// The state asked for, nothing changed.
    State = 1,
    /// Another session is newer: stop.
    Fenced = 2,
    /// The consumer is not one of those configured.
    Unknown = 3,
    /// The range or number does not fit the consumer's state.
    Refused = 4,
}

/// The answer to [`Open`], [`Prepare`] and [`Commit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The middle's queue.
    pub queue: QueueId,
    /// The request it answers.
    pub request: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// The consumer's state after it.
    pub state: ConsumerState,
}

/// A frame of the feed or of the fetch connection, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Feed<'a> {
    /// Published records.
    Data(Data<'a>),
    /// The last number published.
    Head(Head),
    /// Asks for records.
    Fetch(Fetch),
    /// Fetched records.
    Records(Data<'a>),
    /// The end of a fetch.
    End(End),
    /// Asks for a consumer's state or claims it.
    Open(Open<'a>),
    /// Announces a range.
    Prepare(Prepare<'a>),
    /// Commits.
    Commit(Commit<'a>),
    /// Answers the three before.
    Answer(Answer),
    /// Are you there?
    Ping(Ping),
    /// Yes; its `durable` is the head of the queue.
    Pong(Pong),
    /// No.
    Refuse(Refuse<'a>),
}

impl<'a> Feed<'a> {
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
    /// [`FrameError`] if the kind is not of the feed, or the body is not the kind's.
    pub fn of(frame: &Frame<'a>) -> Result<Self, FrameError> {
        let (head, body) = (&frame.header, frame.body);
        let malformed = |reason| FrameError::Body { kind: head.kind, reason };
        let exactly = |bytes: usize| {
            if body.len() == bytes { Ok(()) } else { Err(malformed("wrong length")) }
        };
        let name = |bytes: &'a [u8]| {
            if bytes.is_empty() || bytes.len() > CONSUMER_BYTES_MAX {
                return Err(malformed("a consumer's name has 1 to 64 bytes"));
            }
            std::str::from_utf8(bytes).map_err(|_| malformed("the name is not UTF-8"))
        };
        let (queue, session) = (head.queue, head.session);
        Ok(match head.kind {
            Kind::Data | Kind::Records => {
                if head.prev >= head.base {
                    return Err(malformed("prev is not before the first record"));
                }
                let data = Data { queue, session, prev: head.prev, records: Records::of(frame)? };
                if head.kind == Kind::Data { Self::Data(data) } else { Self::Records(data) }
            }
            Kind::Head => {
                exactly(0)?;
                Self::Head(Head { queue, session, head: head.base })
            }
            Kind::Fetch => {
                exactly(0)?;
                Self::Fetch(Fetch { queue, session, after: head.prev, credit: head.count })
            }
            Kind::End => {
                exactly(8)?;
                let resume = Seq::new(u64_at(body, 0));
                Self::End(End { queue, session, after: head.prev, head: head.base, resume })
            }
            Kind::Open => {
                if body.len() < 8 {
                    return Err(malformed("wrong length"));
                }
                Self::Open(Open {
                    request: head.base.get(),
                    session,
                    nonce: u64_at(body, 0),
                    consumer: name(&body[8..])?,
                })
            }
            Kind::Prepare => {
                let plan_len = body.get(16).map_or(usize::MAX, |&byte| usize::from(byte));
                if plan_len > PLAN_BYTES_MAX || body.len() < 17 + plan_len {
                    return Err(malformed("wrong length"));
                }
                let (plan, consumer) = body[17..].split_at(plan_len);
                let prepare = Prepare {
                    queue,
                    request: head.base.get(),
                    session,
                    start: Seq::new(u64_at(body, 0)),
                    end: Seq::new(u64_at(body, 8)),
                    plan,
                    consumer: name(consumer)?,
                };
                if prepare.start > prepare.end {
                    return Err(malformed("the range ends before it starts"));
                }
                Self::Prepare(prepare)
            }
            Kind::Commit => {
                let (tally, body) = Tally::take(head.count, body).map_err(malformed)?;
                Self::Commit(Commit {
                    queue,
                    request: head.base.get(),
                    session,
                    upto: head.prev,
                    tally,
                    consumer: name(body)?,
                })
            }
            Kind::Answer => {
                let (tally, body) = Tally::take(head.count, body).map_err(malformed)?;
                let Some((&outcome, note)) = body.split_first() else {
                    return Err(malformed("wrong length"));
                };
                let outcome = match outcome {
                    0 => Outcome::Done,
                    1 => Outcome::State,
                    2 => Outcome::Fenced,
                    3 => Outcome::Unknown,
                    4 => Outcome::Refused,
                    _ => return Err(malformed("unknown outcome")),
                };
                let state = ConsumerState::from_note(note).ok_or(malformed("state"))?;
                let state = ConsumerState { tally, ..state };
                Self::Answer(Answer { queue, request: head.base.get(), outcome, state })
            }
            Kind::Ping => {
                exactly(0)?;
                Self::Ping(Ping { queue, session, round: head.round, sent: head.prev })
            }
            Kind::Pong => {
                exactly(0)?;
                Self::Pong(Standing { queue, session, durable: head.prev, credit: head.count })
            }
            Kind::Refuse => Self::Refuse(Refuse::of(frame)?),
            kind => return Err(FrameError::Unexpected { kind }),
        })
    }
}

impl Head {
    /// Writes the frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        control(Kind::Head, 0, self.queue, self.session, Seq::ZERO, self.head, 0).encode(&[])
    }
}

impl Fetch {
    /// Writes the frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        control(Kind::Fetch, 0, self.queue, self.session, self.after, Seq::ZERO, self.credit)
            .encode(&[])
    }
}

impl End {
    /// Writes the frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        control(Kind::End, 0, self.queue, self.session, self.after, self.head, 0)
            .encode(&self.resume.get().to_le_bytes())
    }
}

/// The header of a request: it carries its number where a batch has its first.
fn request(kind: Kind, queue: QueueId, session: u64, number: u64, prev: Seq) -> Header {
    control(kind, 0, queue, session, prev, Seq::new(number), 0)
}

impl Open<'_> {
    /// Writes the frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let body = [&self.nonce.to_le_bytes()[..], self.consumer.as_bytes()].concat();
        request(Kind::Open, QueueId::new(0), self.session, self.request, Seq::ZERO).encode(&body)
    }
}

impl Prepare<'_> {
    /// Writes the frame.
    ///
    /// # Panics
    /// If the plan is longer than [`PLAN_BYTES_MAX`].
    #[must_use]
    pub fn encode(&self) -> Bytes {
        assert!(self.plan.len() <= PLAN_BYTES_MAX, "plan of {} bytes", self.plan.len());
        let mut body = Vec::with_capacity(17 + self.plan.len() + self.consumer.len());
        body.extend_from_slice(&self.start.get().to_le_bytes());
        body.extend_from_slice(&self.end.get().to_le_bytes());
        body.push(self.plan.len() as u8);
        body.extend_from_slice(self.plan);
        body.extend_from_slice(self.consumer.as_bytes());
        request(Kind::Prepare, self.queue, self.session, self.request, Seq::ZERO).encode(&body)
    }
}

impl Commit<'_> {
    /// Writes the frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut header = request(Kind::Commit, self.queue, self.session, self.request, self.upto);
        let mut body = Tally::put(self.tally, &mut header);
        body.extend_from_slice(self.consumer.as_bytes());
        header.encode(&body)
    }
}

impl Answer {
    /// Writes the frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let (session, number) = (self.state.session, Seq::new(self.request));
        let mut header = control(Kind::Answer, 0, self.queue, session, Seq::ZERO, number, 0);
        let mut body = Tally::put(self.state.tally, &mut header);
        body.push(self.outcome as u8);
        body.extend_from_slice(&self.state.to_note());
        header.encode(&body)
    }
}

impl ConsumerState {
    /// Its bytes, as kept beside a durable cursor and sent in an [`Answer`]; at most
    /// [`NOTE_BYTES_MAX`].
    ///
    /// # Panics
    /// If the plan is longer than [`PLAN_BYTES_MAX`].
    #[must_use]
    pub fn to_note(&self) -> Vec<u8> {
        let none = Pending { start: Seq::ZERO, end: Seq::ZERO, plan: Vec::new() };
        let pending = self.pending.as_ref().unwrap_or(&none);
        assert!(pending.plan.len() <= PLAN_BYTES_MAX, "plan of {} bytes", pending.plan.len());
        let mut note = Vec::with_capacity(NOTE_FIXED_BYTES + pending.plan.len());
        for number in [self.session, self.nonce, self.committed.get()] {
            note.extend_from_slice(&number.to_le_bytes());
        }
        note.push(u8::from(self.pending.is_some()));
        note.push(pending.plan.len() as u8);
        if self.pending.is_some() {
            note.extend_from_slice(&pending.start.get().to_le_bytes());
            note.extend_from_slice(&pending.end.get().to_le_bytes());
            note.extend_from_slice(&pending.plan);
        }
        note
    }

    /// Reads what [`Self::to_note`] wrote; an empty note is the state before the first session.
    /// `None` if it is something else.
    #[must_use]
    pub fn from_note(note: &[u8]) -> Option<Self> {
        if note.is_empty() {
            return Some(Self::default());
        }
        let (fixed, rest) = note.split_first_chunk::<26>()?;
        let plan_len = usize::from(fixed[25]);
        let pending = match (fixed[24], rest.len()) {
            (0, 0) if plan_len == 0 => None,
            (1, length) if plan_len <= PLAN_BYTES_MAX && length == 16 + plan_len => {
                let (start, end) = (Seq::new(u64_at(rest, 0)), Seq::new(u64_at(rest, 8)));
                Some(Pending { start, end, plan: rest[16..].to_vec() })
            }
            _ => return None,
        };
        Some(Self {
            session: u64_at(fixed, 0),
            nonce: u64_at(fixed, 8),
            committed: Seq::new(u64_at(fixed, 16)),
            pending,
            tally: None,
        })
    }
}
