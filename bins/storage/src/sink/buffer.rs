//! The rows a sink has read and not stored: one range still open, a few closed ones.
//!
//! The reader fills the open range and closes it; the writer takes closed ones in order. It is
//! bounded: with [`SEALED_MAX`] ranges closed and not stored, the reader waits, the link's buffer
//! fills, and what the middle publishes beyond that is fetched later. Queries see it as the tail.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use forebay_wire::{QueueId, Seq, feed::Pending};

use crate::{
    read::{Filter, Tail, TailMark},
    registry::Current,
    rows::{RowView, Rows},
};

/// Ranges closed and not stored: the one being written, while the next is filled.
const SEALED_MAX: usize = 1;

/// When an open range is closed: at the first of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows.
    pub rows: usize,
    /// Bytes of rows in memory.
    pub held_bytes: usize,
    /// Bytes of its entries in the middle's ring: a quarter of what the ring holds.
    pub outstanding_bytes: u64,
    /// Time since its first entry was read.
    pub age: Duration,
}

impl Limits {
    /// An empty batch with room for a range.
    fn room(&self, queue: QueueId) -> Rows {
        // Limits of a test may be astronomic.
        const ROWS_MAX: usize = 1 << 20;
        const TEXT_BYTES_MAX: usize = 64 << 20;
        let mut rows = Rows::new(queue);
        rows.reserve(self.rows.min(ROWS_MAX), self.held_bytes.min(TEXT_BYTES_MAX));
        rows
    }
}

/// The ranges of one sink.
#[derive(Debug)]
pub struct RangeBuffer {
    limits: Limits,
    registry: Current,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) open: Rows,
    open_meta: Meta,
    sealed: VecDeque<Arc<Sealed>>,
    /// A cleared batch to fill next, so that its memory is used again.
    spare: Option<Rows>,
    /// Ranges that were announced before, in order: none is cut, none is joined to what lies
    /// around it.
    announced: VecDeque<Pending>,
    finished: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Meta {
    opened: Option<Instant>,
    entry_bytes: u64,
    /// When the middle took the first entry.
    first_us: u64,
    /// Entries that cannot be read, set aside.
    unreadable: u64,
}

/// A closed range.
#[derive(Debug)]
pub(super) struct Sealed {
    /// Its rows.
    pub(super) rows: Rows,
    /// When the middle took its first entry.
    pub(super) first_us: u64,
    /// The plan with which it was announced before a restart.
    pub(super) plan: Vec<u8>,
    /// Entries of it that cannot be read, set aside.
    pub(super) unreadable: u64,
}

