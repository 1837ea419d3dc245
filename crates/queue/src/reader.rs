//! [`Reader`]: a durable named place in the queue, which holds the space behind it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use crate::cursor::Cursor;
use crate::format::{HEAD_BYTES, Head, Mark, NOTE_BYTES_MAX};
use crate::log::Step;
use crate::queue::Handle;
use crate::ring::{ATTENTION_READERS, Ring};
use crate::{Durability, Error, Result, Seq};

/// Looks before a reader sleeps, the last after 64 pauses of the processor: some microseconds.
const LOOKS: u32 = 7;

/// One entry as it was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its number.
    pub seq: Seq,
    /// The time that the producer gave, in microseconds.
    pub time_us: u64,
    /// The bytes.
    pub payload: &'a [u8],
}

/// A durable named reader, from [`Queue::reader`](crate::Queue::reader).
///
/// It has two places. The *cursor* is what is committed: entries behind it are gone for this
/// reader, and their space is reused once the cursor is on the medium, at most
/// [`checkpoint_interval`](crate::Options::checkpoint_interval) later. The *read position* starts
/// at the cursor and moves with [`Batch::advance`]; it is not kept.
///
/// After a crash the cursor may stand where it stood at the last checkpoint: entries committed
/// since are delivered again. Where that matters, use [`Reader::commit_durable`].
///
/// With [`Durability::Disk`] it sees durable entries only, so that nothing it passes on can be
/// taken back by a power cut.
#[derive(Debug)]
pub struct Reader {
    handle: Arc<Handle>,
    cursor: Arc<Cursor>,
    /// The read position.
    position: Mark,
    /// Ends of the batches between cursor and read position, so that commits need no walk.
    passed: VecDeque<Mark>,
    /// End of the last batch.
    peeked: Mark,
    /// The entries of the last batch.
    rows: Vec<RowAt>,
}

/// Where an entry of a batch lies.
#[derive(Clone, Copy, Debug)]
struct RowAt {
    seq: Seq,
    time_us: u64,
    offset: usize,
    len: usize,
}

impl Reader {
    pub(crate) fn open(handle: &Arc<Handle>, name: &str) -> Result<Self> {
        let ring = &handle.ring;
        let mut syncer = ring.lock_sync();
        ring.check()?;
        let (cursor, is_new) = ring.cursors.hold(name, syncer.newest.head)?;
        let position = cursor.place().committed;
        let reader = Reader {
            handle: Arc::clone(handle),
            cursor,
            position,
            passed: VecDeque::new(),
            peeked: position,
            rows: Vec::new(),
        };
        if is_new {
            ring.cursor_version.fetch_add(1, Ordering::AcqRel);
            // Durable at once: what it has not read must not be reclaimed, whatever happens.
            ring.checkpoint(&mut syncer)?;
        }
        drop(syncer);
        Ok(reader)
    }

    fn ring(&self) -> &Ring {
        &self.handle.ring
    }

