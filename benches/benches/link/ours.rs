//! The link as the tiers run it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::thread::Thread;
use std::time::{Duration, Instant};

use forebay_link::{
    BatchBuilder, BindConfig, Bounds, EntrySource, EntryStore, Fault, FeedEvent, FeedPublisher,
    OnFailure, PublisherConfig, QueueId, ReceiverConfig, ReplayConfig, ReplayServer, SenderConfig,
    Seq, Start, Subscriber, SubscriberConfig, UplinkReceiver, UplinkSender,
};

use crate::ends::Feed;
use crate::{Cost, cost};

const ANY: &str = "tcp://127.0.0.1:0";
const STOP: Duration = Duration::from_secs(5);
const WITHIN: Duration = Duration::from_secs(120);

fn no_failure() -> OnFailure {
    Box::new(|error| panic!("{error}"))
}

/// A source that wakes the bench once all is committed.
struct Watched<S> {
    source: S,
    last: Seq,
    committed: Arc<AtomicU64>,
    bench: Thread,
}

impl<S: EntrySource> EntrySource for Watched<S> {
    fn queue(&self) -> QueueId {
        self.source.queue()
    }

    fn bounds(&mut self) -> Result<Bounds, Fault> {
        self.source.bounds()
    }

    fn fill(&mut self, after: Seq, batch: &mut BatchBuilder) -> Result<(), Fault> {
        self.source.fill(after, batch)
    }

    fn commit(&mut self, upto: Seq) -> Result<(), Fault> {
        self.committed.store(upto.get(), Ordering::Release);
        if upto >= self.last {
            self.bench.unpark();
        }
        self.source.commit(upto)
    }

    fn poll_ready(&mut self, after: Seq, waker: &Waker) -> Result<bool, Fault> {
        self.source.poll_ready(after, waker)
    }
}

/// Moves all entries from source to store.
pub(crate) fn uplink(mut source: impl EntrySource, store: impl EntryStore, pump: bool) {
    let mut config = ReceiverConfig::new("receiver", ANY);
    config.bind = BindConfig { pump, ..BindConfig::new(ANY) };
    let receiver = UplinkReceiver::start(config, store, no_failure()).expect("receiver");
    let next = source.bounds().expect("bounds").next;
    let last = Seq::new(next.get() - 1);
    let committed = Arc::new(AtomicU64::new(0));
    let watched =
        Watched { source, last, committed: Arc::clone(&committed), bench: std::thread::current() };
    let config = SenderConfig::new("sender", receiver.endpoint());
    let sender = UplinkSender::start(config, watched, no_failure()).expect("sender");
    let deadline = Instant::now() + WITHIN;
    while committed.load(Ordering::Acquire) < last.get() {
        assert!(Instant::now() < deadline, "not moved in {WITHIN:?}");
        std::thread::park_timeout(Duration::from_millis(100));
    }
    sender.stop(STOP).expect("sender ends");
    receiver.stop(STOP).expect("receiver ends");
}

/// Reads the whole feed.
pub(crate) fn feed(log: &Feed) -> Cost {
    let config = PublisherConfig::new("publisher", ANY);
    let publisher = FeedPublisher::start(config, log.clone(), no_failure()).expect("publisher");
    let config = ReplayConfig::new("replay", ANY);
    let replay = ReplayServer::start(config, log.clone(), no_failure()).expect("replay");
    let mut config = SubscriberConfig::new("sub", publisher.endpoint(), replay.endpoint());
    config.start = Start::Head;
    let subscriber = Subscriber::start(config).expect("subscriber");
    let next = || subscriber.next(WITHIN).expect("follows").expect("in time");
    assert!(matches!(next(), FeedEvent::Opened(_)));
    // A PUB does not wait for who subscribes: its heads show that the subscription has arrived.
    while !subscriber.stats().feed_alive.get() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let cost = cost(log.entries(), || {
        log.received(0);
        let mut received = 0;
        while received < log.entries() {
            let FeedEvent::Batch(batch) = next() else { panic!("records are gone") };
            received = batch.iter().map(|record| record.seq.counter()).max().unwrap_or(received);
            log.received(received);
        }
    });
    let fetched = subscriber.stats().fetched.get();
    assert!(fetched * 20 < log.entries(), "{fetched} of the records were fetched, not published");
    subscriber.stop(STOP).expect("subscriber ends");
    publisher.stop(STOP).expect("publisher ends");
    replay.stop(STOP).expect("replay server ends");
    cost
}