impl RangeBuffer {
    /// An empty buffer; its ranges are described by the registry in force when they begin.
    #[must_use]
    pub fn new(limits: Limits, registry: Current) -> Self {
        let state = State {
            open: limits.room(QueueId::new(0)),
            open_meta: Meta::default(),
            sealed: VecDeque::new(),
            spare: None,
            announced: VecDeque::new(),
            finished: false,
        };
        Self { limits, registry, state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts reading a queue; `announced` are ranges announced before, in order.
    pub(super) fn open_queue(&self, queue: QueueId, announced: Vec<Pending>) {
        let mut state = self.lock();
        debug_assert!(state.open.span().is_none(), "the range of the old queue was closed");
        state.open.clear(queue);
        state.open.describe_by(self.registry.get());
        state.announced = announced.into();
    }

    /// The entries up to `upto` are gone from the middle: what was announced and cannot be read
    /// whole any more is given up, with what was read of it.
    ///
    /// Its token names the whole range: a part of it under another token could be stored twice.
    /// Returns its bounds.
    pub(super) fn give_up(&self, upto: Seq) -> Option<(Seq, Seq)> {
        let mut state = self.lock();
        let announced = state.in_announced().map(|pending| (pending.start, pending.end));
        if announced.is_some() {
            let queue = state.open.queue();
            state.open.clear(queue);
            state.open.describe_by(self.registry.get());
            state.open_meta = Meta::default();
        }
        let lost = state.announced.iter().find(|pending| pending.start <= upto);
        let lost = announced.or_else(|| lost.map(|pending| (pending.start, pending.end)));
        state.announced.retain(|pending| pending.start > upto);
        lost
    }

    /// When an open range is closed.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How long until the open range is `age` old; `None` if it has no entry, or must wait for its
    /// announced end.
    pub(super) fn due_in(&self, age: Duration) -> Option<Duration> {
        let state = self.lock();
        let opened = state.open_meta.opened?;
        // An announced range is not cut short: it must be exactly what it was.
        let due = state.in_announced().is_none();
        due.then(|| age.saturating_sub(opened.elapsed()))
    }

    /// Whether the open range must be closed before it takes the entry `next`.
    pub(super) fn is_due(&self, state: &State, next: Option<Seq>) -> bool {
        let Some((_, last)) = state.open.span() else { return false };
        if let Some(pending) = state.in_announced() {
            return last >= pending.end || next.is_some_and(|next| next > pending.end);
        }
        if let Some(pending) = state.announced.front() {
            let begins = |next: Seq| last < pending.start && next >= pending.start;
            if next.is_some_and(begins) {
                return true;
            }
        }
        state.open.len() >= self.limits.rows
            || state.open_meta.entry_bytes >= self.limits.outstanding_bytes
            || state.open.held_bytes() >= self.limits.held_bytes
    }

    /// Closes the open range, once there is room for it among the closed.
    ///
    /// Returns `false`, with the range still open, if `give_up` says so meanwhile.
    pub(super) fn seal(&self, give_up: &dyn Fn() -> bool) -> bool {
        let mut state = self.lock();
        while state.sealed.len() >= SEALED_MAX {
            if give_up() {
                return false;
            }
            let wait = Duration::from_millis(100);
            let waited = self.changed.wait_timeout(state, wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.open.span().is_none() {
            return true;
        }
        let queue = state.open.queue();
        let announced = state.in_announced().cloned();
        let next = state.spare.take().unwrap_or_else(|| self.limits.room(queue));
        let rows = std::mem::replace(&mut state.open, next);
        state.open.clear(queue);
        state.open.describe_by(self.registry.get());
        let meta = std::mem::take(&mut state.open_meta);
        let last = rows.span().map(|(_, last)| last);
        // An announced range that is cut short by another queue keeps no plan.
        let announced = announced.filter(|pending| last == Some(pending.end));
        let plan = announced.map(|pending| pending.plan).unwrap_or_default();
        // Also those that were passed over because the feed no longer has them.
        state.announced.retain(|pending| last.is_none_or(|last| pending.end > last));
        let Meta { first_us, unreadable, .. } = meta;
        state.sealed.push_back(Arc::new(Sealed { rows, first_us, plan, unreadable }));
        self.changed.notify_all();
        true
    }

    /// Tells the writer that no range comes after those that are closed.
    pub(super) fn finish(&self) {
        self.lock().finished = true;
        self.changed.notify_all();
    }

    /// The oldest closed range, which stays in the buffer; `None` when all are stored and no more
    /// will come, or if `give_up` says so.
    pub(super) fn oldest(&self, give_up: &dyn Fn() -> bool) -> Option<Arc<Sealed>> {
        let mut state = self.lock();
        loop {
            if give_up() {
                return None;
            }
            if let Some(sealed) = state.sealed.front() {
                return Some(sealed.clone());
            }
            if state.finished {
                return None;
            }
            let waited = self.changed.wait_timeout(state, Duration::from_millis(100));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The oldest range is stored and shown by the store itself: queries no longer see it here.
    pub(super) fn release(&self, stored: Arc<Sealed>) {
        let mut state = self.lock();
        let oldest = state.sealed.pop_front();
        debug_assert!(oldest.as_ref().is_some_and(|oldest| Arc::ptr_eq(oldest, &stored)));
        drop(oldest);
        // A query may still hold it; then its memory goes when that ends.
        if let Some(mut sealed) = Arc::into_inner(stored)
            && state.spare.is_none()
        {
            sealed.rows.clear(sealed.rows.queue());
            state.spare = Some(sealed.rows);
        }
        self.changed.notify_all();
    }

    /// When the middle took the oldest entry held here.
    #[must_use]
    pub fn oldest_us(&self) -> Option<u64> {
        let state = self.lock();
        let sealed = state.sealed.front().map(|sealed| sealed.first_us);
        sealed.or_else(|| state.open.span().map(|_| state.open_meta.first_us))
    }

    /// Entries and rows held here.
    #[must_use]
    pub fn held(&self) -> (u64, usize) {
        let state = self.lock();
        let sealed = state.sealed.iter().map(|sealed| &sealed.rows);
        sealed
            .chain([&state.open])
            .fold((0, 0), |(entries, rows), range| (entries + range.entries(), rows + range.len()))
    }
}

impl State {
    /// The announced range that the open one is or begins with.
    fn in_announced(&self) -> Option<&Pending> {
        let (opened, _) = self.open.span()?;
        self.announced.front().filter(|pending| (pending.start..=pending.end).contains(&opened))
    }

    /// Notes an entry that was appended to or skipped in the open range.
    pub(super) fn took(&mut self, time_us: u64, bytes: usize) {
        if self.open_meta.opened.is_none() {
            self.open_meta.opened = Some(Instant::now());
            self.open_meta.first_us = time_us;
        }
        self.open_meta.entry_bytes += bytes as u64;
    }

    /// Notes that the entry taken last cannot be read.
    pub(super) fn aside(&mut self) {
        self.open_meta.unreadable += 1;
    }
}

impl Tail for RangeBuffer {
    fn visit(&self, filter: &Filter, each: &mut dyn FnMut(RowView<'_>)) -> Vec<TailMark> {
        let mut marks: Vec<TailMark> = Vec::new();
        let mut show = |rows: &Rows| {
            let Some((first, _)) = rows.span() else { return };
            if marks.iter().all(|mark| mark.queue != rows.queue()) {
                marks.push(TailMark { queue: rows.queue(), first });
            }
            rows.iter().filter(|row| filter.wants(row)).for_each(&mut *each);
        };
        // Held while the open range is read: the feed waits a millisecond rather than copying it.
        let state = self.lock();
        let sealed: Vec<_> = state.sealed.iter().cloned().collect();
        show_all(&sealed, &state.open, &mut show);
        drop(state);
        marks
    }
}

fn show_all(sealed: &[Arc<Sealed>], open: &Rows, show: &mut dyn FnMut(&Rows)) {
    for range in sealed {
        show(&range.rows);
    }
    show(open);
}
