//! What is stored already, of each device's session: the middle's defence against resends.
//!
//! A device resends what was not acked, perhaps to another front; each front resends what the
//! middle has not acked. The second is settled by uplink positions ([`sources`]), the first here:
//! (tenant, device, session) -> the set of stored numbers. Memory is bounded: when a shard of the
//! table has used up its share, the sessions that were silent longest are forgotten, and counted.
//!
//! The table is cut into [`SHARDS`] so that the snapshot can copy it in short steps beside traffic,
//! and so that growth never copies all of it at once.
//!
//! Not here: how it survives a restart (`snapshot`, `recover`).

pub mod ledger;
pub mod ranges;
mod row;
pub mod sources;

use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable};

use ranges::{Range, Ranges};
pub use row::{Key, Row};

/// Parts of the table, each locked and copied as one. With a million sessions a part has 4,000.
pub const SHARDS: usize = 256;

/// Seconds that this middle has been running, over all its restarts.
///
/// Ages are counted in it and not in wall-clock time: a clock that jumps from 1970 to today when
/// the network comes up must not make every session look expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct RunningTime(pub u32);

impl RunningTime {
    /// The time `seconds` earlier, or the beginning.
    #[must_use]
    pub fn back(self, seconds: u32) -> Self {
        Self(self.0.saturating_sub(seconds))
    }
}

/// What is to be done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Store it: it was not known.
    New,
    /// Drop it: it is stored already.
    Duplicate,
}

/// What the table gave up, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forgotten {
    /// Sessions silent for longer than the retention.
    pub expired_sessions: u64,
    /// Sessions that had to go early because memory was used up.
    pub evicted_sessions: u64,
    /// Ranges of sessions with more holes than [`ranges::RANGES_MAX`].
    pub evicted_ranges: u64,
}

/// All that the middle knows of what is stored: sessions and uplink positions.
#[derive(Debug)]
pub struct Dedup {
    /// What is stored of each session.
    pub table: Table,
    /// How far each front's queue was read.
    pub sources: sources::Sources,
    /// What has become of all that fronts have sent.
    pub ledger: ledger::Ledger,
}

impl Dedup {
    /// Knows nothing yet; sessions may take `bytes_max` of memory.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            table: Table::new(bytes_max),
            sources: sources::Sources::default(),
            ledger: ledger::Ledger::default(),
        }
    }
}

/// The sets of stored numbers of all sessions.
#[derive(Debug)]
pub struct Table {
    hasher: DefaultHashBuilder,
    shards: Vec<Shard>,
    shard_bytes_max: usize,
    forgotten: Forgotten,
}

#[derive(Debug, Default)]
struct Shard {
    rows: HashTable<Row>,
    heap_bytes: usize,
}

