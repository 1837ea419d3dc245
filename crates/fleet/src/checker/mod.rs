//! Compares what was stored with the journal of what was sent and acknowledged.
//!
//! Both are sets of (device, session, seq, index). LOST is acknowledged and not stored; INVENTED is
//! stored and never sent; DUPLICATED is stored more than once; WRONG is a value that differs from
//! the one recomputed from its identity; an inversion is a message that arrived after a later one
//! of its session. Rows of other runs in the same store are counted as foreign and left alone: a
//! run is told apart by its random session numbers.
//!
//! The comparison knows no store; [`lake`] feeds it from Parquet files.

pub mod lake;
mod order;
mod seen;

use std::collections::HashMap;

use forebay_model::{Reading, Value};
use serde::Serialize;

use crate::{
    journal::{Journal, SessionRecord},
    script::{Script, Voice},
};
use order::Order;
use seen::Seen;

/// Findings kept word for word; all are counted.
const FINDINGS_KEPT: usize = 20;

/// What the comparison found. Everything but `foreign_rows` is of this run only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Messages that may have left a device.
    pub sent: u64,
    /// Messages acknowledged, without those refused for good.
    pub acked: u64,
    /// Messages stored with all their rows.
    pub stored: u64,
    /// Messages acknowledged of which a row is missing.
    pub lost: u64,
    /// Rows stored that no device sent, or that a front refused.
    pub invented: u64,
    /// Rows stored once more.
    pub duplicated: u64,
    /// Rows with another key, value, unit or time than was sent.
    pub wrong: u64,
    /// Messages that arrived after a later one, in sessions that stayed on one front.
    pub inversions: u64,
    /// The same for sessions that used several fronts, where it is allowed.
    pub inversions_roamed: u64,
    /// Rows compared.
    pub rows: u64,
    /// Rows of other runs.
    pub foreign_rows: u64,
    /// The first findings, in words.
    pub findings: Vec<String>,
}

/// A comparison under way.
#[derive(Debug)]
pub struct Checker<'r> {
    script: &'r Script,
    records: &'r [SessionRecord],
    by_identity: HashMap<&'r str, HashMap<u64, usize>>,
    by_session: HashMap<u64, usize>,
    states: Vec<State>,
    order: Order,
    verdict: Verdict,
}

/// Whose row it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A session of this run, by its place.
    Ours(usize),
    /// A session of this run, under the name of another device.
    Impostor,
    /// Another run's.
    Foreign,
}

/// One stored row.
#[derive(Debug, Clone)]
pub struct StoredRow<'a> {
    /// The message's number.
    pub seq: u64,
    /// The reading's place in its message.
    pub index: u16,
    /// The entry it arrived with, in the numbering of the middle's queue.
    pub entry: u64,
    /// What was stored.
    pub reading: Reading<'a>,
}

#[derive(Debug)]
struct State {
    voice: Voice,
    seen: Seen,
}

impl Verdict {
    /// Whether everything acknowledged is stored exactly once, as sent, and nothing else.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost == 0
            && self.invented == 0
            && self.duplicated == 0
            && self.wrong == 0
            && self.inversions == 0
    }
}

impl<'r> Checker<'r> {
    /// Starts a comparison with the records of a journal.
    #[must_use]
    pub fn new(script: &'r Script, records: &'r [SessionRecord]) -> Self {
        let states = records
            .iter()
            .map(|record| State {
                voice: script.voice(record.device, record.session),
                seen: Seen::new(record.rows),
            })
            .collect();
        Self {
            script,
            records,
            by_identity: Journal::by_identity(records),
            by_session: records.iter().enumerate().map(|(at, one)| (one.session, at)).collect(),
            states,
            order: Order::new(records.len()),
            verdict: Verdict::default(),
        }
    }

    /// Whose a (device, session) is. Ask once for rows that share it.
    #[must_use]
    pub fn owner(&self, device: &str, session: u64) -> Owner {
        match self.by_identity.get(device).and_then(|sessions| sessions.get(&session)) {
            Some(&at) => Owner::Ours(at),
            None if self.by_session.contains_key(&session) => Owner::Impostor,
            None => Owner::Foreign,
        }
    }

