//! The thread that stores a sink's closed ranges: announce, send until acked, commit.
//!
//! It never gives a range up: what the store does not take is sent again, the same bytes, until it
//! does; rows that the store will never take are found by cutting the range, and set aside. It ends
//! when the reader has ended and all closed ranges are stored, or at a stop, which
//! leaves the rest to the next start.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use forebay_link::{Error, QueueId, Tally};
use tokio::runtime::Runtime;

use super::{
    Backoff, DeadLetters, Durability, Encoded, Outcome, RangeBuffer, Sink, SinkState, SinkStatus,
    Token,
    bisect::{Bisection, PLAN_WHOLE},
    buffer::Sealed,
    held::HeldBack,
    task::Stop,
};
use crate::{feed::Consumer, rows::Rows};

/// Deadline of one try to announce or commit; it is repeated.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Writer<C, S> {
    pub(super) name: String,
    pub(super) consumer: Arc<C>,
    pub(super) sink: S,
    pub(super) buffer: Arc<RangeBuffer>,
    pub(super) status: Arc<SinkStatus>,
    pub(super) stop: Arc<Stop>,
    /// Told after a range is acked, before the buffer lets go of it.
    pub(super) stored: Box<dyn FnMut(&Encoded) + Send>,
    /// Ranges acked and not committed yet.
    pub(super) held_back: HeldBack,
    pub(super) dead_letters: DeadLetters,
    /// Rows refused since the store took something for the last time.
    pub(super) refused_in_a_row: usize,
    /// What has become of the range at hand so far.
    pub(super) range: Tally,
    /// What has become of everything committed, in the middle's queue as it is now.
    pub(super) accounts: Option<(QueueId, Tally)>,
}

/// The thread was told to stop, or another process has taken over.
pub(super) struct Stopped;

/// How soon a stop is noticed while a store that hangs is waited for.
const STOP_LOOK: Duration = Duration::from_millis(100);

