//! The feed over real sockets on loopback: a subscriber gets everything, once, in order; a
//! durable consumer goes on where it committed; a newer session fences an older one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod memory;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use forebay_link::{
    Error, FeedEvent, FeedPublisher, Opened, PublisherConfig, ReplayConfig, ReplayServer, Seq,
    Start, Subscriber, SubscriberConfig, Tally,
};
use memory::{Memory, eventually, no_failure};

const WAIT: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(5);

struct Middle {
    publisher: FeedPublisher,
    replay: ReplayServer,
}

impl Middle {
    fn start(log: &Memory) -> Self {
        Self::start_at(log, "tcp://127.0.0.1:0", "tcp://127.0.0.1:0")
    }

    fn start_at(log: &Memory, feed: &str, fetch: &str) -> Self {
        let publisher = PublisherConfig::new("publisher", feed);
        let replay = ReplayConfig::new("replay", fetch);
        Self {
            publisher: FeedPublisher::start(publisher, log.clone(), no_failure()).unwrap(),
            replay: ReplayServer::start(replay, log.clone(), no_failure()).unwrap(),
        }
    }

    fn config(&self) -> SubscriberConfig {
        let (feed, fetch) = (self.publisher.endpoint(), self.replay.endpoint());
        let mut config = SubscriberConfig::new("subscriber", feed, fetch);
        config.feed.backoff_max = Duration::from_millis(200);
        config.fetch.backoff_max = Duration::from_millis(200);
        config
    }

    fn durable(&self, name: &str) -> Subscriber {
        let consumer = Some(name.to_owned());
        Subscriber::start(SubscriberConfig { consumer, ..self.config() }).unwrap()
    }

    fn stop(self) {
        self.publisher.stop(STOP).unwrap();
        self.replay.stop(STOP).unwrap();
    }
}

fn append_many(log: &Memory, count: usize) -> Seq {
    let mut last = Seq::ZERO;
    for number in 0..count {
        last = log.append(format!("record {number}").as_bytes());
    }
    last
}

fn opened(subscriber: &Subscriber) -> Opened {
    match subscriber.next(WAIT).unwrap() {
        Some(FeedEvent::Opened(opened)) => opened,
        other => panic!("expected the opening, got {other:?}"),
    }
}

