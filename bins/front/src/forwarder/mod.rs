//! The way from one ring to one middle: a thread that sends, and commits what the middle has.
//!
//! **An entry is committed in the ring only after the middle's durable ack**, and only then does
//! the watermark of the ack level `middle` pass it. Whatever the socket held when a peer died is
//! still in the ring and is sent again.
//!
//! The protocol and the socket are `forebay-link`'s; here is the ring behind them, and what the
//! rest of the front may ask: state for metrics, and what is left for the drain.

mod pace;
mod source;
#[cfg(test)]
mod source_tests;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use forebay_link::{OnFailure, SenderConfig, SenderStats, UplinkSender};
use forebay_queue::Queue;

use crate::watermark::Watermark;
use source::RingSource;

/// Name of the forwarder's reader in the ring.
pub(crate) const READER: &str = "forwarder";

/// Why a forwarder could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwarderError {
    /// The ring gave no reader.
    #[error("opening the forwarder's reader: {0}")]
    Queue(#[from] forebay_queue::Error),
    /// The endpoint is malformed, or there is no thread.
    #[error(transparent)]
    Link(#[from] forebay_link::Error),
}

/// A running forwarder.
#[derive(Debug)]
pub(crate) struct Forwarder {
    sender: UplinkSender,
    stats: Arc<SenderStats>,
    replays: Arc<AtomicU64>,
}

/// What a forwarder is doing, at one moment; counts since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    /// Whether a middle has welcomed it.
    pub connected: bool,
    /// Whether the last middle refused it for a reason that a human must mend.
    pub refused: bool,
    /// Bytes sent and not yet acked.
    pub in_flight_bytes: u64,
    /// Bytes that the middle still allows.
    pub credit_bytes: u64,
    /// Connections attempted.
    pub connects_total: u64,
    /// Frames sent, again or for the first time.
    pub frames_total: u64,
    /// Entries sent, again or for the first time.
    pub entries_total: u64,
    /// Bytes sent, again or for the first time.
    pub bytes_total: u64,
    /// Entries sent again.
    pub replays_total: u64,
    /// Times that it went back in the ring.
    pub rewinds_total: u64,
}

/// What is left in the ring, not yet acked by the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Left {
    /// Entries; at least so many if the ring was reopened since the last ack.
    pub entries: u64,
    /// Bytes they take in the ring.
    pub bytes: u64,
}

impl Forwarder {
    /// Starts the thread. The middle need not be there yet.
    ///
    /// `rest` is how long it waits for company after a frame that is not full.
    /// `acked` is moved to what the ring knows as acked, and from then on by each ack.
    /// `on_failure` is called when the ring cannot be trusted any more: end the process.
    ///
    /// # Errors
    /// [`ForwarderError`]: the front cannot start.
    pub(crate) fn start(
        config: SenderConfig,
        queue: &Queue,
        acked: Arc<Watermark>,
        rest: Duration,
        on_failure: OnFailure,
    ) -> Result<Self, ForwarderError> {
        let reader = queue.reader(READER)?;
        acked.advance(reader.cursor());
        let replays = Arc::new(AtomicU64::new(0));
        let source = RingSource::new(queue.clone(), reader, acked, Arc::clone(&replays), rest);
        let sender = UplinkSender::start(config, source, on_failure)?;
        let stats = sender.stats();
        Ok(Self { sender, stats, replays })
    }

    /// Tells what it is doing, at each call, also once it has ended.
    pub(crate) fn watch(&self) -> impl Fn() -> State + Send + Sync + 'static {
        let (stats, replays) = (Arc::clone(&self.stats), Arc::clone(&self.replays));
        move || State {
            connected: stats.welcomed.get(),
            refused: stats.refused.get(),
            in_flight_bytes: stats.in_flight_bytes.get(),
            credit_bytes: stats.credit_bytes.get(),
            connects_total: stats.connects.get(),
            frames_total: stats.batches.get(),
            entries_total: stats.entries.get(),
            bytes_total: stats.bytes.get(),
            replays_total: replays.load(Ordering::Relaxed),
            rewinds_total: stats.rewinds.get(),
        }
    }

    /// Ends the thread; what is in flight stays in the ring and is sent again by the next start.
    ///
    /// # Errors
    /// [`forebay_link::Error::Deadline`]: the thread is left behind.
    pub(crate) fn stop(self, timeout: Duration) -> Result<(), forebay_link::Error> {
        self.sender.stop(timeout)
    }
}

/// What the middle has not acked of `queue`.
pub(crate) fn left(queue: &Queue, acked: &Watermark) -> Left {
    let (acked, appended) = (acked.get(), queue.appended());
    let entries = if acked >= appended {
        0
    } else if acked.epoch() == appended.epoch() {
        appended.counter() - acked.counter()
    } else {
        appended.counter()
    };
    let readers = queue.readers();
    // By bytes too: before the first append of this epoch, the last number appended is one that no
    // ack ever names.
    let bytes = readers.iter().find(|reader| reader.name == READER);
    Left { entries, bytes: bytes.map_or(0, |reader| reader.pending_bytes) }
}
