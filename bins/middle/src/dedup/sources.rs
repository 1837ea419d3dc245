//! How far the middle has read each front's queue: its uplink position.
//!
//! A position is the highest Seq of a front's queue that is in the middle's log, as an entry or as
//! a marker; everything below it is there too, or was a duplicate. Fronts without a disk of their
//! own come with a new queue at each restart: those silent longest are forgotten, and counted.

use hashbrown::HashMap;

use super::RunningTime;

/// Queues that are remembered: 65,536 front restarts, 3 MiB.
pub const SOURCES_MAX: usize = 65_536;

/// One front queue's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The highest Seq that is in the log.
    pub position: u64,
    /// When it was last heard of.
    pub seen: RunningTime,
}

/// The positions of all front queues, by queue id.
#[derive(Debug, Default)]
pub struct Sources {
    by_queue: HashMap<u128, Source>,
    forgotten: u64,
}

impl Sources {
    /// The position of a queue; none if it was never heard of, or not for very long.
    #[must_use]
    pub fn position(&self, queue: u128) -> Option<u64> {
        self.by_queue.get(&queue).map(|source| source.position)
    }

    /// Moves a queue's position to `position`; never back.
    pub fn advance(&mut self, queue: u128, position: u64, seen: RunningTime) {
        if self.by_queue.len() >= SOURCES_MAX && !self.by_queue.contains_key(&queue) {
            self.forget_oldest();
        }
        let source = self.by_queue.entry(queue).or_insert(Source { position, seen });
        source.position = source.position.max(position);
        source.seen = source.seen.max(seen);
    }

    /// Forgets the queues that were last heard of before `oldest`.
    pub fn expire(&mut self, oldest: RunningTime) {
        let before = self.by_queue.len();
        self.by_queue.retain(|_, source| source.seen >= oldest);
        self.forgotten += (before - self.by_queue.len()) as u64;
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u128, Source)> + '_ {
        self.by_queue.iter().map(|(queue, source)| (*queue, *source))
    }

    /// How many queues were forgotten since the start.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn forget_oldest(&mut self) {
        let oldest = self.by_queue.iter().min_by_key(|(_, source)| source.seen);
        if let Some(queue) = oldest.map(|(queue, _)| *queue) {
            self.by_queue.remove(&queue);
            self.forgotten += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_never_goes_back() {
        let mut sources = Sources::default();
        sources.advance(7, 10, RunningTime(1));
        sources.advance(7, 4, RunningTime(2));
        assert_eq!((sources.position(7), sources.position(8)), (Some(10), None));
    }

    #[test]
    fn the_queue_that_was_silent_longest_makes_room() {
        let mut sources = Sources::default();
        for queue in 0..=SOURCES_MAX as u128 {
            sources.advance(queue, 1, RunningTime(queue as u32));
        }
        assert_eq!((sources.position(0), sources.position(1)), (None, Some(1)));
        assert_eq!((sources.iter().len(), sources.forgotten()), (SOURCES_MAX, 1));
        sources.expire(RunningTime(SOURCES_MAX as u32));
        assert_eq!(sources.iter().len(), 1);
    }
}
