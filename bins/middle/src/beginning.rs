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
