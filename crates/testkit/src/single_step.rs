//! What a file holds between any two machine instructions of some work: what a SIGKILL at each of
//! them would leave, the page cache being the kernel's.
//!
//! The work runs on the calling thread under the processor's trap flag. Between two instructions
//! the file is read and compared, and what changed is kept; [`Run::each`] gives the states back, in
//! order, for whatever check a test wants. Other threads run on freely, so the work should have the
//! file for itself. x86-64 only.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::sys;

/// Bytes kept of changes, all together: the handler may not allocate.
const CHANGED_BYTES_MAX: usize = 64 << 20;
/// Changes kept.
const CHANGES_MAX: usize = 1 << 20;

/// One run, recorded.
pub struct Run {
    /// Instructions of the work.
    pub instructions: u64,
    first: Vec<u8>,
    changes: Vec<Change>,
    changed: Vec<u8>,
}

/// Something was different after this instruction.
#[derive(Debug, Clone, Copy)]
struct Change {
    instruction: u64,
    said: u64,
    offset: usize,
    len: usize,
}

/// What the trap handler works with.
struct Look {
    file: File,
    now: Vec<u8>,
    before: Vec<u8>,
    said: &'static AtomicU64,
    said_before: u64,
    run: Run,
    failed: Option<io::ErrorKind>,
}

static LOOK: Mutex<Option<Look>> = Mutex::new(None);
/// One run at a time: the handler of a signal is the process's.
static TURN: Mutex<()> = Mutex::new(());

/// Runs `work` and records each state of `file`, whose length must not change, and of `said`,
/// where the work tells what it has promised so far.
///
/// # Errors
/// The file cannot be read, or there were more changes than are kept.
pub fn record(file: &File, said: &'static AtomicU64, work: impl FnOnce()) -> io::Result<Run> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut first = vec![0; len];
    file.read_exact_at(&mut first, 0)?;
    let look = Look {
        file: file.try_clone()?,
        now: vec![0; len],
        before: first.clone(),
        said,
        said_before: said.load(Ordering::Relaxed),
        run: Run {
            instructions: 0,
            first,
            changes: Vec::with_capacity(CHANGES_MAX),
            changed: Vec::with_capacity(CHANGED_BYTES_MAX),
        },
        failed: None,
    };
    *lock() = Some(look);
    let stepped = sys::step_through(look_now, work);
    let look = lock().take().expect("put there above");
    stepped?;
    match look.failed {
        Some(kind) => Err(kind.into()),
        None => Ok(look.run),
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<Look>> {
    LOOK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs between two instructions: no allocation, and no lock but one that is free then.
fn look_now() {
    if let Ok(mut held) = LOOK.try_lock()
        && let Some(look) = held.as_mut()
    {
        look.take();
    }
}

impl Look {
    fn take(&mut self) {
        self.run.instructions += 1;
        if let Err(error) = self.file.read_exact_at(&mut self.now, 0) {
            self.failed.get_or_insert(error.kind());
            return;
        }
        let said = self.said.load(Ordering::Relaxed);
        if said == self.said_before && self.now == self.before {
            return;
        }
        let differs = |(new, old): (&u8, &u8)| new != old;
        let offset = self.now.iter().zip(&self.before).position(differs).unwrap_or(0);
        let last = self.now.iter().zip(&self.before).rposition(differs);
        let len = last.map_or(0, |last| last + 1 - offset);
        let run = &mut self.run;
        if run.changes.len() == CHANGES_MAX || run.changed.len() + len > CHANGED_BYTES_MAX {
            self.failed.get_or_insert(io::ErrorKind::OutOfMemory);
            return;
        }
        run.changes.push(Change { instruction: run.instructions, said, offset, len });
        run.changed.extend_from_slice(&self.now[offset..offset + len]);
        self.before[offset..offset + len].copy_from_slice(&self.now[offset..offset + len]);
        self.said_before = said;
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states = self.states();
        f.debug_struct("Run")
            .field("instructions", &self.instructions)
            .field("states", &states)
            .finish_non_exhaustive()
    }
}

impl Run {
    /// How many states there are.
    #[must_use]
    pub fn states(&self) -> usize {
        self.changes.len()
    }

    /// Gives each state in order: after which instruction, the file's bytes, and what was said.
    ///
    /// # Errors
    /// The first one that `look` gives.
    pub fn each<E>(&self, mut look: impl FnMut(u64, &[u8], u64) -> Result<(), E>) -> Result<(), E> {
        let mut bytes = self.first.clone();
        let mut at = 0;
        for change in &self.changes {
            let Change { instruction, said, offset, len } = *change;
            bytes[offset..offset + len].copy_from_slice(&self.changed[at..at + len]);
            at += len;
            look(instruction, &bytes, said)?;
        }
        Ok(())
    }
}
