//! What detached consumers were left without, kept in a file beside the log.
//!
//! A line of JSON a gap: which consumer, which entries of which log. It is written and synced
//! **before** the cursor moves, so that no entry is reclaimed that a required consumer has not
//! committed and nothing names. A process that dies in between finds at the next start a gap that
//! reaches beyond the cursor, and moves the cursor after it.
//!
//! A gap that grows is one line: the file is written anew and renamed. It holds the latest
//! [`GAPS_MAX`]; those before are summed up in a line for each consumer and log, so that totals
//! never go down. Not here: when a consumer is detached (`detach`).

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use forebay_queue::QueueId;
use serde::{Deserialize, Serialize};

/// Gaps that are kept; of those before, only their sums.
const GAPS_MAX: usize = 1000;
/// Their file in the middle's directory.
const FILE: &str = "gaps.jsonl";

/// Entries that a consumer was left without; if `summed`, in several gaps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gap {
    /// The consumer.
    pub consumer: String,
    /// The log's queue id.
    pub queue: String,
    /// The entries above this one...
    pub after: String,
    /// ... and up to this one.
    pub upto: String,
    /// The same as a number, for comparing.
    pub upto_seq: u64,
    /// How many there were, position markers among them.
    pub entries: u64,
    /// How many of them were messages; lines of before do not say.
    #[serde(default)]
    pub messages: Option<u64>,
    /// Bytes they took in the log.
    pub bytes: u64,
    /// When the first was given up, microseconds since the Unix epoch.
    pub since_us: u64,
    /// When the last was.
    pub until_us: u64,
    /// Whether it is the sum of gaps that have no line any more, all between `after` and `upto`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub summed: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks for it")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Gap {
    /// How many messages it names: all entries, if it does not say.
    fn messages(&self) -> u64 {
        self.messages.unwrap_or(self.entries)
    }

    /// Adds the next of the same consumer and log.
    fn extend(&mut self, next: Self) {
        self.messages = Some(self.messages() + next.messages());
        (self.upto, self.upto_seq) = (next.upto, next.upto_seq);
        self.entries += next.entries;
        self.bytes += next.bytes;
        self.until_us = next.until_us;
    }
}

/// What all gaps of a consumer come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    pub entries: u64,
    pub bytes: u64,
}

/// The gaps, for who adds to them and who counts them. Locked after the readers, never before.
pub(crate) type Shared = Arc<Mutex<Gaps>>;

/// Locks the gaps.
pub(crate) fn lock_gaps(gaps: &Shared) -> MutexGuard<'_, Gaps> {
    gaps.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The gaps of one middle.
#[derive(Debug)]
pub(crate) struct Gaps {
    path: PathBuf,
    known: Vec<Gap>,
}

impl Gaps {
    /// Reads the file in a directory; without one there are no gaps.
    ///
    /// # Errors
    /// It cannot be read, or holds something else: do not start, or gaps would be forgotten.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        let named = |error: String| io::Error::other(format!("{}: {error}", path.display()));
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.map_err(|error| named(error.to_string()))?,
        };
        let lines = text.lines().enumerate();
        let known = lines.map(|(number, line)| {
            serde_json::from_str(line)
                .map_err(|error| named(format!("line {}: {error}", number + 1)))
        });
        let known = known.collect::<io::Result<_>>()?;
        Ok(Self { path, known })
    }

    /// The gaps, oldest first; before them the sums.
    pub(crate) fn all(&self) -> &[Gap] {
        &self.known
    }

    /// The latest gap of a consumer, or the sum of all if others came since.
    pub(crate) fn latest(&self, consumer: &str) -> Option<&Gap> {
        self.known.iter().rev().find(|gap| gap.consumer == consumer)
    }

    /// What a consumer was left without in all.
    pub(crate) fn lost(&self, consumer: &str) -> Lost {
        let of_it = self.known.iter().filter(|gap| gap.consumer == consumer);
        of_it.fold(Lost::default(), |sum, gap| Lost {
            entries: sum.entries + gap.entries,
            bytes: sum.bytes + gap.bytes,
        })
    }

    /// Messages of a log that a consumer's gaps name.
    pub(crate) fn messages(&self, consumer: &str, queue: QueueId) -> u64 {
        let queue = queue.to_string();
        let of_it = self.known.iter().filter(|gap| gap.consumer == consumer && gap.queue == queue);
        of_it.map(Gap::messages).sum()
    }

    /// Adds a gap, or to the latest one of the consumer if `grows`; on the medium on return.
    ///
    /// # Errors
    /// It cannot be written: the cursor must not move.
    pub(crate) fn add(&mut self, gap: Gap, grows: bool) -> io::Result<()> {
        let mut known = self.known.clone();
        let latest = known.iter_mut().rev().find(|latest| latest.consumer == gap.consumer);
        match latest.filter(|_| grows) {
            Some(latest) => latest.extend(gap),
            None => known.push(gap),
        }
        sum_up(&mut known);
        let mut text = String::new();
        for gap in &known {
            text.push_str(&serde_json::to_string(gap).map_err(io::Error::other)?);
            text.push('\n');
        }
        let unfinished = self.path.with_extension("tmp");
        let mut file = fs::File::create(&unfinished)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all())?;
        fs::rename(&unfinished, &self.path)?;
        if let Some(dir) = self.path.parent() {
            fs::File::open(dir)?.sync_all()?;
        }
        self.known = known;
        Ok(())
    }
}