    /// The name it was opened by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.cursor.name
    }

    /// The last seq committed, in memory; the next uncommitted entry is the one above it.
    ///
    /// [`Seq::NONE`] if nothing was ever committed or reclaimed.
    ///
    /// ```
    /// # use forebay_queue::{Options, Queue, Seq};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// let queue = Queue::create(dir.path(), &options)?;
    /// let seq = queue.append(0, b"x")?;
    /// queue.wait_durable(seq, std::time::Duration::from_secs(5))?;
    /// let mut reader = queue.reader("r")?;
    /// assert_eq!(reader.cursor(), Seq::NONE);
    /// reader.commit(seq)?;
    /// assert_eq!(reader.cursor(), seq);
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    #[must_use]
    pub fn cursor(&self) -> Seq {
        self.cursor.place().committed.seq
    }

    /// The entries from the read position on: at most `max_entries`, and at most `max_bytes` of
    /// payload, except that a first entry is always given. Empty if there is nothing.
    ///
    /// Dropped without [`Batch::advance`] or a commit, the batch is delivered again by the next
    /// peek. Damaged entries are passed over, counted in [`Stat`](crate::Stat), and kept in a
    /// `.bad` file beside the ring.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Closed`]: the queue has ended.
    ///
    /// ```
    /// # use forebay_queue::{Options, Queue};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// let queue = Queue::create(dir.path(), &options)?;
    /// let span = queue.append_batch(7, &["a", "b"])?;
    /// queue.wait_durable(span.last, std::time::Duration::from_secs(5))?;
    /// let mut reader = queue.reader("r")?;
    /// assert_eq!(reader.peek(10, 1000)?.len(), 2); // dropped: delivered again
    /// let batch = reader.peek(10, 1000)?;
    /// let texts: Vec<&[u8]> = batch.iter().map(|entry| entry.payload).collect();
    /// assert_eq!(texts, [b"a", b"b"]);
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    pub fn peek(&mut self, max_entries: usize, max_bytes: usize) -> Result<Batch<'_>> {
        let ring = &*self.handle.ring;
        ring.check()?;
        let end = ring.readable();
        self.rows.clear();
        let (mut mark, mut bytes) = (self.position, 0);
        while self.rows.len() < max_entries {
            match ring.log().next(mark.position, end) {
                Step::Entry { head, at, next } => {
                    let len = head.len as usize;
                    if bytes + len > max_bytes && !self.rows.is_empty() {
                        break;
                    }
                    bytes += len;
                    self.rows.push(row_at(ring, &head, at));
                    // Two entries ahead, if they are alike; never where somebody still stores.
                    let (ahead, size) = (next + (next - at), next - at);
                    if ahead + size <= end {
                        ring.memory.prefetch_view(ring.geometry.offset(ahead), size as usize);
                    }
                    mark = Mark { position: next, seq: head.seq };
                }
                Step::Gap { head, next } => mark = Mark { position: next, seq: head.seq },
                Step::End => break,
                bad => mark = ring.pass_damage(bad, mark, end),
            }
        }
        if self.rows.is_empty() {
            // Only damage: no need to go over it again.
            self.position = mark;
        }
        self.peeked = mark;
        Ok(Batch { reader: self, end: mark })
    }

    /// Takes all entries up to `upto` as done: the cursor moves behind it now, in memory, and on
    /// the medium with the next checkpoint.
    ///
    /// `upto` may lie anywhere; below the cursor nothing happens. The read position moves along if
    /// the cursor passes it.
    ///
    /// # Errors
    /// - [`Error::Beyond`]: no entry of that seq can be read yet.
    /// - [`Error::Io`], [`Error::Closed`]: the queue has ended.
    ///
    /// See [`Reader::cursor`] for an example.
    pub fn commit(&mut self, upto: Seq) -> Result<()> {
        self.commit_with(upto, None)
    }

    /// Commits as [`commit`](Self::commit) does, and returns once the cursor is on the medium;
    /// with it `note`, if given: up to 96 bytes that are kept beside the cursor.
    ///
    /// Costs a sync, shared with whoever commits at the same time.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit); [`Error::Reader`] if the note is too long.
    ///
    /// ```
    /// # use forebay_queue::{Options, Queue};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// let queue = Queue::create(dir.path(), &options)?;
    /// let seq = queue.append(0, b"x")?;
    /// queue.wait_durable(seq, std::time::Duration::from_secs(5))?;
    /// let mut reader = queue.reader("r")?;
    /// reader.commit_durable(seq, Some(b"batch 17"))?;
    /// assert_eq!(reader.note(), b"batch 17");
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    pub fn commit_durable(&mut self, upto: Seq, note: Option<&[u8]>) -> Result<()> {
        if note.is_some_and(|note| note.len() > NOTE_BYTES_MAX) {
            let reason = "a note has at most 96 bytes";
            return Err(Error::Reader { name: self.name().to_owned(), reason });
        }
        self.commit_with(upto, note)?;
        let ring = self.ring();
        let version = ring.cursor_version.load(Ordering::Acquire);
        let mut syncer = ring.lock_sync();
        ring.check()?;
        if syncer.version < version { ring.checkpoint(&mut syncer) } else { Ok(()) }
    }

    fn commit_with(&mut self, upto: Seq, note: Option<&[u8]>) -> Result<()> {
        let ring = &*self.handle.ring;
        ring.check()?;
        let committed = self.cursor.place().committed;
        let target = if upto <= committed.seq {
            committed
        } else {
            let end = ring.durable_seq();
            if upto > end {
                return Err(Error::Beyond { seq: upto, end });
            }
            let mut known = committed;
            while let Some(mark) = self.passed.pop_front_if(|mark| mark.seq <= upto) {
                known = mark;
            }
            if self.peeked.seq <= upto && self.peeked.position > known.position {
                known = self.peeked;
            }
            if known.seq == upto { known } else { ring.boundary_behind(upto, known) }
        };
        {
            let mut place = self.cursor.place();
            place.committed = target;
            if let Some(note) = note {
                place.note = note.to_vec();
            }
        }
        if self.position.position < target.position {
            self.position = target;
            self.passed.clear();
        }
        ring.cursor_version.fetch_add(1, Ordering::AcqRel);
        ring.tell();
        Ok(())
    }

    /// The note of the last [`commit_durable`](Self::commit_durable) that had one; empty if none.
    ///
    /// See there for an example.
    #[must_use]
    pub fn note(&self) -> Vec<u8> {
        self.cursor.place().note.clone()
    }

    /// Moves the read position: the next peek starts at the first retained entry above `after`,
    /// and never below the cursor.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Closed`]: the queue has ended.
    ///
    /// ```
    /// # use forebay_queue::{Options, Queue};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// let queue = Queue::create(dir.path(), &options)?;
    /// let span = queue.append_batch(0, &["a", "b", "c"])?;
    /// queue.wait_durable(span.last, std::time::Duration::from_secs(5))?;
    /// let mut reader = queue.reader("r")?;
    /// reader.peek(10, 1000)?.advance();
    /// reader.rewind(span.first)?;
    /// assert_eq!(reader.peek(10, 1000)?.iter().next().unwrap().payload, b"b");
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    pub fn rewind(&mut self, after: Seq) -> Result<()> {
        let ring = &*self.handle.ring;
        ring.check()?;
        let committed = self.cursor.place().committed;
        self.position =
            if after <= committed.seq { committed } else { ring.boundary_behind(after, committed) };
        self.peeked = self.position;
        self.passed.clear();
        Ok(())
    }

    /// Whether there is something to peek, or the queue has ended; if neither, `waker` is woken
    /// once one of them is so.
    ///
    /// ```
    /// use std::task::{Context, Poll};
    /// use forebay_queue::Reader;
    /// async fn ready(reader: &mut Reader) {
    ///     std::future::poll_fn(|context: &mut Context<'_>| {
    ///         if reader.poll_ready(context.waker()) { Poll::Ready(()) } else { Poll::Pending }
    ///     })
    ///     .await
    /// }
    /// ```
    #[must_use]
    pub fn poll_ready(&mut self, waker: &Waker) -> bool {
        self.ring().poll_readable(self.position.position, waker)
    }

    /// Waits until there is something to peek, or the queue has ended; false if the time passed
    /// first.
    ///
    /// ```
    /// # use forebay_queue::{Options, Queue};
    /// # use std::time::Duration;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// let queue = Queue::create(dir.path(), &options)?;
    /// let mut reader = queue.reader("r")?;
    /// assert!(!reader.wait(Duration::from_millis(1)));
    /// queue.append(0, b"x")?;
    /// assert!(reader.wait(Duration::from_secs(5)));
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    #[must_use]
    pub fn wait(&mut self, timeout: Duration) -> bool {
        self.ring().wait_readable(self.position.position, timeout)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.cursor.release();
    }
}

