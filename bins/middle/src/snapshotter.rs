//! The thread that keeps the dedup snapshot close behind the log.
//!
//! A snapshot is due when a sixteenth of the log is held by nothing but the lack of one, when a
//! minute has passed and something was appended, or when the bell rings because the log is full.
//! After each, the log's reader `dedup` is committed, durably, to where both slots prove everything:
//! only that lets the log reclaim (I13: dedup state is durable no later than its effect).

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use forebay_queue::{Error, Queue, Reader, Seq as LogSeq};

use crate::{
    clock::Clock,
    dedup::{Dedup, RunningTime, ledger::Note},
    metrics::SnapshotMetrics,
    snapshot::{
        Log, Snapshots, Taken,
        slot::{FileMedium, WriteError},
    },
};

/// Name of the reader that holds what no snapshot proves.
pub(crate) const READER: &str = "dedup";
/// A snapshot is due when this share of the log is not proven by both slots.
const LOG_SHARE: u64 = 16;
/// How often the thread looks; at 100 MB/s that is 25 MB between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Pause after a snapshot that could not be written.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Longest single wait for the log to become durable, before waiting again.
const DURABLE_WAIT: Duration = Duration::from_secs(10);

/// Calls the snapshot thread.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    state: Mutex<Rung>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
struct Rung {
    now: bool,
    stop: bool,
}

impl Bell {
    /// A snapshot is wanted soon.
    pub(crate) fn ring(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.now {
            state.now = true;
            self.changed.notify_all();
        }
    }

    /// A last snapshot is wanted, then the end.
    fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.changed.notify_all();
    }

    fn wait(&self, timeout: Duration) -> Rung {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = |state: &mut Rung| !state.now && !state.stop;
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, timeout, quiet)
            .unwrap_or_else(PoisonError::into_inner);
        let rung = *state;
        state.now = false;
        rung
    }
}

/// How often, and what is too old.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Longest time between two snapshots while entries come in.
    pub every: Duration,
    /// Seconds after which a silent session is forgotten.
    pub retention: u32,
    /// Seconds after which a silent front queue is forgotten.
    pub source_retention: u32,
}

/// The running thread. Dropped, it takes a last snapshot and ends.
#[derive(Debug)]
pub(crate) struct Snapshotter {
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

struct Work {
    snapshots: Snapshots<FileMedium>,
    log: Queue,
    reader: Reader,
    dedup: Arc<Mutex<Dedup>>,
    clock: Arc<Clock>,
    bell: Arc<Bell>,
    pace: Pace,
    metrics: SnapshotMetrics,
    last: Last,
}

/// Where the last snapshot stood.
struct Last {
    at: Instant,
    position: LogSeq,
}

/// The log as a snapshot needs it.
struct LogOf<'a>(&'a Queue);

impl Log for LogOf<'_> {
    fn appended(&self) -> u64 {
        self.0.appended().get()
    }

    fn wait_durable(&self, seq: u64) {
        loop {
            match self.0.wait_durable(LogSeq::from_u64(seq), DURABLE_WAIT) {
                Ok(()) => return,
                Err(Error::Timeout { .. }) => tracing::warn!(seq, "the log's sync is slow"),
                Err(error) => forebay_ops::fatal(format_args!("the log failed: {error}")),
            }
        }
    }
}

impl Snapshotter {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gave no thread.
    #[expect(clippy::too_many_arguments, reason = "the parts of one thread, named once")]
    pub(crate) fn start(
        snapshots: Snapshots<FileMedium>,
        log: Queue,
        reader: Reader,
        dedup: Arc<Mutex<Dedup>>,
        clock: Arc<Clock>,
        bell: Arc<Bell>,
        pace: Pace,
        metrics: SnapshotMetrics,
    ) -> std::io::Result<Self> {
        let last = Last { at: Instant::now(), position: LogSeq::NONE };
        let told = Arc::clone(&bell);
        let mut work = Work { snapshots, log, reader, dedup, clock, bell, pace, metrics, last };
        let thread = forebay_ops::thread::spawn("dedup", move || work.run())?;
        Ok(Self { bell: told, thread: Some(thread) })
    }
}

impl Drop for Snapshotter {
    fn drop(&mut self) {
        self.bell.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has ended the process already.
            let _ = thread.join();
        }
    }
}

/// The ledger, and where it stands: entries are appended under the same lock.
pub(crate) fn note(log: &Queue, dedup: &Mutex<Dedup>) -> Note {
    let dedup = dedup.lock().unwrap_or_else(PoisonError::into_inner);
    Note { position: log.appended().get(), ledger: dedup.ledger }
}

impl Work {
    fn run(&mut self) {
        loop {
            let rung = self.bell.wait(LOOK_EVERY);
            if rung.stop {
                // Twice: then both slots prove all, and the log can be reclaimed to its end.
                let _ = self.take_if_moved() && self.take_if_moved();
                return;
            }
            if (self.is_due() || rung.now) && !self.take_if_moved() {
                self.bell.wait(RETRY_AFTER);
            }
        }
    }

    fn is_due(&self) -> bool {
        let stat = self.log.stat();
        let unproven = stat.readers.iter().find(|reader| reader.name == READER);
        let unproven_bytes = unproven.map_or(0, |reader| reader.pending_bytes);
        unproven_bytes >= stat.capacity_bytes / LOG_SHARE
            || self.last.at.elapsed() >= self.pace.every
    }

    /// Takes a snapshot unless both slots stand at the log's end already; whether all is well.
    fn take_if_moved(&mut self) -> bool {
        let (appended, proven) = (self.log.appended(), self.reader.cursor());
        if appended == self.last.position && appended == proven {
            self.last.at = Instant::now();
            return true;
        }
        match self.take() {
            Ok(()) => true,
            Err(WriteError::Write(error)) => {
                self.metrics.failures.inc();
                tracing::error!(%error, "the dedup snapshot cannot be written; the log fills");
                false
            }
            Err(error @ WriteError::Sync(_)) => forebay_ops::fatal(error),
        }
    }

    fn take(&mut self) -> Result<(), WriteError> {
        let start = Instant::now();
        let running = self.clock.running();
        self.expire_sources(running);
        let oldest = running.back(self.pace.retention);
        let (dedup, log) = (Arc::clone(&self.dedup), self.log.clone());
        let taken = self.snapshots.take(&dedup, &LogOf(&log), running, oldest, |_| ())?;
        self.commit(&taken);
        let position = LogSeq::from_u64(taken.header.position);
        self.last = Last { at: Instant::now(), position };
        let bytes = Snapshots::<FileMedium>::bytes_of(&taken.header);
        self.metrics.taken(start.elapsed(), bytes);
        tracing::debug!(
            seq = %position, sessions = taken.header.sessions, bytes, took = ?start.elapsed(),
            "dedup snapshot taken"
        );
        Ok(())
    }

    /// Lets the log reclaim what both slots prove.
    fn commit(&mut self, taken: &Taken) {
        let Some(proven) = taken.proven.map(LogSeq::from_u64) else { return };
        if proven <= self.reader.cursor() {
            return;
        }
        let note = note(&self.log, &self.dedup);
        // The note must not speak of what a power cut can still take.
        LogOf(&self.log).wait_durable(note.position);
        if let Err(error) = self.reader.commit_durable(proven, Some(&note.to_bytes())) {
            forebay_ops::fatal(format_args!("the log failed: {error}"));
        }
    }

    fn expire_sources(&self, running: RunningTime) {
        let mut dedup = self.dedup.lock().unwrap_or_else(PoisonError::into_inner);
        dedup.sources.expire(running.back(self.pace.source_retention));
    }
}
