//! What a session does with the messages of its device.

use std::time::Instant;

use bytes::Bytes;
use forebay_model::{Body, Message, MessageId, SessionId, Timestamp};
use forebay_queue::Error;
use forebay_wire::device::{ClientFrame, CloseCode, DecodeError, Format, NackCode, Token, raw};

use super::{
    Held, Mode, Session, Stage,
    batch::Batch,
    sequence::{Sequence, Verdict},
};
use crate::{
    handshake::answer::Refusal,
    registry::Rejection,
    socket::{Incoming, Socket},
    tenancy::Admitted,
};

/// What a device that has used up its credit is told to wait for acks.
const CREDIT_RETRY_MS: u32 = 1000;

impl<S: Socket> Session<S> {
    /// Takes in all messages that have been read; true if some are left because there is no room.
    pub(super) fn drain(&mut self, now_ms: u64) -> bool {
        // Two of three looks find nothing: they cost no look at a clock.
        let mut next = self.socket.next();
        if next.is_none() {
            return false;
        }
        let core = std::rc::Rc::clone(&self.core);
        let mut batch = core.batch.borrow_mut();
        let received = Timestamp::now();
        if let Some(bucket) = &mut self.bucket {
            bucket.refill(now_ms);
        }
        let mut left = false;
        while let Some(incoming) = next {
            match incoming {
                Ok(Incoming::Binary(payload)) => {
                    self.take(false, &payload, received, now_ms, &mut batch);
                }
                Ok(Incoming::Text(payload)) => {
                    self.take(true, &payload, received, now_ms, &mut batch);
                }
                Ok(Incoming::Control) => self.dirty = true,
                Ok(Incoming::Close) => {
                    self.commit(&mut batch, received);
                    self.stage = Stage::Closing;
                }
                Err(broken) => {
                    self.commit(&mut batch, received);
                    self.break_off(broken);
                }
            }
            if batch.bytes() >= self.batch_bytes_max {
                self.commit(&mut batch, received);
            }
            if self.held.is_some() || !matches!(self.stage, Stage::Greeting | Stage::Open) {
                left = true;
                break;
            }
            next = self.socket.next();
        }
        self.commit(&mut batch, received);
        left || self.held.is_some()
    }

    /// Takes in one message.
    fn take(
        &mut self,
        text: bool,
        payload: &Bytes,
        received: Timestamp,
        now_ms: u64,
        batch: &mut Batch,
    ) {
        match self.mode {
            Mode::Raw => self.take_raw(text, payload, received, now_ms, batch),
            Mode::Framed(format) if format.is_text() != text => {
                let reason = match format {
                    Format::Cbor => "this connection speaks CBOR in binary messages",
                    Format::Json => "this connection speaks JSON in text messages",
                };
                self.close_after(batch, received, CloseCode::WrongEncoding, reason);
            }
            Mode::Framed(format) => match ClientFrame::decode(format, payload, received) {
                Ok(ClientFrame::Data { seq, body }) if self.stage == Stage::Open => {
                    self.take_data(seq, body, payload.len(), (received, now_ms), batch);
                }
                Ok(ClientFrame::Hello { session, next_seq, token })
                    if self.stage == Stage::Greeting =>
                {
                    if self.admit(token.as_ref(), now_ms) {
                        self.greet(session, next_seq);
                    }
                }
                Ok(ClientFrame::Data { .. }) => {
                    self.close_after(batch, received, CloseCode::BadMessage, "data before hello");
                }
                Ok(ClientFrame::Hello { .. }) => {
                    self.close_after(batch, received, CloseCode::BadMessage, "a second hello");
                }
                Err(error) => self.take_bad(&error, received, batch),
            },
        }
    }

