//! The messages of a session that are not acked yet, and where sending stands: a machine without
//! I/O and clock.
//!
//! Numbers are contiguous: `first..next` are kept, of them the lower `sent` are on the present
//! connection. Everything a front says moves one of these marks; what it says beyond them is a
//! breach of the protocol and not believed, because an ack for a message that was never sent would
//! lose it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use forebay_model::MessageId;
use forebay_wire::device::NackCode;

/// A message that is kept until it is acked.
#[derive(Debug)]
pub(super) struct Kept {
    /// The frame, ready to send.
    pub(super) frame: Bytes,
    /// When `send` took it.
    pub(super) taken: Instant,
    /// Where it lies in the spool, if there is one.
    pub(super) spooled: Option<forebay_queue::Seq>,
    /// Whether its rejection was reported.
    rejected: bool,
}

/// A front said something that cannot be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Breach(pub(super) String);

#[derive(Debug)]
pub(super) struct Window {
    kept: VecDeque<Kept>,
    /// Number of the first kept message.
    first: u64,
    /// How many of the kept are on the present connection.
    sent: usize,
    /// Highest number ever sent: what is not above it is a resend.
    sent_max: u64,
    /// Messages the front lets be in flight.
    credit: usize,
    /// Nothing is sent before, after a nack.
    paused_until: Option<Instant>,
    /// The number that sending last went back to on this connection.
    back_to: Option<u64>,
}

impl Window {
    /// An empty window whose next message has this number.
    pub(super) fn new(next: u64) -> Self {
        Self {
            kept: VecDeque::new(),
            first: next,
            sent: 0,
            sent_max: next - 1,
            credit: 0,
            paused_until: None,
            back_to: None,
        }
    }

    /// Number of the first message that is not acked; the next one if all are.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Number of the next message.
    pub(super) fn next(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// Messages kept.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Messages on the present connection.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> usize {
        self.sent
    }

    /// The longest frame that is kept.
    pub(super) fn frame_bytes_max(&self) -> usize {
        self.kept.iter().map(|kept| kept.frame.len()).max().unwrap_or(0)
    }

    /// When sending goes on after a nack, if it is paused.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Keeps a message under the number [`Self::next`].
    pub(super) fn push(
        &mut self,
        frame: Bytes,
        taken: Instant,
        spooled: Option<forebay_queue::Seq>,
    ) {
        self.kept.push_back(Kept { frame, taken, spooled, rejected: false });
    }

    /// Leaves numbers out: all before are acked, or lost with a damaged spool.
    pub(super) fn skip_to(&mut self, next: u64) {
        debug_assert!(self.kept.is_empty() && next >= self.first);
        self.first = next;
        self.sent_max = self.sent_max.max(next - 1);
    }

    /// Starts a connection: nothing is on it yet. Returns what the front had acked meanwhile.
    pub(super) fn welcome(
        &mut self,
        acked: Option<MessageId>,
        credit: u32,
    ) -> impl Iterator<Item = Kept> + '_ {
        self.sent = 0;
        self.paused_until = None;
        self.back_to = None;
        self.credit(credit);
        let count = acked.map_or(0, |acked| (acked.get() + 1).saturating_sub(self.first));
        self.release(usize::try_from(count).unwrap_or(usize::MAX).min(self.kept.len()))
    }

    /// How many messages may be in flight from now on; a front that says 0 gets 1.
    pub(super) fn credit(&mut self, credit: u32) {
        self.credit = (credit as usize).max(1);
    }

    /// Releases everything up to `ack`; `waiting` of the taken frames have not left yet.
    pub(super) fn ack(
        &mut self,
        ack: MessageId,
        waiting: usize,
    ) -> Result<impl Iterator<Item = Kept> + '_, Breach> {
        let count = (ack.get() + 1).saturating_sub(self.first);
        let left = self.sent.saturating_sub(waiting) as u64;
        if count > left {
            let last = self.first + left - 1;
            return Err(Breach(format!("ack {ack}, but {last} is the last that was sent")));
        }
        Ok(self.release(count as usize))
    }

    fn release(&mut self, count: usize) -> impl Iterator<Item = Kept> + '_ {
        self.sent = self.sent.saturating_sub(count);
        self.first += count as u64;
        self.kept.drain(..count)
    }

    /// Goes back to the message the front expects; false if that was done already.
    ///
    /// A front that meets a full queue nacks one message; one that is less careful may nack each
    /// message of the window behind it. Those arrive after sending went back for the first of them
    /// and must not send everything again.
    pub(super) fn nack(
        &mut self,
        nack: MessageId,
        code: NackCode,
        expect: Option<MessageId>,
        resume: Instant,
    ) -> Result<bool, Breach> {
        let target = expect.unwrap_or(nack).get();
        if target < self.first || nack.get() < self.first {
            // Acked meanwhile; or the front has forgotten acked messages, which no resend mends.
            return match expect {
                Some(expect) if expect.get() < self.first => {
                    Err(Breach(format!("front expects {expect}, which it had acked")))
                }
                _ => Ok(false),
            };
        }
        let index = usize::try_from(target - self.first).unwrap_or(usize::MAX);
        if index >= self.sent {
            // Not on this connection since sending last went back: an answer to what was before.
            return Ok(false);
        }
        let again = self.back_to == Some(target) && nack.get() > target;
        if again && code == NackCode::Gap {
            return Ok(false);
        }
        self.sent = index;
        self.back_to = Some(target);
        self.paused_until = Some(resume);
        Ok(true)
    }

    /// Marks a message as refused for good; true if that is news. The ack will pass it.
    pub(super) fn reject(&mut self, seq: MessageId) -> Result<bool, Breach> {
        let Some(index) = seq.get().checked_sub(self.first) else { return Ok(false) };
        match self.kept.get_mut(usize::try_from(index).unwrap_or(usize::MAX)) {
            Some(kept) => Ok(!std::mem::replace(&mut kept.rejected, true)),
            None => Err(Breach(format!("reject of {seq}, which was never sent"))),
        }
    }

    /// Moves frames that may be sent now to `out`, at most `max`; returns how many are resends.
    pub(super) fn take(&mut self, max: usize, now: Instant, out: &mut VecDeque<Bytes>) -> usize {
        if self.paused_until.is_some_and(|until| now < until) {
            return 0;
        }
        self.paused_until = None;
        let end = self.kept.len().min(self.credit).min(self.sent + max);
        if end <= self.sent {
            return 0;
        }
        let begin = self.first + self.sent as u64;
        out.extend(self.kept.range(self.sent..end).map(|kept| kept.frame.clone()));
        let last = self.first + end as u64 - 1;
        let resent = (self.sent_max + 1).saturating_sub(begin).min(last + 1 - begin);
        self.sent_max = self.sent_max.max(last);
        self.sent = end;
        resent as usize
    }
}

