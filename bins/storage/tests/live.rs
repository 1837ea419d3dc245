//! Live readers get what they ask for, in order, once, and are told exactly what they missed.
//!
//! Method: a follower over a middle in memory, readers without sockets. What a socket adds is in
//! `http.rs`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{
    DEADLINE, Log, eventually,
    rows::{START_US, messages, simple},
};
use forebay_ops::Shutdown;
use forebay_storage::{
    last::LastValues,
    live::{
        BufferLimits, EventFilter, Follower, FollowerConfig, Hub, LiveFeed, Outgoing, Reader,
        Whereabouts,
    },
    registry::Current,
};
use forebay_wire::live::{Event, Mode, Position, ServerFrame, Subscription};
use tokio::sync::Semaphore;

struct Live {
    log: Log,
    feed: LiveFeed,
    end: Shutdown,
    follower: Option<Follower>,
}

impl Live {
    fn start(events: usize) -> Self {
        let mut live = Self::before_the_follower(events);
        live.follow();
        live
    }

    /// As of the moment in which a process has started and has not heard of the middle yet.
    fn before_the_follower(events: usize) -> Self {
        let log = Log::new(1);
        let last = Arc::new(LastValues::new(1000));
        let hub = Hub::new(last, BufferLimits { events, bytes: 1 << 20 }, Current::default());
        let middle = log.middle("m");
        hub.follow("m");
        let feed = LiveFeed { hub, middles: vec![middle], resumes: Arc::new(Semaphore::new(2)) };
        Self { log, feed, end: Shutdown::new(), follower: None }
    }

    fn follow(&mut self) {
        let config = FollowerConfig { middle: self.feed.middles[0].clone(), lake: None };
        let follower = Follower::start(config, self.feed.hub.clone(), self.end.clone());
        self.follower = Some(follower.unwrap());
    }

    /// Waits until everything appended was handed out.
    fn settle(&self) {
        let (head, queue) = (self.log.head(), self.log.queue());
        eventually("all is handed out", || self.feed.hub.position(queue) >= Some(head));
    }

    fn subscribe(&self, subscription: Subscription) -> Reader {
        // With a reader registered before the follower opened its source, positions are unknown.
        eventually("the follower is there", || self.feed.hub.position(self.log.queue()).is_some());
        Reader::subscribe(&self.feed, &subscription).unwrap()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.end.begin("the test ends");
        if let Some(follower) = self.follower.take() {
            follower.join();
        }
    }
}

fn decode(outgoing: &Outgoing) -> ServerFrame<'static> {
    ServerFrame::decode(std::str::from_utf8(&outgoing.bytes).unwrap()).unwrap()
}

async fn frames(reader: &mut Reader) -> Vec<ServerFrame<'static>> {
    let next = tokio::time::timeout(DEADLINE, reader.next()).await.expect("in time");
    next.expect("not ended").iter().map(decode).collect()
}

/// Frames up to and with the event of a message number.
async fn until(reader: &mut Reader, seq: u64) -> Vec<ServerFrame<'static>> {
    let mut all = Vec::new();
    loop {
        for frame in frames(reader).await {
            let done = matches!(&frame, ServerFrame::Event(event) if event.seq.get() == seq);
            all.push(frame);
            if done {
                return all;
            }
        }
    }
}

