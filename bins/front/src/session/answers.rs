//! What a session says to its device: welcome, ack, nack, reject, close.

use std::borrow::Cow;

use bytes::Bytes;
use forebay_model::{MessageId, Timestamp};
use forebay_wire::device::{CloseCode, Format, NackCode, ServerFrame};

use super::{Mode, Session, Stage};
use crate::socket::{Broken, Socket};

/// What a device is told to wait when there is no room: long enough for a ring to move, short
/// enough that a device with a small buffer of its own does not overflow.
const FULL_RETRY_MS: u32 = 1000;

/// Nacks for want of room in a row; then the connection is closed with 1013.
const FULL_NACKS_MAX: u32 = 3;

/// Bytes of text in a close frame (RFC 6455, section 5.5: 125 less the code).
const CLOSE_REASON_BYTES_MAX: usize = 123;

impl<S: Socket> Session<S> {
    /// Sends the ack that is due, if one is.
    pub(super) fn send_ack(&mut self) {
        let reached = self.control.reached();
        if reached <= self.acked && !self.ack_again {
            return;
        }
        self.ack_again = false;
        if self.stage != Stage::Open {
            return;
        }
        self.acked = reached;
        // A duplicate of a message that has not reached the level yet is acked with it.
        let Ok(ack) = MessageId::new(reached) else { return };
        self.core.front.metrics.acks.inc();
        self.send(&ServerFrame::Ack { ack, credit: None });
    }

    /// Answers the hello; `acked` is what this front knows to be safe.
    pub(super) fn send_welcome(&mut self, acked: Option<u64>) {
        let config = &self.core.front.config;
        let seconds = config.limits.ping.as_secs().max(1);
        let welcome = ServerFrame::Welcome {
            acked: acked.and_then(|number| MessageId::new(number).ok()),
            credit: config.ack.credit,
            max_message: u32::try_from(config.limits.message.get()).unwrap_or(u32::MAX),
            ping_s: u32::try_from(seconds).unwrap_or(u32::MAX),
            time: Timestamp::now(),
            level: config.ack.level.into(),
        };
        self.send(&welcome);
    }

    /// Tells the device to go back to `nack`, or to `expect` if that is given.
    pub(super) fn send_nack(
        &mut self,
        nack: u64,
        code: NackCode,
        retry_ms: u32,
        expect: Option<u64>,
    ) {
        self.core.front.metrics.nacks.with_label_values(&[code.as_str()]).inc();
        let Ok(nack) = MessageId::new(nack) else { return };
        let expect = expect.and_then(|number| MessageId::new(number).ok());
        self.send(&ServerFrame::Nack { nack, code, retry_ms, expect });
    }

    /// Tells the device that the message is refused for good.
    pub(super) fn send_reject(&mut self, seq: u64, code: &str, reason: &str) {
        self.core.front.metrics.rejects.with_label_values(&[code]).inc();
        let Ok(seq) = MessageId::new(seq) else { return };
        let (code, reason) = (Cow::Borrowed(code), Cow::Borrowed(reason));
        self.send(&ServerFrame::Reject { seq, code, reason });
    }

    /// The socket has not been read for as long as it may be: say so instead.
    pub(super) fn give_up_waiting(&mut self, now_ms: u64) {
        self.clock.resume(now_ms);
        if self.mode == Mode::Raw {
            // A raw device has no numbers to go back to.
            return self.close_with_retry(CloseCode::TryAgainLater);
        }
        let Some(held) = self.held.take() else {
            // The acks do not come, and it has sent more than its credit: nacked as it arrives.
            self.over_credit = true;
            return;
        };
        self.full_nacks += 1;
        if self.full_nacks > FULL_NACKS_MAX {
            return self.close_with_retry(CloseCode::TryAgainLater);
        }
        self.sequence.back_to(held.from, std::time::Instant::now());
        self.send_nack(held.from.expected(), NackCode::Full, FULL_RETRY_MS, None);
    }

    /// Closes, with the time after which to connect again.
    pub(super) fn close_with_retry(&mut self, code: CloseCode) {
        let retry = self.core.front.config.drain.retry.get();
        self.close(code, &CloseCode::retry_reason(retry));
    }

    /// Closes. What was not acked is not: the device sends it again elsewhere.
    pub(super) fn close(&mut self, code: CloseCode, reason: &str) {
        if matches!(self.stage, Stage::Closing | Stage::Shut) {
            return;
        }
        tracing::debug!(
            device = self.identity.device.as_str(),
            code = code.number(),
            reason,
            "closing"
        );
        let metrics = &self.core.front.metrics;
        metrics.closes.with_label_values(&[&code.number().to_string()]).inc();
        let mut end = reason.len().min(CLOSE_REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        self.socket.close(code.number(), &reason[..end]);
        self.held = None;
        self.stage = Stage::Closing;
    }

    fn send(&mut self, frame: &ServerFrame<'_>) {
        let format = match self.mode {
            Mode::Framed(format) => format,
            Mode::Raw => Format::Json,
        };
        let mut bytes = Vec::with_capacity(48);
        frame.encode(format, &mut bytes);
        let sent = self.socket.send(format.is_text(), Bytes::from(bytes));
        self.sent(sent);
    }

    /// Something was put into the write buffer, or could not be.
    pub(super) fn sent(&mut self, sent: Result<(), Broken>) {
        self.dirty = true;
        if let Err(broken) = sent {
            self.break_off(broken);
        }
    }
}
