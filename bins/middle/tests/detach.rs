//! A full log: a consumer that may be detached gives way and is told what it missed, all others
//! hold the log and lose nothing.
//!
//! The log is small and the consumers are the link's own ends over real sockets. What a sink keeps
//! of a gap is tested in the storage tier, and both together in `crates/testkit`.

mod support;

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use forebay_link::{FeedEvent, Seq};
use forebay_middle::{Config, Running};
use forebay_ops::Shutdown;
use forebay_wire::feed::Tally;
use prometheus::Registry;
use support::{Consumer, DEADLINE, Front, config, config_at};

/// Entries that go twice around the log.
const MANY: u64 = 80_000;
/// Entries that the log does not hold at once.
const FULL: u64 = 55_000;

/// A device id that makes entries long.
fn device() -> String {
    "d".repeat(120)
}

fn with_slow(mut config: Config, detach: bool) -> Config {
    config.consumers.required.push("slow".to_owned());
    if detach {
        config.consumers.detach.push("slow".to_owned());
    }
    config
}

fn start(config: Config) -> (Running, Registry) {
    let registry = Registry::new();
    let running = forebay_middle::start(config, &registry, Shutdown::new()).expect("starts");
    (running, registry)
}

/// The value of a metric of the consumer `slow`.
fn metric(registry: &Registry, name: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name);
    let of_slow = family
        .into_iter()
        .flat_map(|family| family.get_metric())
        .find(|metric| metric.get_label().iter().any(|label| label.value() == "slow"));
    let metric = of_slow.unwrap_or_else(|| panic!("no {name} of the consumer"));
    metric.get_gauge().get_value() + metric.get_counter().get_value()
}

/// The tally of a consumer that got so many messages and nothing else.
fn tally(messages: u64) -> Tally {
    Tally { records: messages, messages, rows: messages, stored: messages, ..Tally::default() }
}

