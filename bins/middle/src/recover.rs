//! What the middle knows after a start: the snapshot, completed by the log behind it.
//!
//! Every entry and marker in the log names its source's queue and its Seq there; scanning them from
//! the snapshot's position to the end gives back each session's stored numbers and each source's
//! position exactly as they were (I13).

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use forebay_ops::make_folder;
use forebay_queue::{Queue, Reader, Seq as LogSeq};
use forebay_wire::{entry, feed::Stored};

use crate::{
    dedup::{
        Dedup, Key, RunningTime,
        ledger::{Ledger, Note},
    },
    snapshot::{
        Snapshots,
        slot::{FileMedium, ReadError},
    },
    snapshotter::READER,
};

/// Files of the two slots.
const SLOTS: [&str; 2] = ["dedup-0.snapshot", "dedup-1.snapshot"];
/// Entries and bytes looked at in one step of the scan.
const SCAN_ENTRIES: usize = 4096;
const SCAN_BYTES: usize = 4 << 20;

/// Why a middle cannot know what it has stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The slots cannot be opened or made.
    #[error("opening {path}: {error}")]
    Open {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A slot cannot be read, or was written by a later version.
    #[error("reading the dedup snapshots in {dir}: {error}")]
    Snapshot {
        /// Their directory.
        dir: PathBuf,
        /// What is wrong.
        error: ReadError,
    },
    /// The log cannot be scanned.
    #[error("scanning the log: {0}")]
    Queue(#[from] forebay_queue::Error),
}

/// What the middle goes on with.
pub(crate) struct Recovered {
    /// Everything that is stored.
    pub dedup: Dedup,
    /// The slots, ready for the next snapshot.
    pub snapshots: Snapshots<FileMedium>,
    /// The reader that holds what no snapshot proves.
    pub reader: Reader,
    /// How long the middle had run.
    pub running: RunningTime,
    /// Whether everything stored within the retention is known. If not, resends of what is missing
    /// are stored again.
    pub complete: bool,
}

/// Reads the newer snapshot in `dir` and scans `log` behind it.
///
/// # Errors
/// [`RecoverError`]: the middle must not start, it would store resends again.
pub(crate) fn recover(
    dir: &Path,
    log: &Queue,
    memory_max: usize,
) -> Result<Recovered, RecoverError> {
    let start = Instant::now();
    let mut dedup = Dedup::new(memory_max);
    let (snapshots, found) = Snapshots::open(open_slots(dir)?, log.id().get(), &mut dedup)
        .map_err(|error| RecoverError::Snapshot { dir: dir.to_owned(), error })?;
    let mut reader = log.reader(READER)?;
    for error in &found.unreadable {
        tracing::error!(%error, path = %dir.display(), "a dedup snapshot is damaged");
    }
    let after = found.scan_after.map_or(LogSeq::NONE, LogSeq::from_u64);
    let complete = after >= reader.cursor();
    if !complete {
        tracing::error!(
            seq = %after, committed = %reader.cursor(),
            "no whole dedup snapshot: resends of what was stored before may be stored again"
        );
    }
    let note = Note::from_bytes(&reader.note()).unwrap_or_default();
    dedup.ledger = note.ledger;
    let scanned = scan(&mut reader, after, &note, found.running, &mut dedup)?;
    tracing::info!(
        sessions = dedup.table.sessions(), sources = dedup.sources.iter().len(),
        snapshot = %after, scanned, took = ?start.elapsed(),
        "what is stored is known again"
    );
    Ok(Recovered { dedup, snapshots, reader, running: found.running, complete })
}

/// Opens the two files, and makes them durable as names if they are new.
fn open_slots(dir: &Path) -> Result<[FileMedium; 2], RecoverError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| RecoverError::Open { path, error }
    };
    make_folder(dir).map_err(failed(dir))?;
    let [first, second] = SLOTS.map(|name| dir.join(name));
    let slots = [
        FileMedium::open(&first).map_err(failed(&first))?,
        FileMedium::open(&second).map_err(failed(&second))?,
    ];
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir))?;
    Ok(slots)
}

/// Adds what the log holds above `after` to what is known, and above the note to the ledger; how
/// many entries that was.
fn scan(
    reader: &mut Reader,
    after: LogSeq,
    note: &Note,
    now: RunningTime,
    dedup: &mut Dedup,
) -> Result<u64, forebay_queue::Error> {
    let noted = LogSeq::from_u64(note.position);
    let mut before = after.min(noted).max(reader.cursor());
    reader.rewind(before)?;
    let mut scanned = 0;
    loop {
        let batch = reader.peek(SCAN_ENTRIES, SCAN_BYTES)?;
        if batch.is_empty() {
            return Ok(scanned);
        }
        for record in batch.iter() {
            let stored = Stored::decode(record.payload);
            if record.seq > noted {
                // The note has counted all up to its place, though damage may have taken that.
                let counted = before.max(noted);
                let same = record.seq.epoch() == counted.epoch();
                let next = if same { counted.counter() + 1 } else { 1 };
                // Damage has taken those between: they were entries, and no consumer has them.
                dedup.ledger.add(&gone(record.seq.counter().saturating_sub(next)));
                dedup.ledger.count(stored.as_ref());
            }
            before = record.seq;
            if record.seq <= after {
                continue;
            }
            scanned += 1;
            let Some(stored) = stored else { continue };
            dedup.sources.advance(stored.source.get(), stored.seq.get(), now);
            let Ok(head) = entry::head(stored.entry) else { continue };
            let (tenant, device) = (head.tenant, head.device);
            let key = Key { tenant, device, session: head.session.get() };
            dedup.table.admit(&key, head.seq.get(), head.rejected_before, now);
        }
        batch.advance();
    }
}

fn gone(records: u64) -> Ledger {
    Ledger { records, entries: records, ..Ledger::default() }
}