/// Reads until `last`, and checks that nothing is missing, doubled or out of order.
fn read_to(subscriber: &Subscriber, log: &Memory, after: Seq, last: Seq) {
    let contents: BTreeMap<Seq, Vec<u8>> = log.lock().entries.iter().cloned().collect();
    let mut expected =
        contents.range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded));
    let deadline = Instant::now() + WAIT;
    let mut position = after;
    while position < last {
        assert!(Instant::now() < deadline, "stuck at {position} of {last}");
        match subscriber.next(Duration::from_millis(100)).unwrap() {
            None => {}
            Some(FeedEvent::Batch(batch)) => {
                for record in &batch {
                    let (seq, payload) = expected.next().expect("no more than was appended");
                    assert_eq!((record.seq, record.payload), (*seq, payload.as_slice()));
                    position = record.seq;
                }
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}

#[test]
fn a_consumer_gets_what_was_there_before_it_and_what_comes_after() {
    let log = Memory::new(9);
    let middle = Middle::start(&log);
    let before = append_many(&log, 5_000);
    let subscriber = middle.durable("lake");
    assert_eq!(opened(&subscriber).after, Seq::ZERO);
    read_to(&subscriber, &log, Seq::ZERO, before);
    let after = append_many(&log, 5_000);
    read_to(&subscriber, &log, before, after);
    eventually("published, not fetched", || {
        let last = append_many(&log, 1);
        let fetched = subscriber.stats().fetched.get();
        read_to(&subscriber, &log, Seq::new(last.get() - 1), last);
        subscriber.stats().fetched.get() == fetched
    });
    subscriber.stop(STOP).unwrap();
    middle.stop();
}

#[test]
fn a_late_consumer_starts_from_its_durable_cursor_and_its_pending_range() {
    let log = Memory::new(9);
    let middle = Middle::start(&log);
    append_many(&log, 100);
    let at = |counter| Seq::from_parts(1, counter);
    let subscriber = middle.durable("lake");
    let queue = opened(&subscriber).queue;
    read_to(&subscriber, &log, Seq::ZERO, at(100));
    subscriber.prepare(queue, at(1), at(40), b"plan a", WAIT).unwrap();
    subscriber.commit(at(40), WAIT).unwrap();
    subscriber.prepare(queue, at(41), at(90), b"plan b", WAIT).unwrap();
    // Nothing beyond the log, and nothing already committed.
    let refused = subscriber.commit(at(101), WAIT);
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    assert!(subscriber.prepare(queue, at(1), at(40), b"", WAIT).is_err());
    subscriber.stop(STOP).unwrap();

    let subscriber = middle.durable("lake");
    let opened = opened(&subscriber);
    assert_eq!(opened.after, at(40));
    let pending = opened.pending.unwrap();
    assert_eq!((pending.start, pending.end), (at(41), at(90)));
    assert_eq!(pending.plan, b"plan b");
    read_to(&subscriber, &log, at(40), at(100));
    subscriber.commit(at(90), WAIT).unwrap();
    assert_eq!(log.lock().consumers["lake"].pending, None);
    subscriber.stop(STOP).unwrap();
    middle.stop();
}

#[test]
fn a_newer_process_of_the_same_name_fences_the_older() {
    let log = Memory::new(9);
    let middle = Middle::start(&log);
    append_many(&log, 10);
    let at = |counter| Seq::from_parts(1, counter);
    let older = middle.durable("lake");
    opened(&older);
    older.commit(at(3), WAIT).unwrap();
    let newer = middle.durable("lake");
    assert_eq!(opened(&newer).after, at(3));
    let fenced = older.commit(at(10), WAIT);
    assert!(matches!(fenced, Err(Error::Fenced { .. })), "{fenced:?}");
    assert_eq!(log.lock().consumers["lake"].committed, at(3));
    newer.commit(at(5), WAIT).unwrap();
    let ended = loop {
        match older.next(WAIT) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(ended, Error::Fenced { .. }), "{ended:?}");
    older.stop(STOP).unwrap();
    newer.stop(STOP).unwrap();
    middle.stop();
}

#[test]
fn a_consumer_that_is_not_configured_is_refused() {
    let log = Memory::new(9);
    let middle = Middle::start(&log);
    let subscriber = middle.durable("unknown");
    let refused = subscriber.next(WAIT);
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    subscriber.stop(STOP).unwrap();
    middle.stop();
}

#[test]
fn a_reader_with_a_small_buffer_still_gets_everything() {
    let log = Memory::new(9);
    let middle = Middle::start(&log);
    let consumer = Some("lake".to_owned());
    let config = SubscriberConfig { consumer, buffer_bytes: 4_096, ..middle.config() };
    let subscriber = Subscriber::start(config).unwrap();
    opened(&subscriber);
    let last = append_many(&log, 20_000);
    // It reads nothing while everything is published: what does not fit is dropped.
    eventually("the middle is known to be ahead", || subscriber.stats().head.get() == last.get());
    assert!(subscriber.stats().buffered_bytes.get() <= 2 * 64 * 1024);
    read_to(&subscriber, &log, Seq::ZERO, last);
    assert!(subscriber.stats().fetched.get() > 0);
    subscriber.stop(STOP).unwrap();
    middle.stop();
}

#[test]
fn a_subscriber_follows_a_middle_that_was_restarted() {
    let log = Memory::new(9);
    let middle = Middle::start(&log);
    let (feed, fetch) =
        (middle.publisher.endpoint().to_owned(), middle.replay.endpoint().to_owned());
    let subscriber = middle.durable("lake");
    opened(&subscriber);
    let first = append_many(&log, 1_000);
    read_to(&subscriber, &log, Seq::ZERO, first);
    middle.stop();
    log.lock().epoch = 2;
    let second = append_many(&log, 1_000);
    let middle = Middle::start_at(&log, &feed, &fetch);
    read_to(&subscriber, &log, first, second);
    let third = append_many(&log, 1_000);
    read_to(&subscriber, &log, second, third);
    subscriber.commit(third, WAIT).unwrap();
    subscriber.stop(STOP).unwrap();
    middle.stop();
}

#[test]
fn a_middle_with_another_log_is_followed_from_its_beginning() {
    let log = Memory::new(9);
    let middle = Middle::start(&log);
    let (feed, fetch) =
        (middle.publisher.endpoint().to_owned(), middle.replay.endpoint().to_owned());
    let subscriber = middle.durable("lake");
    opened(&subscriber);
    let last = append_many(&log, 10);
    read_to(&subscriber, &log, Seq::ZERO, last);
    middle.stop();
    let other = Memory::new(10);
    let last = append_many(&other, 20);
    let middle = Middle::start_at(&other, &feed, &fetch);
    // A commit of a number of the old log must not be taken for one of the new.
    let (old, tenth) = (log.lock().id, Seq::from_parts(1, 10));
    let is_other = |done: Result<(), Error>| match done {
        Err(Error::OtherQueue { queue, .. }) => assert_eq!(queue, other.lock().id),
        done => panic!("of the old log: {done:?}"),
    };
    is_other(subscriber.commit(tenth, WAIT));
    let opened = opened(&subscriber);
    assert_eq!((opened.queue, opened.after), (other.lock().id, Seq::ZERO));
    // Nor after one thread was told of the new log, while another still speaks of the old.
    is_other(subscriber.commit_counted(old, tenth, Tally::default(), WAIT));
    is_other(subscriber.prepare(old, Seq::from_parts(1, 1), tenth, b"", WAIT));
    assert!(other.lock().consumers["lake"].committed == Seq::ZERO);
    read_to(&subscriber, &other, Seq::ZERO, last);
    subscriber.commit(last, WAIT).unwrap();
    subscriber.stop(STOP).unwrap();
    middle.stop();
}

#[test]
fn a_live_reader_starts_at_the_head_and_says_what_it_missed() {
    let log = Memory::new(9);
    let before = append_many(&log, 1_000);
    let middle = Middle::start(&log);
    let live = Subscriber::start(middle.config()).unwrap();
    assert_eq!(opened(&live).after, before);
    let last = append_many(&log, 10);
    read_to(&live, &log, before, last);
    let refused = live.commit(last, WAIT);
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    live.stop(STOP).unwrap();

    // What it asks for is gone from the middle.
    log.lock().entries.drain(..500);
    let start = Start::After(Seq::from_parts(1, 100));
    let late = Subscriber::start(SubscriberConfig { start, ..middle.config() }).unwrap();
    assert_eq!(opened(&late).after, Seq::from_parts(1, 100));
    let (after, resume) = (Seq::from_parts(1, 100), Seq::from_parts(1, 500));
    assert_eq!(late.next(WAIT).unwrap(), Some(FeedEvent::Missed { after, resume }));
    read_to(&late, &log, resume, last);
    late.stop(STOP).unwrap();
    middle.stop();
}
