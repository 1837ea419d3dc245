//! Many to one and one to many: no front and no reader starves beside the others.
//!
//! Each has more to send or to read than there is time for; what is compared is how far each came
//! when the run ends. The figure is the least share against the median one. All ends share the
//! cores of this machine with whatever else runs on it, so the bounds are wide.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod endless;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use endless::{Counting, Endless};
use forebay_link::{
    FeedEvent, FeedPublisher, OnFailure, PublisherConfig, ReceiverConfig, ReplayConfig,
    ReplayServer, SenderConfig, Start, Subscriber, SubscriberConfig, UplinkReceiver, UplinkSender,
};

const ANY: &str = "tcp://127.0.0.1:0";
const STOP: Duration = Duration::from_secs(10);
const WAIT: Duration = Duration::from_secs(60);

fn no_failure() -> OnFailure {
    Box::new(|error| panic!("{error}"))
}

#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The least against the median.
fn fairness(what: &str, mut shares: Vec<u64>) -> f64 {
    shares.sort_unstable();
    let (least, median) = (shares[0], shares[shares.len() / 2]);
    let ratio = least as f64 / median as f64;
    let most = shares[shares.len() - 1];
    println!("{what}: least {least}, median {median}, most {most}, least to median {ratio:.2}");
    ratio
}

#[test]
fn fifty_fronts_share_one_middle_and_none_starves() {
    const FRONTS: u128 = 50;
    const ENTRIES: u64 = 1_000_000;
    let store = Counting::default();
    let config = ReceiverConfig::new("receiver", ANY);
    let receiver = UplinkReceiver::start(config, store.clone(), no_failure()).unwrap();
    let sources: Vec<Endless> = (1..=FRONTS).map(Endless::new).collect();
    let senders: Vec<UplinkSender> = sources
        .iter()
        .map(|source| {
            let config = SenderConfig::new("sender", receiver.endpoint());
            UplinkSender::start(config, source.clone(), no_failure()).unwrap()
        })
        .collect();
    eventually("all are welcome", || senders.iter().all(|sender| sender.stats().welcomed.get()));
    sources.iter().for_each(|source| source.grow_to(ENTRIES));
    eventually("enough is taken", || store.taken() >= ENTRIES);
    let ratio = fairness("50 fronts", store.shares());
    assert_eq!(store.shares().len(), 50);
    assert!(ratio >= 0.4, "a front starves: {ratio}");
    for sender in senders {
        sender.stop(STOP).unwrap();
    }
    receiver.stop(STOP).unwrap();
}

#[test]
fn twenty_subscribers_of_one_middle_all_keep_up_or_mend_their_gaps() {
    const READERS: usize = 20;
    const RECORDS: u64 = 150_000;
    /// How far the log is ahead of the fastest reader: half of a reader's buffer.
    const AHEAD: u64 = 16_000;
    let log = Endless::new(9);
    let publisher = PublisherConfig::new("publisher", ANY);
    let publisher = FeedPublisher::start(publisher, log.clone(), no_failure()).unwrap();
    let replay = ReplayConfig::new("replay", ANY);
    let replay = ReplayServer::start(replay, log.clone(), no_failure()).unwrap();
    let subscribers: Vec<Subscriber> = (0..READERS)
        .map(|_| {
            let (feed, fetch) = (publisher.endpoint(), replay.endpoint());
            let mut config = SubscriberConfig::new("subscriber", feed, fetch);
            config.start = Start::Oldest;
            Subscriber::start(config).unwrap()
        })
        .collect();
    let alive = |subscriber: &Subscriber| subscriber.stats().feed_alive.get();
    eventually("all hear the feed", || subscribers.iter().all(alive));
    let received: Vec<AtomicU64> = (0..READERS).map(|_| AtomicU64::new(0)).collect();
    let shares = || -> Vec<u64> {
        received.iter().map(|received| received.load(Ordering::Relaxed)).collect()
    };
    let over = AtomicBool::new(false);
    let at_the_end = std::thread::scope(|scope| {
        for (subscriber, received) in subscribers.iter().zip(&received) {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    match subscriber.next(Duration::from_millis(100)).unwrap() {
                        Some(FeedEvent::Batch(batch)) => {
                            let known = received.swap(batch.last().counter(), Ordering::Relaxed);
                            assert_eq!(batch.first().counter(), known + 1, "a gap");
                        }
                        Some(FeedEvent::Opened(_)) | None => {}
                        Some(other) => panic!("{other:?}"),
                    }
                }
            });
        }
        eventually("the fastest has all", || {
            let fastest = shares().into_iter().max().unwrap_or_default();
            log.grow_to((fastest + AHEAD).min(RECORDS));
            fastest == RECORDS
        });
        let at_the_end = shares();
        eventually("everybody has all", || shares().iter().all(|count| *count == RECORDS));
        over.store(true, Ordering::Relaxed);
        at_the_end
    });
    let fetched: u64 = subscribers.iter().map(|subscriber| subscriber.stats().fetched.get()).sum();
    println!("of {} records {fetched} were fetched", RECORDS * READERS as u64);
    let ratio = fairness("20 subscribers, as the first has all", at_the_end);
    assert!(ratio >= 0.4, "a reader starves: {ratio}");
    for subscriber in subscribers {
        subscriber.stop(STOP).unwrap();
    }
    publisher.stop(STOP).unwrap();
    replay.stop(STOP).unwrap();
}