    /// Lets in who shows a credential in the hello; false if the connection is closed instead. The
    /// credential of the request counts before that of the hello.
    fn admit(&mut self, token: Option<&Token<'_>>, now_ms: u64) -> bool {
        let core = std::rc::Rc::clone(&self.core);
        let policy = &core.front.policy;
        let named = self.pending.is_some() || (policy.anonymous && policy.takes_tokens);
        let Some(token) = token.filter(|_| named && !core.rests(self.place)) else {
            if self.pending.is_some() {
                self.close(CloseCode::Unauthenticated, "a credential is needed");
                return false;
            }
            return true;
        };
        match policy.admit_token(&self.identity.device, token.expose()) {
            Ok(Admitted::Known(identity, tenure)) => {
                core.rest_on(self.place, tenure);
                self.ring = identity.partition(core.rings.len());
                self.tenant = core.front.tenants.get(&identity.tenant, now_ms);
                self.identity = identity;
                if let Some(pending) = self.pending.take() {
                    pending.remove();
                }
                true
            }
            Ok(Admitted::Pending(_)) => false,
            Err(Refusal::Forbidden(reason)) => {
                self.close(CloseCode::Forbidden, &reason);
                false
            }
            Err(Refusal::Unauthenticated(reason)) => {
                self.close(CloseCode::Unauthenticated, &reason);
                false
            }
            Err(_) => {
                self.close(CloseCode::Internal, "the credential cannot be checked");
                false
            }
        }
    }

    /// The device has said which session it continues.
    fn greet(&mut self, session: SessionId, next_seq: MessageId) {
        let below = next_seq.get() - 1;
        let older = self.core.front.devices.take_over(&self.identity, &self.control);
        let known = older.and_then(|older| older.reached_in(session.get()));
        let known = known.map(|reached| reached.max(below)).filter(|number| *number > 0);
        let settled = known.unwrap_or(below);
        self.session = session;
        self.sequence = Sequence::new(settled + 1);
        self.noted = settled;
        self.acked = settled;
        self.control.name_session(session.get());
        self.control.reach(settled);
        self.clock.greet();
        self.stage = Stage::Open;
        self.send_welcome(known);
    }

    fn take_data(
        &mut self,
        seq: MessageId,
        body: Body<'_>,
        received_bytes: usize,
        (received, now_ms): (Timestamp, u64),
        batch: &mut Batch,
    ) {
        if !self.judge(seq.get()) {
            return;
        }
        let code = if self.over_credit { Err(CREDIT_RETRY_MS) } else { self.within_rate(now_ms) };
        if let Err(retry_ms) = code {
            self.sequence.back_to(self.sequence.mark(), Instant::now());
            return self.send_nack(seq.get(), NackCode::Rate, retry_ms, None);
        }
        if let Err((code, reason)) = self.check_registered(&body) {
            self.sequence.reject();
            return self.send_reject(seq.get(), code, &reason);
        }
        self.keep(seq, body, received_bytes, received, batch);
    }

    /// Holds a message against what the registry says of its device.
    fn check_registered(&mut self, body: &Body<'_>) -> Result<(), Rejection> {
        match &self.core.front.edge {
            Some(edge) => edge.check(&self.identity, &mut self.listed, body),
            None => Ok(()),
        }
    }

    fn take_raw(
        &mut self,
        text: bool,
        payload: &Bytes,
        received: Timestamp,
        now_ms: u64,
        batch: &mut Batch,
    ) {
        if self.over_credit {
            return self.close_after_retry(batch, received, CloseCode::TryAgainLater);
        }
        if self.within_rate(now_ms).is_err() {
            return self.close_after_retry(batch, received, CloseCode::TooMany);
        }
        let Ok(seq) = MessageId::new(self.sequence.expected()) else {
            return self.close_after_retry(batch, received, CloseCode::TryAgainLater);
        };
        // The codec has checked that a text is one.
        let body = match std::str::from_utf8(payload) {
            Ok(payload) if text => raw::text(payload),
            _ => raw::binary(payload),
        };
        self.keep(seq, body, payload.len(), received, batch);
    }

    /// A frame that cannot be taken, by its number if that could be read.
    fn take_bad(&mut self, error: &DecodeError, received: Timestamp, batch: &mut Batch) {
        match error.seq {
            Some(seq) if self.stage == Stage::Open => {
                if self.judge(seq.get()) {
                    self.sequence.reject();
                    self.send_reject(seq.get(), error.code(), &error.reason());
                }
            }
            _ => self.close_after(batch, received, CloseCode::BadMessage, &error.reason()),
        }
    }

