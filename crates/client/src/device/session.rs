//! One connection of a device while it lasts: takes what the front says, then sends what may be
//! sent, then flushes once, and sleeps until one of these has work again.
//!
//! A single poll does all of it without waiting for any one side, so that acks are taken while the
//! socket does not accept more, and a burst of messages costs one flush.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use forebay_wire::device::ServerFrame;
use tokio::time::Sleep;

use super::{
    shared::Shared,
    spool::{Filled, SpoolReader},
    window::{Breach, resume},
};
use crate::{Connection, ConnectionError, Error, Rejection, observe::add};

/// Frames moved from the window to the socket under one lock.
const BATCH: usize = 64;

/// Why a connection is over.
pub(super) enum End {
    /// Connect again, if the error allows.
    Broken(ConnectionError),
    /// Connect again at once: numbers were left out.
    Again,
    /// The device is closed.
    Closing,
    /// The device cannot go on.
    Failed(Error),
}

pub(super) struct Session<'s> {
    connection: Connection,
    shared: &'s Shared,
    spool: Option<&'s mut SpoolReader>,
    /// Taken from the window, not yet in the socket.
    outgoing: VecDeque<Bytes>,
    /// Something is in the socket's buffer.
    unflushed: bool,
    /// When the front last gave a sign of life.
    heard: Instant,
    /// Whether a ping is out that was not answered.
    pinged: bool,
    /// Silence after which a ping is due; twice as much is the end.
    silence: Duration,
    timer: Pin<Box<Sleep>>,
}

impl<'s> Session<'s> {
    pub(super) fn new(
        connection: Connection,
        shared: &'s Shared,
        spool: Option<&'s mut SpoolReader>,
    ) -> Self {
        let silence = Duration::from_secs(u64::from(connection.welcome().ping_s.max(1)));
        Self {
            connection,
            shared,
            spool,
            outgoing: VecDeque::new(),
            unflushed: false,
            heard: Instant::now(),
            pinged: false,
            silence,
            timer: Box::pin(tokio::time::sleep(silence)),
        }
    }

    /// Runs until the connection is over.
    pub(super) async fn run(mut self) -> End {
        let end = std::future::poll_fn(|context| self.poll(context)).await;
        if let End::Closing | End::Again = end {
            // Said politely or not at all: what is unacked is sent again in any case.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.connection.close()).await;
        }
        end
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        // Before anything is looked at, so that what comes after the look wakes this task.
        self.shared.task.register(context.waker());
        match self.step(context) {
            Ok(()) if self.shared.is_closing() => Poll::Ready(End::Closing),
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    fn step(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        while let Poll::Ready(frame) = self.connection.poll_receive(context) {
            let frame = frame.map_err(End::Broken)?;
            self.heard = Instant::now();
            self.pinged = false;
            if let Some(frame) = frame {
                self.answer(frame)?;
            }
        }
        self.fill(context)?;
        self.write(context).map_err(End::Broken)?;
        self.wait(context).map_err(End::Broken)
    }

    /// Moves the marks as the front says.
    fn answer(&mut self, frame: ServerFrame<'_>) -> Result<(), End> {
        let breach = |Breach(what)| End::Broken(ConnectionError::Protocol(what));
        match frame {
            ServerFrame::Ack { ack, credit } => {
                let mut state = self.shared.state();
                if let Some(credit) = credit {
                    state.window.credit(credit);
                }
                let first = state.window.first();
                let released = state.window.ack(ack, self.outgoing.len()).map_err(breach)?;
                let mut none = None;
                let mark = self.spool.as_mut().map_or(&mut none, |spool| spool.mark());
                let (count, done) = self.shared.released(first, released, mark, self.heard);
                drop(state);
                self.shared.freed(count, done, self.spool.as_deref_mut()).map_err(End::Failed)
            }
            ServerFrame::Nack { nack, code, retry_ms, expect } => {
                add(&self.shared.counters.nacked, 1);
                let resume = resume(self.heard, retry_ms);
                let went = self.shared.state().window.nack(nack, code, expect, resume);
                if went.map_err(breach)? {
                    self.outgoing.clear();
                }
                Ok(())
            }
            ServerFrame::Reject { seq, code, reason } => {
                let news = self.shared.state().window.reject(seq).map_err(breach)?;
                if news {
                    let (code, reason) = (code.into_owned(), reason.into_owned());
                    self.shared.rejected(Rejection { seq, code, reason });
                }
                Ok(())
            }
            ServerFrame::Welcome { .. } => {
                let what = "a second welcome".to_owned();
                Err(End::Broken(ConnectionError::Protocol(what)))
            }
        }
    }

    /// Takes messages from the spool into the window.
    fn fill(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        let Some(spool) = self.spool.as_deref_mut() else { return Ok(()) };
        match spool.fill(self.shared, context.waker()) {
            Ok(Filled::Waiting) => Ok(()),
            Ok(Filled::Hole) => Err(End::Again),
            Err(error) => Err(End::Failed(error)),
        }
    }

    /// Puts frames into the socket as long as it takes them, and flushes once.
    fn write(&mut self, context: &mut Context<'_>) -> Result<(), ConnectionError> {
        loop {
            if self.outgoing.is_empty() {
                let now = Instant::now();
                let resent = self.shared.state().window.take(BATCH, now, &mut self.outgoing);
                if self.outgoing.is_empty() {
                    break;
                }
                add(&self.shared.counters.sent, self.outgoing.len());
                add(&self.shared.counters.resent, resent);
            }
            if self.connection.poll_room(context)?.is_pending() {
                return Ok(());
            }
            if let Some(frame) = self.outgoing.pop_front() {
                self.connection.put(frame)?;
                self.unflushed = true;
            }
        }
        if self.unflushed {
            self.unflushed = self.connection.poll_flush(context)?.is_pending();
        }
        Ok(())
    }

    /// Sets the timer to what comes first: the end of a pause, or of the front's silence.
    fn wait(&mut self, context: &mut Context<'_>) -> Result<(), ConnectionError> {
        loop {
            let now = Instant::now();
            let quiet = now.saturating_duration_since(self.heard);
            if quiet >= 2 * self.silence {
                return Err(ConnectionError::Timeout);
            }
            if quiet >= self.silence
                && !self.pinged
                && self.connection.poll_room(context)?.is_ready()
            {
                self.connection.put_ping()?;
                self.pinged = true;
                self.unflushed = self.connection.poll_flush(context)?.is_pending();
            }
            let due =
                self.heard + if quiet >= self.silence { 2 * self.silence } else { self.silence };
            let due = match self.shared.state().window.paused_until() {
                Some(until) if until <= now => {
                    // The pause is over: come round again and send.
                    context.waker().wake_by_ref();
                    due
                }
                Some(until) => due.min(until),
                None => due,
            };
            if self.timer.deadline().into_std() != due {
                self.timer.as_mut().reset(due.into());
            }
            if self.timer.as_mut().poll(context).is_pending() {
                return Ok(());
            }
        }
    }
}

impl Shared {
    /// Gives the places of released messages back, in the window and in the spool.
    pub(super) fn freed(
        &self,
        count: usize,
        done: Option<forebay_queue::Seq>,
        spool: Option<&mut SpoolReader>,
    ) -> Result<(), Error> {
        if count == 0 {
            return Ok(());
        }
        match spool {
            Some(spool) => spool.commit(done)?,
            None => self.room.add_permits(count),
        }
        self.progress.notify_waiters();
        Ok(())
    }
}