impl Table {
    /// An empty table that holds at most `bytes_max` of memory.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            shard_bytes_max: bytes_max / SHARDS,
            forgotten: Forgotten::default(),
        }
    }

    /// Notes that `key`'s `number` is stored from now on, and says whether it was not before.
    ///
    /// The `rejected_before` numbers directly below it will never come and are noted as well, so
    /// that they leave no hole. Looks up without allocating; a first message allocates its row.
    pub fn admit(
        &mut self,
        key: &Key<'_>,
        number: u64,
        rejected_before: u32,
        now: RunningTime,
    ) -> Verdict {
        let hash = hash_of(&self.hasher, key.tenant.as_bytes(), key.device.as_bytes(), key.session);
        let shard = &mut self.shards[shard_of(hash)];
        let one = Range { first: number, last: number };
        let first = number.saturating_sub(u64::from(rejected_before)).max(1).min(number);
        let Some(row) = shard.rows.find_mut(hash, |row| row.is(key)) else {
            let row = Row::new(*key, now, Ranges::of(Range { first, last: number }));
            self.insert(hash, row);
            return Verdict::New;
        };
        row.seen = now;
        let heap_bytes = row.stored.heap_bytes();
        let verdict = if row.stored.insert(one) == 1 { Verdict::New } else { Verdict::Duplicate };
        if first < number {
            row.stored.insert(Range { first, last: number });
        }
        self.forgotten.evicted_ranges += row.stored.forget_beyond_max() as u64;
        shard.heap_bytes = shard.heap_bytes + row.stored.heap_bytes() - heap_bytes;
        verdict
    }

    /// Undoes [`Self::admit`] of a new message: it was not stored after all.
    pub fn retract(&mut self, key: &Key<'_>, number: u64) {
        let hash = hash_of(&self.hasher, key.tenant.as_bytes(), key.device.as_bytes(), key.session);
        let shard = &mut self.shards[shard_of(hash)];
        let Ok(mut found) = shard.rows.find_entry(hash, |row| row.is(key)) else { return };
        let heap_bytes = found.get().heap_bytes();
        if found.get_mut().stored.remove(number) {
            shard.heap_bytes = shard.heap_bytes + found.get().heap_bytes() - heap_bytes;
        } else {
            shard.heap_bytes -= heap_bytes;
            found.remove();
        }
    }

    /// Takes over a row of a snapshot. A session that is there already keeps the union.
    pub fn restore(&mut self, row: Row) {
        let hash = hash_of(&self.hasher, row.tenant(), row.device(), row.session());
        let shard = &mut self.shards[shard_of(hash)];
        let found = shard.rows.find_mut(hash, |old| {
            old.session() == row.session()
                && old.tenant() == row.tenant()
                && old.device() == row.device()
        });
        let Some(old) = found else { return self.insert(hash, row) };
        let heap_bytes = old.stored.heap_bytes();
        for range in row.stored.iter() {
            old.stored.insert(range);
        }
        old.seen = old.seen.max(row.seen);
        shard.heap_bytes = shard.heap_bytes + old.stored.heap_bytes() - heap_bytes;
    }

    /// Whether `key`'s `number` is noted as stored.
    #[must_use]
    pub fn contains(&self, key: &Key<'_>, number: u64) -> bool {
        let hash = hash_of(&self.hasher, key.tenant.as_bytes(), key.device.as_bytes(), key.session);
        let found = self.shards[shard_of(hash)].rows.find(hash, |row| row.is(key));
        found.is_some_and(|row| row.stored.contains(number))
    }

    /// Forgets the sessions of one shard that were last heard of before `oldest`.
    pub fn expire(&mut self, shard: usize, oldest: RunningTime) {
        let shard = &mut self.shards[shard];
        let mut freed = 0;
        let before = shard.rows.len();
        shard.rows.retain(|row| {
            let keep = row.seen >= oldest;
            freed += if keep { 0 } else { row.heap_bytes() };
            keep
        });
        shard.heap_bytes -= freed;
        self.forgotten.expired_sessions += (before - shard.rows.len()) as u64;
    }

    /// The rows of one shard.
    pub fn rows_of(&self, shard: usize) -> impl ExactSizeIterator<Item = &Row> {
        self.shards[shard].rows.iter()
    }

    /// How many sessions are known.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.shards.iter().map(|shard| shard.rows.len()).sum()
    }

    /// Memory in use, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.rows.allocation_size() + shard.heap_bytes).sum()
    }

    /// What was given up since the start.
    #[must_use]
    pub fn forgotten(&self) -> Forgotten {
        self.forgotten
    }

    fn insert(&mut self, hash: u64, row: Row) {
        let (hasher, bytes_max) = (&self.hasher, self.shard_bytes_max);
        let shard = &mut self.shards[shard_of(hash)];
        if shard.bytes_with(&row) > bytes_max && !shard.rows.is_empty() {
            self.forgotten.evicted_sessions += shard.evict_oldest(hasher);
        }
        shard.heap_bytes += row.heap_bytes();
        shard.rows.insert_unique(hash, row, |row| hash_of_row(hasher, row));
    }
}

impl Shard {
    /// Memory in use once `row` is in: the array doubles when it is full.
    fn bytes_with(&self, row: &Row) -> usize {
        let grows = self.rows.len() == self.rows.capacity();
        let array_bytes = self.rows.allocation_size() * if grows { 2 } else { 1 };
        array_bytes + self.heap_bytes + row.heap_bytes()
    }

    /// Forgets the eighth that was silent longest; says how many went.
    ///
    /// The array is made anew: deleted slots would otherwise make the next insertion double it.
    fn evict_oldest(&mut self, hasher: &DefaultHashBuilder) -> u64 {
        let excess = self.rows.len() / 8 + 1;
        let mut seen: Vec<RunningTime> = self.rows.iter().map(|row| row.seen).collect();
        let (_, newest_to_go, _) = seen.select_nth_unstable(excess - 1);
        let newest_to_go = *newest_to_go;
        let mut left = excess;
        let mut kept = HashTable::with_capacity(self.rows.len());
        for row in self.rows.drain() {
            if left > 0 && row.seen <= newest_to_go {
                left -= 1;
                self.heap_bytes -= row.heap_bytes();
            } else {
                kept.insert_unique(hash_of_row(hasher, &row), row, |row| hash_of_row(hasher, row));
            }
        }
        self.rows = kept;
        (excess - left) as u64
    }
}

fn hash_of(hasher: &DefaultHashBuilder, tenant: &[u8], device: &[u8], session: u64) -> u64 {
    let mut state = hasher.build_hasher();
    state.write(tenant);
    state.write_u64(session ^ ((tenant.len() as u64) << 56));
    state.write(device);
    state.finish()
}

fn hash_of_row(hasher: &DefaultHashBuilder, row: &Row) -> u64 {
    hash_of(hasher, row.tenant(), row.device(), row.session())
}

