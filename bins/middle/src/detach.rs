//! Consumers that are left behind rather than hold the log, once it is nearly full.
//!
//! Most consumers hold what they have not committed: the log fills, fronts get no more credit, and
//! nothing is lost. One that the configuration calls detachable gives way: when seven eighths of
//! the log are used, its cursor moves past the oldest entries, as far as it takes to use three
//! quarters. Only what makes room is given up: nothing, if another consumer holds the same space;
//! but a range that the consumer has announced is given up whole, or not at all.
//!
//! The order: the gap is written down (`gaps`), then the cursor moves, durably. What the consumer
//! itself has committed stays in its note, so it asks for what is gone when it comes back, is told
//! that it is, and keeps the gap on its own side before it goes on.

use std::{
    io,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use forebay_link::{ConsumerState, Seq};
use forebay_ops::{Shutdown, fatal, thread};
use forebay_queue::{Error, Queue, Reader, Seq as LogSeq};
use forebay_wire::feed::Stored;
use hashbrown::HashMap;

use crate::{
    accounts::{Account, Accounts},
    balance::committed,
    clock::wall_us,
    consumers::PREFIX,
    gaps::{self, Gap, Lost, lock_gaps},
};

/// Eighths of the log that are used when a consumer is detached: fronts are refused at fifteen
/// sixteenths.
const FULL_EIGHTHS: u64 = 7;
/// Eighths that are used after that.
const ROOM_EIGHTHS: u64 = 6;
/// How often it is looked; at 100 MB/s that is 5 MB between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Pause after a gap that could not be written down.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Entries and bytes stepped over at a time.
const STEP_ENTRIES: usize = 1024;
const STEP_BYTES: usize = 1 << 20;
/// What an entry takes in the ring besides its payload, with the padding.
const ENTRY_BYTES: u64 = 36;

/// The durable readers of the log, by consumer; shared by who serves and who detaches them.
pub(crate) type Readers = Arc<Mutex<HashMap<String, Reader>>>;

/// Locks the readers.
pub(crate) fn lock_readers(readers: &Readers) -> MutexGuard<'_, HashMap<String, Reader>> {
    readers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who may be left behind, and who was.
#[derive(Debug)]
pub(crate) struct Detachable {
    log: Queue,
    names: Vec<String>,
    readers: Readers,
    accounts: Arc<Mutex<Accounts>>,
    gaps: gaps::Shared,
}

/// Why a cursor could not be moved: the process must end, recovery decides.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    /// What the files of the accounts hold is not known.
    #[error("keeping a consumer's tally: {0}")]
    Accounts(io::Error),
    #[error("the log failed: {0}")]
    Log(#[from] Error),
}

/// How a detachable consumer stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub consumer: String,
    /// It has not come back to what is left of the log.
    pub detached: bool,
    pub lost: Lost,
    /// Its latest gap.
    pub latest: Option<Gap>,
}

impl Detachable {
    /// Who may be left behind; moves cursors that a process which died had written gaps for.
    ///
    /// # Errors
    /// As [`PassError`].
    pub(crate) fn open(
        log: &Queue,
        names: &[String],
        readers: Readers,
        accounts: Arc<Mutex<Accounts>>,
        gaps: gaps::Shared,
    ) -> Result<Self, PassError> {
        let mut locked = lock_readers(&readers);
        let known = lock_gaps(&gaps);
        for gap in known.all().iter().filter(|gap| gap.queue == log.id().to_string()) {
            let upto = LogSeq::from_u64(gap.upto_seq);
            let Some(reader) = locked.get_mut(&gap.consumer) else { continue };
            // Beyond the log's end only if a power cut took back what was given up.
            if reader.cursor() < upto && upto <= log.durable() {
                tracing::warn!(consumer = gap.consumer, upto = gap.upto, "completing a gap");
                pass(&accounts, &gap.consumer, reader, upto)?;
            }
        }
        drop((locked, known));
        Ok(Self { log: log.clone(), names: names.to_vec(), readers, accounts, gaps })
    }

    /// How each of them stands.
    pub(crate) fn standings(&self) -> Vec<Standing> {
        // In the order of `detach`, which holds the readers while it writes a gap down.
        let readers = lock_readers(&self.readers);
        let gaps = lock_gaps(&self.gaps);
        let mut names: Vec<&String> = self.names.iter().collect();
        names.extend(gaps.all().iter().map(|gap| &gap.consumer));
        names.sort_unstable();
        names.dedup();
        let standing = |name: &String| Standing {
            consumer: name.clone(),
            detached: readers.get(name).is_some_and(is_detached),
            lost: gaps.lost(name),
            latest: gaps.latest(name).cloned(),
        };
        names.into_iter().map(standing).collect()
    }

    /// How many messages of this log the gaps of a consumer name.
    pub(crate) fn gap_messages(&self, consumer: &str) -> u64 {
        lock_gaps(&self.gaps).messages(consumer, self.log.id())
    }

