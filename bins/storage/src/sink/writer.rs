//! The thread that stores a sink's closed ranges: announce, send until acked, commit.
//!
//! It never gives a range up: what the store does not take is sent again, the same bytes, until it
//! does. It ends when the reader has ended and all closed ranges are stored, or at a stop, which
//! leaves the rest to the next start.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use forebay_link::Error;

use super::{
    Backoff, Durability, Encoded, Outcome, RangeBuffer, Sink, SinkState, SinkStatus, Token,
    buffer::Sealed, task::Stop,
};
use crate::feed::Consumer;

/// Deadline of one try to announce or commit; it is repeated.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon a sink that waits for a human looks again.
const ALARM_WAIT: Duration = Duration::from_secs(30);
/// Version of the plan kept with an announced range; one line of history each:
/// - 1: the range alone decides the block.
const PLAN: &[u8] = &[1];

pub(super) struct Writer<C, S> {
    pub(super) name: String,
    pub(super) consumer: Arc<C>,
    pub(super) sink: S,
    pub(super) buffer: Arc<RangeBuffer>,
    pub(super) status: Arc<SinkStatus>,
    pub(super) stop: Arc<Stop>,
    /// Told after a range is acked, before the buffer lets go of it.
    pub(super) stored: Box<dyn FnMut(&Encoded) + Send>,
    /// Ranges acked and held back: when they may be committed, and their last entries.
    pub(super) held_back: VecDeque<(Instant, Token, u64)>,
}

/// The thread was told to stop, or another process has taken over.
struct Stopped;

impl<C: Consumer, S: Sink> Writer<C, S> {
    pub(super) fn run(mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(consumer = %self.name, %error, "a sink has no runtime");
                self.status.set_state(SinkState::Ended, &error.to_string());
                return self.stop.set();
            }
        };
        let buffer = self.buffer.clone();
        let stop = self.stop.clone();
        while let Some(range) = buffer.oldest(&|| stop.is_set()) {
            if self.store(&runtime, range).is_err() {
                break;
            }
        }
        let _ = self.commit_held_back(true);
        self.status.set_oldest_us(self.buffer.oldest_us());
        self.status.set_state(SinkState::Ended, "");
        self.stop.set();
    }

    fn store(
        &mut self,
        runtime: &tokio::runtime::Runtime,
        range: Arc<Sealed>,
    ) -> Result<(), Stopped> {
        let rows = &range.rows;
        let Some((first, last)) = rows.span() else {
            self.buffer.release(range);
            return Ok(());
        };
        let token = Token { queue: rows.queue(), first, last };
        let (entries, row_count) = (rows.entries(), rows.len() as u64);
        if rows.is_empty() {
            // Nothing but position markers: there is nothing to send, only to pass.
            self.buffer.release(range);
            return self.commit(token, entries);
        }
        let encoded = self.encode(&range)?;
        if self.sink.idempotency().by_range() {
            self.request(token, |consumer| consumer.prepare(first, last, PLAN, REQUEST_TIMEOUT))?;
        }
        self.send(runtime, &encoded, &token)?;
        let bytes: usize = encoded.parts.iter().map(|part| part.bytes.len()).sum();
        (self.stored)(&encoded);
        self.status.batches.fetch_add(1, Ordering::Relaxed);
        self.status.rows.fetch_add(row_count, Ordering::Relaxed);
        self.status.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.buffer.release(range);
        tracing::debug!(consumer = %self.name, %first, %last, rows = row_count, bytes, "stored a range");
        match self.sink.durability() {
            Durability::OnAck => self.commit(token, entries),
            Durability::After(hold) => {
                self.held_back.push_back((Instant::now() + hold, token, entries));
                self.commit_held_back(false)
            }
        }
    }

    fn encode(&mut self, range: &Sealed) -> Result<Encoded, Stopped> {
        loop {
            match self.sink.encode(&range.rows) {
                Ok(encoded) => return Ok(encoded),
                Err(error) => self.alarm(&error.to_string())?,
            }
        }
    }

    fn send(
        &mut self,
        runtime: &tokio::runtime::Runtime,
        encoded: &Encoded,
        token: &Token,
    ) -> Result<(), Stopped> {
        let mut backoff = Backoff::default();
        loop {
            match runtime.block_on(self.sink.send(encoded, token)) {
                Outcome::Ack => {
                    self.mended();
                    return Ok(());
                }
                Outcome::Transient(reason) => self.retry(&reason, &mut backoff)?,
                // Without a place for single bad rows, the range waits for a human: nothing is
                // lost, and no healthy row is set aside with the bad one.
                Outcome::Poison(reason) | Outcome::Misconfigured(reason) => self.alarm(&reason)?,
            }
        }
    }

    fn commit(&mut self, token: Token, entries: u64) -> Result<(), Stopped> {
        self.request(token, |consumer| consumer.commit(token.last, REQUEST_TIMEOUT))?;
        self.status.entries.fetch_add(entries, Ordering::Relaxed);
        self.status.set_committed(token.last);
        self.status.set_oldest_us(self.buffer.oldest_us());
        Ok(())
    }

    /// Commits what was held back long enough, or waits for all of it.
    fn commit_held_back(&mut self, all: bool) -> Result<(), Stopped> {
        while let Some(&(due, token, entries)) = self.held_back.front() {
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() && !all {
                return Ok(());
            }
            if self.stop.wait(wait) {
                return Err(Stopped);
            }
            self.held_back.pop_front();
            self.commit(token, entries)?;
        }
        Ok(())
    }

    /// Asks the middle until it has answered. A queue that the middle no longer has needs no
    /// cursor: what is stored of it is stored.
    fn request(
        &mut self,
        token: Token,
        ask: impl Fn(&C) -> Result<(), Error>,
    ) -> Result<(), Stopped> {
        let mut backoff = Backoff::default();
        loop {
            if self.stop.queue() != Some(token.queue) {
                return Ok(());
            }
            match ask(&self.consumer) {
                Ok(()) => {
                    self.mended();
                    return Ok(());
                }
                Err(error @ Error::Deadline { .. }) => {
                    self.retry(&error.to_string(), &mut backoff)?
                }
                Err(Error::Stopped) => return Err(Stopped),
                Err(error @ Error::Fenced { .. }) => {
                    tracing::error!(consumer = %self.name, %error, "a sink has been taken over");
                    self.status.set_state(SinkState::Ended, &error.to_string());
                    return Err(Stopped);
                }
                Err(error) => self.alarm(&error.to_string())?,
            }
        }
    }

    fn retry(&mut self, reason: &str, backoff: &mut Backoff) -> Result<(), Stopped> {
        self.status.retries.fetch_add(1, Ordering::Relaxed);
        if self.status.set_state(SinkState::Retrying, reason) {
            tracing::warn!(consumer = %self.name, reason, "a sink has to try again");
        }
        if self.stop.wait(backoff.wait()) { Err(Stopped) } else { Ok(()) }
    }

    fn alarm(&mut self, reason: &str) -> Result<(), Stopped> {
        self.status.retries.fetch_add(1, Ordering::Relaxed);
        if self.status.set_state(SinkState::Alarmed, reason) {
            tracing::error!(consumer = %self.name, reason, "a sink waits for a human");
        }
        if self.stop.wait(ALARM_WAIT) { Err(Stopped) } else { Ok(()) }
    }

    fn mended(&self) {
        if self.status.set_state(SinkState::Running, "") {
            tracing::info!(consumer = %self.name, "a sink goes on");
        }
    }
}
