//! Records packed into the body of a batch, and how they are packed.
//!
//! Each record is `length u32, time u64, payload`. Their numbers are consecutive within one epoch
//! from the batch's first; a batch never mixes epochs and never skips a number. Packing copies a
//! payload once, straight behind the room left for the header; reading borrows.

use bytes::Bytes;

use crate::frame::{BODY_BYTES_MAX, Frame, FrameError, HEADER_BYTES, Header, Kind, u32_at, u64_at};
use crate::{QueueId, Seq};

/// Bytes before each payload: its length (u32) and its time (u64, microseconds since 1970).
pub const RECORD_HEADER_BYTES: usize = 12;

/// One record of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its number in its queue.
    pub seq: Seq,
    /// When it was appended there, in microseconds since 1970.
    pub time_us: u64,
    /// What was appended.
    pub payload: &'a [u8],
}

/// The records of one batch, checked: lengths add up and numbers stay within one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Records<'a> {
    base: Seq,
    count: u32,
    bytes: &'a [u8],
}

impl<'a> Records<'a> {
    /// Checks the records of `frame`; at least one.
    ///
    /// # Errors
    /// [`FrameError::Records`] with the reason.
    pub fn of(frame: &Frame<'a>) -> Result<Self, FrameError> {
        Self::new(frame.header.base, frame.header.count, frame.body)
    }

    /// Checks `bytes` as `count` records of which the first has number `base`.
    ///
    /// # Errors
    /// [`FrameError::Records`] with the reason.
    pub fn new(base: Seq, count: u32, bytes: &'a [u8]) -> Result<Self, FrameError> {
        let refuse = |reason| Err(FrameError::Records { reason });
        if count == 0 {
            return refuse("no records");
        }
        if base.epoch() == 0 || base.counter() == 0 {
            return refuse("the first number is below every entry");
        }
        if u64::from(count) - 1 > Seq::COUNTER_MAX - base.counter() {
            return refuse("the numbers leave their epoch");
        }
        let mut rest = bytes;
        for _ in 0..count {
            let Some((head, payloads)) = rest.split_first_chunk::<RECORD_HEADER_BYTES>() else {
                return refuse("fewer than counted");
            };
            let length = u32_at(head, 0) as usize;
            if length > payloads.len() {
                return refuse("a payload is cut off");
            }
            rest = &payloads[length..];
        }
        if !rest.is_empty() {
            return refuse("more than counted");
        }
        Ok(Self { base, count, bytes })
    }

    /// Number of the first record.
    #[must_use]
    pub const fn first(&self) -> Seq {
        self.base
    }

    /// Number of the last record.
    #[must_use]
    pub const fn last(&self) -> Seq {
        Seq::new(self.base.get() + self.count as u64 - 1)
    }

    /// How many there are; never zero.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The packed bytes.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The records, in order.
    #[must_use]
    pub fn iter(&self) -> RecordIter<'a> {
        RecordIter { next: self.base, rest: self.bytes }
    }

    /// Those above `seq`; `None` if that leaves none.
    #[must_use]
    pub fn after(&self, seq: Seq) -> Option<Self> {
        if seq < self.base {
            return Some(*self);
        }
        if seq >= self.last() {
            return None;
        }
        let mut iter = self.iter();
        for _ in self.base.get()..=seq.get() {
            iter.next();
        }
        let base = iter.next;
        let skipped = (base.get() - self.base.get()) as u32;
        Some(Self { base, count: self.count - skipped, bytes: iter.rest })
    }
}

impl<'a> IntoIterator for &Records<'a> {
    type Item = Record<'a>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}

/// Walks the records of a batch.
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    next: Seq,
    rest: &'a [u8],
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let (head, payloads) = self.rest.split_first_chunk::<RECORD_HEADER_BYTES>()?;
        let length = u32_at(head, 0) as usize;
        let (payload, rest) = payloads.split_at(length);
        let record = Record { seq: self.next, time_us: u64_at(head, 4), payload };
        self.next = Seq::new(self.next.get() + 1);
        self.rest = rest;
        Some(record)
    }
}

/// What became of a record that was offered to a [`BatchBuilder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    /// It is in the batch.
    Taken,
    /// The batch has no room for it: it belongs into the next one.
    Full,
    /// Its number does not follow within the same epoch: it begins the next batch.
    Split,
    /// It is longer than any frame may be; it can never be sent.
    TooLarge,
}

/// Packs records into the body of one frame.
///
/// ```
/// use forebay_wire::{Seq, records::{BatchBuilder, Pushed}};
/// let mut batch = BatchBuilder::new(64 * 1024);
/// assert_eq!(batch.push(Seq::from_parts(1, 7), 0, b"21.5"), Pushed::Taken);
/// assert_eq!(batch.push(Seq::from_parts(1, 9), 0, b"21.6"), Pushed::Split);
/// assert_eq!((batch.count(), batch.last()), (1, Seq::from_parts(1, 7)));
/// ```
#[derive(Debug)]
pub struct BatchBuilder {
    frame: Vec<u8>,
    limit_bytes: usize,
    first: Seq,
    last: Seq,
    count: u32,
}

