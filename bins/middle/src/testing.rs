//! What the tests of this package share: messages, frames, and a middle without its sockets.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use forebay_link::{
    BatchBuilder, ConsumerState, EntryStore, QueueId, Records, ReplayStore, Seq, StoreError,
};
use forebay_model::{Body, Message, MessageId, Reading, SessionId, Timestamp, Value};
use forebay_queue::{Durability, Options, Queue, Reader, Seq as LogSeq};
use forebay_wire::{entry, feed::Stored};
use prometheus::Registry;

use crate::{
    accounts::Accounts,
    balance::{Counted, Standing, standings},
    clock::Clock,
    collector::Collector,
    config::Consumers,
    consumers::ReplayLog,
    dedup::{Dedup, RunningTime, ledger::Ledger},
    gaps::Gaps,
    metrics::Counts,
    recover::{Recovered, recover},
    snapshot::{Log, Snapshots, Step, slot::FileMedium},
    snapshotter::Bell,
};

pub(crate) const FRONT_A: QueueId = QueueId::new(0xA);
pub(crate) const FRONT_B: QueueId = QueueId::new(0xB);
pub(crate) const CONSUMER: &str = "lake";

/// A canonical entry of `bytes` or a little more.
pub(crate) fn entry(device: &str, seq: u64, bytes: usize) -> Vec<u8> {
    let text = "x".repeat(bytes.saturating_sub(40));
    let message = Message {
        tenant: "default".into(),
        device: device.into(),
        session: SessionId::new(7).expect("small"),
        seq: MessageId::new(seq).expect("not 0"),
        rejected_before: 0,
        received: Timestamp::from_micros(1_700_000_000_000_000).expect("sane"),
        body: Body::Readings(vec![Reading {
            key: "t".into(),
            value: Value::Text(text.into()),
            unit: None,
            time: None,
        }]),
    };
    let mut out = Vec::new();
    entry::encode(&message, &mut out);
    out
}

/// The body of a frame.
pub(crate) fn pack<'a>(payloads: impl IntoIterator<Item = &'a Vec<u8>>) -> (u32, Vec<u8>) {
    let (mut count, mut body) = (0, Vec::new());
    for payload in payloads {
        count += 1;
        body.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        body.extend_from_slice(&0u64.to_le_bytes());
        body.extend_from_slice(payload);
    }
    (count, body)
}

/// A middle without its sockets and threads: what they would do is called.
pub(crate) struct Middle {
    pub log: Queue,
    pub dedup: Arc<Mutex<Dedup>>,
    pub collector: Collector,
    pub counts: Arc<Counts>,
    pub replay: ReplayLog,
    pub complete: bool,
    pub accounts: Arc<Mutex<Accounts>>,
    snapshots: Snapshots<FileMedium>,
    reader: Reader,
}

struct LogOf(Queue);

impl Log for LogOf {
    fn appended(&self) -> u64 {
        self.0.appended().get()
    }

    fn wait_durable(&self, seq: u64) {
        self.0.wait_durable(LogSeq::from_u64(seq), Duration::from_secs(10)).expect("durable");
    }
}

impl Middle {
    /// Opens what is in `dir`, as a start does.
    pub(crate) fn open(dir: &Path, capacity_bytes: u64) -> Self {
        Self::open_at(dir, capacity_bytes, Durability::Disk)
    }

    /// The same, at a level of durability.
    pub(crate) fn open_at(dir: &Path, capacity_bytes: u64, durability: Durability) -> Self {
        let options = Options {
            durability,
            capacity_bytes,
            entry_bytes_max: 64 << 10,
            any_filesystem: true,
            ..Options::default()
        };
        let log = Queue::open_or_create(dir.join("log"), &options).expect("a log");
        let Recovered { dedup, snapshots, reader, complete, .. } =
            recover(dir, &log, 16 << 20).expect("recovers");
        let dedup = Arc::new(Mutex::new(dedup));
        let counts = Arc::new(Counts::register(&Registry::new()).expect("a new registry"));
        let collector = Collector::new(
            log.clone(),
            Arc::clone(&dedup),
            Arc::new(Clock::new(RunningTime(0))),
            Arc::clone(&counts),
            Arc::new(Bell::default()),
            Arc::default(),
        );
        let consumers = Consumers { required: vec![CONSUMER.to_owned()], ..Consumers::default() };
        let accounts = Arc::new(Mutex::new(Accounts::open(dir).expect("accounts")));
        let (shared, known) = (Arc::clone(&accounts), Arc::clone(&dedup));
        let gaps = Arc::new(Mutex::new(Gaps::open(dir).expect("gaps")));
        let replay = ReplayLog::open(&log, &consumers, shared, known, gaps).expect("readers");
        replay.settle().expect("settled");
        Self { accounts, log, dedup, collector, counts, replay, complete, snapshots, reader }
    }

