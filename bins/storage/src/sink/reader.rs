//! The thread that reads a sink's feed into its buffer and closes ranges.
//!
//! It ends when the feed does, or at a drain, after closing the range that is open.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use forebay_link::{Error, FeedEvent, Opened, QueueId, Record, RecordBatch, Seq};
use forebay_ops::Shutdown;
use forebay_wire::feed::{Pending, Stored};

use super::{
    Backoff, DeadLetters, Gap, Outcome, RangeBuffer, SinkState, SinkStatus,
    buffer::State,
    task::{Hold, Stop},
};
use crate::feed::Consumer;

/// Longest wait for an event: how soon an age, or a drain, is noticed.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// How old a range gets while the process is about to end.
const AGE_ENDING: Duration = Duration::from_millis(100);
/// How long a drain reads on before it asks where the middle's log ends: the middle says so every
/// 100 ms.
const HEAD_KNOWN_AFTER: Duration = Duration::from_millis(250);
/// A drain no longer waits for entries when none has come for so long: the middle is gone.
const SILENCE_MAX: Duration = Duration::from_secs(1);

pub(super) struct Reader<C> {
    pub(super) name: String,
    pub(super) consumer: Arc<C>,
    pub(super) buffer: Arc<RangeBuffer>,
    pub(super) status: Arc<SinkStatus>,
    pub(super) dead_letters: DeadLetters,
    /// The process is to end soon: ranges are closed early, so that the middle can drain too.
    pub(super) shutdown: Shutdown,
    /// This sink is to stop for a while, at what the middle has then.
    pub(super) hold: Arc<Hold>,
    /// This sink is to end: read what the middle has, and no more.
    pub(super) drain: Shutdown,
    pub(super) stop: Arc<Stop>,
    /// Entries up to here are passed over: they are part of a gap.
    pub(super) passed_over: Seq,
}

/// A drain as this reader sees it.
struct Drain {
    began: Instant,
    heard: Instant,
    /// The last entry to read.
    target: Option<Seq>,
}

impl<C: Consumer> Reader<C> {
    /// Reads until a drain, a stop or the end of the feed; then says that no range will follow.
    pub(super) fn run(mut self) {
        let mut queue = None;
        let mut drain = None;
        while !self.stop.is_set() {
            if self.is_drained(&mut drain) {
                if self.drain.is_draining() {
                    break;
                }
                self.wait_held();
                continue;
            }
            let due_in = self.buffer.due_in(self.age());
            if due_in == Some(Duration::ZERO) {
                self.seal();
                continue;
            }
            match self.consumer.next(due_in.unwrap_or(WAIT_MAX).min(WAIT_MAX)) {
                Ok(None) => {}
                Ok(Some(FeedEvent::Opened(opened))) => self.open(&mut queue, &opened),
                Ok(Some(FeedEvent::Batch(batch))) => {
                    self.append(&batch);
                    if let Some(drain) = &mut drain {
                        drain.heard = Instant::now();
                    }
                }
                Ok(Some(FeedEvent::Missed { after, resume })) => {
                    self.missed(queue.unwrap_or(QueueId::new(0)), after, resume);
                }
                Ok(Some(event)) => tracing::debug!(?event, "passed over an event"),
                Err(error) => {
                    self.ended(&error);
                    break;
                }
            }
            self.status.set_oldest_us(self.buffer.oldest_us());
        }
        // A range that was announced before and is still incomplete must stay as it was: it is
        // simply not closed, and read again at the next start.
        if self.buffer.due_in(Duration::ZERO).is_some() {
            self.seal();
        }
        self.hold.reach();
        self.buffer.finish();
    }

    /// How old an open range may get.
    fn age(&self) -> Duration {
        let age = self.buffer.limits().age;
        if self.shutdown.is_draining() { age.min(AGE_ENDING) } else { age }
    }

    /// Closes the open range, and lets some time pass.
    fn wait_held(&self) {
        if self.buffer.due_in(Duration::ZERO).is_some() {
            self.seal();
        }
        self.hold.reach();
        self.stop.wait(WAIT_MAX);
    }

