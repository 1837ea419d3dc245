//! Handshakes under way: when there are too many, the oldest goes.
//!
//! Not the newest: whoever fills a port with silent connections would keep everybody else out for
//! as long as each may be silent. This way a good peer, which needs milliseconds, gets through
//! unless the others come by the thousand in just these.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

/// The handshakes of one port. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Handshakes(Arc<Mutex<Pending>>);

#[derive(Debug, Default)]
struct Pending {
    last: u64,
    tasks: BTreeMap<u64, AbortHandle>,
}

/// One handshake; dropped, it is no longer under way.
#[derive(Debug)]
pub(super) struct Handshake {
    number: u64,
    all: Handshakes,
}

impl Handshakes {
    /// A new one, to be [started](Self::started) with its task.
    pub(super) fn begin(&self) -> Handshake {
        let mut pending = self.lock();
        pending.last += 1;
        Handshake { number: pending.last, all: self.clone() }
    }

    /// Notes the task of handshake `number`; ends the oldest if there are more than `most`, and
    /// says so.
    pub(super) fn started(&self, number: u64, task: AbortHandle, most: usize) -> bool {
        let mut pending = self.lock();
        pending.tasks.insert(number, task);
        let oldest = if pending.tasks.len() > most { pending.tasks.pop_first() } else { None };
        drop(pending);
        oldest.is_some_and(|(_, task)| {
            task.abort();
            true
        })
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handshake {
    pub(super) const fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.all.lock().tasks.remove(&self.number);
    }
}