    /// Hands over a frame, as the link's receiver does; returns when it would ack.
    pub(crate) fn send(
        &mut self,
        front: QueueId,
        base: Seq,
        payloads: &[Vec<u8>],
    ) -> Result<(), StoreError> {
        let (count, body) = pack(payloads);
        let records = Records::new(base, count, &body).expect("a body");
        let seq = self.collector.append(front, &records)?;
        self.log
            .wait_durable(LogSeq::from_u64(seq.get()), Duration::from_secs(10))
            .expect("durable");
        Ok(())
    }

    /// Sends messages `numbers` of a device as the next of `front`'s queue; the last Seq there.
    pub(crate) fn send_all(
        &mut self,
        front: QueueId,
        after: Seq,
        device: &str,
        numbers: impl IntoIterator<Item = u64>,
    ) -> Seq {
        let payloads: Vec<_> = numbers.into_iter().map(|seq| entry(device, seq, 60)).collect();
        let base = Seq::from_parts(1, after.counter() + 1);
        self.send(front, base, &payloads).expect("room");
        Seq::from_parts(1, after.counter() + payloads.len() as u64)
    }

    /// Takes a snapshot as the thread does.
    pub(crate) fn snapshot(&mut self, at: impl FnMut(Step)) {
        let log = LogOf(self.log.clone());
        let zero = RunningTime(0);
        let taken = self.snapshots.take(&self.dedup, &log, zero, zero, at).expect("written");
        if let Some(proven) = taken.proven.map(LogSeq::from_u64)
            && proven > self.reader.cursor()
        {
            let note = crate::snapshotter::note(&self.log, &self.dedup).to_bytes();
            self.reader.commit_durable(proven, Some(&note)).expect("committed");
        }
    }

    /// Reads all that the consumer has not committed and commits it; what it was.
    pub(crate) fn consume(&mut self) -> Vec<(String, u64)> {
        let (got, state) = self.take();
        self.replay.record(CONSUMER, &state).expect("log");
        got
    }

    /// Reads all that the consumer has not committed; what it was, and what is to be committed.
    pub(crate) fn take(&mut self) -> (Vec<(String, u64)>, ConsumerState) {
        let mut state = self.replay.consumer(CONSUMER).expect("log").expect("known");
        let mut got = Vec::new();
        let mut tally = state.tally.unwrap_or_default();
        loop {
            let mut batch = BatchBuilder::new(64 << 10);
            self.replay.fill(state.committed, &mut batch).expect("log");
            if batch.is_empty() {
                state.tally = Some(tally);
                return (got, state);
            }
            state.committed = batch.last();
            let kind = forebay_wire::frame::Kind::Batch;
            let frame = batch.finish(kind, 0, FRONT_A, 0, Seq::ZERO);
            let frame = forebay_wire::frame::Frame::decode(&frame).expect("a frame");
            for record in &Records::of(&frame).expect("records") {
                let stored = Stored::decode(record.payload).expect("a prefix");
                tally.records += 1;
                tally.messages += u64::from(!stored.is_marker());
                if let Ok(head) = entry::head(stored.entry) {
                    got.push((head.device.to_owned(), head.seq.get()));
                }
            }
        }
    }

    /// How the consumer stands; `None` if it is not counted.
    pub(crate) fn counted(&self) -> Option<Counted> {
        let (_, standings) = standings(&self.log, &self.dedup, &self.accounts, |_| 0);
        standings[0].counted
    }

    /// Whether the books agree: what fronts have sent, of which so many are lost, and what the
    /// consumer, which has caught up, has missed.
    pub(crate) fn balance(&self) -> (Ledger, i64) {
        let (ledger, standings) = standings(&self.log, &self.dedup, &self.accounts, |_| 0);
        let [Standing { counted: Some(counted), .. }] = &standings[..] else {
            panic!("not counted: {standings:?}");
        };
        assert_eq!(counted.held, 0);
        (ledger, counted.missing_messages)
    }

    /// The same once the consumer has taken everything.
    pub(crate) fn balance_after_all(&mut self) -> (Ledger, i64) {
        self.consume();
        self.balance()
    }

    /// The position of a front's queue.
    pub(crate) fn position(&mut self, front: QueueId) -> Seq {
        self.collector.position(front).expect("log")
    }
}

/// What is in the consumer's hands: how often it got each message.
pub(crate) fn counted(
    got: impl IntoIterator<Item = (String, u64)>,
) -> BTreeMap<(String, u64), u32> {
    let mut counts = BTreeMap::new();
    got.into_iter().for_each(|message| *counts.entry(message).or_default() += 1);
    counts
}

/// Copies a directory as a kill would leave it: a mapping's bytes are the file's.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for file in std::fs::read_dir(from).expect("a directory") {
        let file = file.expect("an entry");
        let target: PathBuf = to.join(file.file_name());
        if file.file_type().expect("a type").is_dir() {
            copy_dir(&file.path(), &target);
        } else {
            std::fs::copy(file.path(), target).expect("copied");
        }
    }
}
