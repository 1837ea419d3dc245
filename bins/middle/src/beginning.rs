//! Where the books of a consumer begin that joined later.
//!
//! What the log had counted before such a consumer's first record is what it has counted at one of
//! its commits, less what the consumer has told with it. But the ledger is that of the log's end,
//! and under steady traffic no commit is there. So the end is remembered at one commit, and the
//! first commit that passes it counts the records between: until then the consumer holds them.

use std::sync::Mutex;

use forebay_queue::{Error, Queue, Seq as LogSeq};
use forebay_wire::feed::Stored;
use hashbrown::HashMap;

use crate::{
    dedup::{
        Dedup,
        ledger::{Ledger, Note},
    },
    snapshotter::note,
};

/// Records that a commit counts at most: about 0.1 s, in which no other commit is taken. If there
/// were more, the next attempt may count twice as many, so that large commits come to an end too.
const COUNTED_MAX: u64 = 1 << 19;
/// Records and bytes looked at in one step.
const STEP_ENTRIES: u64 = 4096;
const STEP_BYTES: usize = 4 << 20;

/// The ends of the log that commits are still to pass.
#[derive(Debug, Default)]
pub(crate) struct Beginnings {
    marks: HashMap<String, Mark>,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    /// The end of the log at a commit, and the ledger there.
    note: Note,
    counted_max: u64,
}

impl Beginnings {
    /// The ledger at `upto`, which `name` is about to commit and whose cursor is at `cursor`;
    /// `None` until it can be told, at one of the next commits.
    ///
    /// # Errors
    /// The log has failed.
    pub(crate) fn ledger_at(
        &mut self,
        log: &Queue,
        dedup: &Mutex<Dedup>,
        name: &str,
        (cursor, upto): (LogSeq, LogSeq),
    ) -> Result<Option<Ledger>, Error> {
        let mut counted_max = COUNTED_MAX;
        if let Some(mark) = self.marks.get(name) {
            let position = LogSeq::from_u64(mark.note.position);
            if upto < position {
                return Ok(None);
            }
            // Behind the cursor the log may be reclaimed: it was moved by others.
            let is_held = cursor <= position;
            if is_held && let Some(ledger) = mark.count(log, upto)? {
                self.marks.remove(name);
                return Ok(Some(ledger));
            }
            counted_max = mark.counted_max.saturating_mul(2);
        }
        self.marks.insert(name.to_owned(), Mark { note: note(log, dedup), counted_max });
        Ok(None)
    }
}

impl Mark {
    /// The ledger at `upto`, if that is not too far away and nothing in between is damaged.
    fn count(&self, log: &Queue, upto: LogSeq) -> Result<Option<Ledger>, Error> {
        let Note { position, mut ledger } = self.note;
        let mut at = LogSeq::from_u64(position);
        if upto.epoch() == at.epoch() && upto.counter() - at.counter() > self.counted_max {
            return Ok(None);
        }
        let mut left = self.counted_max;
        let mut tail = log.tail(Some(at));
        while at < upto {
            let batch = tail.read(STEP_ENTRIES.min(left) as usize, STEP_BYTES)?;
            if batch.is_empty() || batch.gap().is_some() {
                return Ok(None);
            }
            for record in batch.iter() {
                if record.seq > upto {
                    return Ok(Some(ledger));
                }
                ledger.count(Stored::decode(record.payload).as_ref());
                at = record.seq;
                left -= 1;
            }
        }
        Ok(Some(ledger))
    }
}

#[cfg(test)]
mod tests {
    use forebay_link::{QueueId, Seq};
    use forebay_queue::{Durability, Options};

    use super::*;

    struct Log {
        log: Queue,
        dedup: Mutex<Dedup>,
        _dir: tempfile::TempDir,
    }

    impl Log {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let options = Options {
                durability: Durability::Process,
                capacity_bytes: 1 << 20,
                any_filesystem: true,
                ..Options::default()
            };
            let log = Queue::create(dir.path(), &options).expect("a log");
            Self { log, dedup: Mutex::new(Dedup::new(1 << 20)), _dir: dir }
        }

        /// Appends and counts so many entries, each third a marker.
        fn append(&self, count: u64) {
            let mut dedup = self.dedup.lock().expect("one thread");
            for number in 0..count {
                let prefix = Stored::prefix(QueueId::new(1), Seq::new(number + 1));
                let entry: &[u8] = if number % 3 == 2 { b"" } else { b"an entry" };
                let payload = [&prefix[..], entry].concat();
                self.log.append(0, &payload).expect("room");
                dedup.ledger.count(Stored::decode(&payload).as_ref());
            }
        }

        fn at(&self, back: u64) -> LogSeq {
            LogSeq::from_u64(self.log.appended().get() - back)
        }

        fn ask(&self, known: &mut Beginnings, span: (LogSeq, LogSeq)) -> Option<Ledger> {
            known.ledger_at(&self.log, &self.dedup, "late", span).expect("the log")
        }
    }

    #[test]
    fn the_ledger_of_a_commit_is_that_of_an_end_passed_and_what_lies_between() {
        let log = Log::new();
        let mut known = Beginnings::default();
        log.append(6);
        assert_eq!(log.ask(&mut known, (LogSeq::NONE, log.at(3))), None, "an end to pass");
        log.append(6);
        assert_eq!(log.ask(&mut known, (log.at(9), log.at(7))), None, "it is not passed");
        let ledger = log.ask(&mut known, (log.at(7), log.at(3))).expect("passed");
        assert_eq!((ledger.records, ledger.entries), (9, 6));
    }

    /// The cursor was moved past the end that was to be passed: the records between may be gone.
    #[test]
    fn what_is_not_held_is_not_counted() {
        let log = Log::new();
        let mut known = Beginnings::default();
        log.append(6);
        assert_eq!(log.ask(&mut known, (LogSeq::NONE, log.at(3))), None);
        log.append(6);
        assert_eq!(log.ask(&mut known, (log.at(5), log.at(3))), None, "counts what is gone");
        log.append(3);
        let ledger = log.ask(&mut known, (log.at(6), log.at(0))).expect("from a later end");
        assert_eq!((ledger.records, ledger.entries), (15, 10));
    }

    #[test]
    fn no_commit_counts_without_a_bound_and_large_commits_come_to_an_end_too() {
        let log = Log::new();
        let mut known = Beginnings::default();
        log.append(1);
        assert_eq!(log.ask(&mut known, (LogSeq::NONE, LogSeq::NONE)), None);
        known.marks.get_mut("late").expect("an end").counted_max = 3;
        let mut cursor = log.at(0);
        let mut told = Vec::new();
        for _ in 0..4 {
            log.append(12);
            told.push(log.ask(&mut known, (cursor, log.at(0))).map(|ledger| ledger.records));
            cursor = log.at(0);
        }
        // At most 3, 6, and 12 records.
        assert_eq!(told[..3], [None, None, Some(37)]);
    }
}