    /// Whether a drain or a hold has begun and all that the middle had by then was read.
    fn is_drained(&self, drain: &mut Option<Drain>) -> bool {
        if !self.drain.is_draining() && !self.hold.is_set() {
            *drain = None;
            return false;
        }
        let now = Instant::now();
        let drain = drain.get_or_insert(Drain { began: now, heard: now, target: None });
        if drain.began.elapsed() < HEAD_KNOWN_AFTER {
            return false;
        }
        // Fixed once: a middle that goes on being fed must not hold the drain up for ever.
        let target = *drain.target.get_or_insert_with(|| self.consumer.head());
        self.status.received() >= target || drain.heard.elapsed() > SILENCE_MAX
    }

    fn open(&mut self, queue: &mut Option<QueueId>, opened: &Opened) {
        // The open range of a lost queue is still worth storing; only its cursor is gone.
        self.seal();
        if queue.is_some_and(|queue| queue != opened.queue) {
            tracing::warn!(consumer = %self.name, queue = %opened.queue, "the middle has another queue");
        }
        *queue = Some(opened.queue);
        self.passed_over = Seq::ZERO;
        let Some(announced) = self.announced(opened) else { return };
        for pending in &announced {
            tracing::info!(consumer = %self.name, first = %pending.start, last = %pending.end,
                "repeating the range that was announced and perhaps not stored");
        }
        self.status.set_received(opened.after);
        self.status.set_committed(opened.after);
        self.buffer.open_queue(opened.queue, announced);
        self.stop.set_queue(opened.queue, opened.tally.unwrap_or_default());
    }

    /// The ranges above the cursor that must be read again as they were, in order; `None` at a
    /// stop. The middle knows one, and a store that keeps a ledger perhaps another.
    fn announced(&self, opened: &Opened) -> Option<Vec<Pending>> {
        let (mut backoff, mut human) = (Backoff::default(), Backoff::for_human());
        let stored = loop {
            let (state, wait, reason) = match self.consumer.announced(opened.queue) {
                Ok(stored) => break stored,
                Err(Outcome::Misconfigured(reason) | Outcome::Poison(reason)) => {
                    (SinkState::Alarmed, human.wait(), reason)
                }
                Err(Outcome::Transient(reason)) => (SinkState::Retrying, backoff.wait(), reason),
                Err(Outcome::Ack) => break None,
            };
            if self.status.set_state(state, &reason) {
                let consumer = &self.name;
                tracing::error!(%consumer, reason, "a store does not say what it was sent last");
            }
            if self.stop.wait(wait) {
                return None;
            }
        };
        if self.status.set_state(SinkState::Running, "") {
            tracing::info!(consumer = %self.name, "a sink goes on");
        }
        let mut announced: Vec<Pending> = opened.pending.iter().cloned().collect();
        if let Some((start, end)) = stored.filter(|&(_, end)| end > opened.after) {
            let same = |pending: &Pending| (pending.start, pending.end) == (start, end);
            if !announced.iter().any(same) {
                // Where they overlap, the store was sent its own later, and the other never.
                announced.retain(|pending| end < pending.start || pending.end < start);
                announced.push(Pending { start, end, plan: Vec::new() });
                announced.sort_unstable_by_key(|pending| pending.start);
            }
        }
        Some(announced)
    }

    fn append(&self, batch: &RecordBatch) {
        let records = batch.iter().skip_while(|record| record.seq <= self.passed_over);
        let mut records = records.peekable();
        while !self.stop.is_set() {
            let mut state = self.buffer.lock();
            let mut dead = None;
            while let Some(record) = records.peek() {
                if self.buffer.is_due(&state, Some(record.seq)) {
                    break;
                }
                let Some(record) = records.next() else { break };
                state.took(record.time_us, record.payload.len());
                if let Err(reason) = take(&mut state, &record) {
                    state.aside();
                    // The range covers it; its bytes must be safe before the range can be sent.
                    dead = Some((record, reason));
                    break;
                }
            }
            // After the last record too: an announced range ends with its last entry, which need
            // not be followed by another for a long time.
            let due = self.buffer.is_due(&state, None);
            drop(state);
            if let Some((record, reason)) = dead {
                self.keep_dead(batch.queue(), &record, &reason);
            }
            if due || records.peek().is_some_and(|next| self.is_due(next.seq)) {
                self.seal();
            } else if records.peek().is_none() {
                break;
            }
        }
        self.status.set_received(batch.last());
    }

