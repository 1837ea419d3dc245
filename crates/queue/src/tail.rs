//! [`Tail`]: follows the queue without holding space, and says what it missed.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::Waker;
use std::time::Duration;

use crate::format::Mark;
use crate::log::Step;
use crate::queue::Handle;
use crate::{Durability, Entry, Result, Seq};

/// Entries and bytes that a search looks at in one step.
const FOUND_IN_ENTRIES: usize = 4096;
const FOUND_IN_BYTES: usize = 4 << 20;

/// A reader that copies out what it reads, from [`Queue::tail`](crate::Queue::tail).
///
/// Nothing waits for it: entries that were reclaimed before it came to them are gone, and the next
/// batch names the [`Gap`]. With [`Durability::Disk`] it sees durable entries only.
///
/// ```
/// # use forebay_queue::{Options, Queue, Seq};
/// # use std::time::Duration;
/// # let dir = tempfile::tempdir().unwrap();
/// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
/// let queue = Queue::create(dir.path(), &options)?;
/// queue.append_batch(0, &["a", "b"])?;
/// let mut tail = queue.tail(Some(Seq::NONE));
/// assert!(tail.wait(Duration::from_secs(5)));
/// let batch = tail.read(100, 1 << 20)?;
/// assert_eq!(batch.gap(), None);
/// assert_eq!(batch.iter().next().unwrap().payload, b"a");
/// # Ok::<(), forebay_queue::Error>(())
/// ```
#[derive(Debug)]
pub struct Tail {
    handle: Arc<Handle>,
    /// Behind the last entry delivered.
    position: Mark,
    /// Whether the place of `position.seq` is still to be looked up.
    is_unplaced: bool,
    gap: Option<Gap>,
    /// Where the last read began, if there was one; `rows` follow.
    began: Option<Mark>,
    rows: Vec<RowIn>,
    bytes: Vec<u8>,
}

/// Where an entry lies in the tail's own buffer.
#[derive(Clone, Copy, Debug)]
struct RowIn {
    seq: Seq,
    time_us: u64,
    start: usize,
    end: usize,
    /// The boundary behind it in the ring.
    behind: u64,
}

/// Entries that a [`Tail`] could not deliver: those between the two seqs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last seq delivered before, or the one the tail was told to start after.
    pub after: Seq,
    /// The first seq delivered again.
    pub next: Seq,
}

