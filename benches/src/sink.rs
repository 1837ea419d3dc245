//! A middle that counts what it is sent and keeps nothing, behind the real uplink: so that what is
//! measured is the front alone, whose ring never fills.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use anyhow::{Result, anyhow};
use forebay_link::{
    BindConfig, EntryStore, Fault, Joined, Level, QueueId, ReceiverConfig, Records, Seq,
    StoreError, UplinkReceiver,
};
use forebay_wire::partition;

/// A running sink.
pub struct Sink {
    receiver: UplinkReceiver,
    endpoint: String,
    taken: Arc<AtomicU64>,
}

impl Sink {
    /// Listens on a port of its own.
    ///
    /// # Errors
    /// No port can be had.
    pub fn start() -> Result<Self> {
        let taken = Arc::<AtomicU64>::default();
        let config = ReceiverConfig {
            bind: BindConfig::new("tcp://127.0.0.1:0"),
            partitions: partition::map_hash([partition::SINGLE], partition::SINGLE),
            ..ReceiverConfig::new("sink", "tcp://127.0.0.1:0")
        };
        let store = Store { taken: Arc::clone(&taken), positions: HashMap::new() };
        let on_failure = Box::new(|error| panic!("the sink failed: {error}"));
        let receiver = UplinkReceiver::start(config, store, on_failure)
            .map_err(|error| anyhow!("the sink did not start: {error}"))?;
        Ok(Self { endpoint: receiver.endpoint().to_string(), receiver, taken })
    }

    /// Where fronts find it.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Entries it was sent.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Ends it.
    ///
    /// # Errors
    /// Its thread did not end.
    pub fn stop(self) -> Result<()> {
        self.receiver.stop(Duration::from_secs(5)).map_err(|error| anyhow!("the sink: {error}"))
    }
}

struct Store {
    taken: Arc<AtomicU64>,
    positions: HashMap<QueueId, Seq>,
}

impl Store {
    fn local(&self) -> Seq {
        match self.taken.load(Ordering::Relaxed) {
            0 => Seq::ZERO,
            count => Seq::from_parts(1, count),
        }
    }
}

impl EntryStore for Store {
    fn level(&self) -> Level {
        Level::Disk
    }

    fn position(&mut self, source: QueueId) -> Result<Seq, Fault> {
        Ok(self.positions.get(&source).copied().unwrap_or(Seq::ZERO))
    }

    fn append(&mut self, source: QueueId, records: &Records<'_>) -> Result<Seq, StoreError> {
        self.taken.fetch_add(records.iter().count() as u64, Ordering::Relaxed);
        self.positions.insert(source, records.last());
        Ok(self.local())
    }

    fn durable(&mut self) -> Seq {
        self.local()
    }

    fn poll_durable(&mut self, _: Seq, _: &Waker) -> Result<bool, Fault> {
        Ok(true)
    }

    fn room_bytes(&self) -> u64 {
        u64::MAX
    }

    fn joined(&mut self, _: &Joined) {}
}