    fn is_due(&self, next: Seq) -> bool {
        let state = self.buffer.lock();
        self.buffer.is_due(&state, Some(next))
    }

    fn seal(&self) {
        self.buffer.seal(&|| self.stop.is_set());
    }

    fn keep_dead(&self, queue: QueueId, record: &Record<'_>, reason: &str) {
        let seq = record.seq;
        let Some(path) = self.keep(|| self.dead_letters.keep_entry(queue, seq, record.payload))
        else {
            return;
        };
        self.status.dead_letters.fetch_add(1, Ordering::Relaxed);
        let path = path.display();
        tracing::error!(consumer = %self.name, %seq, %path, reason, "set aside an entry that is none");
    }

    /// The middle gave up entries for this sink: keeps which, and goes on after them.
    ///
    /// A range that was announced and cannot be read whole again belongs to the gap, all of it:
    /// the store may have it, and a part of it under another token could be there twice.
    fn missed(&mut self, queue: QueueId, after: Seq, resume: Seq) {
        let announced = self.buffer.give_up(resume);
        // What was read before is a range of its own: no range that is sent reaches over a gap.
        self.seal();
        let (after, upto) = match announced {
            Some((first, last)) => (after.min(Seq::new(first.get() - 1)), resume.max(last)),
            None => (after, resume),
        };
        self.passed_over = upto;
        let entries = (after.epoch() == upto.epoch()).then(|| upto.counter() - after.counter());
        let gap = Gap {
            sink: self.name.clone(),
            queue: queue.to_string(),
            after: after.to_string(),
            upto: upto.to_string(),
            entries,
            announced: announced.map(|(first, last)| (first.to_string(), last.to_string())),
        };
        let Some(path) = self.keep(|| self.dead_letters.keep_gap(queue, after, &gap)) else {
            return;
        };
        self.status.missed.fetch_add(1, Ordering::Relaxed);
        self.status.missed_entries.fetch_add(entries.unwrap_or(0), Ordering::Relaxed);
        tracing::error!(consumer = %self.name, %queue, %after, %upto, entries,
            announced = ?gap.announced, path = %path.display(),
            "the middle gave up entries for this sink: it goes on after the gap");
    }

    /// Keeps something on the medium, however long it takes; `None` at a stop.
    fn keep(&self, mut try_once: impl FnMut() -> io::Result<PathBuf>) -> Option<PathBuf> {
        let mut backoff = Backoff::default();
        while !self.stop.is_set() {
            match try_once() {
                Ok(path) => return Some(path),
                Err(error) => {
                    let reason = format!("cannot keep a dead letter: {error}");
                    if self.status.set_state(SinkState::Retrying, &reason) {
                        tracing::warn!(consumer = %self.name, %error, "cannot keep a dead letter");
                    }
                    self.stop.wait(backoff.wait());
                }
            }
        }
        None
    }

    fn ended(&self, error: &Error) {
        let reason = error.to_string();
        match error {
            Error::Stopped => {}
            _ => tracing::error!(consumer = %self.name, %error, "the feed of a sink has ended"),
        }
        self.status.set_state(SinkState::Ended, &reason);
    }
}

/// Appends the rows of one record of the middle's queue to the open range.
fn take(state: &mut State, record: &Record<'_>) -> Result<(), String> {
    let Some(stored) = Stored::decode(record.payload) else {
        state.open.skip(record.seq);
        return Err("shorter than its prefix".to_owned());
    };
    if stored.is_marker() {
        state.open.skip(record.seq);
        return Ok(());
    }
    state.open.append_entry(record.seq, stored.entry).map_err(|error| {
        state.open.skip(record.seq);
        error.to_string()
    })
}