impl Tail {
    pub(crate) fn open(handle: &Arc<Handle>, after: Option<Seq>) -> Self {
        let ring = &handle.ring;
        let (position, is_unplaced) = match (after, ring.settings.durability) {
            (Some(seq), _) => (Mark { position: 0, seq }, true),
            (None, Durability::Disk) => (ring.lock_sync().durable, false),
            (None, Durability::Process) => (ring.line.mark(), false),
        };
        Tail {
            handle: Arc::clone(handle),
            position,
            is_unplaced,
            gap: None,
            began: None,
            rows: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// The last seq delivered, or the one the tail started after.
    ///
    /// ```
    /// # use forebay_queue::{Options, Queue};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// let queue = Queue::create(dir.path(), &options)?;
    /// let seq = queue.append(0, b"x")?;
    /// assert_eq!(queue.tail(Some(seq)).position(), seq);
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    #[must_use]
    pub fn position(&self) -> Seq {
        self.position.seq
    }

    /// Goes on behind `after`, wherever that is: the next read begins with the first entry above it.
    /// Within what was read last, and directly before it, that costs nothing, so that what a batch
    /// had too much is given back; elsewhere the place is looked up, as at the start.
    ///
    /// ```
    /// # use forebay_queue::{Options, Queue, Seq};
    /// # use std::time::Duration;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// let queue = Queue::create(dir.path(), &options)?;
    /// let span = queue.append_batch(0, &["a", "b", "c"])?;
    /// queue.wait_durable(span.last, Duration::from_secs(20))?;
    /// let mut tail = queue.tail(Some(Seq::NONE));
    /// assert_eq!(tail.read(100, 1 << 20)?.len(), 3);
    /// tail.seek(span.first);
    /// assert_eq!(tail.read(100, 1 << 20)?.iter().next().unwrap().payload, b"b");
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    pub fn seek(&mut self, after: Seq) {
        if after == self.position.seq {
            return;
        }
        let known = match self.began {
            Some(began) if began.seq == after => Some(began.position),
            _ => {
                let row = self.rows.binary_search_by_key(&after, |row| row.seq);
                row.ok().map(|at| self.rows[at].behind)
            }
        };
        self.is_unplaced = known.is_none();
        self.position = Mark { position: known.unwrap_or(0), seq: after };
    }

    /// Reads on to the first entry that `is_it` knows, and gives its seq and time; `None` at the end.
    /// Gaps on the way are passed over without a word.
    ///
    /// # Errors
    /// As [`Self::read`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use forebay_queue::{Options, Queue, Seq};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// let queue = Queue::create(dir.path(), &options)?;
    /// queue.append(7, b"x")?;
    /// let seq = queue.append(8, b"y")?;
    /// queue.wait_durable(seq, Duration::from_secs(20))?;
    /// let all = || queue.tail(Some(Seq::NONE));
    /// assert_eq!(all().find(|entry| entry.payload == b"y")?, Some((seq, 8)));
    /// assert_eq!(all().find(|entry| entry.payload == b"z")?, None);
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    pub fn find(mut self, is_it: impl Fn(&Entry<'_>) -> bool) -> Result<Option<(Seq, u64)>> {
        loop {
            let batch = self.read(FOUND_IN_ENTRIES, FOUND_IN_BYTES)?;
            if batch.is_empty() {
                return Ok(None);
            }
            if let Some(one) = batch.iter().find(|one| is_it(one)) {
                return Ok(Some((one.seq, one.time_us)));
            }
        }
    }

    /// Copies out the next entries: at most `max_entries`, and at most `max_bytes` of payload
    /// except that a first entry is always given. Empty if there is nothing new.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::Closed`](crate::Error::Closed): the queue has
    /// ended.
    ///
    /// See [`Tail`] for an example.
    pub fn read(&mut self, max_entries: usize, max_bytes: usize) -> Result<TailBatch<'_>> {
        let ring = Arc::clone(&self.handle.ring);
        ring.check()?;
        self.rows.clear();
        self.bytes.clear();
        self.gap = None;
        // Space is not reused while this is held, so what is looked at stays as it is.
        let held = ring.reclaiming.read().unwrap_or_else(PoisonError::into_inner);
        let reclaimed = ring.limits.reclaimed.load(Ordering::Acquire);
        let end = ring.readable();
        let mut mark = self.position;
        let mut is_overtaken = mark.position < reclaimed;
        if self.is_unplaced {
            let oldest = Mark { position: reclaimed, seq: mark.seq };
            mark.position = ring.boundary_behind(mark.seq, oldest).position;
            (self.is_unplaced, is_overtaken) = (false, false);
        }
        // The place of old where it was overtaken, so that one who goes back there is told again.
        self.began = Some(mark);
        if is_overtaken {
            mark.position = reclaimed;
        }
        while self.rows.len() < max_entries {
            match ring.log().next(mark.position, end) {
                Step::Entry { head, at, next } => {
                    let breaks = is_overtaken || !head.seq.follows(mark.seq);
                    let is_first = self.rows.is_empty();
                    let fits = self.bytes.len() + head.len as usize <= max_bytes;
                    if !is_first && (breaks || !fits) {
                        break;
                    }
                    if breaks && mark.seq != Seq::NONE {
                        self.gap = Some(Gap { after: mark.seq, next: head.seq });
                    }
                    is_overtaken = false;
                    let start = self.bytes.len();
                    self.bytes.extend_from_slice(ring.log().payload(&head, at));
                    let (seq, time_us, end) = (head.seq, head.time_us, self.bytes.len());
                    self.rows.push(RowIn { seq, time_us, start, end, behind: next });
                    mark = Mark { position: next, seq };
                }
                Step::Gap { next, .. } => mark.position = next,
                Step::End => break,
                // The seq of a damaged entry was not delivered: the next batch names the gap.
                bad => mark.position = ring.pass_damage(bad, mark, end).position,
            }
        }
        drop(held);
        self.position = mark;
        Ok(TailBatch { tail: self })
    }

    /// Whether there is something to read, or the queue has ended; if neither, `waker` is woken
    /// once one of them is so.
    ///
    /// Used as [`Reader::poll_ready`](crate::Reader::poll_ready) is.
    #[must_use]
    pub fn poll_ready(&mut self, waker: &Waker) -> bool {
        self.place();
        self.handle.ring.poll_readable(self.position.position, waker)
    }

    /// Waits until there is something to read, or the queue has ended; false if the time passed
    /// first.
    ///
    /// See [`Tail`] for an example.
    #[must_use]
    pub fn wait(&mut self, timeout: Duration) -> bool {
        self.place();
        self.handle.ring.wait_readable(self.position.position, timeout)
    }

    /// Looks up where to start, so that waiting waits for something that is to be delivered.
    fn place(&mut self) {
        if !self.is_unplaced {
            return;
        }
        let ring = &self.handle.ring;
        let _held = ring.reclaiming.read().unwrap_or_else(PoisonError::into_inner);
        let reclaimed = ring.limits.reclaimed.load(Ordering::Acquire);
        let oldest = Mark { position: reclaimed, seq: self.position.seq };
        let found = ring.boundary_behind(self.position.seq, oldest);
        // The place is kept only if there is nothing behind it: a gap before the first entry is
        // still to be told by the read that finds it.
        if found.position >= ring.readable() {
            self.position.position = found.position;
            self.is_unplaced = false;
        }
    }
}

/// Entries copied out by [`Tail::read`].
#[derive(Debug)]
pub struct TailBatch<'a> {
    tail: &'a Tail,
}

impl TailBatch<'_> {
    /// What was missed directly before the first entry of this batch.
    #[must_use]
    pub fn gap(&self) -> Option<Gap> {
        self.tail.gap
    }

    /// How many entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tail.rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tail.rows.is_empty()
    }

    /// The entries in the order of their seqs.
    ///
    /// See [`Tail`] for an example.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        self.tail.rows.iter().map(|row| Entry {
            seq: row.seq,
            time_us: row.time_us,
            payload: &self.tail.bytes[row.start..row.end],
        })
    }
}