/// The store's answer; at a stop what was asked is left to the next start, whatever became of it.
async fn unless_stopped<T>(
    stop: &Stop,
    mut asked: impl Future<Output = T> + Unpin,
) -> Result<T, Stopped> {
    loop {
        match tokio::time::timeout(STOP_LOOK, &mut asked).await {
            Ok(answer) => return Ok(answer),
            Err(_) if stop.is_set() => return Err(Stopped),
            Err(_) => {}
        }
    }
}

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
        loop {
            let wake = self.held_back.wake();
            let is_due = || wake.is_some_and(|wake| wake <= Instant::now());
            let done = match buffer.oldest(&|| stop.is_set() || is_due()) {
                Some(range) => self.store(&runtime, range),
                // The next range may be long in coming: the cursor does not wait for it.
                None if is_due() && !stop.is_set() => self.commit_held_back(&runtime, false),
                None => break,
            };
            if done.is_err() {
                break;
            }
        }
        let _ = self.commit_held_back(&runtime, true);
        self.status.set_oldest_us(self.buffer.oldest_us());
        self.status.set_state(SinkState::Ended, "");
        self.stop.set();
    }

    fn store(&mut self, runtime: &Runtime, range: Arc<Sealed>) -> Result<(), Stopped> {
        let rows = &range.rows;
        let Some((first, last)) = rows.span() else {
            self.buffer.release(range);
            return Ok(());
        };
        let token = Token::whole(rows.queue(), first, last);
        let row_count = rows.len() as u64;
        let (records, unreadable) = (rows.entries(), range.unreadable);
        // Messages are counted as what they were made into: one that was passed over is missed.
        let messages = rows.messages() as u64 + unreadable;
        self.range = Tally { records, messages, unreadable, rows: row_count, ..Tally::default() };
        if rows.is_empty() {
            // Nothing but position markers: there is nothing to send, only to pass.
            self.buffer.release(range);
            if self.held_back.is_empty() {
                return self.commit(token, self.range);
            }
            // Not before those that are held back.
            self.hold_back(Instant::now(), token);
            return Ok(());
        }
        self.make_room(runtime)?;
        let mut wait = Backoff::for_human();
        let cut = loop {
            match Bisection::resume(row_count as u32, &range.plan) {
                Ok(cut) => break cut,
                Err(error) => self.alarm(&error.to_string(), &mut wait)?,
            }
        };
        let mut set_aside = 0;
        match cut {
            Some(cut) => {
                // An earlier process settled the rest; how much of it as dead is not known here.
                self.range.stored += row_count.saturating_sub(cut.open_rows());
                set_aside = self.bisect(runtime, rows, &token, cut)?;
            }
            None => {
                self.prepare(&token, PLAN_WHOLE)?;
                if let Err(reason) = self.send(runtime, rows, &token)? {
                    tracing::warn!(consumer = %self.name, %first, %last, rows = row_count, reason,
                        "the store refused a range: looking for the rows that are at fault");
                    let (cut, _) = Bisection::new(row_count as u32, reason);
                    set_aside = self.bisect(runtime, rows, &token, cut)?;
                }
            }
        }
        self.status.rows.fetch_add(row_count - set_aside, Ordering::Relaxed);
        let (unknown, suspect) = rows.doubtful();
        self.status.unknown.fetch_add(unknown, Ordering::Relaxed);
        self.status.suspect.fetch_add(suspect, Ordering::Relaxed);
        self.buffer.release(range);
        tracing::debug!(consumer = %self.name, %first, %last, rows = row_count, "stored a range");
        match self.sink.durability() {
            Durability::OnAck => self.commit(token, self.range),
            Durability::After(hold) => {
                self.hold_back(Instant::now() + hold, token);
                self.commit_held_back(runtime, false)
            }
        }
    }

    /// Announces a range, or how it is cut, where a replay must repeat exactly that.
    pub(super) fn prepare(&mut self, token: &Token, plan: &[u8]) -> Result<(), Stopped> {
        if !self.sink.idempotency().by_range() {
            return Ok(());
        }
        let Token { queue, first, last, .. } = *token;
        self.request(*token, |consumer| consumer.prepare(queue, first, last, plan, REQUEST_TIMEOUT))
            .map(drop)
    }

    /// Sends rows until the store has taken or refused them; says why they were refused.
    pub(super) fn send(
        &mut self,
        runtime: &Runtime,
        rows: &Rows,
        token: &Token,
    ) -> Result<Result<(), String>, Stopped> {
        let mut backoff = Backoff::default();
        let mut wait = Backoff::for_human();
        let encoded = loop {
            match self.sink.encode(rows) {
                Ok(encoded) => break encoded,
                Err(error) => self.alarm(&error.to_string(), &mut wait)?,
            }
        };
        loop {
            let sending = self.sink.send(&encoded, token);
            match runtime.block_on(unless_stopped(&self.stop, sending))? {
                Outcome::Ack => {
                    self.mended();
                    self.refused_in_a_row = 0;
                    (self.stored)(&encoded);
                    // What was sent, not what was to be: the difference is a loss that shows.
                    self.range.stored += encoded.parts.iter().map(|part| part.rows).sum::<u64>();
                    self.range.left_out += encoded.left_out;
                    let bytes: usize = encoded.parts.iter().map(|part| part.bytes.len()).sum();
                    self.status.batches.fetch_add(1, Ordering::Relaxed);
                    self.status.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                    if let Durability::After(_) = self.sink.durability() {
                        self.held_back.keep(*token, encoded);
                        self.repeat_if_lost(runtime)?;
                    }
                    return Ok(Ok(()));
                }
                Outcome::Transient(reason) => self.retry(&reason, &mut backoff)?,
                Outcome::Misconfigured(reason) => self.alarm(&reason, &mut wait)?,
                Outcome::Poison(reason) => return Ok(Err(reason)),
            }
        }
    }

    fn commit(&mut self, token: Token, range: Tally) -> Result<(), Stopped> {
        let opened = self.stop.queue();
        if self.accounts.map(|(queue, _)| queue) != opened.map(|(queue, _)| queue) {
            self.accounts = opened;
        }
        let (_, before) = self.accounts.unwrap_or((token.queue, Tally::default()));
        let tally = before.plus(&range);
        let Token { queue, last, .. } = token;
        let is_there =
            self.request(token, |consumer| consumer.commit(queue, last, tally, REQUEST_TIMEOUT))?;
        if !is_there {
            return Ok(());
        }
        if let Some((queue, accounts)) = &mut self.accounts
            && *queue == token.queue
        {
            *accounts = tally;
        }
        self.status.entries.fetch_add(range.records, Ordering::Relaxed);
        self.status.set_committed(token.last);
        self.status.set_oldest_us(self.buffer.oldest_us());
        Ok(())
    }

    /// Holds the range at hand back until then.
    fn hold_back(&mut self, due: Instant, token: Token) {
        self.held_back.push(due, token, self.range);
        self.status.set_held(self.held_back.entries());
    }

    /// Commits what was held back long enough, or waits for all of it.
    fn commit_held_back(&mut self, runtime: &Runtime, all: bool) -> Result<(), Stopped> {
        while let Some(wake) = self.held_back.wake() {
            if wake > Instant::now() && !all {
                return Ok(());
            }
            self.wait_held_back(runtime, wake)?;
        }
        Ok(())
    }

    /// Waits until the blocks that are held back leave room for more.
    fn make_room(&mut self, runtime: &Runtime) -> Result<(), Stopped> {
        while self.held_back.is_full()
            && let Some(wake) = self.held_back.wake()
        {
            self.wait_held_back(runtime, wake)?;
        }
        Ok(())
    }

    /// Waits, looks at the store, and commits the oldest range if it is due and not in doubt.
    fn wait_held_back(&mut self, runtime: &Runtime, wake: Instant) -> Result<(), Stopped> {
        if self.stop.wait(wake.saturating_duration_since(Instant::now())) {
            return Err(Stopped);
        }
        if self.repeat_if_lost(runtime)? {
            return Ok(());
        }
        if self.held_back.due().is_some_and(|due| due <= Instant::now())
            && let Some(held) = self.held_back.pop()
        {
            self.commit(held.token, held.tally)?;
            self.status.set_held(self.held_back.entries());
        }
        Ok(())
    }

    /// Sends again what is held back if the store may have died since it acked that; says whether.
    ///
    /// Once: if it dies meanwhile, the next look says so.
    fn repeat_if_lost(&mut self, runtime: &Runtime) -> Result<bool, Stopped> {
        let Durability::After(hold) = self.sink.durability() else { return Ok(false) };
        let life = runtime.block_on(unless_stopped(&self.stop, self.sink.life()))?;
        if !self.held_back.is_in_doubt(life) {
            return Ok(false);
        }
        let blocks = self.held_back.blocks();
        tracing::warn!(consumer = %self.name, blocks = blocks.len(),
            "the store may have died: sending again what it may not have written");
        self.status.retries.fetch_add(1, Ordering::Relaxed);
        for (token, encoded) in &blocks {
            // A store that answers at once would not let it be noticed.
            if self.stop.is_set() {
                return Err(Stopped);
            }
            self.send_again(runtime, encoded, token)?;
        }
        self.held_back.put_off(hold);
        Ok(true)
    }

    fn send_again(
        &mut self,
        runtime: &Runtime,
        encoded: &Encoded,
        token: &Token,
    ) -> Result<(), Stopped> {
        let (mut backoff, mut wait) = (Backoff::default(), Backoff::for_human());
        loop {
            let sending = self.sink.send(encoded, token);
            match runtime.block_on(unless_stopped(&self.stop, sending))? {
                Outcome::Ack => {
                    self.mended();
                    return Ok(());
                }
                Outcome::Transient(reason) => self.retry(&reason, &mut backoff)?,
                Outcome::Misconfigured(reason) => self.alarm(&reason, &mut wait)?,
                Outcome::Poison(reason) => {
                    // It took these rows before: what it says of them now is that they are late.
                    tracing::error!(consumer = %self.name, first = %token.first,
                        last = %token.last, reason,
                        "the store refuses what it had acked before it may have died");
                    return Ok(());
                }
            }
        }
    }

    /// Asks the middle until it has answered; says whether it has the queue. One that it no longer
    /// has needs no cursor: what is stored of it is stored. The reader may hear of that after us.
    fn request(
        &mut self,
        token: Token,
        ask: impl Fn(&C) -> Result<(), Error>,
    ) -> Result<bool, Stopped> {
        let mut backoff = Backoff::default();
        let mut wait = Backoff::for_human();
        loop {
            if self.stop.queue().is_none_or(|(queue, _)| queue != token.queue) {
                return Ok(false);
            }
            match ask(&self.consumer) {
                Ok(()) => {
                    self.mended();
                    return Ok(true);
                }
                Err(Error::OtherQueue { queue, .. }) => {
                    tracing::warn!(consumer = %self.name, last = %token.last, %queue,
                        "the middle has another queue: the cursor of the old one is gone");
                    self.mended();
                    return Ok(false);
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
                Err(error) => self.alarm(&error.to_string(), &mut wait)?,
            }
        }
    }

    pub(super) fn retry(&mut self, reason: &str, backoff: &mut Backoff) -> Result<(), Stopped> {
        self.status.retries.fetch_add(1, Ordering::Relaxed);
        if self.status.set_state(SinkState::Retrying, reason) {
            tracing::warn!(consumer = %self.name, reason, "a sink has to try again");
        }
        if self.stop.wait(backoff.wait()) { Err(Stopped) } else { Ok(()) }
    }

    pub(super) fn alarm(&mut self, reason: &str, wait: &mut Backoff) -> Result<(), Stopped> {
        self.status.retries.fetch_add(1, Ordering::Relaxed);
        if self.status.set_state(SinkState::Alarmed, reason) {
            tracing::error!(consumer = %self.name, reason, "a sink waits for a human");
        }
        if self.stop.wait(wait.wait()) { Err(Stopped) } else { Ok(()) }
    }

    fn mended(&self) {
        if self.status.set_state(SinkState::Running, "") {
            tracing::info!(consumer = %self.name, "a sink goes on");
        }
    }
}