    /// Takes one stored row.
    ///
    /// The order within a part of the store (a file) is of no matter, the entry numbers tell the
    /// order of arrival; call [`Self::end_part`] after each part.
    pub fn row(&mut self, owner: Owner, row: &StoredRow<'_>) {
        let StoredRow { seq, index, .. } = *row;
        let at = match owner {
            Owner::Ours(at) => at,
            Owner::Foreign => {
                self.verdict.foreign_rows += 1;
                return;
            }
            Owner::Impostor => {
                self.verdict.rows += 1;
                self.verdict.invented += 1;
                self.finding(|| format!("INVENTED seq {seq} under another device's name"));
                return;
            }
        };
        self.verdict.rows += 1;
        let record = &self.records[at];
        let sent = (1..=record.sent).contains(&seq)
            && index < record.rows
            && record.rejected.binary_search(&seq).is_err();
        if !sent {
            self.verdict.invented += 1;
            let sent = record.sent;
            self.finding(|| format!("INVENTED {} (sent up to {sent})", name(record, seq, index)));
            return;
        }
        let state = &mut self.states[at];
        if !state.seen.insert(seq, index) {
            self.verdict.duplicated += 1;
            self.finding(|| format!("DUPLICATED {}", name(record, seq, index)));
            return;
        }
        if index == 0 {
            self.order.arrived(at, row.entry, seq);
        }
        let expected = self.script.reading(state.voice, seq, index);
        if !same(&expected, &row.reading) {
            self.verdict.wrong += 1;
            self.finding(|| {
                let stored = &row.reading;
                format!("WRONG {}: {stored:?} instead of {expected:?}", name(record, seq, index))
            });
        }
    }

    /// Ends a part of the store; parts come in the order of arrival.
    pub fn end_part(&mut self) {
        let mut inversions = Vec::new();
        self.order.end_part(|at, seq, latest| inversions.push((at, seq, latest)));
        for (at, seq, latest) in inversions {
            let record = &self.records[at];
            if record.roamed {
                self.verdict.inversions_roamed += 1;
            } else {
                self.verdict.inversions += 1;
                self.finding(|| format!("INVERSION {} after {latest}", name(record, seq, 0)));
            }
        }
    }

    /// Whether a message was met with all its rows, or is another run's; ask when all is read.
    #[must_use]
    pub fn is_stored(&self, device: &str, session: u64, seq: u64) -> bool {
        match self.owner(device, session) {
            Owner::Ours(at) => seq > 0 && self.states[at].seen.is_whole(seq),
            Owner::Impostor => false,
            Owner::Foreign => true,
        }
    }

    /// Ends the comparison: what is missing is known only now.
    #[must_use]
    pub fn finish(mut self) -> Verdict {
        self.end_part();
        for (record, state) in self.records.iter().zip(std::mem::take(&mut self.states)) {
            self.verdict.sent += record.sent;
            for seq in 1..=record.sent {
                let whole = state.seen.is_whole(seq);
                self.verdict.stored += u64::from(whole);
                if seq > record.acked || record.rejected.binary_search(&seq).is_ok() {
                    continue;
                }
                self.verdict.acked += 1;
                if !whole {
                    self.verdict.lost += 1;
                    let rows = state.seen.rows_of(seq);
                    self.finding(|| {
                        format!(
                            "LOST {}, {rows} of {} rows stored, acked up to {}",
                            name(record, seq, 0),
                            record.rows,
                            record.acked
                        )
                    });
                }
            }
        }
        self.verdict
    }

    fn finding(&mut self, words: impl FnOnce() -> String) {
        if self.verdict.findings.len() < FINDINGS_KEPT {
            self.verdict.findings.push(words());
        }
    }
}

fn name(record: &SessionRecord, seq: u64, index: u16) -> String {
    format!("{} session {} seq {seq} index {index}", record.name, record.session)
}

/// Equal in every part; floats by their bits.
fn same(expected: &Reading<'_>, stored: &Reading<'_>) -> bool {
    let value = match (&expected.value, &stored.value) {
        (Value::Float(one), Value::Float(two)) => one.to_bits() == two.to_bits(),
        (one, two) => one == two,
    };
    value
        && expected.key == stored.key
        && expected.unit == stored.unit
        && expected.time == stored.time
}

#[cfg(test)]
mod tests {
    //! Each kind of fault, planted one at a time into an otherwise faithful store, must be found
    //! and nothing else with it.

    use super::*;
    use crate::series::builtin;

    const ROWS: u16 = 2;

    fn script() -> Script {
        Script::new(builtin(), 256, 11)
    }

    /// Two sessions: one on one front, acked 40 of 50; one that roamed, acked all 30 but 7.
    fn records(script: &Script) -> Vec<SessionRecord> {
        let journal = Journal::default();
        let one = journal.open(0, &script.device_name(0), 1001, ROWS);
        one.sending(50);
        one.acknowledged(40);
        let two = journal.open(1, &script.device_name(1), 1002, ROWS);
        two.sending(30);
        two.acknowledged(30);
        two.rejected_one(7);
        two.roamed();
        journal.records()
    }

    type Row = (usize, u64, u16);

