//! Fronts in memory, a middle in this process, and a consumer that counts.

#![allow(dead_code, reason = "each test uses its part")]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use forebay_link::{
    BatchBuilder, Bounds, EntrySource, Fault, FeedEvent, Pushed, QueueId, SenderConfig, Seq,
    Subscriber, SubscriberConfig, UplinkSender,
};
use forebay_middle::{Addresses, Config, Running};
use forebay_model::{Body, Message, MessageId, Reading, SessionId, Timestamp, Value};
use forebay_ops::{ByteSize, Shutdown};
use forebay_wire::{entry, feed::Stored, partition};

/// Longest wait for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The consumer that every middle here requires.
pub(crate) const CONSUMER: &str = "lake";

/// A small middle in `dir` on ports of its own.
pub(crate) fn config(dir: &Path) -> Config {
    let mut config = Config::default();
    config.uplink.listen = "tcp://127.0.0.1:0".to_owned();
    config.feed.listen = "tcp://127.0.0.1:0".to_owned();
    config.fetch.listen = "tcp://127.0.0.1:0".to_owned();
    config.admin.address = "127.0.0.1:0".parse().expect("an address");
    config.queue.dir = dir.to_owned();
    config.queue.capacity = ByteSize::mib(8);
    config.queue.any_filesystem = true;
    config.consumers.required = vec![CONSUMER.to_owned()];
    config
}

/// The same, on the ports that another had.
pub(crate) fn config_at(dir: &Path, addresses: &Addresses) -> Config {
    let mut config = config(dir);
    config.uplink.listen.clone_from(&addresses.uplink);
    config.feed.listen.clone_from(&addresses.feed);
    config.fetch.listen.clone_from(&addresses.fetch);
    config
}

/// Starts a middle with a registry of its own.
pub(crate) fn start(config: Config) -> Running {
    forebay_middle::start(config, &prometheus::Registry::new(), Shutdown::new()).expect("starts")
}

/// A canonical entry.
pub(crate) fn message(device: &str, seq: u64) -> Vec<u8> {
    let message = Message {
        tenant: "default".into(),
        device: device.into(),
        session: SessionId::new(7).expect("small"),
        seq: MessageId::new(seq).expect("not 0"),
        rejected_before: 0,
        received: Timestamp::from_micros(1_700_000_000_000_000).expect("sane"),
        body: Body::Readings(vec![Reading {
            key: "t".into(),
            value: Value::Int(seq as i64),
            unit: None,
            time: None,
        }]),
    };
    let mut out = Vec::new();
    entry::encode(&message, &mut out);
    out
}

/// A front's queue in memory, of one epoch; it outlives its sender.
#[derive(Clone)]
pub(crate) struct Front {
    queue: QueueId,
    state: Arc<(Mutex<Kept>, Condvar)>,
}

#[derive(Default)]
struct Kept {
    entries: Vec<Vec<u8>>,
    committed: u64,
    waker: Option<Waker>,
}

impl Front {
    pub(crate) fn new(number: u128) -> Self {
        Self { queue: QueueId::new(number), state: Arc::default() }
    }

    /// Connects it to a middle.
    pub(crate) fn connect(&self, endpoint: &str) -> UplinkSender {
        let config = SenderConfig {
            partitions: partition::map_hash([partition::SINGLE], partition::SINGLE),
            ..SenderConfig::new("front", endpoint)
        };
        UplinkSender::start(config, self.clone(), Box::new(|error| panic!("{error}")))
            .expect("starts")
    }

    /// Appends messages of a device.
    pub(crate) fn append(&self, device: &str, numbers: impl IntoIterator<Item = u64>) {
        let mut kept = self.state.0.lock().expect("no panic");
        kept.entries.extend(numbers.into_iter().map(|seq| message(device, seq)));
        if let Some(waker) = kept.waker.take() {
            waker.wake();
        }
    }

    /// Entries appended and acked.
    pub(crate) fn standing(&self) -> (u64, u64) {
        let kept = self.state.0.lock().expect("no panic");
        (kept.entries.len() as u64, kept.committed)
    }

    /// Waits until fewer than so many entries are not acked.
    pub(crate) fn wait_backlog_below(&self, entries: u64) {
        let kept = self.state.0.lock().expect("no panic");
        let long = |kept: &mut Kept| kept.entries.len() as u64 >= kept.committed + entries;
        let (kept, _) = self.state.1.wait_timeout_while(kept, DEADLINE, long).expect("no panic");
        assert!(kept.entries.len() as u64 - kept.committed < entries, "no acks come");
    }

    /// Waits until so many entries are acked.
    pub(crate) fn wait_acked(&self, entries: u64) {
        let kept = self.state.0.lock().expect("no panic");
        let short = |kept: &mut Kept| kept.committed < entries;
        let (kept, _) = self.state.1.wait_timeout_while(kept, DEADLINE, short).expect("no panic");
        assert!(kept.committed >= entries, "{} of {entries} acked", kept.committed);
    }
}

