//! What happens, and when.

use std::time::Duration;

use forebay_link::Seq;

use crate::network::{ConnectionId, Delivery};
use crate::world::{Agent, Client};

/// How a machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    Kill,
    Power,
    /// The disk is gone with it.
    Disk,
    /// Of a middle's two snapshots, the newer cannot be read.
    Torn,
}

#[derive(Debug, Clone)]
pub(crate) enum Event {
    Deliver(Delivery),
    Tick(Agent),
    Connect { client: Client, life: u32 },
    Lost { client: Client, connection: ConnectionId },
    Append { message: u64, front: usize },
    SyncFront { ring: usize, upto: Seq, life: u32 },
    SyncMiddle { middle: usize, upto: Seq, life: u32 },
    CrashFront(usize, Crash),
    StartFront(usize),
    CrashMiddle(usize, Crash),
    StartMiddle(usize),
    CrashProcess(usize),
    StartProcess(usize),
    Take { process: usize, life: u32 },
    Written { process: usize, life: u32 },
    Reclaim(usize),
    Cut { client: Client, middle: usize, lasts: Duration },
    HalfOpen(u64),
    Break(u64),
    JumpClock(Agent, Duration),
}

impl Event {
    /// Whether nothing can be said to have drained before it.
    pub(crate) fn is_awaited(&self) -> bool {
        matches!(
            self,
            Self::Append { .. }
                | Self::CrashFront(..)
                | Self::CrashMiddle(..)
                | Self::StartProcess(_)
                | Self::StartFront(_)
                | Self::StartMiddle(_)
        )
    }
}

#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) at: Duration,
    pub(crate) order: u64,
    pub(crate) event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
