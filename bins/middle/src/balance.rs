//! Whether everything that came in has come to something: `/v1/balance` and its metrics (I15).
//!
//! Three ledgers are compared, each kept by somebody else: what a front has numbered, what the log
//! holds and has passed over ([`Ledger`]), and what each consumer tells with its commits
//! ([`Accounts`]). The figures are read under the locks that their writers hold, so that none of
//! them is of another moment.

use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use forebay_link::{QueueId, Seq};
use forebay_queue::Queue;
use forebay_wire::feed::{ConsumerState, STORED_PREFIX_BYTES, Tally};
use serde_json::{Value, json};

use crate::{
    accounts::{Account, Accounts},
    consumers::PREFIX,
    dedup::{Dedup, ledger::Ledger},
    detach::Detachable,
};

/// The least that a record of the log takes: its header of 32 bytes, the origin, and one byte more,
/// rounded up to 8. So many bytes that are not committed hide at most one message.
const RECORD_BYTES_MIN: u64 = (32 + STORED_PREFIX_BYTES as u64 + 1).next_multiple_of(8);

/// How one consumer stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub consumer: String,
    /// `None`: it keeps no tally, or joined later and its beginning is not known yet.
    pub counted: Option<Counted>,
}

/// What is known of a consumer that keeps a tally.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    pub tally: Tally,
    /// Messages that it has not committed yet.
    pub held: u64,
    /// Messages that it never got because it was detached: they lie in gaps since its beginning.
    pub given_up: u64,
    /// Messages that the log had and that it never got; below 0, those it got and never were.
    pub missing_messages: i64,
    /// Rows that it made and that neither reached the store nor were set aside; below 0, those
    /// stored and never made.
    pub missing_rows: i64,
}

impl Counted {
    /// Compares an account with the log, of which `pending_bytes` are not committed and so many
    /// messages lie in gaps.
    fn of(
        account: &Account,
        ledger: &Ledger,
        pending_bytes: u64,
        gap_messages: u64,
    ) -> Option<Self> {
        let (tally, before) = (account.tally, account.before?);
        let due = difference(ledger.entries, before.messages + tally.messages);
        let held_max = i64::try_from(pending_bytes / RECORD_BYTES_MIN).unwrap_or(i64::MAX);
        let held = due.clamp(0, held_max);
        // Gaps of before its beginning are in `before`. Of the others it may have read and stored
        // some.
        let named = gap_messages.saturating_sub(before.given_up);
        let given_up = (due - held).clamp(0, i64::try_from(named).unwrap_or(i64::MAX));
        let accounted = tally.stored + tally.dead + tally.left_out;
        Some(Self {
            tally,
            held: held.unsigned_abs(),
            given_up: given_up.unsigned_abs(),
            missing_messages: due - held - given_up,
            missing_rows: difference(tally.rows, accounted),
        })
    }
}