impl EntrySource for Front {
    fn queue(&self) -> QueueId {
        self.queue
    }

    fn bounds(&mut self) -> Result<Bounds, Fault> {
        let kept = self.state.0.lock().expect("no panic");
        let at = |counter: u64| Seq::from_parts(1, counter);
        let committed = if kept.committed == 0 { Seq::ZERO } else { at(kept.committed) };
        Ok(Bounds {
            committed,
            oldest: at(kept.committed + 1),
            next: at(kept.entries.len() as u64 + 1),
        })
    }

    fn fill(&mut self, after: Seq, batch: &mut BatchBuilder) -> Result<(), Fault> {
        let kept = self.state.0.lock().expect("no panic");
        for (at, entry) in kept.entries.iter().enumerate().skip(after.counter() as usize) {
            if batch.push(Seq::from_parts(1, at as u64 + 1), 0, entry) != Pushed::Taken {
                break;
            }
        }
        Ok(())
    }

    fn commit(&mut self, upto: Seq) -> Result<(), Fault> {
        let mut kept = self.state.0.lock().expect("no panic");
        assert!(upto.counter() <= kept.entries.len() as u64, "acked what was never sent");
        kept.committed = kept.committed.max(upto.counter());
        self.state.1.notify_all();
        Ok(())
    }

    fn poll_ready(&mut self, after: Seq, waker: &Waker) -> Result<bool, Fault> {
        let mut kept = self.state.0.lock().expect("no panic");
        if kept.entries.len() as u64 > after.counter() {
            return Ok(true);
        }
        kept.waker = Some(waker.clone());
        Ok(false)
    }
}

/// A durable consumer that counts what it gets.
pub(crate) struct Consumer {
    pub(crate) subscriber: Subscriber,
    pub(crate) got: BTreeMap<(String, u64), u32>,
    pub(crate) last: Seq,
    /// The middle's, once something has come.
    pub(crate) queue: QueueId,
}

impl Consumer {
    pub(crate) fn connect(addresses: &Addresses) -> Self {
        Self::connect_as(CONSUMER, addresses)
    }

    pub(crate) fn connect_as(name: &str, addresses: &Addresses) -> Self {
        let config = SubscriberConfig {
            consumer: Some(name.to_owned()),
            ..SubscriberConfig::new("consumer", &addresses.feed, &addresses.fetch)
        };
        let subscriber = Subscriber::start(config).expect("starts");
        Self { subscriber, got: BTreeMap::new(), last: Seq::ZERO, queue: QueueId::new(0) }
    }

    /// Takes what comes until `messages` different ones were seen.
    pub(crate) fn take_until(&mut self, messages: usize) {
        let end = Instant::now() + DEADLINE;
        while self.got.len() < messages {
            assert!(Instant::now() < end, "{} of {messages} came", self.got.len());
            self.take();
        }
    }

    /// Takes what comes next, if anything does.
    fn take(&mut self) {
        match self.subscriber.next(Duration::from_millis(100)).expect("no newer session") {
            Some(FeedEvent::Batch(batch)) => {
                self.queue = batch.queue();
                for record in &batch {
                    assert!(record.seq > self.last, "{} after {}", record.seq, self.last);
                    self.last = record.seq;
                    let stored = Stored::decode(record.payload).expect("a prefix");
                    if !stored.is_marker() {
                        let head = entry::head(stored.entry).expect("an entry");
                        let message = (head.device.to_owned(), head.seq.get());
                        *self.got.entry(message).or_default() += 1;
                    }
                }
            }
            Some(FeedEvent::Missed { after, resume }) => panic!("missed {after}..{resume}"),
            Some(_) | None => {}
        }
    }

    /// Takes and commits until as many different messages as `wanted` says were seen.
    pub(crate) fn take_and_commit(mut self, wanted: &AtomicUsize) -> Self {
        let (mut heard, mut committed) = (Instant::now(), self.last);
        loop {
            let known = self.got.len();
            self.take();
            if self.got.len() > known {
                heard = Instant::now();
            }
            assert!(heard.elapsed() < DEADLINE, "nothing comes after {known}");
            let done = self.got.len() >= wanted.load(Ordering::Acquire);
            if done || self.last.get() > committed.get() + 5000 {
                self.commit();
                committed = self.last;
            }
            if done {
                return self;
            }
        }
    }

    /// Makes what was taken durable at the middle.
    pub(crate) fn commit(&self) {
        self.subscriber.commit(self.last, DEADLINE).expect("committed");
    }

    pub(crate) fn assert_once(&self) {
        let doubled: Vec<_> = self.got.iter().filter(|(_, count)| **count != 1).collect();
        assert!(doubled.is_empty(), "more than once: {doubled:?}");
    }
}
