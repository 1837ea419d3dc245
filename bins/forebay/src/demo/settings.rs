//! The tiers' configurations of a demo.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Result;
use forebay_ops::ByteSize;

use super::{options::Durability, place::Place, ports::Ports, tiers::Admins};

/// Rings for some seconds of a demo's messages: a new ring is written in full before it is used,
/// and whoever types a command wants to see something soon.
const FRONT_RING: ByteSize = ByteSize::mib(32);
const MIDDLE_RING: ByteSize = ByteSize::mib(64);

/// A configuration for each tier, and where they listen.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) front: forebay_front::Config,
    pub(super) middle: forebay_middle::Config,
    pub(super) storage: forebay_storage::Config,
    pub(super) admins: Admins,
    pub(super) ingest: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) lake: PathBuf,
}

impl Settings {
    /// Free loopback ports for all, folders below the demo's, defaults for the rest.
    pub(super) fn new(place: &Place, durability: Durability) -> Result<Self> {
        let mut ports = Ports::default();
        let (ingest, http) = (ports.free()?, ports.free()?);
        let admins = [ports.free()?, ports.free()?, ports.free()?];
        let (uplink, feed, fetch) = (ports.free()?, ports.free()?, ports.free()?);

        let mut front = forebay_front::Config::default();
        front.listen.address = ingest;
        front.admin.address = admins[0];
        front.queue.dir = place.path().join("front");
        front.queue.capacity = FRONT_RING;
        front.uplink.middle = format!("tcp://{uplink}");
        let mut middle = forebay_middle::Config::default();
        middle.uplink.listen = format!("tcp://{uplink}");
        middle.feed.listen = format!("tcp://{feed}");
        middle.fetch.listen = format!("tcp://{fetch}");
        middle.admin.address = admins[1];
        middle.queue.dir = place.path().join("middle");
        middle.queue.capacity = MIDDLE_RING;
        if durability == Durability::Process {
            front.ack.level = forebay_front::config::Level::Process;
            front.queue.durability = Some(forebay_front::config::Durability::Process);
            front.queue.any_filesystem = true;
            middle.queue.durability = forebay_middle::Durability::Process;
            middle.queue.any_filesystem = true;
        }
        let mut storage = forebay_storage::Config::default();
        let folder = place.path().join("storage");
        let lake = folder.join("lake");
        let source = &mut storage.middles[0];
        source.feed = format!("tcp://{feed}");
        source.fetch = format!("tcp://{fetch}");
        storage.http.address = http;
        let tiers = [("front", admins[0]), ("middle", admins[1])];
        storage.http.tiers = tiers.map(|(n, a)| (n.to_owned(), a.to_string())).into();
        storage.admin.address = admins[2];
        storage.lake.dir = lake.clone();
        storage.lake.dead_letters = folder.join("dead-letters");
        // Whoever watches wants to see files and a short end.
        storage.lake.flush.age = forebay_ops::Duration::from_secs(2);
        storage.lake.flush.outstanding = ByteSize::new(MIDDLE_RING.get() / 4);
        storage.last.snapshot = folder.join("last.jsonl");
        // Nobody balances anything here, and whoever watches has seen enough.
        for ends in [&mut front.shutdown, &mut middle.shutdown, &mut storage.shutdown] {
            ends.settle = Some(forebay_ops::Duration::from_secs(0));
        }
        Ok(Self { front, middle, storage, admins, ingest, http, lake })
    }
}
