//! The set of numbers of one session that are stored, as ranges.
//!
//! A device numbers its messages without holes, so nearly every session is one range and costs no
//! heap. A device that roams between fronts leaves holes, which its former front fills later; an
//! entry that names the numbers rejected before it closes the hole they would leave.
//!
//! Invariants: ranges ascend, are not empty, and neither overlap nor touch. There is at least one.

/// Ranges that one session may hold; above it the lowest are forgotten.
///
/// Holes come from roaming, a handful at a time; thousands mean a device that makes them on
/// purpose. 4,096 ranges are 64 KiB. Forgetting may store a very late message twice; merging two
/// ranges over an open hole could lose one, which is why it is not done.
pub const RANGES_MAX: usize = 4096;

/// Numbers `first..=last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The lowest number.
    pub first: u64,
    /// The highest number, at or above `first`.
    pub last: u64,
}

impl Range {
    /// How many numbers it holds.
    #[must_use]
    pub fn count(self) -> u64 {
        self.last - self.first + 1
    }
}

/// A non-empty set of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges {
    /// The highest range: the one that grows.
    top: Range,
    /// All others, ascending; absent for most sessions. Boxed so that a row stays small.
    #[expect(clippy::box_collection, reason = "one word in each of a million rows, not three")]
    below: Option<Box<Vec<Range>>>,
}

impl Ranges {
    /// A set of one range.
    #[must_use]
    pub fn of(range: Range) -> Self {
        debug_assert!(range.first <= range.last);
        Self { top: range, below: None }
    }

    /// Whether `number` is in the set.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        if number >= self.top.first {
            return number <= self.top.last;
        }
        let below = self.below();
        let at = below.partition_point(|range| range.last < number);
        below.get(at).is_some_and(|range| range.first <= number)
    }

    /// Adds every number of `range`; says how many of them were not in the set before.
    pub fn insert(&mut self, range: Range) -> u64 {
        debug_assert!(range.first <= range.last);
        if range.first > self.top.last {
            if range.first == self.top.last + 1 {
                self.top.last = range.last;
            } else {
                let lower = std::mem::replace(&mut self.top, range);
                self.below.get_or_insert_default().push(lower);
            }
            return range.count();
        }
        if range.first >= self.top.first && range.last <= self.top.last {
            return 0;
        }
        let mut all = self.below.take().unwrap_or_default();
        all.push(self.top);
        let added = merge(&mut all, range);
        self.top = all.pop().expect("the set holds at least the range just merged");
        if !all.is_empty() {
            self.below = Some(all);
        }
        added
    }

    /// Takes `number` out again; whether the set is still a set, for an empty one is not.
    ///
    /// For the rare batch that was noted and then found no room in the log.
    #[must_use]
    pub fn remove(&mut self, number: u64) -> bool {
        if !self.contains(number) {
            return true;
        }
        let mut all = self.below.take().unwrap_or_default();
        all.push(self.top);
        let at = all.partition_point(|range| range.last < number);
        let Range { first, last } = all[at];
        let halves = [(first, number - 1), (number + 1, last)];
        let left = halves.into_iter().filter(|(first, last)| first <= last);
        all.splice(at..=at, left.map(|(first, last)| Range { first, last }));
        let Some(top) = all.pop() else { return false };
        self.top = top;
        if !all.is_empty() {
            self.below = Some(all);
        }
        true
    }

    /// Forgets the lowest ranges beyond [`RANGES_MAX`]; says how many went.
    pub fn forget_beyond_max(&mut self) -> usize {
        let excess = (self.below().len() + 1).saturating_sub(RANGES_MAX);
        if excess > 0
            && let Some(below) = &mut self.below
        {
            below.drain(..excess);
        }
        excess
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Range> + '_ {
        self.below().iter().copied().chain([self.top])
    }

    /// The highest number.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.top.last
    }

    /// How many ranges there are: at least one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.below().len() + 1
    }

    /// Never: a set holds at least one range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.below
            .as_ref()
            .map_or(0, |below| size_of::<Vec<Range>>() + below.capacity() * size_of::<Range>())
    }

    fn below(&self) -> &[Range] {
        self.below.as_ref().map_or(&[], |below| below.as_slice())
    }
}

