//! What a store has acked and the middle still keeps, because the ack is not worth a commit yet.
//!
//! A store that answers before it has written forgets its last answers when it dies. So a cursor
//! waits for a while after the ack ([`Durability::After`](super::Durability)), and the blocks are
//! kept here as long. Meanwhile the store is looked at every [`LOOK_EVERY`]. Where it may have died
//! in between (its [life](super::Sink::life) is another), all of them are sent again and wait anew:
//! those it still has count once, as at any replay.
//!
//! Not here: the sending, and the waiting (`writer`).

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use forebay_link::Tally;

use super::{Encoded, Token};

/// Encoded bytes kept at most: beyond, the next range waits for the oldest to become due. At a
/// hold-back of 30 s and six bytes a sample that is 180,000 samples a second.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// How often the store is looked at while something waits: more often than servers close idle
/// connections (Node.js after 5 s), and than a store is killed and back.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A range that was acked.
#[derive(Debug)]
pub(super) struct Held {
    /// When it may be committed.
    pub(super) due: Instant,
    /// The whole range.
    pub(super) token: Token,
    /// What it adds to the sink's accounts.
    pub(super) tally: Tally,
    blocks: Vec<Block>,
}

/// A block as it was sent: its token, and its bytes.
pub(super) type Block = (Token, Encoded);

/// Ranges that were acked in the same life of the store.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    ranges: VecDeque<Held>,
    /// Blocks of the range that is being sent.
    sent: Vec<Block>,
    bytes: usize,
    life: u64,
    /// When the store was looked at last.
    looked: Option<Instant>,
}

impl HeldBack {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether a block more is too much.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= KEPT_BYTES_MAX
    }

    /// When the oldest range is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.ranges.front().map(|held| held.due)
    }

    /// When to look at the store, or to commit, at last.
    pub(super) fn wake(&self) -> Option<Instant> {
        let due = self.due()?;
        Some(self.looked.map_or(due, |looked| due.min(looked + LOOK_EVERY)))
    }

    /// Entries of ranges that are not committed.
    pub(super) fn entries(&self) -> u64 {
        self.ranges.iter().map(|held| held.tally.records).sum()
    }

    /// Keeps a block that was acked, as one of the next range.
    pub(super) fn keep(&mut self, token: Token, encoded: Encoded) {
        self.bytes += bytes(&encoded);
        self.sent.push((token, encoded));
    }

    /// A range is acked as a whole.
    pub(super) fn push(&mut self, due: Instant, token: Token, tally: Tally) {
        let blocks = std::mem::take(&mut self.sent);
        self.ranges.push_back(Held { due, token, tally, blocks });
    }

    /// The oldest range, which is committed now.
    pub(super) fn pop(&mut self) -> Option<Held> {
        let held = self.ranges.pop_front()?;
        self.bytes -= held.blocks.iter().map(|(_, encoded)| bytes(encoded)).sum::<usize>();
        Some(held)
    }

    /// Whether something that was acked in an earlier life may be forgotten; from now on this life
    /// counts.
    pub(super) fn is_in_doubt(&mut self, life: u64) -> bool {
        self.looked = Some(Instant::now());
        let kept = !self.sent.is_empty() || !self.ranges.is_empty();
        std::mem::replace(&mut self.life, life) != life && kept
    }

    /// All blocks, the oldest first.
    pub(super) fn blocks(&self) -> Vec<Block> {
        let ranges = self.ranges.iter().flat_map(|held| &held.blocks);
        ranges.chain(&self.sent).cloned().collect()
    }

    /// They were sent again: each waits anew.
    pub(super) fn put_off(&mut self, hold: Duration) {
        let due = Instant::now() + hold;
        self.ranges.iter_mut().for_each(|held| held.due = due);
    }
}

fn bytes(encoded: &Encoded) -> usize {
    encoded.parts.iter().map(|part| part.bytes.len()).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use forebay_wire::{QueueId, Seq};

    use super::*;
    use crate::sink::Part;

    fn block(number: u64, size: usize) -> Block {
        let seq = Seq::from_parts(1, number);
        let part = Part { name: "part".to_owned(), bytes: Bytes::from(vec![0; size]), rows: 1 };
        (Token::whole(QueueId::new(1), seq, seq), Encoded { parts: vec![part], left_out: 0 })
    }

    #[test]
    fn blocks_are_kept_until_their_range_is_committed_and_doubted_in_another_life() {
        let mut held = HeldBack::default();
        assert!(!held.is_in_doubt(1), "nothing was acked");
        for number in [1, 2] {
            let (token, encoded) = block(number, KEPT_BYTES_MAX / 2);
            held.keep(token, encoded);
            assert!(!held.is_in_doubt(1));
            held.push(Instant::now(), token, Tally { records: number, ..Tally::default() });
        }
        assert!(held.is_full());
        let (token, encoded) = block(3, 1);
        held.keep(token, encoded);
        assert!(held.is_in_doubt(2) && !held.is_in_doubt(2), "once for each life");
        let kept = held.blocks();
        assert_eq!(
            kept.iter().map(|(token, _)| token.first.counter()).collect::<Vec<_>>(),
            [1, 2, 3]
        );
        let before = Instant::now();
        held.put_off(Duration::from_secs(9));
        assert!(held.due() >= Some(before + Duration::from_secs(9)));
        assert!(held.wake() < held.due(), "the store is looked at meanwhile");
        assert_eq!(held.entries(), 3);
        assert_eq!(held.pop().map(|held| held.tally.records), Some(1));
        assert!(!held.is_full() && held.blocks().len() == 2);
        assert_eq!(held.pop().map(|held| held.tally.records), Some(2));
        assert!(held.is_empty() && held.pop().is_none());
    }
}