    /// Whether it is the turn of message `seq`; answers it if not.
    fn judge(&mut self, seq: u64) -> bool {
        match self.sequence.judge(seq, Instant::now) {
            Verdict::Next => return true,
            Verdict::Duplicate => {
                self.core.front.metrics.duplicates.inc();
                self.ack_again = true;
            }
            Verdict::Gap { expect } => self.send_nack(seq, NackCode::Gap, 0, Some(expect)),
            Verdict::Overtaken => {}
        }
        false
    }

    /// Whether the device and its tenant keep to their rates; else the milliseconds after which
    /// the device may send again.
    fn within_rate(&mut self, now_ms: u64) -> Result<(), u32> {
        self.bucket.as_mut().map_or(Ok(()), |bucket| bucket.take())?;
        self.tenant.take(now_ms)
    }

    /// Puts the next message of the session into the batch.
    fn keep(
        &mut self,
        seq: MessageId,
        body: Body<'_>,
        received_bytes: usize,
        received: Timestamp,
        batch: &mut Batch,
    ) {
        let mark = self.sequence.mark();
        let message = Message {
            tenant: self.identity.tenant.as_str().into(),
            device: self.identity.device.as_str().into(),
            session: self.session,
            seq,
            rejected_before: self.sequence.rejected(),
            received,
            body,
        };
        let entry_bytes = batch.push(&message, received_bytes, mark);
        let entry_bytes_max = self.core.front.config.queue.entry_max.as_usize();
        if entry_bytes > entry_bytes_max {
            batch.pop(received_bytes);
            self.sequence.reject();
            let reason =
                format!("the message takes {entry_bytes} bytes, the limit is {entry_bytes_max}");
            return self.send_reject(seq.get(), "too_large", &reason);
        }
        self.sequence.accept();
    }

    /// Appends the batch; if there is no room it is held and the socket is not read.
    fn commit(&mut self, batch: &mut Batch, received: Timestamp) {
        let Some(from) = batch.from() else { return self.note(Instant::now()) };
        if self.append(batch, received) {
            batch.clear();
        } else {
            self.held = Some(Held { batch: std::mem::take(batch), from, received });
        }
    }

    /// Tries the held batch again; true if it is in the ring.
    pub(super) fn append_held(&mut self) -> bool {
        let Some(held) = self.held.take() else { return true };
        let appended = self.append(&held.batch, held.received);
        if !appended {
            self.held = Some(held);
        }
        appended
    }

    /// Appends the batch and notes the ack; false if there is no room.
    fn append(&mut self, batch: &Batch, received: Timestamp) -> bool {
        let since = Instant::now();
        let time_us = u64::try_from(received.micros()).unwrap_or(0);
        let ring = &self.core.rings[self.ring];
        let tenants = &self.core.front.tenants;
        if !tenants.has_room(&self.tenant, self.ring, ring) {
            return false;
        }
        match ring.append(time_us, &batch.entries()) {
            Ok(seq) => {
                self.last = seq;
                let size = (batch.len(), batch.bytes());
                tenants.appended(&self.tenant, self.ring, size, seq, ring);
            }
            Err(Error::Full { .. }) => return false,
            Err(error) => self.core.front.fail(&error),
        }
        let metrics = &self.core.front.metrics;
        metrics.messages.inc_by(batch.len() as u64);
        metrics.bytes.inc_by(batch.received_bytes() as u64);
        self.core.local.append(batch.len(), since.elapsed());
        self.full_nacks = 0;
        self.note(since);
        true
    }

    /// Sees to the ack of everything settled so far: it is due once the last entry has reached the
    /// level. What was rejected behind that entry is acked with it.
    fn note(&mut self, since: Instant) {
        let settled = self.sequence.expected() - 1;
        if settled <= self.noted || self.held.is_some() {
            return;
        }
        self.noted = settled;
        if self.core.rings[self.ring].reached() >= self.last {
            self.control.reach(settled);
            self.core.local.ack(since.elapsed());
        } else {
            self.core.acks[self.ring].put(self.last, &self.control, settled, since);
        }
    }

    /// Closes once what came before is appended.
    fn close_after(
        &mut self,
        batch: &mut Batch,
        received: Timestamp,
        code: CloseCode,
        reason: &str,
    ) {
        self.commit(batch, received);
        self.close(code, reason);
    }

    fn close_after_retry(&mut self, batch: &mut Batch, received: Timestamp, code: CloseCode) {
        self.commit(batch, received);
        self.close_with_retry(code);
    }
}
