//! What all threads of a front share.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use tokio::sync::watch;

use crate::{
    config::Config, devices::Devices, metrics::FrontMetrics, rings::Ring, tenancy::Policy,
};

/// Where a front is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It takes devices.
    Running,
    /// It sends them away and empties its rings.
    Draining,
    /// Its threads end.
    Stopped,
}

/// What all threads of a front share.
pub(crate) struct Front {
    /// The settings.
    pub config: Config,
    /// The rings by partition.
    pub rings: Vec<Ring>,
    /// Which connection speaks for which device.
    pub devices: Devices,
    /// Who is let in.
    pub policy: Policy,
    /// What is counted.
    pub metrics: FrontMetrics,
    /// Connections, those in a handshake included.
    pub connections: Connections,
    /// Where the front is in its life.
    pub phase: watch::Sender<Phase>,
    /// The zero of [`Self::now_ms`].
    pub started: Instant,
}

impl Front {
    /// Milliseconds on the front's clock, which never goes back.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether it takes devices.
    pub(crate) fn is_running(&self) -> bool {
        *self.phase.borrow() == Phase::Running
    }

    /// Ends the process because a ring has failed: nothing that is not durable yet may be acked.
    pub(crate) fn fail(&self, error: &forebay_queue::Error) -> ! {
        forebay_ops::fatal(format_args!("the front's ring failed: {error}"))
    }
}

/// How many connections a front has. Clones share the count.
#[derive(Clone, Default)]
pub(crate) struct Connections(Arc<Count>);

#[derive(Default)]
struct Count {
    connections: AtomicUsize,
    none: Condvar,
    lock: Mutex<()>,
}

impl Connections {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self) {
        self.0.connections.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn remove(&self) {
        if self.0.connections.fetch_sub(1, Ordering::AcqRel) == 1 {
            let _guard = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.0.none.notify_all();
        }
    }

    /// Blocks until there is none or `end` has come; how many are left.
    pub(crate) fn wait_for_none(&self, end: Instant) -> usize {
        let mut guard = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (count, rest) = (self.count(), end.saturating_duration_since(Instant::now()));
            if count == 0 || rest.is_zero() {
                return count;
            }
            let waited = self.0.none.wait_timeout(guard, rest);
            (guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}