fn events(frames: &[ServerFrame<'static>]) -> Vec<Event<'static>> {
    let event = |frame: &ServerFrame<'static>| match frame {
        ServerFrame::Event(event) => Some(event.clone()),
        _ => None,
    };
    frames.iter().filter_map(event).collect()
}

fn seqs(frames: &[ServerFrame<'static>]) -> Vec<u64> {
    events(frames).iter().map(|event| event.seq.get()).collect()
}

#[tokio::test]
async fn a_snapshot_ends_exactly_where_the_events_begin() {
    let live = Live::start(10_000);
    let log = live.log.clone();
    let writer = std::thread::spawn(move || {
        for seq in 1..=5000 {
            log.append(&simple("a", seq, seq as f64));
        }
    });
    eventually("some are there", || live.feed.hub.position(live.log.queue()).is_some());
    let mut readers = Vec::new();
    for _ in 0..20 {
        readers.push(live.subscribe(Subscription { snapshot: true, ..Subscription::default() }));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    writer.join().unwrap();
    live.settle();
    for mut reader in readers {
        let mut all = frames(&mut reader).await;
        let ServerFrame::Snapshot(snapshot) = all.remove(1) else { panic!("{all:?}") };
        let last = snapshot.values.first().map_or(0, |value| value.seq.get());
        if last < 5000 {
            all.extend(until(&mut reader, 5000).await);
        }
        assert_eq!(seqs(&all), (last + 1..=5000).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_slow_reader_is_told_exactly_how_many_it_missed() {
    let live = Live::start(100);
    let mut slow = live.subscribe(Subscription::default());
    let mut picky =
        live.subscribe(Subscription { devices: vec!["b".to_owned()], ..Subscription::default() });
    for seq in 1..=1000 {
        live.log.append(&simple(if seq % 50 == 0 { "b" } else { "a" }, seq, 0.0));
    }
    live.settle();
    let first = frames(&mut slow).await;
    assert!(matches!(first[..], [ServerFrame::Subscribed(_)]));
    let rest = until(&mut slow, 1000).await;
    let ServerFrame::Missed(missed) = &rest[0] else { panic!("{:?}", rest[0]) };
    assert_eq!(missed.count, Some(900));
    assert_eq!(missed.to.unwrap().seq.counter(), 900);
    assert_eq!(seqs(&rest), (901..=1000).collect::<Vec<_>>());
    // What one reader leaves unread is nothing to another.
    frames(&mut picky).await;
    let all = until(&mut picky, 1000).await;
    assert_eq!(seqs(&all), (1..=20).map(|number| number * 50).collect::<Vec<_>>());
    assert_eq!(live.feed.hub.counts().1, 900);
}

#[tokio::test]
async fn filters_pick_devices_prefixes_and_keys() {
    let live = Live::start(100_000);
    let sent = messages(11, 2000);
    let keys = vec!["temperature".to_owned(), "über".to_owned()];
    let subscription = Subscription {
        devices: vec!["device-1".to_owned()],
        prefix: Some("device-2".to_owned()),
        keys: keys.clone(),
        ..Subscription::default()
    };
    let mut reader = live.subscribe(subscription);
    live.log.append_all(&sent);
    live.log.append(&simple("device-1", 1_000_000, 1.0));
    let mut end = simple("device-1", 1_000_001, 1.0);
    if let forebay_model::Body::Readings(readings) = &mut end.body {
        readings[0].key = "temperature".into();
    }
    live.log.append(&end);
    let got = events(&until(&mut reader, 1_000_001).await);
    let mut expected = Vec::new();
    for message in &sent {
        let forebay_model::Body::Readings(readings) = &message.body else { continue };
        let wanted: Vec<_> = readings
            .iter()
            .enumerate()
            .filter(|(_, reading)| keys.iter().any(|key| *key == reading.key))
            .collect();
        if ["device-1", "device-2"].contains(&&*message.device) && !wanted.is_empty() {
            let indexes: Vec<u16> = wanted.iter().map(|(index, _)| *index as u16).collect();
            expected.push((message.device.to_string(), message.seq.get(), indexes));
        }
    }
    let shown: Vec<_> = got[..got.len() - 1]
        .iter()
        .map(|event| {
            let indexes: Vec<u16> = event.readings.iter().map(|reading| reading.index).collect();
            (event.device.to_string(), event.seq.get(), indexes)
        })
        .collect();
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn a_reader_that_was_away_resumes_without_gap_or_repeat() {
    let live = Live::start(100_000);
    let queue = live.log.queue();
    for seq in 1..=3000 {
        live.log.append(&simple("a", seq, 0.0));
    }
    live.settle();
    let log = live.log.clone();
    let writer = std::thread::spawn(move || {
        for seq in 3001..=6000 {
            log.append(&simple("a", seq, 0.0));
        }
    });
    for after in [0, 1, 1499, 2999] {
        let from = Position { queue, seq: forebay_link::Seq::from_parts(1, after) };
        let mut reader =
            live.subscribe(Subscription { from: vec![from], ..Subscription::default() });
        let all = until(&mut reader, 6000).await;
        assert_eq!(seqs(&all), (after + 1..=6000).collect::<Vec<_>>(), "after {after}");
        let missed = all.iter().any(|frame| matches!(frame, ServerFrame::Missed(_)));
        assert!(!missed);
    }
    writer.join().unwrap();
    live.settle();
    // One that is ahead of this process, which restarted from an older snapshot, gets no repeats.
    let from = Position { queue, seq: forebay_link::Seq::from_parts(1, 6005) };
    let mut ahead = live.subscribe(Subscription { from: vec![from], ..Subscription::default() });
    for seq in 6001..=6010 {
        live.log.append(&simple("a", seq, 0.0));
    }
    assert_eq!(seqs(&until(&mut ahead, 6010).await), [6006, 6007, 6008, 6009, 6010]);
}

#[tokio::test]
async fn a_reader_that_is_back_before_the_middle_is_heard_of_resumes_all_the_same() {
    let mut live = Live::before_the_follower(1000);
    for seq in 1..=10 {
        live.log.append(&simple("a", seq, 0.0));
    }
    let from = Position { queue: live.log.queue(), seq: forebay_link::Seq::from_parts(1, 6) };
    let subscription = Subscription { from: vec![from], ..Subscription::default() };
    let mut reader = Reader::subscribe(&live.feed, &subscription).unwrap();
    assert!(matches!(frames(&mut reader).await[..], [ServerFrame::Subscribed(_)]));
    live.follow();
    let all = until(&mut reader, 10).await;
    assert_eq!(seqs(&all), [7, 8, 9, 10]);
    assert_eq!(all.len(), 4, "nothing is missed: {all:?}");
}

#[test]
fn a_reader_of_a_middle_that_stays_away_is_told_later_what_it_has_missed() {
    let at = |queue, counter| Position {
        queue: forebay_link::QueueId::new(queue),
        seq: forebay_link::Seq::from_parts(1, counter),
    };
    let limits = BufferLimits { events: 10, bytes: 1 << 20 };
    let hub = Hub::new(Arc::new(LastValues::new(10)), limits, Current::default());
    hub.follow("near");
    hub.follow("far");
    hub.reached("near", at(1, 100));
    let filter = EventFilter::new(&Subscription::default(), false).unwrap();
    let register = |known: Position| hub.register(&filter, Mode::Every, &[known], false).unwrap();
    let wait = Duration::from_millis(1);
    assert_eq!(hub.whereabouts(at(1, 0).queue, wait), Whereabouts::Here);
    assert_eq!(hub.whereabouts(at(2, 0).queue, wait), Whereabouts::Unknown);
    let readers = [at(2, 50), at(2, 60), at(3, 7)].map(register);
    // The far middle begins behind 50: one reader is ahead of it, one is not, and one knows a queue
    // that nobody has.
    hub.reached("far", at(2, 55));
    assert_eq!(hub.whereabouts(at(3, 0).queue, wait), Whereabouts::Nowhere);
    let told = readers.each_ref().map(|reader| {
        let mut out = Vec::new();
        reader.client.buffer().take(10, &mut out);
        out.iter().map(decode).collect::<Vec<_>>()
    });
    let lost = |position| vec![ServerFrame::lost(position)];
    assert_eq!(told, [lost(at(2, 50)), vec![], lost(at(3, 7))]);
}

#[tokio::test]
async fn what_the_middle_no_longer_has_is_reported_as_missed() {
    let live = Live::start(1000);
    for seq in 1..=100 {
        live.log.append(&simple("a", seq, 0.0));
    }
    live.settle();
    live.log.reclaim(forebay_link::Seq::from_parts(1, 60));
    let known = |queue, counter| Position { queue, seq: forebay_link::Seq::from_parts(1, counter) };
    let from = vec![known(live.log.queue(), 50)];
    let mut reader = live.subscribe(Subscription { from, ..Subscription::default() });
    let all = until(&mut reader, 100).await;
    let missed: Vec<_> =
        all.iter().filter(|frame| matches!(frame, ServerFrame::Missed(_))).collect();
    assert_eq!(missed.len(), 1, "{all:?}");
    assert_eq!(seqs(&all), (61..=100).collect::<Vec<_>>());
    // A queue that is no longer there has nothing to resume.
    let from = vec![known(forebay_link::QueueId::new(77), 5)];
    let mut reader = live.subscribe(Subscription { from, ..Subscription::default() });
    let mut all = frames(&mut reader).await;
    all.extend(frames(&mut reader).await);
    let missed = |frame: &ServerFrame<'_>| matches!(frame, ServerFrame::Missed(missed) if missed.count.is_none());
    assert!(missed(&all[1]), "{all:?}");
}

#[tokio::test]
async fn latest_conflates_by_series() {
    let live = Live::start(100);
    let mut reader = live.subscribe(Subscription { mode: Mode::Latest, ..Subscription::default() });
    for seq in 1..=500 {
        live.log.append(&simple(["a", "b", "c"][seq as usize % 3], seq, seq as f64));
    }
    live.settle();
    frames(&mut reader).await;
    let all = frames(&mut reader).await;
    let mut newest = seqs(&all);
    newest.sort_unstable();
    assert_eq!(newest, [498, 499, 500]);
}

#[tokio::test]
async fn readers_that_want_the_same_share_one_encoding() {
    let live = Live::start(100);
    let mut one = live.subscribe(Subscription::default());
    let mut two =
        live.subscribe(Subscription { prefix: Some("a".to_owned()), ..Subscription::default() });
    live.log.append(&simple("a", 1, 1.0));
    live.settle();
    for reader in [&mut one, &mut two] {
        reader.next().await.unwrap();
    }
    let (one, two) = (one.next().await.unwrap(), two.next().await.unwrap());
    assert_eq!(one[0].bytes, two[0].bytes);
    assert_eq!(one[0].bytes.as_ptr(), two[0].bytes.as_ptr());
}

#[tokio::test]
async fn subscriptions_that_cannot_be_served_are_refused() {
    let live = Live::start(100);
    let from = vec![Position { queue: live.log.queue(), seq: forebay_link::Seq::ZERO }];
    for subscription in [
        Subscription { types: vec!["pump".to_owned()], ..Subscription::default() },
        Subscription { locations: vec!["hall".to_owned()], ..Subscription::default() },
        Subscription { from, snapshot: true, ..Subscription::default() },
    ] {
        assert!(Reader::subscribe(&live.feed, &subscription).is_err(), "{subscription:?}");
    }
}

#[test]
fn last_values_start_from_the_lake_where_the_middle_has_forgotten() {
    use forebay_storage::{
        lake::LakeSink,
        read::LakeFiles,
        sink::{Limits, SinkTask, SinkTaskConfig},
    };
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    for seq in 1..=300 {
        log.append(&simple(["a", "b"][(seq > 200) as usize], seq, seq as f64));
    }
    let config = SinkTaskConfig {
        name: "lake".to_owned(),
        limits: Limits {
            rows: 50,
            held_bytes: 1 << 20,
            outstanding_bytes: 1 << 20,
            age: Duration::from_secs(3600),
        },
        registry: Current::default(),
        dead_letters: dir.path().join("dead"),
        stored: Box::new(|_| {}),
    };
    let sink = LakeSink::open(&dir.path().join("lake")).unwrap();
    let task = SinkTask::start(config, log.consumer("lake"), sink, Shutdown::new()).unwrap();
    assert_eq!(task.drain(std::time::Instant::now() + DEADLINE), 0);
    log.reclaim(forebay_link::Seq::from_parts(1, 250));

    let last = Arc::new(LastValues::new(1000));
    let hub =
        Hub::new(last.clone(), BufferLimits { events: 10, bytes: 1 << 20 }, Current::default());
    let end = Shutdown::new();
    let lake = Some(Arc::new(LakeFiles::open(&dir.path().join("lake")).unwrap()));
    let config = FollowerConfig { middle: log.middle("m"), lake };
    let follower = Follower::start(config, hub.clone(), end.clone()).unwrap();
    eventually("it has caught up", || hub.position(log.queue()) == Some(log.head()));
    let values = |device: &str| -> Vec<u64> {
        last.of_device("default", device).iter().map(|value| value.seq.get()).collect()
    };
    assert_eq!((values("a"), values("b")), (vec![200], vec![300]));
    assert_eq!(last.of_device("default", "a")[0].received.micros(), START_US + 200_000_007);
    end.begin("the test ends");
    follower.join();
}