fn difference(left: u64, right: u64) -> i64 {
    i64::try_from(i128::from(left) - i128::from(right)).unwrap_or(i64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ledger, and how each durable consumer stands against it; `gap_messages` tells how many
/// messages of this log a consumer's gaps name.
pub(crate) fn standings(
    log: &Queue,
    dedup: &Mutex<Dedup>,
    accounts: &Mutex<Accounts>,
    gap_messages: impl Fn(&str) -> u64,
) -> (Ledger, Vec<Standing>) {
    let (ledger, read) = {
        // The consumers' first: one that commits meanwhile is only seen as it was.
        let accounts = lock(accounts);
        let dedup = lock(dedup);
        let read = log.readers().into_iter().filter_map(|reader| {
            let consumer = reader.name.strip_prefix(PREFIX)?.to_owned();
            Some((accounts.latest(&consumer), consumer, reader.pending_bytes))
        });
        (dedup.ledger, read.collect::<Vec<_>>())
    };
    // After the cursors, for a gap is written down before the cursor passes it; and without the
    // locks, for who writes one down holds the gaps for two syncs, and appends would wait.
    let standings = read.into_iter().map(|(account, consumer, pending_bytes)| {
        let named = gap_messages(&consumer);
        let counted = account.and_then(|one| Counted::of(&one, &ledger, pending_bytes, named));
        Standing { consumer, counted }
    });
    (ledger, standings.collect())
}

/// All books of a running middle.
#[derive(Debug, Clone)]
pub(crate) struct Books {
    pub log: Weak<Queue>,
    pub dedup: Weak<Mutex<Dedup>>,
    pub accounts: Weak<Mutex<Accounts>>,
    pub detachable: Weak<Detachable>,
}

impl Books {
    /// What the log holds and has passed over; `None` once the tier has ended.
    pub(crate) fn ledger(&self) -> Option<Ledger> {
        Some(lock(&*self.dedup.upgrade()?).ledger)
    }

    /// The ledger, and how each durable consumer stands against it.
    pub(crate) fn standings(&self) -> Option<(Ledger, Vec<Standing>)> {
        let detachable = self.detachable.upgrade()?;
        let gap_messages = |consumer: &str| detachable.gap_messages(consumer);
        let (log, dedup) = (self.log.upgrade()?, self.dedup.upgrade()?);
        Some(standings(&log, &dedup, &*self.accounts.upgrade()?, gap_messages))
    }

    /// What `forebay check` asks.
    pub(crate) fn report(&self) -> Option<Value> {
        let (ledger, standings) = self.standings()?;
        let consumers: Vec<_> = standings.iter().map(Standing::report).collect();
        let dedup = self.dedup.upgrade()?;
        let mut sources: Vec<_> = lock(&dedup).sources.iter().collect();
        sources.sort_unstable_by_key(|(queue, _)| *queue);
        let sources = sources.into_iter().map(|(queue, source)| {
            json!({
                "queue": QueueId::new(queue).to_string(),
                "position": Seq::new(source.position).to_string(),
            })
        });
        Some(json!({
            "tier": "middle",
            "queue": self.log.upgrade()?.id().to_string(),
            "received": ledger.received(),
            "appended": ledger.entries,
            "duplicates": ledger.duplicates,
            "lost": ledger.lost,
            "consumers": consumers,
            "sources": sources.collect::<Vec<_>>(),
        }))
    }
}

impl Standing {
    fn report(&self) -> Value {
        let Self { consumer, counted } = self;
        let Some(Counted { tally, held, given_up, missing_messages, missing_rows }) = counted
        else {
            return json!({ "consumer": consumer, "counted": false });
        };
        json!({
            "consumer": consumer,
            "counted": true,
            "messages": tally.messages,
            "unreadable": tally.unreadable,
            "rows": tally.rows,
            "stored": tally.stored,
            "dead": tally.dead,
            "left_out": tally.left_out,
            "held": held,
            "given_up": given_up,
            "missing_messages": missing_messages,
            "missing_rows": missing_rows,
        })
    }
}

/// Where a consumer stands by the note beside its cursor.
pub(crate) fn committed(note: &[u8]) -> Seq {
    ConsumerState::from_note(note).map_or(Seq::ZERO, |state| state.committed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::Before;

    fn counted(entries: u64, messages: u64, pending_bytes: u64, gap: u64) -> Counted {
        let tally =
            Tally { messages, rows: 10, stored: 7, dead: 1, left_out: 1, ..Tally::default() };
        let before = Some(Before { records: 100, messages: 100, given_up: 20 });
        let account = Account { committed: Seq::ZERO, tally, before };
        let ledger = Ledger { entries, ..Ledger::default() };
        Counted::of(&account, &ledger, pending_bytes, gap).expect("counted")
    }

    #[test]
    fn what_is_not_committed_is_held_and_what_cannot_be_is_missing() {
        let seen = |entries, messages, bytes| {
            let Counted { held, missing_messages, .. } = counted(entries, messages, bytes, 0);
            (held, missing_messages)
        };
        assert_eq!(seen(150, 50, 0), (0, 0));
        assert_eq!(seen(150, 49, 0), (0, 1));
        assert_eq!(seen(150, 51, 0), (0, -1));
        assert_eq!(seen(150, 40, 10 * RECORD_BYTES_MIN), (10, 0));
        assert_eq!(seen(150, 38, 10 * RECORD_BYTES_MIN), (10, 2));
        assert_eq!(counted(150, 50, 0, 0).missing_rows, 1);
    }

    #[test]
    fn what_a_gap_names_is_given_up_and_no_more_than_that() {
        let seen = |messages, gap: u64| {
            // Twenty of the gaps' messages are of before its beginning.
            let Counted { given_up, missing_messages, .. } = counted(150, messages, 0, 20 + gap);
            (given_up, missing_messages)
        };
        assert_eq!(seen(40, 10), (10, 0));
        assert_eq!(seen(45, 10), (5, 0), "the other five were read before it was detached");
        assert_eq!(seen(38, 10), (10, 2));
        assert_eq!(seen(51, 10), (0, -1));
    }
}