/// Entries that borrow their reader, from [`Reader::peek`].
#[derive(Debug)]
pub struct Batch<'a> {
    reader: &'a mut Reader,
    end: Mark,
}

impl Batch<'_> {
    /// How many entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.reader.rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reader.rows.is_empty()
    }

    /// The seq of the last entry: what to commit once all are done.
    #[must_use]
    pub fn last(&self) -> Option<Seq> {
        self.reader.rows.last().map(|row| row.seq)
    }

    /// The entries in the order of their seqs.
    ///
    /// See [`Reader::peek`] for an example.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        let memory = &self.reader.handle.ring.memory;
        self.reader.rows.iter().map(|row| Entry {
            seq: row.seq,
            time_us: row.time_us,
            payload: memory.view(row.offset, row.len),
        })
    }

    /// Moves the read position behind the batch without committing it, so that the next peek
    /// gives the entries after it: for several batches in flight.
    ///
    /// See [`Reader::rewind`] for an example.
    pub fn advance(self) {
        if !self.is_empty() {
            self.reader.position = self.end;
            self.reader.passed.push_back(self.end);
        }
    }
}

fn row_at(ring: &Ring, head: &Head, at: u64) -> RowAt {
    RowAt {
        seq: head.seq,
        time_us: head.time_us,
        offset: ring.geometry.offset(at) + HEAD_BYTES as usize,
        len: head.len as usize,
    }
}