/// Puts the oldest gaps into the sums until so many are left as are kept.
fn sum_up(known: &mut Vec<Gap>) {
    loop {
        let sums = known.iter().take_while(|gap| gap.summed).count();
        if known.len() - sums <= GAPS_MAX {
            return;
        }
        let oldest = known.remove(sums);
        let of_it =
            |sum: &&mut Gap| (&sum.consumer, &sum.queue) == (&oldest.consumer, &oldest.queue);
        match known[..sums].iter_mut().find(of_it) {
            Some(sum) => sum.extend(oldest),
            None => known.insert(sums, Gap { summed: true, ..oldest }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(consumer: &str, after: u64, upto: u64) -> Gap {
        Gap {
            consumer: consumer.to_owned(),
            queue: "q".to_owned(),
            after: after.to_string(),
            upto: upto.to_string(),
            upto_seq: upto,
            entries: upto - after,
            messages: Some(upto - after),
            bytes: 10 * (upto - after),
            since_us: after,
            until_us: upto,
            summed: false,
        }
    }

    #[test]
    fn gaps_are_read_back_and_one_that_grows_stays_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut gaps = Gaps::open(dir.path()).expect("none yet");
        gaps.add(gap("a", 0, 10), false).expect("kept");
        gaps.add(gap("b", 5, 7), false).expect("kept");
        gaps.add(gap("a", 10, 30), true).expect("kept");
        gaps.add(gap("a", 50, 51), false).expect("kept");
        let again = Gaps::open(dir.path()).expect("read");
        assert_eq!(again.all(), gaps.all());
        assert_eq!(again.all().len(), 3);
        assert_eq!(again.all()[0].upto_seq, 30);
        assert_eq!(again.lost("a"), Lost { entries: 31, bytes: 310 });
        assert_eq!(again.latest("b"), Some(&gap("b", 5, 7)));
        assert_eq!(again.lost("c"), Lost::default());
    }

    #[test]
    fn gaps_that_have_no_line_any_more_stay_in_the_totals() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut gaps = Gaps::open(dir.path()).expect("none yet");
        gaps.add(gap("a", 0, 30), false).expect("kept");
        gaps.add(gap("b", 5, 7), false).expect("kept");
        let many = 2 * GAPS_MAX as u64;
        // All but the last in one go, for each is a file.
        gaps.known.extend((0..many - 1).map(|number| gap("c", number, number + 1)));
        gaps.add(gap("c", many - 1, many), false).expect("kept");
        let mut again = Gaps::open(dir.path()).expect("read");
        assert_eq!(again.all(), gaps.all());
        let sums: Vec<_> = again.all().iter().take_while(|gap| gap.summed).collect();
        assert_eq!((sums.len(), again.all().len()), (3, GAPS_MAX + 3));
        let (after, upto) = (sums[2].after.as_str(), sums[2].upto.clone());
        assert_eq!((after, upto), ("0", GAPS_MAX.to_string()));
        assert_eq!(again.lost("a"), Lost { entries: 30, bytes: 300 });
        assert_eq!(again.lost("c"), Lost { entries: many, bytes: 10 * many });
        assert_eq!(again.latest("c"), Some(&gap("c", many - 1, many)));
        // One that grows after it was summed up is no new gap.
        again.add(gap("b", 7, 9), true).expect("kept");
        assert_eq!(again.lost("b"), Lost { entries: 4, bytes: 40 });
        assert_eq!(again.all().len(), GAPS_MAX + 3);
    }

    #[test]
    fn messages_are_counted_by_log_and_lines_of_before_count_all_entries() {
        let dir = tempfile::tempdir().expect("a directory");
        let old =
            Gap { messages: None, queue: QueueId::from_u128(7).to_string(), ..gap("a", 0, 10) };
        let mut line = serde_json::to_value(&old).expect("a value");
        line.as_object_mut().expect("an object").remove("messages");
        fs::write(dir.path().join(FILE), format!("{line}\n")).expect("written");
        let mut gaps = Gaps::open(dir.path()).expect("read");
        assert_eq!(gaps.messages("a", QueueId::from_u128(7)), 10);
        let more = Gap { messages: Some(3), queue: old.queue.clone(), ..gap("a", 10, 15) };
        gaps.add(more.clone(), true).expect("kept");
        gaps.add(Gap { consumer: "b".to_owned(), ..more }, false).expect("kept");
        assert_eq!(gaps.messages("a", QueueId::from_u128(7)), 13);
        assert_eq!(gaps.messages("b", QueueId::from_u128(7)), 3);
        assert_eq!(gaps.messages("a", QueueId::from_u128(8)), 0);
    }

    #[test]
    fn a_file_that_is_none_of_ours_is_refused_by_name_and_line() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join(FILE), "nonsense\n").expect("written");
        let error = Gaps::open(dir.path()).expect_err("refused").to_string();
        assert!(error.contains(FILE) && error.contains("line 1"), "{error}");
    }
}