    /// Detaches who holds the log, if that makes room.
    ///
    /// # Errors
    /// A gap cannot be written down: nothing was given up.
    fn look(&self) -> io::Result<()> {
        let stat = self.log.stat();
        let eighth = stat.capacity_bytes / 8;
        if stat.used_bytes < eighth * FULL_EIGHTHS {
            return Ok(());
        }
        let name_of = |reader: &str| -> Option<&String> {
            let name = reader.strip_prefix(PREFIX)?;
            self.names.iter().find(|known| *known == name)
        };
        let holding = stat.readers.iter().filter(|reader| name_of(&reader.name).is_none());
        let held = holding.map(|reader| reader.pending_bytes).max().unwrap_or(0);
        let target = held.max(eighth * ROOM_EIGHTHS);
        if target >= eighth * FULL_EIGHTHS {
            // Others hold the same space.
            return Ok(());
        }
        for reader in &stat.readers {
            if let Some(name) = name_of(&reader.name)
                && reader.pending_bytes > target
            {
                self.detach(name, reader.pending_bytes - target)?;
            }
        }
        Ok(())
    }

    /// Moves a consumer's cursor past so many bytes of the log.
    fn detach(&self, name: &str, bytes: u64) -> io::Result<()> {
        let mut readers = lock_readers(&self.readers);
        let Some(reader) = readers.get_mut(name) else { return Ok(()) };
        // A range that it announced and will not read whole again it leaves out whole: the store may
        // have it. So the gap names all of it on both sides.
        let pending = ConsumerState::from_note(&reader.note()).and_then(|state| state.pending);
        let whole = pending.map(|range| range.start.get()..range.end.get());
        let stepped = step_over(reader, bytes, whole);
        let Passed { upto, entries, messages, bytes: passed } = match stepped {
            Ok(Some(stepped)) => stepped,
            Ok(None) => return Ok(()),
            Err(error) => fatal(format_args!("the log failed: {error}")),
        };
        let grows = is_detached(reader);
        let now_us = wall_us();
        let state = ConsumerState::from_note(&noted(reader)).unwrap_or_default();
        let gap = Gap {
            consumer: name.to_owned(),
            queue: self.log.id().to_string(),
            after: state.committed.to_string(),
            upto: upto.to_string(),
            upto_seq: upto.get(),
            entries,
            messages: Some(messages),
            bytes: passed,
            since_us: now_us,
            until_us: now_us,
            summed: false,
        };
        let after = gap.after.clone();
        lock_gaps(&self.gaps).add(gap, grows)?;
        if let Err(error) = pass(&self.accounts, name, reader, upto) {
            fatal(error);
        }
        if grows {
            tracing::warn!(consumer = name, %upto, entries, bytes = passed, "a detached consumer is left further behind");
        } else {
            tracing::error!(consumer = name, queue = %self.log.id(), after, %upto, entries, bytes = passed,
                "the log is full: a consumer is detached, it will not get these entries");
        }
        Ok(())
    }
}

/// Entries that were stepped over.
struct Passed {
    /// The last one.
    upto: LogSeq,
    entries: u64,
    /// Those that are no position markers.
    messages: u64,
    /// What they take in the log.
    bytes: u64,
}

/// Steps over entries from the cursor on, and on to the end of `whole` if that leads into it; `None`
/// if there are none.
fn step_over(
    reader: &mut Reader,
    bytes: u64,
    whole: Option<Range<u64>>,
) -> Result<Option<Passed>, Error> {
    let cursor = reader.cursor();
    reader.rewind(cursor)?;
    let mut passed = Passed { upto: cursor, entries: 0, messages: 0, bytes: 0 };
    let is_within = |upto: LogSeq| whole.as_ref().is_some_and(|whole| whole.contains(&upto.get()));
    while passed.bytes < bytes || is_within(passed.upto) {
        let batch = reader.peek(STEP_ENTRIES, STEP_BYTES)?;
        if batch.is_empty() {
            break;
        }
        for entry in batch.iter() {
            let is_marker = Stored::decode(entry.payload).is_some_and(|stored| stored.is_marker());
            passed.upto = entry.seq;
            passed.entries += 1;
            passed.messages += u64::from(!is_marker);
            passed.bytes += entry.payload.len() as u64 + ENTRY_BYTES;
        }
        batch.advance();
    }
    Ok((passed.entries > 0).then_some(passed))
}

/// Moves the cursor of a consumer past what is given up for it. Its account goes along where its
/// note names another number than before, or it would be of nobody when it comes back.
fn pass(
    accounts: &Mutex<Accounts>,
    name: &str,
    reader: &mut Reader,
    upto: LogSeq,
) -> Result<(), PassError> {
    let (before, note) = (committed(&reader.note()), noted(reader));
    let now = committed(&note);
    if now != before {
        let mut accounts = accounts.lock().unwrap_or_else(PoisonError::into_inner);
        // As a commit does: a death before the cursor has moved finds the other of the two.
        if let Some(account) = accounts.get(name, before) {
            let account = Account { committed: now, ..account };
            accounts.put(name, Some(account)).map_err(PassError::Accounts)?;
        }
    }
    Ok(reader.commit_durable(upto, Some(&note))?)
}