impl Ring {
    /// Passes over damage that a walk from `mark` met; counts it.
    #[cold]
    pub(crate) fn pass_damage(&self, step: Step, mark: Mark, end: u64) -> Mark {
        let (from, next) = match step {
            Step::BadPayload { head, next } => {
                (mark.position, Mark { position: next, seq: head.seq })
            }
            // From the boundary and not from `at`, as recovery does: with a filler between them
            // the same damage would otherwise be counted twice.
            Step::BadHead { at } => {
                (mark.position, Mark { position: self.log().resume(at, end), seq: mark.seq })
            }
            Step::Entry { .. } | Step::Gap { .. } | Step::End => return mark,
        };
        self.note_damage(from, next.position);
        next
    }

    /// The boundary behind the last readable entry not above `seq`, from the boundary `known` on.
    pub(crate) fn boundary_behind(&self, seq: Seq, known: Mark) -> Mark {
        let end = self.readable();
        let mut mark = self.index_before(seq, known);
        loop {
            // Only heads count: payloads are left for who reads them.
            match self.log().pass(mark.position, end) {
                Step::Entry { head, next, .. }
                | Step::BadPayload { head, next }
                | Step::Gap { head, next }
                    if head.seq <= seq =>
                {
                    mark = Mark { position: next, seq: head.seq };
                }
                bad @ Step::BadHead { .. } => mark = self.pass_damage(bad, mark, end),
                Step::Entry { .. } | Step::BadPayload { .. } | Step::Gap { .. } | Step::End => {
                    return mark;
                }
            }
        }
    }

    fn is_readable(&self, position: u64) -> bool {
        self.readable() > position || self.limits.is_ended.load(Ordering::Acquire)
    }

    /// Looks again after asking producers to tell of the next append.
    fn is_readable_when_armed(&self, position: u64) -> bool {
        if self.is_readable(position) {
            return true;
        }
        if self.settings.durability == Durability::Process {
            self.attention.fetch_or(ATTENTION_READERS, Ordering::SeqCst);
            self.barrier.heavy();
        }
        self.is_readable(position)
    }

    pub(crate) fn poll_readable(&self, position: u64, waker: &Waker) -> bool {
        if self.is_readable(position) {
            return true;
        }
        self.on_readable.register(0, waker);
        self.is_readable_when_armed(position)
    }

    pub(crate) fn wait_readable(&self, position: u64, timeout: Duration) -> bool {
        self.is_readable_soon(position)
            || self.on_readable.wait(timeout, || self.is_readable_when_armed(position))
    }

    /// Looks a few more times before anybody sleeps: the next append is often nearer than a sleep
    /// and its wake-up, which cost both sides microseconds. Further and further apart, so that the
    /// producer keeps the line of memory that is looked at. A sync is never that near.
    fn is_readable_soon(&self, position: u64) -> bool {
        let looks = if self.settings.durability == Durability::Process { LOOKS } else { 0 };
        (0..looks).any(|look| {
            (0..1 << look).for_each(|_| std::hint::spin_loop());
            self.is_readable(position)
        })
    }
}
