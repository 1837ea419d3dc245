//! The ClickHouse sink over a middle in memory.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use forebay_link::{QueueId, Seq};
use forebay_model::Message;
use forebay_ops::Shutdown;
use forebay_storage::{
    clickhouse::consumer_and_sink,
    config::Clickhouse,
    registry::Current,
    rows::Rows,
    sink::{Limits, Outcome, Sink as _, SinkTask, SinkTaskConfig, Token},
};
use forebay_testkit::clickhouse::ClickHouse;
use forebay_wire::entry;

use super::{DEADLINE, Log};

/// How a consumer cuts its ranges, and by what it describes rows.
pub struct Cut {
    pub limits: Limits,
    pub registry: Current,
    pub dead_letters: PathBuf,
}

impl Cut {
    pub fn rows(rows: usize) -> Self {
        let limits = Limits {
            rows,
            held_bytes: 16 << 20,
            outstanding_bytes: 16 << 20,
            age: Duration::from_millis(50),
        };
        let dead_letters = std::env::temp_dir().join("unused");
        Self { limits, registry: Current::default(), dead_letters }
    }
}

/// Settings of a database of the test's own.
pub fn settings(server: &ClickHouse, database: &str) -> Clickhouse {
    Clickhouse { url: server.url(), database: database.to_owned(), ..Clickhouse::default() }
}

pub fn start(log: &Log, consumer: &str, settings: &Clickhouse, cut: Cut) -> SinkTask {
    let (feed, sink) = consumer_and_sink(log.consumer(consumer), settings);
    let config = SinkTaskConfig {
        name: consumer.to_owned(),
        limits: cut.limits,
        registry: cut.registry,
        dead_letters: cut.dead_letters,
        stored: Box::new(|_| {}),
    };
    SinkTask::start(config, feed, sink, Shutdown::new()).unwrap()
}

/// Lets it store all that is there, and ends it.
pub fn drain(task: SinkTask) {
    let status = task.status();
    assert_eq!(task.drain(Instant::now() + DEADLINE), 0, "left behind: {:?}", status.state());
}

/// Messages as one batch.
pub fn batch(messages: &[Message<'_>]) -> Rows {
    let mut rows = Rows::new(QueueId::new(5));
    let mut seq = Seq::from_parts(1, 0);
    for message in messages {
        seq = seq.next().unwrap();
        let mut bytes = Vec::new();
        entry::encode(message, &mut bytes);
        rows.append_entry(seq, &bytes).unwrap();
    }
    rows
}

/// Sends a batch as a process of its own would that knows nothing of others.
pub fn send_once(settings: &Clickhouse, rows: &Rows) {
    let (_, mut sink) = consumer_and_sink(Log::new(5).consumer("once"), settings);
    let encoded = sink.encode(rows).unwrap();
    let (first, last) = rows.span().unwrap();
    let token = Token::whole(rows.queue(), first, last);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(sink.send(&encoded, &token)), Outcome::Ack);
}
