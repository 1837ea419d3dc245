//! What the examples and their tests share: all three tiers in this process, on loopback ports of
//! the system's choice, in a folder that goes with them.
//!
//! This is also how to embed Forebay in a program of one's own: each tier is a library with
//! `Config`, `start` and `Running::drain`.
#![forbid(unsafe_code)]

use std::{error::Error, net::SocketAddr, path::PathBuf, time::Duration};

use forebay_ops::Shutdown;
use prometheus::Registry;

/// Longest time each tier gets to end.
const DRAIN_WITHIN: Duration = Duration::from_secs(20);

/// All three tiers.
pub struct Tiers {
    folder: tempfile::TempDir,
    shutdown: Shutdown,
    front: forebay_front::Running,
    middle: forebay_middle::Running,
    storage: forebay_storage::Running,
}

impl Tiers {
    /// Starts all tiers, the middle first: the others connect to it.
    ///
    /// # Errors
    /// What a tier says that cannot start.
    pub fn start() -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let dir = folder.path();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let shutdown = Shutdown::new();

        let mut middle = forebay_middle::Config::default();
        for listen in [&mut middle.uplink.listen, &mut middle.feed.listen, &mut middle.fetch.listen]
        {
            *listen = "tcp://127.0.0.1:0".to_owned();
        }
        middle.admin.address = any;
        middle.queue.dir = dir.join("middle");
        // Small, and whatever the file system of the folder for temporary files can promise; leave
        // both out where it matters.
        middle.queue.capacity = forebay_ops::ByteSize::mib(4);
        middle.queue.durability = forebay_middle::Durability::Process;
        middle.queue.any_filesystem = true;
        let middle = forebay_middle::start(middle, &Registry::new(), shutdown.clone())?;

        let mut front = forebay_front::Config::default();
        front.listen.address = any;
        front.admin.address = any;
        front.queue.dir = dir.join("front");
        front.queue.capacity = forebay_ops::ByteSize::mib(2);
        front.queue.any_filesystem = true;
        front.ack.level = forebay_front::config::Level::Process;
        front.uplink.middle = middle.addresses().uplink.clone();
        let front = forebay_front::start(front, &Registry::new(), &shutdown)?;

        let mut storage = forebay_storage::Config::default();
        storage.middles[0].feed = middle.addresses().feed.clone();
        storage.middles[0].fetch = middle.addresses().fetch.clone();
        storage.http.address = any;
        storage.admin.address = any;
        storage.lake.dir = dir.join("lake");
        storage.lake.dead_letters = dir.join("dead-letters");
        storage.lake.flush.outstanding = forebay_ops::ByteSize::mib(1);
        storage.last.snapshot = dir.join("last.jsonl");
        let storage = forebay_storage::start(storage, &Registry::new(), shutdown.clone())?;
        Ok(Self { folder, shutdown, front, middle, storage })
    }

    /// Where devices connect.
    #[must_use]
    pub fn front_url(&self) -> String {
        format!("ws://{}", self.front.addresses().ingest)
    }

    /// Where readers of the live feed connect.
    #[must_use]
    pub fn live_url(&self) -> String {
        format!("ws://{}", self.storage.addresses().http)
    }

    /// Where readers of the middle's feed subscribe and fetch.
    #[must_use]
    pub fn feed_and_fetch(&self) -> [&str; 2] {
        let addresses = self.middle.addresses();
        [&addresses.feed, &addresses.fetch]
    }

    /// The folder with the Parquet files.
    #[must_use]
    pub fn lake(&self) -> PathBuf {
        self.folder.path().join("lake")
    }

    /// Ends all tiers with nothing left behind, in the order in which they need each other.
    ///
    /// # Errors
    /// Something was left behind; the folder would still have it.
    pub fn end(self) -> Result<tempfile::TempDir, Box<dyn Error>> {
        self.shutdown.begin("the example is over");
        let front = self.front.drain(DRAIN_WITHIN);
        let storage = self.storage.drain(DRAIN_WITHIN);
        let middle = self.middle.drain(DRAIN_WITHIN)?;
        if front.is_complete() && storage.is_complete() && middle.consumers_behind.is_empty() {
            return Ok(self.folder);
        }
        Err(format!("left behind: {front:?}, {storage:?}, {middle:?}").into())
    }
}