/// When sending goes on after a nack.
pub(super) fn resume(now: Instant, retry_ms: u32) -> Instant {
    now + Duration::from_millis(u64::from(retry_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> MessageId {
        MessageId::new(number).expect("in bounds")
    }

    /// Messages 5 to 9, welcomed with a credit of 3.
    fn window() -> (Window, Instant) {
        let now = Instant::now();
        let mut window = Window::new(5);
        for number in 5..10_u8 {
            window.push(vec![number].into(), now, None);
        }
        assert_eq!(window.welcome(None, 3).count(), 0);
        (window, now)
    }

    fn taken(window: &mut Window, now: Instant) -> (Vec<u8>, usize) {
        let mut out = VecDeque::new();
        let resent = window.take(64, now, &mut out);
        (out.iter().map(|frame| frame[0]).collect(), resent)
    }

    #[test]
    fn no_more_than_the_credit_is_in_flight() {
        let (mut window, now) = window();
        assert_eq!(taken(&mut window, now), (vec![5, 6, 7], 0));
        assert_eq!(taken(&mut window, now), (vec![], 0));
        assert_eq!(window.ack(id(6), 0).expect("sent").count(), 2);
        assert_eq!(taken(&mut window, now), (vec![8, 9], 0));
        window.credit(1);
        assert_eq!((window.first(), window.next(), window.in_flight()), (7, 10, 3));
    }

    #[test]
    fn a_new_connection_sends_everything_that_is_not_acked() {
        let (mut window, now) = window();
        taken(&mut window, now);
        assert_eq!(window.welcome(Some(id(5)), 9).count(), 1);
        assert_eq!(taken(&mut window, now), (vec![6, 7, 8, 9], 2));
        assert_eq!(window.welcome(Some(id(2)), 9).count(), 0);
        assert_eq!(window.first(), 6);
    }

    #[test]
    fn an_ack_of_what_was_not_sent_is_not_believed() {
        let (mut window, now) = window();
        taken(&mut window, now);
        assert!(window.ack(id(8), 0).is_err());
        assert!(window.ack(id(7), 1).is_err(), "7 has not left");
        assert_eq!(window.ack(id(4), 0).expect("an old ack").count(), 0);
        assert_eq!(window.len(), 5);
    }

    #[test]
    fn a_nack_goes_back_once_and_waits() {
        let (mut window, now) = window();
        taken(&mut window, now);
        let later = resume(now, 50);
        assert_eq!(window.nack(id(6), NackCode::Full, None, later), Ok(true));
        assert_eq!(window.nack(id(7), NackCode::Full, None, later), Ok(false), "it is not out");
        assert_eq!(taken(&mut window, now), (vec![], 0));
        assert_eq!(taken(&mut window, later), (vec![6, 7], 2));
        assert_eq!(window.nack(id(6), NackCode::Full, None, later), Ok(true), "still full");
    }

    #[test]
    fn late_gap_nacks_of_one_gap_do_not_send_everything_again() {
        let (mut window, now) = window();
        window.credit(5);
        taken(&mut window, now);
        let gap =
            |window: &mut Window, nack| window.nack(id(nack), NackCode::Gap, Some(id(6)), now);
        assert_eq!(gap(&mut window, 7), Ok(true));
        assert_eq!(taken(&mut window, now), (vec![6, 7, 8, 9], 4));
        assert_eq!(gap(&mut window, 8), Ok(false));
        assert_eq!(gap(&mut window, 9), Ok(false));
        assert_eq!(window.in_flight(), 5);
        assert_eq!(window.ack(id(6), 0).expect("sent").count(), 2);
        assert!(gap(&mut window, 9).is_err(), "6 was acked");
    }

    #[test]
    fn a_rejected_message_stays_until_the_ack_passes_it() {
        let (mut window, now) = window();
        taken(&mut window, now);
        assert_eq!(window.reject(id(6)), Ok(true));
        assert_eq!(window.reject(id(6)), Ok(false), "reported once");
        assert_eq!(window.reject(id(4)), Ok(false));
        assert!(window.reject(id(10)).is_err());
        assert_eq!(window.len(), 5);
        assert_eq!(window.ack(id(6), 0).expect("sent").count(), 2);
    }
}
