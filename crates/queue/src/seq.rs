//! The numbers that name things: [`Seq`] names an entry of one queue, [`QueueId`] names the queue.
//!
//! A seq is never reused, whatever a power cut took back: every open of a queue begins a new epoch,
//! and the epoch is the high part of the number. (queue id, seq) is therefore the identity of an
//! entry for everybody downstream.

use std::fmt;

/// Names one entry of one queue: a 24-bit epoch above a 40-bit counter.
///
/// Numbers compare in the order of appending. The counter starts at 1 in every epoch; an epoch
/// begins with each open of the queue. Zero ([`Seq::NONE`]) names no entry and lies below all.
///
/// ```
/// use forebay_queue::Seq;
/// let seq = Seq::new(3, 17);
/// assert_eq!(seq.to_string(), "3:17");
/// assert!(Seq::new(3, 18).follows(seq));
/// assert!(Seq::new(4, 1).follows(seq));
/// assert!(!Seq::new(3, 19).follows(seq));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

impl Seq {
    /// No entry: below every entry of every epoch.
    pub const NONE: Seq = Seq(0);
    /// Bits of the counter; the epoch has the rest.
    pub const COUNTER_BITS: u32 = 40;
    /// The largest counter of an epoch: about 10^12, two weeks at a million entries a second.
    pub const COUNTER_MAX: u64 = (1 << Self::COUNTER_BITS) - 1;
    /// The largest epoch: 16 million opens.
    pub const EPOCH_MAX: u32 = (1 << (64 - Self::COUNTER_BITS)) - 1;

    /// Makes a seq of its two parts.
    ///
    /// # Panics
    /// If a part does not fit its bits.
    #[must_use]
    pub const fn new(epoch: u32, counter: u64) -> Self {
        assert!(epoch <= Self::EPOCH_MAX && counter <= Self::COUNTER_MAX, "seq part out of range");
        Seq(((epoch as u64) << Self::COUNTER_BITS) | counter)
    }

    /// Takes a seq from the number that [`get`](Self::get) gave.
    #[must_use]
    pub const fn from_u64(number: u64) -> Self {
        Seq(number)
    }

    /// The number as it is stored and sent.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// How many opens of the queue preceded, counted from 1.
    #[must_use]
    pub const fn epoch(self) -> u32 {
        (self.0 >> Self::COUNTER_BITS) as u32
    }

    /// The place within the epoch, counted from 1.
    #[must_use]
    pub const fn counter(self) -> u64 {
        self.0 & Self::COUNTER_MAX
    }

    /// Whether this may stand directly behind `previous`: the next counter of the same epoch, or
    /// the first of a later one.
    #[must_use]
    pub const fn follows(self, previous: Seq) -> bool {
        if self.epoch() == previous.epoch() {
            self.counter() == previous.counter() + 1
        } else {
            self.epoch() > previous.epoch() && self.counter() == 1
        }
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch(), self.counter())
    }
}

/// Names a queue: random, made with its directory, so that a wiped disk differs from a restart.
///
/// ```
/// use forebay_queue::QueueId;
/// assert_eq!(QueueId::from_u128(0xab).to_string(), "000000000000000000000000000000ab");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(u128);

impl QueueId {
    /// Takes an id from the number that [`get`](Self::get) gave.
    #[must_use]
    pub const fn from_u128(number: u128) -> Self {
        QueueId(number)
    }

    /// The number as it is stored and sent.
    #[must_use]
    pub const fn get(self) -> u128 {
        self.0
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The seqs that one batch was given: consecutive, of one epoch, both ends included.
///
/// ```
/// use forebay_queue::{Seq, SeqSpan};
/// let span = SeqSpan { first: Seq::new(1, 5), last: Seq::new(1, 9) };
/// assert_eq!(span.count(), 5);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqSpan {
    /// The seq of the first entry.
    pub first: Seq,
    /// The seq of the last entry.
    pub last: Seq,
}

impl SeqSpan {
    /// How many entries the span names.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.last.counter() - self.first.counter() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_is_the_next_counter_or_the_first_of_a_later_epoch() {
        let seq = Seq::new(2, 7);
        assert!(Seq::new(2, 8).follows(seq));
        assert!(Seq::new(3, 1).follows(seq) && Seq::new(9, 1).follows(seq));
        for stranger in [Seq::new(2, 7), Seq::new(2, 9), Seq::new(3, 2), Seq::new(1, 8), Seq::NONE]
        {
            assert!(!stranger.follows(seq), "{stranger} after {seq}");
        }
    }

    #[test]
    fn parts_survive_the_number() {
        let seq = Seq::new(Seq::EPOCH_MAX, Seq::COUNTER_MAX);
        assert_eq!(Seq::from_u64(seq.get()), seq);
        assert_eq!((seq.epoch(), seq.counter()), (Seq::EPOCH_MAX, Seq::COUNTER_MAX));
    }
}