/// Waits until so many bytes of the log are in use.
fn wait_used(middle: &Running, bytes: u64) {
    let end = Instant::now() + DEADLINE;
    while middle.used_bytes() < bytes {
        assert!(Instant::now() < end, "the log never fills");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn gap_lines(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join("gaps.jsonl")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Reads on past so many entries of the log until nothing comes: what was missed, how many records
/// came, and the last one. Where it begins, the middle still knows its tally.
fn catch_up(consumer: &Consumer, entries: u64) -> (Vec<(Seq, Seq)>, u64, Seq) {
    let end = Instant::now() + DEADLINE;
    let (mut missed, mut records, mut last) = (Vec::new(), 0, Seq::ZERO);
    loop {
        assert!(Instant::now() < end, "not in time: {records} records, missed {missed:?}");
        match consumer.subscriber.next(Duration::from_millis(200)).expect("no newer session") {
            Some(FeedEvent::Batch(batch)) => {
                for record in &batch {
                    assert!(record.seq.follows(last) || last == Seq::ZERO, "a gap without a word");
                    last = record.seq;
                    records += 1;
                }
            }
            Some(FeedEvent::Missed { after, resume }) => {
                missed.push((after, resume));
                last = resume;
            }
            Some(FeedEvent::Opened(opened)) => {
                assert!(opened.tally.is_some(), "its books are lost");
                last = opened.after;
            }
            Some(_) => {}
            None if last.counter() >= entries => return (missed, records, last),
            None => {}
        }
    }
}

#[test]
fn a_consumer_that_may_be_detached_gives_way_and_is_told_what_it_missed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (middle, registry) = start(with_slow(config(dir.path()), true));
    let addresses = middle.addresses().clone();
    let front = Front::new(1);
    let sender = front.connect(&addresses.uplink);
    front.append(&device(), 1..=1000);
    let mut slow = Consumer::connect_as("slow", &addresses);
    slow.take_until(1000);
    let (committed, queue) = (slow.last, slow.queue);
    slow.subscriber.commit_counted(queue, committed, tally(1000), DEADLINE).expect("committed");
    slow.subscriber.stop(DEADLINE).expect("ends");
    assert_eq!(metric(&registry, "forebay_middle_consumer_detached"), 0.0);

    // It is away while the log goes round about twice; nobody waits for it.
    let wanted = Arc::new(AtomicUsize::new(MANY as usize));
    let lake = {
        let (consumer, wanted) = (Consumer::connect(&addresses), wanted.clone());
        std::thread::spawn(move || consumer.take_and_commit(&wanted))
    };
    for first in (1001..=MANY).step_by(1000) {
        front.append(&device(), first..=MANY.min(first + 999));
        front.wait_backlog_below(5000);
    }
    front.wait_acked(MANY);
    let lake = lake.join().expect("all came");
    lake.assert_once();
    lake.subscriber.stop(DEADLINE).expect("ends");
    assert_eq!(metric(&registry, "forebay_middle_consumer_detached"), 1.0);
    let lost = metric(&registry, "forebay_middle_detached_entries_total");
    assert!(lost > MANY as f64 / 3.0, "{lost}");
    assert!(metric(&registry, "forebay_middle_detached_bytes_total") > lost * 100.0);
    let lines = gap_lines(dir.path());
    assert_eq!(lines.len(), 1, "one gap, though it grew: {lines:?}");
    assert!(lines[0].contains("\"slow\"") && lines[0].contains(&committed.to_string()));
    sender.stop(DEADLINE).expect("ends");
    middle.drain(Duration::ZERO).expect("closed");

    // Over a restart it is still known.
    let (middle, registry) = start(with_slow(config_at(dir.path(), &addresses), true));
    assert_eq!(metric(&registry, "forebay_middle_consumer_detached"), 1.0);
    assert_eq!(metric(&registry, "forebay_middle_detached_entries_total"), lost);
    assert_eq!(gap_lines(dir.path()), lines);

    let slow = Consumer::connect_as("slow", &addresses);
    let (missed, records, last) = catch_up(&slow, MANY);
    assert_eq!(missed.len(), 1, "{missed:?}");
    let (after, resume) = missed[0];
    assert_eq!(after, committed, "from where it had committed");
    let gone = resume.counter() - after.counter();
    assert_eq!(gone as f64, lost, "what it is told is what the middle counts");
    assert_eq!(committed.counter() + gone + records, last.counter(), "and all the rest came");
    // Its books lack what its gap names, and nothing else: no alarm.
    slow.subscriber
        .commit_counted(queue, last, tally(1000 + records), DEADLINE)
        .expect("committed");
    assert_eq!(metric(&registry, "forebay_middle_consumer_detached"), 0.0);
    assert_eq!(metric(&registry, "forebay_middle_missing_messages"), 0.0);
    slow.subscriber.stop(DEADLINE).expect("ends");
    middle.drain(DEADLINE).expect("closed");
}

/// The consumer passes over the whole of a range that it announced and cannot read whole again. The
/// middle used to name only the part that made room: the rest was missing in the books for good.
#[test]
fn a_range_that_was_announced_is_given_up_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let (middle, registry) = start(with_slow(config(dir.path()), true));
    let addresses = middle.addresses().clone();
    let front = Front::new(1);
    let sender = front.connect(&addresses.uplink);
    let wanted = Arc::new(AtomicUsize::new(usize::MAX));
    let lake = {
        let (consumer, wanted) = (Consumer::connect(&addresses), wanted.clone());
        std::thread::spawn(move || consumer.take_and_commit(&wanted))
    };
    let announced = 20_000;
    front.append(&device(), 1..=announced + 2000);
    front.wait_acked(announced + 2000);
    let mut slow = Consumer::connect_as("slow", &addresses);
    let queue = match slow.subscriber.next(DEADLINE).expect("no newer session") {
        Some(FeedEvent::Opened(opened)) => opened.queue,
        other => panic!("expected the opening, got {other:?}"),
    };
    slow.take_until(1000);
    let taken = tally(slow.got.len() as u64);
    slow.subscriber.commit_counted(queue, slow.last, taken, DEADLINE).expect("committed");
    let (committed, end) = (slow.last, Seq::new(slow.last.get() + announced));
    let start = Seq::new(committed.get() + 1);
    slow.subscriber.prepare(queue, start, end, &[1], DEADLINE).expect("announced");
    slow.subscriber.stop(DEADLINE).expect("ends");
    let lost = || metric(&registry, "forebay_middle_detached_entries_total");
    let mut sent = announced + 2000;
    while lost() == 0.0 {
        assert!(sent < FULL, "the log holds {sent}");
        front.append(&device(), sent + 1..=sent + 1000);
        sent += 1000;
        front.wait_acked(sent);
    }
    // An eighth of the log would be a quarter of the range.
    let slow = Consumer::connect_as("slow", &addresses);
    let (missed, records, last) = catch_up(&slow, sent);
    assert_eq!(missed.len(), 1, "{missed:?}");
    let (after, resume) = missed[0];
    assert_eq!(after, committed);
    assert!(resume >= end, "{resume} is within what was announced up to {end}");
    assert_eq!((resume.counter() - after.counter()) as f64, lost(), "as the middle counts it");
    assert!(records > 0 && last.counter() >= sent);
    slow.subscriber.stop(DEADLINE).expect("ends");
    wanted.store(sent as usize, Ordering::Release);
    lake.join().expect("all came").subscriber.stop(DEADLINE).expect("ends");
    sender.stop(DEADLINE).expect("ends");
    middle.drain(Duration::ZERO).expect("closed");
}

#[test]
fn a_consumer_that_never_came_is_told_what_it_missed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (middle, registry) = start(with_slow(config(dir.path()), true));
    let addresses = middle.addresses().clone();
    let front = Front::new(1);
    let sender = front.connect(&addresses.uplink);
    let wanted = Arc::new(AtomicUsize::new(FULL as usize));
    let lake = {
        let (consumer, wanted) = (Consumer::connect(&addresses), wanted.clone());
        std::thread::spawn(move || consumer.take_and_commit(&wanted))
    };
    for first in (1..=FULL).step_by(1000) {
        front.append(&device(), first..=first + 999);
        front.wait_backlog_below(5000);
    }
    let lake = lake.join().expect("all came");
    lake.subscriber.stop(DEADLINE).expect("ends");
    assert!(metric(&registry, "forebay_middle_detached_entries_total") > 0.0);
    let slow = Consumer::connect_as("slow", &addresses);
    let (missed, records, last) = catch_up(&slow, FULL);
    assert_eq!(missed.len(), 1, "{missed:?}");
    assert!(records > 0);
    assert_eq!(missed[0].1.counter() + records, last.counter());
    // It stays counted, and its books lack what its gap names.
    slow.subscriber.commit_counted(lake.queue, last, tally(records), DEADLINE).expect("committed");
    assert_eq!(metric(&registry, "forebay_middle_missing_messages"), 0.0);
    slow.subscriber.stop(DEADLINE).expect("ends");
    sender.stop(DEADLINE).expect("ends");
    middle.drain(Duration::ZERO).expect("closed");
}

