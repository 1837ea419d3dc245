//! The storage tier as a whole: batches of a feed are decoded, described by a registry, and stored
//! by two sinks, the lake and ClickHouse, in rows a second of a core.
//!
//! The feed comes from memory in the middle's own frames, so the link's sockets are not in it (the
//! bench `link` has them). What
//! counts is the CPU time of this process: the store is another. Each sink decodes for itself, as
//! in the tier, so every row counts once however many sinks store it.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use forebay_benches::{Goal, Report};
use forebay_link::{
    BatchBuilder, Error, FeedEvent, Opened, Pushed, QueueId, RecordBatch, Seq, Tally,
};
use forebay_ops::Shutdown;
use forebay_storage::{
    clickhouse::consumer_and_sink,
    config::Clickhouse,
    feed::{Consumer, Source},
    lake::LakeSink,
    registry::Current,
    sink::{Limits, SinkTask, SinkTaskConfig},
};
use forebay_testkit::clickhouse::ClickHouse;
use forebay_wire::{feed::Stored, frame::Kind};

use super::load::{entry_of, process_cpu, registry};

const MESSAGES: usize = 400_000;
const ROUNDS: usize = 3;
const END_WITHIN: Duration = Duration::from_secs(120);

/// The frames of a feed, read once from the start.
struct Feed {
    queue: QueueId,
    frames: Arc<Vec<RecordBatch>>,
    next: Mutex<Option<usize>>,
    head: Seq,
}

impl Source for Feed {
    fn next(&self, timeout: Duration) -> Result<Option<FeedEvent>, Error> {
        let mut next = self.next.lock().expect("not poisoned");
        let Some(at) = *next else {
            *next = Some(0);
            let opened = Opened { queue: self.queue, after: Seq::ZERO, pending: None, tally: None };
            return Ok(Some(FeedEvent::Opened(opened)));
        };
        let Some(frame) = self.frames.get(at) else {
            drop(next);
            std::thread::sleep(timeout);
            return Ok(None);
        };
        *next = Some(at + 1);
        Ok(Some(FeedEvent::Batch(frame.clone())))
    }

    fn head(&self) -> Seq {
        self.head
    }
}

impl Consumer for Feed {
    fn prepare(&self, _: QueueId, _: Seq, _: Seq, _: &[u8], _: Duration) -> Result<(), Error> {
        Ok(())
    }

    fn commit(&self, _: QueueId, _: Seq, _: Tally, _: Duration) -> Result<(), Error> {
        Ok(())
    }
}

fn frames(queue: QueueId) -> Result<Vec<RecordBatch>> {
    let mut frames = Vec::new();
    let (mut after, mut number) = (Seq::ZERO, 0);
    while number < MESSAGES {
        let mut batch = BatchBuilder::new(64 * 1024);
        while number < MESSAGES {
            let mut payload = Stored::prefix(QueueId::new(9), Seq::from_parts(1, 1)).to_vec();
            payload.extend(entry_of(number));
            let seq = Seq::from_parts(1, number as u64 + 1);
            if batch.push(seq, 1_795_356_000_000_000, &payload) != Pushed::Taken {
                break;
            }
            number += 1;
        }
        let last = batch.last();
        let frame = batch.finish(Kind::Data, 0, queue, 1, after);
        frames.push(RecordBatch::from_frame(&frame)?);
        after = last;
    }
    Ok(frames)
}

pub(crate) fn measure(report: &Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = ClickHouse::start(folder.path())?;
    let known = Current::default();
    known.set(registry());
    let mut rates = Vec::new();
    for round in 0..ROUNDS {
        let queue = QueueId::new(100 + round as u128);
        let frames = Arc::new(frames(queue)?);
        let feed = || {
            let head = Seq::from_parts(1, MESSAGES as u64);
            Arc::new(Feed { queue, frames: frames.clone(), next: Mutex::new(None), head })
        };
        let limits = Limits {
            rows: 100_000,
            held_bytes: 16 << 20,
            outstanding_bytes: 64 << 20,
            age: Duration::from_secs(5),
        };
        let config = |name: &str| SinkTaskConfig {
            name: name.to_owned(),
            limits,
            registry: known.clone(),
            dead_letters: folder.path().join("dead"),
            stored: Box::new(|_| {}),
        };
        let settings = Clickhouse { url: server.url(), ..Clickhouse::default() };
        let before = process_cpu();
        let lake = LakeSink::open(&folder.path().join(format!("lake-{round}")))?;
        let lake = SinkTask::start(config("lake"), feed(), lake, Shutdown::new())?;
        let (consumer, sink) = consumer_and_sink(feed(), &settings);
        let store = SinkTask::start(config("clickhouse"), consumer, sink, Shutdown::new())?;
        let end = Instant::now() + END_WITHIN;
        for task in [lake, store] {
            let left = task.drain(end);
            ensure!(left == 0, "{left} entries are not stored");
        }
        rates.push(2.0 * MESSAGES as f64 / (process_cpu() - before));
    }
    let count: u64 = server.query("SELECT count() FROM forebay.readings")?.parse()?;
    ensure!(count == (ROUNDS * 2 * MESSAGES) as u64, "{count} rows are stored");
    report.add_rounds("tier: lake and clickhouse", &rates, "rows/s/core", Goal::AtLeast(500_000.0));
    Ok(())
}
