//! What all threads of a front share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use forebay_ops::drain::{self, Remains};
use tokio::sync::watch;

use crate::{
    addresses::AddressCounts, config::Config, devices::Devices, metrics::FrontMetrics,
    registry::Edge, rings::Ring, tenancy::Policy, tenants::Tenants,
};

/// Where a front is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It takes devices.
    Running,
    /// It sends them away and empties its rings; if that is called off, it runs again.
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
    /// What tenants may use.
    pub tenants: Tenants,
    /// Connections by address.
    pub addresses: AddressCounts,
    /// Sessions that have not said who they are.
    pub pending: Connections,
    /// What readings are checked by.
    pub edge: Option<Edge>,
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

    /// Goes from one phase to the next, unless it is elsewhere by now.
    fn turn(&self, from: Phase, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let turns = *phase == from;
            if turns {
                *phase = to;
            }
            turns
        });
    }

    /// Ends the process because a ring has failed: nothing that is not durable yet may be acked.
    pub(crate) fn fail(&self, error: &forebay_queue::Error) -> ! {
        forebay_ops::fatal(format_args!("the front's ring failed: {error}"))
    }
}

/// A front as a drain sees it.
pub(crate) struct Leaving(pub(crate) Arc<Front>);

impl drain::Tier for Leaving {
    fn close(&self) {
        self.0.turn(Phase::Running, Phase::Draining);
    }

    fn open(&self) {
        self.0.turn(Phase::Draining, Phase::Running);
    }

    fn remains(&self) -> Remains {
        let mut remains =
            Remains { connections: self.0.connections.count() as u64, ..Remains::default() };
        for ring in &self.0.rings {
            let left = ring.left();
            remains.entries += left.entries;
            remains.bytes += left.bytes;
        }
        remains
    }
}

/// How many connections a front has. Clones share the count.
#[derive(Clone, Default)]
pub(crate) struct Connections(Arc<AtomicUsize>);

impl Connections {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn remove(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