    /// Everything that may be stored, in order; of the first session five unacked ones too.
    fn faithful() -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for (at, seqs) in [(0, 1..=45), (1, 1..=30)] {
            for seq in seqs.filter(|&seq| (at, seq) != (1, 7)) {
                rows.extend((0..ROWS).map(|index| (at, seq, index)));
            }
        }
        rows
    }

    fn check(rows: &[Row]) -> Verdict {
        let script = script();
        let records = records(&script);
        let mut checker = Checker::new(&script, &records);
        for (entry, &(at, seq, index)) in (1..).zip(rows) {
            let record = &records[at];
            let owner = checker.owner(&record.name, record.session);
            let voice = script.voice(record.device, record.session);
            let reading = script.reading(voice, seq.max(1), index % ROWS);
            checker.row(owner, &StoredRow { seq, index, entry, reading });
            if entry % 17 == 0 {
                checker.end_part();
            }
        }
        checker.finish()
    }

    #[test]
    fn a_faithful_store_is_clean_whatever_it_keeps_of_the_unacknowledged() {
        let verdict = check(&faithful());
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.sent, verdict.acked, verdict.stored), (80, 69, 74));
        assert!(verdict.findings.is_empty());
    }

    #[test]
    fn a_planted_loss_of_one_row_or_a_message_is_found() {
        for missing in [vec![(0, 13, 1)], vec![(1, 30, 0), (1, 30, 1)]] {
            let mut rows = faithful();
            rows.retain(|row| !missing.contains(row));
            let verdict = check(&rows);
            assert_eq!((verdict.lost, verdict.invented, verdict.duplicated), (1, 0, 0));
            assert!(verdict.findings[0].starts_with("LOST"), "{:?}", verdict.findings);
        }
        assert_eq!(check(&[]).lost, 69);
    }

    #[test]
    fn an_unacknowledged_message_may_be_missing() {
        let mut rows = faithful();
        rows.retain(|&(at, seq, _)| (at, seq) != (0, 43));
        assert!(check(&rows).is_clean());
    }

    #[test]
    fn a_planted_duplicate_is_found() {
        let mut rows = faithful();
        rows.push((0, 45, 1));
        let verdict = check(&rows);
        assert_eq!((verdict.lost, verdict.invented, verdict.duplicated), (0, 0, 1));
        assert!(!verdict.is_clean());
    }

    #[test]
    fn planted_inventions_are_found() {
        for invention in [(0, 51, 0), (0, 3, ROWS), (1, 7, 0), (0, 0, 0)] {
            let mut rows = faithful();
            rows.push(invention);
            let verdict = check(&rows);
            assert_eq!((verdict.lost, verdict.invented, verdict.duplicated), (0, 1, 0));
        }
    }

    #[test]
    fn a_row_under_another_devices_name_is_invented_and_another_runs_row_is_foreign() {
        let script = script();
        let records = records(&script);
        let mut checker = Checker::new(&script, &records);
        let reading = script.reading(script.voice(0, 1001), 1, 0);
        let impostor = checker.owner(&records[1].name, 1001);
        assert_eq!(impostor, Owner::Impostor);
        let row = StoredRow { seq: 1, index: 0, entry: 1, reading };
        checker.row(impostor, &row);
        let foreign = checker.owner(&records[1].name, 5);
        checker.row(foreign, &row);
        let verdict = checker.finish();
        assert_eq!((verdict.invented, verdict.foreign_rows), (1, 1));
    }

    #[test]
    fn a_wrong_value_time_key_or_unit_is_found() {
        let script = script();
        let records = records(&script);
        let voice = script.voice(0, 1001);
        let right = script.reading(voice, 1, 0);
        let wrong = [
            Reading { value: Value::Float(1e9), ..right.clone() },
            Reading { value: Value::Int(1), ..right.clone() },
            Reading { time: None, ..right.clone() },
            Reading { key: "other".into(), ..right.clone() },
            Reading { unit: Some("K".into()), ..right.clone() },
            script.reading(voice, 2, 0),
        ];
        for reading in wrong {
            let mut checker = Checker::new(&script, &records);
            let owner = checker.owner(&records[0].name, 1001);
            checker.row(owner, &StoredRow { seq: 1, index: 0, entry: 1, reading });
            assert_eq!(checker.finish().wrong, 1);
        }
    }

    #[test]
    fn arrival_out_of_order_counts_only_where_the_device_stayed() {
        let mut rows = faithful();
        // Messages 10 and 11 of each session change places.
        for at in [0, 1] {
            let place = rows.iter().position(|row| *row == (at, 10, 0)).unwrap();
            rows[place..place + 4].rotate_left(2);
        }
        let verdict = check(&rows);
        assert_eq!((verdict.inversions, verdict.inversions_roamed), (1, 1));
        assert_eq!((verdict.lost, verdict.duplicated), (0, 0));
    }
}