#[test]
fn a_consumer_that_is_required_holds_the_log_and_misses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (middle, _registry) = start(with_slow(config(dir.path()), false));
    let addresses = middle.addresses().clone();
    let front = Front::new(1);
    let sender = front.connect(&addresses.uplink);
    let count = FULL as usize;
    let wanted = Arc::new(AtomicUsize::new(count));
    let lake = {
        let (consumer, wanted) = (Consumer::connect(&addresses), wanted.clone());
        std::thread::spawn(move || consumer.take_and_commit(&wanted))
    };
    front.append(&device(), 1..=count as u64);
    // Until there is no more room: then fronts keep what they have.
    wait_used(&middle, config(dir.path()).queue.capacity.get() * 29 / 32);
    let (_, acked) = front.standing();
    assert!((acked as usize) < count, "the log held {acked}");
    assert_eq!(gap_lines(dir.path()), Vec::<String>::new());
    let slow = Consumer::connect_as("slow", &addresses);
    let slow = slow.take_and_commit(&wanted);
    slow.assert_once();
    front.wait_acked(count as u64);
    lake.join().expect("all came").assert_once();
    sender.stop(DEADLINE).expect("ends");
    slow.subscriber.stop(DEADLINE).expect("ends");
    middle.drain(Duration::ZERO).expect("closed");
}

#[test]
fn nothing_is_given_up_while_a_required_consumer_holds_the_same_entries() {
    let dir = tempfile::tempdir().expect("a directory");
    let (middle, registry) = start(with_slow(config(dir.path()), true));
    let addresses = middle.addresses().clone();
    let front = Front::new(1);
    let sender = front.connect(&addresses.uplink);
    let count = FULL as usize;
    front.append(&device(), 1..=count as u64);
    // Beyond where a consumer would be detached.
    wait_used(&middle, config(dir.path()).queue.capacity.get() * 29 / 32);
    // Several looks later:
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(metric(&registry, "forebay_middle_detached_entries_total"), 0.0);
    assert_eq!(gap_lines(dir.path()), Vec::<String>::new());
    // Once the other one reads on, only the detachable one is in the way, and gives way.
    let wanted = AtomicUsize::new(count);
    let lake = Consumer::connect(&addresses).take_and_commit(&wanted);
    lake.assert_once();
    assert!(metric(&registry, "forebay_middle_detached_entries_total") > 0.0);
    assert!(wanted.load(Ordering::Relaxed) == count);
    lake.subscriber.stop(DEADLINE).expect("ends");
    sender.stop(DEADLINE).expect("ends");
    middle.drain(Duration::ZERO).expect("closed");
}