/// Puts `range` into ascending `all`, joining what it overlaps or touches; says what was new.
fn merge(all: &mut Vec<Range>, range: Range) -> u64 {
    let from = all.partition_point(|old| old.last + 1 < range.first);
    let to = all.partition_point(|old| old.first <= range.last + 1);
    let mut joined = range;
    let mut known = 0;
    for old in &all[from..to] {
        let (first, last) = (old.first.max(range.first), old.last.min(range.last));
        known += if first <= last { last - first + 1 } else { 0 };
        joined.first = joined.first.min(old.first);
        joined.last = joined.last.max(old.last);
    }
    all.splice(from..to, [joined]);
    range.count() - known
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn range(first: u64, last: u64) -> Range {
        Range { first, last }
    }

    #[test]
    fn a_session_without_holes_is_one_range_and_costs_no_heap() {
        let mut set = Ranges::of(range(1, 1));
        for number in 2..1000 {
            assert_eq!(set.insert(range(number, number)), 1);
        }
        assert_eq!((set.len(), set.heap_bytes()), (1, 0));
        assert_eq!(set.insert(range(500, 500)), 0);
    }

    #[test]
    fn a_late_filler_closes_its_hole() {
        let mut set = Ranges::of(range(1, 5));
        assert_eq!(set.insert(range(21, 30)), 10);
        assert_eq!(set.len(), 2);
        assert!(!set.contains(6) && set.contains(21));
        assert_eq!(set.insert(range(4, 20)), 15);
        assert_eq!(set.iter().collect::<Vec<_>>(), [range(1, 30)]);
        assert_eq!(set.heap_bytes(), 0);
    }

    #[test]
    fn beyond_the_bound_the_lowest_are_forgotten_and_no_hole_is_closed() {
        let mut set = Ranges::of(range(1, 1));
        for n in 1..RANGES_MAX as u64 + 10 {
            set.insert(range(2 * n + 1, 2 * n + 1));
        }
        assert_eq!(set.forget_beyond_max(), 10);
        assert_eq!((set.len(), set.forget_beyond_max()), (RANGES_MAX, 0));
        assert!(!set.contains(1) && !set.contains(22) && set.contains(21));
    }

    #[test]
    fn the_last_number_taken_out_leaves_no_set() {
        let mut set = Ranges::of(range(7, 8));
        assert!(set.remove(9) && set.remove(7) && !set.remove(8));
    }

    proptest! {
        #[test]
        fn a_number_taken_out_is_the_only_one_missing(
            spans in prop::collection::vec((1u64..60, 0u64..12), 2..20),
            number in 1u64..72,
        ) {
            let mut set = Ranges::of(range(100, 100));
            spans.iter().for_each(|(first, more)| {
                set.insert(range(*first, first + more));
            });
            let mut model: BTreeSet<u64> = (0..140).filter(|number| set.contains(*number)).collect();
            model.remove(&number);
            prop_assert!(set.remove(number));
            let left: BTreeSet<u64> = (0..140).filter(|number| set.contains(*number)).collect();
            prop_assert_eq!(left, model);
        }

        #[test]
        fn it_agrees_with_a_plain_set(spans in prop::collection::vec((1u64..120, 0u64..12), 1..80)) {
            let mut model = BTreeSet::new();
            let mut set: Option<Ranges> = None;
            for (first, more) in spans {
                let last = first + more;
                let new = (first..=last).filter(|number| model.insert(*number)).count() as u64;
                match &mut set {
                    None => set = Some(Ranges::of(range(first, last))),
                    Some(set) => prop_assert_eq!(set.insert(range(first, last)), new),
                }
                let set = set.as_ref().expect("set above");
                for number in 0..140 {
                    prop_assert_eq!(set.contains(number), model.contains(&number));
                }
                let all: Vec<_> = set.iter().collect();
                prop_assert!(all.windows(2).all(|two| two[0].last + 1 < two[1].first));
                prop_assert_eq!(all.iter().map(|range| range.count()).sum::<u64>(), model.len() as u64);
            }
        }
    }
}
