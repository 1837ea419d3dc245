//! The publisher of the feed over a PUB.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use forebay_wire::feed::TOPIC;
use forebay_wire::records::BatchBuilder;
use zeromq::{PubSocket, Socket, SocketSend, ZmqMessage};

use crate::adapter::bind::{Passage, open};
use crate::adapter::held::Held;
use crate::adapter::server::Server;
use crate::adapter::stats::PublisherStats;
use crate::adapter::thread::{Clock, Stop, Thread, block_on};
use crate::config::PublisherConfig;
use crate::error::{Error, Fault};
use crate::machine::publisher::Publisher;
use crate::pump::PumpConfig;
use crate::seam::{FeedSource, OnFailure};

/// Batches published at one go, before the socket's own tasks write them.
const BATCHES_AT_ONCE: usize = 8;
/// Bytes that the socket may hold before more is published: its own bound is a number of messages,
/// and a log far ahead would fill it in no time.
const HELD_BYTES_MAX: usize = 1024 * 1024;
/// How long the socket may take to let go of some. The pump takes all at once: only where there is
/// none can a subscriber that does not read hold it up, and it shall not hold up the others.
const HELD_TIME_MAX: Duration = Duration::from_millis(50);

/// Publishes a log as it grows, and its head when it does not.
pub type FeedPublisher = Server<PublisherStats>;

impl Server<PublisherStats> {
    /// Binds and starts the thread. `on_failure` is called on it if the log fails.
    ///
    /// # Errors
    /// The endpoint is malformed, public or taken, or the thread could not be started.
    pub fn start(
        config: PublisherConfig,
        source: impl FeedSource,
        on_failure: OnFailure,
    ) -> Result<Self, Error> {
        let (door, passage) = open(&config.thread, &config.bind, PumpConfig::for_publisher())?;
        let stats = Arc::new(PublisherStats::default());
        let (name, shared) = (config.thread.clone(), Arc::clone(&stats));
        let thread = Thread::spawn(&name, on_failure, move |stop| {
            block_on(&config.thread, run(&config, source, passage, stop, &shared))
        })?;
        Ok(Self::new(thread, stats, door))
    }
}

async fn run(
    config: &PublisherConfig,
    mut source: impl FeedSource,
    passage: Passage,
    mut stop: Stop,
    stats: &PublisherStats,
) -> Result<(), Error> {
    let fault = |source: Fault| Error::Queue { thread: config.thread.clone(), source };
    let failed = |reason| Error::Bind { endpoint: config.bind.endpoint.clone(), reason };
    let mut socket = PubSocket::new();
    let listener = passage.enter().map_err(|error| failed(error.to_string()))?;
    socket.bind_listener(listener).await.map_err(|error| failed(error.to_string()))?;
    let (queue, head) = (source.queue(), source.head());
    let mut machine = Publisher::new(queue, rand::random(), head, config.head_every);
    let mut batch = BatchBuilder::new(config.batch_bytes);
    let clock = Clock::start();
    let held = Held::default();
    while !stop.is_set() {
        if let Some(frame) = machine.tick(clock.now()) {
            publish(&mut socket, frame).await;
        }
        let before = machine.published();
        for _ in 0..BATCHES_AT_ONCE {
            source.fill(machine.published(), &mut batch).map_err(fault)?;
            let records = u64::from(batch.count());
            let Some(frame) = machine.batch(clock.now(), &mut batch) else { break };
            stats.batches.add(1);
            stats.records.add(records);
            stats.bytes.add(frame.len() as u64);
            stats.published.set(machine.published().get());
            publish(&mut socket, held.count(frame)).await;
        }
        let after = machine.published();
        if after > before {
            // The socket's own tasks run on this thread: let them write.
            tokio::task::yield_now().await;
            held.at_most(HELD_BYTES_MAX, HELD_TIME_MAX).await;
            continue;
        }
        tokio::select! {
            () = stop.set() => {}
            ready = poll_fn(|context| match source.poll_ready(after, context.waker()) {
                Ok(false) => Poll::Pending,
                Ok(true) => Poll::Ready(Ok(())),
                Err(error) => Poll::Ready(Err(error)),
            }) => ready.map_err(fault)?,
            () = clock.sleep_until(Some(machine.deadline())) => {}
        }
    }
    Ok(())
}

/// Sends a frame behind the topic. A PUB only puts it into its own queue, or drops it if that is
/// full: nothing waits here, and a subscriber that misses it fetches it.
async fn publish(socket: &mut PubSocket, frame: Bytes) {
    let mut message = ZmqMessage::from(Bytes::from_static(TOPIC.as_bytes()));
    message.push_back(frame);
    if let Err(error) = socket.send(message).await {
        tracing::debug!(%error, "not published");
    }
}
