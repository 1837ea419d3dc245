//! What the benchmark needs of a broker, and those it knows.

use std::{net::SocketAddr, path::Path};

use anyhow::Result;
use forebay_benches::load::Speech;

use crate::{forebay, nats, redis};

/// Bytes of a message, our framing or a peer's command not included.
pub(crate) const MESSAGE_BYTES: usize = 250;

/// What an ack promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Safe {
    /// The message survives a kill of the process.
    Process,
    /// It is on the medium.
    Disk,
}

impl Safe {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Disk => "disk",
        }
    }
}

/// A server that runs, or is down for a while; its files outlive both.
pub(crate) trait Broker {
    /// Where it listens.
    fn address(&self) -> SocketAddr;
    /// Its process while it runs.
    fn pid(&self) -> u32;
    /// What is said to it.
    fn speech(&self) -> &dyn Speech;
    /// Ends it by SIGKILL.
    fn kill(&mut self) -> Result<()>;
    /// How many messages it has once it is started again on its files.
    fn stored_after_restart(&mut self) -> Result<u64>;
}

/// A broker with its settings.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) safe: Safe,
    pub(crate) ours: bool,
    /// Starts one with its files in this folder; ours empties itself into a middle only if told to.
    pub(crate) start: fn(&Path, bool) -> Result<Box<dyn Broker>>,
}

/// All that are measured.
pub(crate) const BROKERS: &[Kind] = &[
    Kind { name: "forebay", safe: Safe::Process, ours: true, start: forebay::process },
    Kind { name: "redis everysec", safe: Safe::Process, ours: false, start: redis::everysec },
    // Debian's 2.9 syncs every two minutes, whatever its acks say.
    Kind { name: "nats jetstream", safe: Safe::Process, ours: false, start: nats::jetstream },
    Kind { name: "forebay", safe: Safe::Disk, ours: true, start: forebay::disk },
    Kind { name: "redis always", safe: Safe::Disk, ours: false, start: redis::always },
];