/// Whether a consumer's cursor was moved beyond what it has committed itself.
fn is_detached(reader: &Reader) -> bool {
    let committed = ConsumerState::from_note(&reader.note()).map(|state| state.committed);
    committed
        .is_some_and(|committed| committed != Seq::ZERO && committed.get() < reader.cursor().get())
}

/// A consumer's note as it is when it is detached: one that never committed is told of what it
/// never saw too, by a number that no entry has.
fn noted(reader: &Reader) -> Vec<u8> {
    let note = reader.note();
    let Some(mut state) = ConsumerState::from_note(&note) else { return note };
    if state.committed != Seq::ZERO {
        return note;
    }
    state.committed = Seq::new(reader.cursor().get().max(1));
    state.to_note()
}

/// The running thread.
#[derive(Debug)]
pub(crate) struct Detacher {
    end: Shutdown,
    thread: Option<JoinHandle<()>>,
    /// For those who ask how consumers stand, also where none may be detached.
    _detachable: Arc<Detachable>,
}

impl Detacher {
    /// Starts the thread; none if nobody may be detached.
    ///
    /// # Errors
    /// The system gave no thread.
    pub(crate) fn start(detachable: Arc<Detachable>) -> io::Result<Self> {
        let end = Shutdown::new();
        if detachable.names.is_empty() {
            return Ok(Self { end, thread: None, _detachable: detachable });
        }
        let (ended, kept) = (end.clone(), Arc::clone(&detachable));
        let thread = thread::spawn("detach", move || {
            let mut pause = LOOK_EVERY;
            while !ended.wait_timeout(pause) {
                pause = LOOK_EVERY;
                if let Err(error) = detachable.look() {
                    tracing::error!(%error, "a gap cannot be written down: the log stays full");
                    pause = RETRY_AFTER;
                }
            }
        })?;
        Ok(Self { end, thread: Some(thread), _detachable: kept })
    }
}

impl Drop for Detacher {
    fn drop(&mut self) {
        self.end.begin("nobody is detached any more");
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has ended the process already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use forebay_queue::{Durability, Options};

    use super::*;
    use crate::gaps::Gaps;

    const DEADLINE: Duration = Duration::from_secs(60);
    const CONSUMER: &str = "slow";

    /// A log of so many entries, of which the consumer has taken none; every fourth is a marker.
    fn detachable(dir: &std::path::Path, entries: u64) -> Arc<Detachable> {
        let options = Options {
            durability: Durability::Process,
            capacity_bytes: 4 << 20,
            any_filesystem: true,
            ..Options::default()
        };
        let log = Queue::create(dir.join("log"), &options).expect("a log");
        let reader = log.reader(&format!("{PREFIX}{CONSUMER}")).expect("a reader");
        for number in 0..entries {
            let prefix = Stored::prefix(forebay_link::QueueId::new(1), Seq::new(number + 1));
            let entry: &[u8] = if number % 4 == 0 { b"" } else { b"an entry" };
            log.append_parts(number, &[&prefix, entry]).expect("room");
        }
        let readers = Arc::new(Mutex::new(HashMap::from([(CONSUMER.to_owned(), reader)])));
        let gaps = Arc::new(Mutex::new(Gaps::open(dir).expect("none yet")));
        let accounts = Arc::new(Mutex::new(Accounts::open(dir).expect("none yet")));
        let names = [CONSUMER.to_owned()];
        Arc::new(Detachable::open(&log, &names, readers, accounts, gaps).expect("opens"))
    }

    /// Who asks how consumers stand once took the locks in the other order, and a scrape at the
    /// wrong moment stopped the middle for ever.
    #[test]
    fn asking_how_consumers_stand_never_blocks_detaching_one() {
        const STEPS: u64 = 30;
        let dir = tempfile::tempdir().expect("a directory");
        let detachable = detachable(dir.path(), STEPS * STEP_ENTRIES as u64);
        let (done, waiting) = mpsc::channel();
        let end = Shutdown::new();
        let (asked, ended, told) = (Arc::clone(&detachable), end.clone(), done.clone());
        thread::spawn(move || {
            while !ended.is_draining() {
                assert_eq!(asked.standings().len(), 1);
            }
            told.send("asked").expect("somebody waits");
        });
        let worked = Arc::clone(&detachable);
        thread::spawn(move || {
            (0..STEPS).for_each(|_| worked.detach(CONSUMER, 1).expect("written down"));
            done.send("detached").expect("somebody waits");
        });
        assert_eq!(waiting.recv_timeout(DEADLINE), Ok("detached"), "they wait for one another");
        end.begin("detached");
        assert_eq!(waiting.recv_timeout(DEADLINE), Ok("asked"));
        let lost = detachable.standings()[0].lost.entries;
        assert_eq!(lost, STEPS * STEP_ENTRIES as u64);
        assert_eq!(detachable.gap_messages(CONSUMER), lost / 4 * 3, "markers are no messages");
    }
}
