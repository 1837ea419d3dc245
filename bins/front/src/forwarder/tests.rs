//! A forwarder and a receiver over a real socket: what is acked by the middle is committed here,
//! and nothing else, whatever becomes of the middle in between.
//!
//! The middle is the link's receiver over a store in memory whose durability the test holds back.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex},
    task::Waker,
    time::{Duration, Instant},
};

use forebay_link::{
    EntryStore, Fault, Joined, Level, QueueId, ReceiverConfig, Records, SenderConfig, Seq,
    StoreError, UplinkReceiver,
};
use forebay_queue::{Options, Queue};

use super::{Forwarder, Left, left};
use crate::watermark::Watermark;

const DEADLINE: Duration = Duration::from_secs(20);

/// A middle's store in memory.
#[derive(Clone, Default)]
struct Store(Arc<(Mutex<Kept>, Condvar)>);

#[derive(Default)]
struct Kept {
    payloads: Vec<Vec<u8>>,
    positions: HashMap<QueueId, Seq>,
    durable: u64,
    /// While it is set, nothing becomes durable.
    held: bool,
    wakers: Vec<Waker>,
}

impl Store {
    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        let result = act(&mut self.0.0.lock().expect("no panic"));
        self.0.1.notify_all();
        result
    }

    fn hold(&self, held: bool) {
        self.with(|kept| {
            kept.held = held;
            if !held {
                kept.durable = kept.payloads.len() as u64;
                kept.wakers.drain(..).for_each(Waker::wake);
            }
        });
    }

    fn wait_for(&self, payloads: usize) {
        let kept = self.0.0.lock().expect("no panic");
        let short = |kept: &mut Kept| kept.payloads.len() < payloads;
        let (kept, _) = self.0.1.wait_timeout_while(kept, DEADLINE, short).expect("no panic");
        assert!(kept.payloads.len() >= payloads, "{} of {payloads} came", kept.payloads.len());
    }
}

impl EntryStore for Store {
    fn level(&self) -> Level {
        Level::Disk
    }

    fn position(&mut self, source: QueueId) -> Result<Seq, Fault> {
        Ok(self.with(|kept| kept.positions.get(&source).copied().unwrap_or(Seq::ZERO)))
    }

    fn append(&mut self, source: QueueId, records: &Records<'_>) -> Result<Seq, StoreError> {
        Ok(self.with(|kept| {
            kept.payloads.extend(records.iter().map(|record| record.payload.to_vec()));
            kept.positions.insert(source, records.last());
            if !kept.held {
                kept.durable = kept.payloads.len() as u64;
            }
            Seq::from_parts(1, kept.payloads.len() as u64)
        }))
    }

    fn durable(&mut self) -> Seq {
        Seq::from_parts(1, self.with(|kept| kept.durable))
    }

    fn poll_durable(&mut self, seq: Seq, waker: &Waker) -> Result<bool, Fault> {
        Ok(self.with(|kept| {
            kept.wakers.push(waker.clone());
            kept.durable >= seq.counter()
        }))
    }

    fn room_bytes(&self) -> u64 {
        1 << 20
    }

    fn joined(&mut self, joined: &Joined) {
        panic!("a loss: {joined:?}");
    }
}

fn receiver(endpoint: &str, store: &Store) -> UplinkReceiver {
    let config = ReceiverConfig::new("receiver", endpoint);
    UplinkReceiver::start(config, store.clone(), Box::new(|error| panic!("{error}")))
        .expect("listens")
}

fn ring(dir: &std::path::Path) -> Queue {
    let options = Options { capacity_bytes: 4 << 20, any_filesystem: true, ..Options::default() };
    Queue::open_or_create(dir, &options).expect("a ring")
}

fn forwarder(endpoint: &str, queue: &Queue, acked: &Arc<Watermark>) -> Forwarder {
    let config = SenderConfig::new("forwarder", endpoint);
    let on_failure = Box::new(|error| panic!("{error}"));
    Forwarder::start(config, queue, Arc::clone(acked), Duration::from_millis(1), on_failure)
        .expect("starts")
}

