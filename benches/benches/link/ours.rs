//! The link as the tiers run it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::thread::Thread;
use std::time::{Duration, Instant};

use forebay_link::{
    BatchBuilder, BindConfig, Bounds, ConnectConfig, EntrySource, EntryStore, Fault, FeedEvent,
    FeedPublisher, OnFailure, PublisherConfig, QueueId, ReceiverConfig, ReplayConfig, ReplayServer,
    SenderConfig, Seq, Start, Subscriber, SubscriberConfig, UplinkReceiver, UplinkSender,
};

use crate::ends::Feed;
use crate::secured::Secured;
use crate::{Cost, cost};

const ANY: &str = "tcp://127.0.0.1:0";
const STOP: Duration = Duration::from_secs(5);
const WITHIN: Duration = Duration::from_secs(120);

/// What lies between the ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way<'a> {
    /// Nothing that checks: only where no other process can connect.
    Bare,
    /// The pump, as every port of a tier has it.
    Pumped,
    /// The pump with mutual TLS, and that of the dialing end.
    Secured(&'a Secured),
}

impl Way<'_> {
    fn bind(self) -> BindConfig {
        let config = BindConfig::new(ANY);
        match self {
            Self::Bare => BindConfig { pump: false, ..config },
            Self::Pumped => config,
            Self::Secured(tls) => BindConfig { tls: Some(tls.accept.clone()), ..config },
        }
    }

    fn connect(self, endpoint: &str) -> ConnectConfig {
        let config = ConnectConfig::new(endpoint);
        match self {
            Self::Bare | Self::Pumped => config,
            Self::Secured(tls) => ConnectConfig { tls: Some(tls.connect.clone()), ..config },
        }
    }
}

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
pub(crate) fn uplink(mut source: impl EntrySource, store: impl EntryStore, way: Way<'_>) {
    let mut config = ReceiverConfig::new("receiver", ANY);
    config.bind = way.bind();
    let receiver = UplinkReceiver::start(config, store, no_failure()).expect("receiver");
    let next = source.bounds().expect("bounds").next;
    let last = Seq::new(next.get() - 1);
    let committed = Arc::new(AtomicU64::new(0));
    let watched =
        Watched { source, last, committed: Arc::clone(&committed), bench: std::thread::current() };
    let mut config = SenderConfig::new("sender", receiver.endpoint());
    config.connect = way.connect(receiver.endpoint());
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
pub(crate) fn feed(log: &Feed, way: Way<'_>) -> Cost {
    let mut config = PublisherConfig::new("publisher", ANY);
    config.bind = way.bind();
    let publisher = FeedPublisher::start(config, log.clone(), no_failure()).expect("publisher");
    let config = ReplayConfig::new("replay", ANY);
    let replay = ReplayServer::start(config, log.clone(), no_failure()).expect("replay");
    let mut config = SubscriberConfig::new("sub", publisher.endpoint(), replay.endpoint());
    config.feed = way.connect(publisher.endpoint());
    config.start = Start::Head;
    let subscriber = Subscriber::start(config).expect("subscriber");
    let next = || subscriber.next(WITHIN).expect("follows").expect("in time");
    assert!(matches!(next(), FeedEvent::Opened(_)));
    let read = || {
        let FeedEvent::Batch(batch) = next() else { panic!("records are gone") };
        batch.iter().map(|record| record.seq.counter()).max().unwrap_or_default()
    };
    // A PUB does not wait for who subscribes: until the subscription has arrived, what is published
    // goes nowhere, and is fetched later.
    let stats = subscriber.stats();
    let (mut received, mut fetched) = (0, 1);
    while stats.fetched.get() != fetched {
        fetched = stats.fetched.get();
        log.grow(received + 1);
        received = read();
    }
    let cost = cost(log.entries() - received, || {
        log.received(received);
        while received < log.entries() {
            received = read();
            log.received(received);
        }
    });
    let fetched = stats.fetched.get() - fetched;
    assert!(fetched * 20 < log.entries(), "{fetched} of the records were fetched, not published");
    subscriber.stop(STOP).expect("subscriber ends");
    publisher.stop(STOP).expect("publisher ends");
    replay.stop(STOP).expect("replay server ends");
    cost
}