impl BatchBuilder {
    /// Makes an empty batch that closes at `limit_bytes`, header included. A single longer record
    /// still fits, alone.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        let limit_bytes = limit_bytes.clamp(HEADER_BYTES + RECORD_HEADER_BYTES, BODY_BYTES_MAX);
        Self {
            frame: vec![0; HEADER_BYTES],
            limit_bytes,
            first: Seq::ZERO,
            last: Seq::ZERO,
            count: 0,
        }
    }

    /// Offers the record `payload` with number `seq`, appended at `time_us`.
    pub fn push(&mut self, seq: Seq, time_us: u64, payload: &[u8]) -> Pushed {
        self.push_parts(seq, time_us, &[payload])
    }

    /// Like [`Self::push`], with the payload gathered from several slices.
    pub fn push_parts(&mut self, seq: Seq, time_us: u64, parts: &[&[u8]]) -> Pushed {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length > BODY_BYTES_MAX - RECORD_HEADER_BYTES {
            return Pushed::TooLarge;
        }
        if self.count > 0 {
            if Some(seq) != self.last.next() {
                return Pushed::Split;
            }
            if self.frame.len() + RECORD_HEADER_BYTES + length > self.limit_bytes {
                return Pushed::Full;
            }
        } else {
            self.first = seq;
            // Room for a whole batch at once; `finish` gives small ones a buffer of their size.
            let room = self.limit_bytes.max(HEADER_BYTES + RECORD_HEADER_BYTES + length);
            self.frame.reserve(room - self.frame.len());
        }
        let mut head = [0; RECORD_HEADER_BYTES];
        head[0..4].copy_from_slice(&(length as u32).to_le_bytes());
        head[4..12].copy_from_slice(&time_us.to_le_bytes());
        self.frame.extend_from_slice(&head);
        for part in parts {
            self.frame.extend_from_slice(part);
        }
        self.last = seq;
        self.count += 1;
        Pushed::Taken
    }

    /// Whether nothing was pushed yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Records in it.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Number of its first record; [`Seq::ZERO`] if empty.
    #[must_use]
    pub const fn first(&self) -> Seq {
        self.first
    }

    /// Number of its last record; [`Seq::ZERO`] if empty.
    #[must_use]
    pub const fn last(&self) -> Seq {
        self.last
    }

    /// Bytes it has now, header included.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.frame.len()
    }

    /// Payload bytes that one more record may have.
    #[must_use]
    pub fn room_bytes(&self) -> usize {
        self.limit_bytes.saturating_sub(self.frame.len() + RECORD_HEADER_BYTES)
    }

    /// Empties it without sending.
    pub fn clear(&mut self) {
        self.frame.truncate(HEADER_BYTES);
        (self.first, self.last, self.count) = (Seq::ZERO, Seq::ZERO, 0);
    }

    /// Closes the batch into a frame and leaves this builder empty for the next one.
    ///
    /// # Panics
    /// If it is empty.
    #[must_use]
    pub fn finish(
        &mut self,
        kind: Kind,
        round: u16,
        queue: QueueId,
        session: u64,
        prev: Seq,
    ) -> Bytes {
        assert!(self.count > 0, "a batch holds at least one record");
        let (base, count) = (self.first, self.count);
        Header { kind, round, queue, session, prev, base, count }.seal(&mut self.frame);
        let frame = if self.frame.len() * 2 < self.frame.capacity() {
            // A small one waits for its ack in the sockets' queues: it must not hold 64 KiB there.
            Bytes::copy_from_slice(&self.frame)
        } else {
            Bytes::from(std::mem::replace(&mut self.frame, vec![0; HEADER_BYTES]))
        };
        self.clear();
        frame
    }
}

/// An owned batch: what [`Records`] borrows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordBatch {
    queue: QueueId,
    base: Seq,
    count: u32,
    bytes: Bytes,
}

impl RecordBatch {
    /// Takes the records of a whole frame that [`Frame::decode`] accepts.
    ///
    /// # Errors
    /// [`FrameError`] if it is no frame or its records are malformed.
    pub fn from_frame(frame: &Bytes) -> Result<Self, FrameError> {
        let decoded = Frame::decode(frame)?;
        let records = Records::of(&decoded)?;
        Ok(Self::of(decoded.header.queue, &records, frame))
    }

    /// Takes records of `queue` that were read out of `frame` and need no second look.
    ///
    /// Short frames are copied out, since a small slice would keep the whole read buffer of its
    /// connection alive; long ones share it.
    ///
    /// # Panics
    /// If the records do not lie within `frame`.
    #[must_use]
    pub fn of(queue: QueueId, records: &Records<'_>, frame: &Bytes) -> Self {
        const SHARED_BYTES_MIN: usize = 32 * 1024;
        let bytes = if records.bytes().len() < SHARED_BYTES_MIN {
            Bytes::copy_from_slice(records.bytes())
        } else {
            frame.slice_ref(records.bytes())
        };
        Self { queue, base: records.first(), count: records.count(), bytes }
    }

    /// The queue they are of.
    #[must_use]
    pub const fn queue(&self) -> QueueId {
        self.queue
    }

    /// Number of the first record.
    #[must_use]
    pub const fn first(&self) -> Seq {
        self.base
    }

    /// Number of the last record.
    #[must_use]
    pub const fn last(&self) -> Seq {
        Seq::new(self.base.get() + self.count as u64 - 1)
    }

    /// How many there are; never zero.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the packed records.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// The records, in order.
    #[must_use]
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter { next: self.base, rest: &self.bytes }
    }

    /// Drops those up to `seq`; returns whether any is left.
    #[must_use]
    pub fn keep_after(&mut self, seq: Seq) -> bool {
        let records = Records { base: self.base, count: self.count, bytes: &self.bytes };
        match records.after(seq) {
            None => false,
            Some(kept) => {
                let (base, count) = (kept.first(), kept.count());
                let cut = self.bytes.len() - kept.bytes().len();
                (self.base, self.count) = (base, count);
                self.bytes = self.bytes.slice(cut..);
                true
            }
        }
    }
}

impl<'a> IntoIterator for &'a RecordBatch {
    type Item = Record<'a>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}