/// The table's arrays use a hash's lowest bits and its highest seven; the shard takes others.
fn shard_of(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(device: &str, session: u64) -> Key<'_> {
        Key { tenant: "default", device, session }
    }

    const NOW: RunningTime = RunningTime(10);

    #[test]
    fn a_message_is_new_once() {
        let mut table = Table::new(1 << 20);
        assert_eq!(table.admit(&key("a", 1), 5, 0, NOW), Verdict::New);
        assert_eq!(table.admit(&key("a", 1), 5, 0, NOW), Verdict::Duplicate);
        assert_eq!(table.admit(&key("a", 2), 5, 0, NOW), Verdict::New);
        assert_eq!(table.admit(&key("b", 1), 5, 0, NOW), Verdict::New);
        let other = Key { tenant: "other", device: "a", session: 1 };
        assert_eq!(table.admit(&other, 5, 0, NOW), Verdict::New);
        assert_eq!(table.sessions(), 4);
    }

    #[test]
    fn names_that_run_together_are_different_sessions() {
        let mut table = Table::new(1 << 20);
        let one = Key { tenant: "ab", device: "c", session: 1 };
        let two = Key { tenant: "a", device: "bc", session: 1 };
        assert_eq!(table.admit(&one, 1, 0, NOW), Verdict::New);
        assert_eq!(table.admit(&two, 1, 0, NOW), Verdict::New);
    }

    #[test]
    fn rejected_numbers_leave_no_hole() {
        let mut table = Table::new(1 << 20);
        table.admit(&key("a", 1), 3, 5, NOW);
        table.admit(&key("a", 1), 10, 6, NOW);
        let row = (0..SHARDS).find_map(|shard| table.rows_of(shard).next()).expect("one row");
        assert_eq!(row.stored.iter().collect::<Vec<_>>(), [Range { first: 1, last: 10 }]);
    }

    #[test]
    fn silent_sessions_expire_and_are_counted() {
        let mut table = Table::new(1 << 20);
        table.admit(&key("old", 1), 1, 0, RunningTime(1));
        table.admit(&key("new", 1), 1, 0, RunningTime(100));
        (0..SHARDS).for_each(|shard| table.expire(shard, RunningTime(50)));
        assert!(!table.contains(&key("old", 1), 1) && table.contains(&key("new", 1), 1));
        assert_eq!(table.forgotten().expired_sessions, 1);
    }

    #[test]
    fn memory_stays_bounded_and_the_longest_silent_go_first() {
        const BYTES_MAX: usize = 2 << 20;
        let mut table = Table::new(BYTES_MAX);
        for n in 0..60_000u32 {
            let device = format!("device-{n}");
            table.admit(&key(&device, 1), 1, 0, RunningTime(n));
            if n % 1000 == 0 {
                assert!(table.bytes() <= BYTES_MAX, "{} bytes after {n}", table.bytes());
            }
        }
        let kept = table.sessions() as u64;
        assert_eq!(kept + table.forgotten().evicted_sessions, 60_000);
        assert!(kept > 8_000, "only {kept} sessions in {BYTES_MAX} bytes");
        assert!(table.contains(&key("device-59999", 1), 1));
        assert!(!table.contains(&key("device-0", 1), 1));
        let heap: usize =
            (0..SHARDS).flat_map(|shard| table.rows_of(shard)).map(Row::heap_bytes).sum();
        assert_eq!(heap, table.shards.iter().map(|shard| shard.heap_bytes).sum::<usize>());
    }

    #[test]
    fn what_was_not_stored_after_all_is_new_again() {
        let mut table = Table::new(1 << 20);
        table.admit(&key("a", 1), 1, 0, NOW);
        for number in [2, 3] {
            table.admit(&key("a", 1), number, 0, NOW);
        }
        table.admit(&key("b", 1), 1, 0, NOW);
        table.retract(&key("a", 1), 2);
        table.retract(&key("b", 1), 1);
        table.retract(&key("c", 1), 1);
        assert_eq!(table.sessions(), 1);
        assert_eq!(table.admit(&key("a", 1), 3, 0, NOW), Verdict::Duplicate);
        assert_eq!(table.admit(&key("a", 1), 2, 0, NOW), Verdict::New);
        assert_eq!(table.admit(&key("b", 1), 1, 0, NOW), Verdict::New);
    }

    #[test]
    fn restoring_joins_what_is_known() {
        let mut table = Table::new(1 << 20);
        table.admit(&key("a", 1), 1, 0, NOW);
        let range = Range { first: 2, last: 9 };
        table.restore(Row::new(key("a", 1), RunningTime(3), Ranges::of(range)));
        table.restore(Row::new(key("b", 1), RunningTime(3), Ranges::of(range)));
        assert!(table.contains(&key("a", 1), 1) && table.contains(&key("a", 1), 9));
        assert!(table.contains(&key("b", 1), 2));
        assert_eq!(table.sessions(), 2);
    }
}
