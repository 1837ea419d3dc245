//! Messages on the device's own disk: appended before they are sent, reclaimed after they were
//! acked, sent again after a restart with the session and the numbers they had.
//!
//! An entry is `[session u64 LE][seq u64 LE][CBOR data frame]`. The counter is not kept beside the
//! queue but read from its last entry: the reader commits only up to the entry *before* the last
//! acked one, so that there is always one to read.

use std::{sync::Mutex, sync::PoisonError, task::Waker, time::Instant};

use bytes::Bytes;
use forebay_model::{Body, MessageId, SessionId, Timestamp};
use forebay_queue::{Entry, Queue, Reader, Seq};
use forebay_wire::device::{ClientFrame, Format};

use super::shared::Shared;
use crate::{Error, SpoolOptions};

/// The name of the only reader.
const READER: &str = "device";
/// Bytes before the frame.
const PREFIX: usize = 16;
/// Entries and bytes looked at in one peek.
const PEEK: (usize, usize) = (256, 1 << 20);

/// The end that `send` appends to.
#[derive(Debug)]
pub(super) struct Spool {
    pub(super) queue: Queue,
    session: SessionId,
    /// The next number, and room to encode a frame in.
    counter: Mutex<(u64, Vec<u8>)>,
}

/// The end that the connection task takes from.
#[derive(Debug)]
pub(super) struct SpoolReader {
    reader: Reader,
    format: Format,
    /// The last acked entry: committed when the next one is.
    mark: Option<Seq>,
}

/// What came of filling the window.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// The window is full, or the spool has no more for now.
    Waiting,
    /// Damage on the disk took messages: the window now starts behind them.
    Hole,
}

/// What a spool knows when it is opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) spool: Spool,
    pub(super) reader: SpoolReader,
    pub(super) session: SessionId,
    /// The lowest number in it, or the next one.
    pub(super) first: MessageId,
}

/// Opens or makes the spool. Blocks: it recovers what the last user left.
pub(super) fn open(
    options: &SpoolOptions,
    format: Format,
    new_session: SessionId,
    new_next: MessageId,
) -> Result<Opened, Error> {
    let queue = Queue::open_or_create(&options.dir, &options.queue)?;
    let mut reader = queue.reader(READER)?;
    let cursor = reader.cursor();
    let (mut session, mut first, mut next) = (new_session, None, new_next.get());
    loop {
        let batch = reader.peek(PEEK.0, PEEK.1)?;
        if batch.is_empty() {
            break;
        }
        for entry in batch.iter() {
            let Some((of, seq, _)) = parts(&entry) else { continue };
            session = of;
            next = seq.get() + 1;
            first.get_or_insert(seq);
        }
        batch.advance();
    }
    reader.rewind(cursor)?;
    let first = match first {
        Some(first) => first,
        None => MessageId::new(next)?,
    };
    let spool = Spool { queue, session, counter: Mutex::new((next, Vec::new())) };
    let reader = SpoolReader { reader, format, mark: None };
    Ok(Opened { spool, reader, session, first })
}

/// Session, number and frame of an entry; `None` if it is not one of ours.
fn parts<'e>(entry: &Entry<'e>) -> Option<(SessionId, MessageId, &'e [u8])> {
    let (prefix, frame) = entry.payload.split_first_chunk::<PREFIX>()?;
    let (session, seq) = prefix.split_first_chunk::<8>()?;
    let session = SessionId::new(u64::from_le_bytes(*session)).ok()?;
    let seq = MessageId::new(u64::from_le_bytes(seq.try_into().ok()?)).ok()?;
    Some((session, seq, frame))
}

impl Spool {
    /// Appends a message under the next number; `None` while the spool is full.
    pub(super) fn append(
        &self,
        body: &Body<'_>,
        bytes_max: usize,
    ) -> Result<Option<(MessageId, Seq)>, Error> {
        let mut counter = self.counter.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, frame) = &mut *counter;
        let seq = MessageId::new(*next)?;
        frame.clear();
        ClientFrame::Data { seq, body: body.clone() }.encode(Format::Cbor, frame);
        if frame.len() > bytes_max {
            return Err(Error::TooLarge { bytes: frame.len(), bytes_max });
        }
        let now = Timestamp::now().micros().unsigned_abs();
        let session = self.session.get().to_le_bytes();
        match self.queue.append_parts(now, &[&session, &next.to_le_bytes(), frame]) {
            Ok(entry) => {
                *next += 1;
                Ok(Some((seq, entry)))
            }
            Err(forebay_queue::Error::Full { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The number the next message gets.
    pub(super) fn next(&self) -> u64 {
        self.counter.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

impl SpoolReader {
    /// The last acked entry, to be moved as messages are released.
    pub(super) fn mark(&mut self) -> &mut Option<Seq> {
        &mut self.mark
    }

    /// Reclaims everything up to `done`.
    pub(super) fn commit(&mut self, done: Option<Seq>) -> Result<(), Error> {
        match done {
            Some(done) => Ok(self.reader.commit(done)?),
            None => Ok(()),
        }
    }

    /// Takes durable entries into the window until it is full; else `waker` is woken for more.
    pub(super) fn fill(&mut self, shared: &Shared, waker: &Waker) -> Result<Filled, Error> {
        let now = Instant::now();
        loop {
            let mut state = shared.state();
            let room = shared.options.window.max(1).saturating_sub(state.window.len());
            if room == 0 {
                return Ok(Filled::Waiting);
            }
            let batch = self.reader.peek(room.min(PEEK.0), PEEK.1)?;
            if batch.is_empty() {
                drop(state);
                if self.reader.poll_ready(waker) {
                    continue;
                }
                return Ok(Filled::Waiting);
            }
            for entry in batch.iter() {
                let Some((_, seq, frame)) = parts(&entry) else { continue };
                let next = state.window.next();
                if seq.get() < next {
                    // In the window already; or acked by a front before this device was restarted.
                    if seq.get() < state.window.first() {
                        self.mark = Some(entry.seq);
                    }
                    continue;
                }
                if seq.get() > next {
                    if state.window.len() > 0 {
                        // Not advanced: looked at again when what is before the hole is acked.
                        return Ok(Filled::Waiting);
                    }
                    state.window.skip_to(seq.get());
                    return Ok(Filled::Hole);
                }
                state.window.push(in_format(self.format, frame), now, Some(entry.seq));
            }
            batch.advance();
        }
    }
}

/// The frame as the connection speaks it; the spool holds CBOR.
fn in_format(format: Format, frame: &[u8]) -> Bytes {
    if format != Format::Cbor
        && let Ok(data) = ClientFrame::decode(Format::Cbor, frame, Timestamp::now())
    {
        let mut out = Vec::with_capacity(frame.len() * 2);
        data.encode(format, &mut out);
        return out.into();
    }
    Bytes::copy_from_slice(frame)
}
