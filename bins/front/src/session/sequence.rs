//! Which message of a session comes next, and what to say about any other.
//!
//! A pure machine: numbers in, verdicts out. It holds what makes the ack cumulative: a message is
//! accepted only if all before it in the session were accepted or rejected for good.
//!
//! After a nack the device has yet to hear of it, and what it sent meanwhile still arrives. All of
//! that is above the number the nack names, so it is passed over in silence until that number comes.

use std::time::{Duration, Instant};

/// A nack is repeated if the device has not gone back after this long: it may have missed what the
/// nack meant, but every repetition makes a correct device send its window again.
const NACK_AGAIN: Duration = Duration::from_secs(1);

/// The state of a session's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sequence {
    /// The next number to be accepted or rejected.
    expected: u64,
    /// How many numbers directly below `expected` were rejected and not yet named in an entry.
    rejected: u32,
    /// When the last nack went out, while its number has not come again.
    nacked: Option<Instant>,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the next one: append or reject it.
    Next,
    /// It was accepted before: ack it again.
    Duplicate,
    /// Numbers are missing before it: nack and name the first.
    Gap {
        /// The first missing number.
        expect: u64,
    },
    /// It was sent before the device heard the last nack: pass over it.
    Overtaken,
}

/// A point to go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    expected: u64,
    rejected: u32,
}

impl Mark {
    /// The number expected at this point.
    pub(crate) fn expected(self) -> u64 {
        self.expected
    }
}

impl Sequence {
    /// A session whose numbers below `next` are settled.
    pub(crate) fn new(next: u64) -> Self {
        Self { expected: next, rejected: 0, nacked: None }
    }

    /// The next number to be accepted.
    pub(crate) fn expected(&self) -> u64 {
        self.expected
    }

    /// How many rejected numbers directly below the next one no entry has named yet.
    pub(crate) fn rejected(&self) -> u32 {
        self.rejected
    }

    /// Where the session stands, for [`Self::back_to`].
    pub(crate) fn mark(&self) -> Mark {
        Mark { expected: self.expected, rejected: self.rejected }
    }

    /// Judges a message that has arrived.
    pub(crate) fn judge(&mut self, seq: u64, now: impl FnOnce() -> Instant) -> Verdict {
        if seq == self.expected {
            self.nacked = None;
            return Verdict::Next;
        }
        if seq < self.expected {
            return Verdict::Duplicate;
        }
        let now = now();
        if self.nacked.is_some_and(|at| now.duration_since(at) < NACK_AGAIN) {
            return Verdict::Overtaken;
        }
        self.nacked = Some(now);
        Verdict::Gap { expect: self.expected }
    }

    /// The next message is taken; returns how many rejected ones its entry names.
    pub(crate) fn accept(&mut self) -> u32 {
        self.expected += 1;
        std::mem::take(&mut self.rejected)
    }

    /// The next message is refused for good.
    pub(crate) fn reject(&mut self) {
        self.expected += 1;
        self.rejected = self.rejected.saturating_add(1);
    }

    /// Nothing from `mark` on was kept, and the device is told so with a nack.
    pub(crate) fn back_to(&mut self, mark: Mark, now: Instant) {
        self.expected = mark.expected;
        self.rejected = mark.rejected;
        self.nacked = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(sequence: &mut Sequence, seq: u64, now: Instant) -> Verdict {
        sequence.judge(seq, || now)
    }

    #[test]
    fn numbers_are_taken_in_order_and_older_ones_are_duplicates() {
        let (mut sequence, now) = (Sequence::new(5), Instant::now());
        assert_eq!(judge(&mut sequence, 4, now), Verdict::Duplicate);
        assert_eq!(judge(&mut sequence, 5, now), Verdict::Next);
        assert_eq!(sequence.accept(), 0);
        assert_eq!(judge(&mut sequence, 5, now), Verdict::Duplicate);
        assert_eq!(judge(&mut sequence, 6, now), Verdict::Next);
    }

    #[test]
    fn a_gap_is_named_once_and_again_only_if_the_device_does_not_go_back() {
        let (mut sequence, now) = (Sequence::new(1), Instant::now());
        assert_eq!(judge(&mut sequence, 3, now), Verdict::Gap { expect: 1 });
        assert_eq!(judge(&mut sequence, 4, now), Verdict::Overtaken);
        assert_eq!(judge(&mut sequence, 5, now + NACK_AGAIN), Verdict::Gap { expect: 1 });
        assert_eq!(judge(&mut sequence, 1, now), Verdict::Next);
        sequence.accept();
        assert_eq!(judge(&mut sequence, 3, now), Verdict::Gap { expect: 2 });
    }

    #[test]
    fn the_next_accepted_message_names_the_rejected_ones_below_it() {
        let mut sequence = Sequence::new(1);
        sequence.accept();
        sequence.reject();
        sequence.reject();
        assert_eq!((sequence.accept(), sequence.expected()), (2, 5));
        assert_eq!(sequence.accept(), 0);
    }

    #[test]
    fn what_was_not_kept_is_expected_again_with_its_rejected_ones() {
        let (mut sequence, now) = (Sequence::new(1), Instant::now());
        sequence.reject();
        let mark = sequence.mark();
        assert_eq!((mark.expected(), sequence.accept()), (2, 1));
        sequence.accept();
        sequence.back_to(mark, now);
        assert_eq!(judge(&mut sequence, 4, now), Verdict::Overtaken);
        assert_eq!(judge(&mut sequence, 2, now), Verdict::Next);
        assert_eq!(sequence.accept(), 1);
    }
}
