//! Our own front, at either level of durability.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use forebay_benches::{
    load::{Speech, front::Devices},
    served::Served,
    sink::Sink,
};
use forebay_front::{Config, config::Level};
use forebay_ops::ByteSize;
use forebay_queue::{Options, Queue};

use crate::broker::{Broker, MESSAGE_BYTES};

const BATCH_ENTRIES: usize = 4096;
const BATCH_BYTES: usize = 4 << 20;

struct Forebay {
    served: Option<Served>,
    address: SocketAddr,
    devices: Devices,
    ring: PathBuf,
    _sink: Option<Sink>,
}

pub(crate) fn process(folder: &Path, drained: bool) -> Result<Box<dyn Broker>> {
    start(folder, Level::Process, drained)
}

pub(crate) fn disk(folder: &Path, drained: bool) -> Result<Box<dyn Broker>> {
    start(folder, Level::Disk, drained)
}

fn start(folder: &Path, level: Level, drained: bool) -> Result<Box<dyn Broker>> {
    let any = "127.0.0.1:0".parse()?;
    let mut config = Config::default();
    config.listen.address = any;
    config.admin.address = any;
    config.ack.level = level;
    config.queue.dir = folder.join("front");
    config.queue.capacity = ByteSize::mib(64);
    let sink = drained.then(Sink::start).transpose()?;
    config.uplink.middle = match &sink {
        Some(sink) => sink.endpoint().to_owned(),
        // Nobody is there: all stays in the ring.
        None => format!("ipc://{}", folder.join("nobody").display()),
    };
    let served = Served::start(&config, None)?;
    Ok(Box::new(Forebay {
        address: served.address(),
        served: Some(served),
        devices: Devices::new("peer", MESSAGE_BYTES),
        ring: config.queue.dir.join("uplink-0"),
        _sink: sink,
    }))
}

impl Broker for Forebay {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn pid(&self) -> u32 {
        self.served.as_ref().map_or(0, Served::pid)
    }

    fn speech(&self) -> &dyn Speech {
        &self.devices
    }

    fn kill(&mut self) -> Result<()> {
        self.served.take().map_or(Ok(()), Served::kill)
    }

    /// Opens the ring as a front that is started again does.
    fn stored_after_restart(&mut self) -> Result<u64> {
        let options = Options { any_filesystem: true, ..Options::default() };
        let queue = Queue::open(&self.ring, &options).context("the ring")?;
        let mut reader = queue.reader("bench").context("a reader")?;
        let mut count = 0;
        loop {
            let batch = reader.peek(BATCH_ENTRIES, BATCH_BYTES).context("a batch")?;
            if batch.is_empty() {
                return Ok(count);
            }
            count += batch.iter().count() as u64;
            batch.advance();
        }
    }
}