fn append(queue: &Queue, numbers: std::ops::Range<u64>) {
    numbers.for_each(|number| {
        queue.append(0, &number.to_le_bytes()).expect("room");
    });
}

/// Waits until the middle has acked all, or `timeout` has passed; what is left.
fn flush(queue: &Queue, acked: &Watermark, timeout: Duration) -> Left {
    let end = Instant::now() + timeout;
    while left(queue, acked) != Left::default() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    left(queue, acked)
}

fn numbers(store: &Store) -> Vec<u64> {
    store.with(|kept| {
        let number = |payload: &Vec<u8>| u64::from_le_bytes(payload[..].try_into().expect("8"));
        kept.payloads.iter().map(number).collect()
    })
}

#[test]
fn nothing_is_committed_before_the_middle_has_it_durably() {
    let dir = tempfile::tempdir().expect("a directory");
    let (queue, acked, store) = (ring(dir.path()), Arc::default(), Store::default());
    store.hold(true);
    let receiver = receiver("tcp://127.0.0.1:0", &store);
    let forwarder = forwarder(receiver.endpoint(), &queue, &acked);
    append(&queue, 0..5000);
    store.wait_for(5000);
    assert_eq!(acked.get().get(), 0, "acked before it was durable");
    assert_eq!(left(&queue, &acked).entries, 5000);
    store.hold(false);
    assert_eq!(flush(&queue, &acked, DEADLINE), Left::default());
    assert_eq!((acked.get(), forwarder.watch()().connected), (queue.appended(), true));
    assert_eq!(numbers(&store), (0..5000).collect::<Vec<_>>());
    forwarder.stop(DEADLINE).expect("ends");
    receiver.stop(DEADLINE).expect("ends");
}

#[test]
fn a_middle_that_goes_and_comes_back_gets_each_entry_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (queue, acked, store) = (ring(dir.path()), Arc::default(), Store::default());
    let first = receiver("tcp://127.0.0.1:0", &store);
    let endpoint = first.endpoint().to_owned();
    let forwarder = forwarder(&endpoint, &queue, &acked);
    append(&queue, 0..1000);
    store.wait_for(1000);
    first.stop(DEADLINE).expect("ends");
    append(&queue, 1000..2000);
    assert!(
        flush(&queue, &acked, Duration::from_millis(200)).entries >= 1000,
        "nobody can have acked"
    );
    let second = receiver(&endpoint, &store);
    assert_eq!(flush(&queue, &acked, DEADLINE), Left::default());
    assert_eq!(numbers(&store), (0..2000).collect::<Vec<_>>());
    assert!(forwarder.watch()().connects_total >= 2);
    forwarder.stop(DEADLINE).expect("ends");
    second.stop(DEADLINE).expect("ends");
}

#[test]
fn a_front_that_restarts_sends_what_was_not_acked() {
    let dir = tempfile::tempdir().expect("a directory");
    let (queue, acked, store) = (ring(dir.path()), Arc::default(), Store::default());
    store.hold(true);
    let receiver = receiver("tcp://127.0.0.1:0", &store);
    let before = forwarder(receiver.endpoint(), &queue, &acked);
    append(&queue, 0..100);
    store.wait_for(100);
    before.stop(DEADLINE).expect("ends");
    drop(queue);
    store.hold(false);
    let (queue, acked) = (ring(dir.path()), Arc::default());
    append(&queue, 100..200);
    let again = forwarder(receiver.endpoint(), &queue, &acked);
    assert_eq!(flush(&queue, &acked, DEADLINE), Left::default());
    assert_eq!(numbers(&store), (0..200).collect::<Vec<_>>());
    again.stop(DEADLINE).expect("ends");
    receiver.stop(DEADLINE).expect("ends");
}
