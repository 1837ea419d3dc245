//! A ring whose front will not come back: all of it is handed to a middle.
//!
//! The same uplink as a front's own: an entry is committed only after the middle's durable ack, so
//! that this may be killed and started again at any moment. The ring is opened for it alone.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use forebay_link::{Level, SenderConfig};
use forebay_ops::{Metrics, reload::ReloadError, tls::MutualTls};
use forebay_queue::{Options, Queue, Recovery};
use forebay_wire::partition;
use prometheus::Registry;

use crate::{
    config::Durability,
    forwarder::{self, Forwarder, ForwarderError, Left},
    uplink_tls,
    watermark::Watermark,
};

/// How often it is looked whether all is acked.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest time the forwarder gets to end its thread.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);

/// An orphaned ring, and where it is to go.
#[derive(Debug, Clone)]
pub struct Orphan {
    /// Directory of the ring itself.
    pub dir: PathBuf,
    /// Endpoint of the middle.
    pub to: String,
    /// What the middle's ack must promise at least.
    pub level: Durability,
    /// The partition that the ring was filled for.
    pub partition: String,
    /// All partitions of the installation, that one included.
    pub partitions: Vec<String>,
    /// Longest time it may take.
    pub timeout: Duration,
    /// Mutual TLS to the middle. Off while `certificate` is empty.
    pub tls: MutualTls,
}

/// What became of an orphan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandedOver {
    /// Bytes that were there to hand over.
    pub bytes: u64,
    /// Bytes that are left, because time was up.
    pub bytes_left: u64,
    /// What opening the ring found: damage below its durable mark is a loss.
    pub recovery: Recovery,
}

/// Why an orphan could not be handed over. What was acked before is committed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OrphanError {
    /// The ring cannot be opened or closed.
    #[error(transparent)]
    Queue(#[from] forebay_queue::Error),
    /// The forwarder could not be started.
    #[error(transparent)]
    Forwarder(#[from] ForwarderError),
    /// The middle refuses the ring: another partition map, or a lower level.
    #[error("the middle at {0} refuses this ring: another partition, or it promises less")]
    Refused(String),
    /// The certificates cannot be read or used.
    #[error(transparent)]
    Tls(#[from] ReloadError),
    /// The uplink has failed.
    #[error("the uplink failed: {0}")]
    Link(forebay_link::Error),
}

impl Orphan {
    /// Hands over what the ring's forwarder has not committed. Blocks until all of it is durable at
    /// the middle or time is up.
    ///
    /// # Errors
    /// [`OrphanError`]; [`forebay_queue::Error::Locked`] in it if the front lives.
    pub fn hand_over(&self) -> Result<HandedOver, OrphanError> {
        let end = Instant::now() + self.timeout;
        // Nothing is appended, so that the level of the ring does not matter; cursors are synced.
        let options = Options {
            durability: forebay_queue::Durability::Process,
            any_filesystem: true,
            ..Options::default()
        };
        let queue = Queue::open(&self.dir, &options)?;
        let acked = Arc::new(Watermark::default());
        let failed: Arc<Mutex<Option<forebay_link::Error>>> = Arc::default();
        let told = Arc::clone(&failed);
        let on_failure = Box::new(move |error| {
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        });
        let names = self.partitions.iter().map(String::as_str);
        let tls = uplink_tls::connect(&self.tls, &Metrics::new(&Registry::new()))?;
        let mut config = SenderConfig {
            level: match self.level {
                Durability::Process => Level::Process,
                Durability::Disk => Level::Disk,
            },
            partitions: partition::map_hash(names, &self.partition),
            ..SenderConfig::new("orphan", self.to.clone())
        };
        config.connect.tls = tls;
        let forwarder =
            Forwarder::start(config, &queue, Arc::clone(&acked), Duration::ZERO, on_failure)?;
        let watch = forwarder.watch();
        let bytes = forwarder::left(&queue, &acked).bytes;
        let result = loop {
            let Left { bytes: bytes_left, .. } = forwarder::left(&queue, &acked);
            if let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
                break Err(OrphanError::Link(error));
            }
            if watch().refused {
                break Err(OrphanError::Refused(self.to.clone()));
            }
            if bytes_left == 0 || Instant::now() >= end {
                break Ok(HandedOver { bytes, bytes_left, recovery: queue.recovery().clone() });
            }
            std::thread::sleep(LOOK_EVERY);
        };
        if let Err(error) = forwarder.stop(STOP_TIME_MAX) {
            tracing::warn!(%error, "the uplink did not end in time");
        }
        queue.close()?;
        result
    }
}
