//! The contract of a sink: the same bytes until acked, and nobody waits for another.
//!
//! Method: sinks in memory that fail as told, over a middle in memory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use common::{DEADLINE, Log, Session, eventually, rows::messages};
use forebay_link::{Error, FeedEvent, QueueId, Seq, Tally};
use forebay_ops::Shutdown;
use forebay_storage::{
    feed::{Consumer, Source},
    registry::Current,
    rows::Rows,
    sink::{
        Durability, EncodeError, Encoded, Idempotency, Limits, Outcome, Part, Sending, Sink,
        SinkState, SinkTask, SinkTaskConfig, Token,
    },
};

/// What a store in memory was sent, and what it answers.
#[derive(Debug)]
struct Store {
    answer: Outcome,
    tried: Vec<(Token, Encoded)>,
    acked: Vec<(Token, Encoded)>,
}

#[derive(Clone)]
struct MemorySink {
    store: Arc<Mutex<Store>>,
    durability: Durability,
    idempotency: Idempotency,
}

impl MemorySink {
    fn new(answer: Outcome) -> Self {
        let store = Store { answer, tried: Vec::new(), acked: Vec::new() };
        Self {
            store: Arc::new(Mutex::new(store)),
            durability: Durability::OnAck,
            idempotency: Idempotency::Token,
        }
    }

    fn answer(&self, answer: Outcome) {
        self.store.lock().unwrap().answer = answer;
    }

    fn rows(&self) -> u64 {
        let store = self.store.lock().unwrap();
        store.acked.iter().flat_map(|(_, encoded)| &encoded.parts).map(|part| part.rows).sum()
    }
}

impl Sink for MemorySink {
    fn encode(&mut self, rows: &Rows) -> Result<Encoded, EncodeError> {
        let text: String = rows.iter().map(|row| format!("{row:?}\n")).collect();
        let part = Part { name: String::new(), bytes: text.into(), rows: rows.len() as u64 };
        Ok(Encoded { parts: vec![part], left_out: 0 })
    }

    fn send<'a>(&'a mut self, encoded: &'a Encoded, token: &'a Token) -> Sending<'a> {
        let mut store = self.store.lock().unwrap();
        store.tried.push((*token, encoded.clone()));
        let answer = store.answer.clone();
        if answer == Outcome::Ack {
            store.acked.push((*token, encoded.clone()));
        }
        Box::pin(std::future::ready(answer))
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    fn idempotency(&self) -> Idempotency {
        self.idempotency
    }
}

fn start(log: &Log, name: &str, sink: MemorySink) -> SinkTask {
    start_on(log.consumer(name), name, sink)
}

fn start_on(consumer: Arc<impl Consumer>, name: &str, sink: MemorySink) -> SinkTask {
    let config = SinkTaskConfig {
        name: name.to_owned(),
        limits: Limits {
            rows: 100,
            held_bytes: 1 << 20,
            outstanding_bytes: 1 << 20,
            age: Duration::from_millis(20),
        },
        registry: Current::default(),
        dead_letters: std::env::temp_dir().join("unused"),
        stored: Box::new(|_| {}),
    };
    SinkTask::start(config, consumer, sink, Shutdown::new()).unwrap()
}

fn refused() -> Outcome {
    Outcome::Transient("503".to_owned())
}

#[test]
fn a_store_that_is_away_blocks_nobody_else_and_gets_the_same_bytes_later() {
    let log = Log::new(1);
    let sent = messages(1, 2000);
    let rows: u64 = sent.iter().map(|message| message.body.rows() as u64).sum();
    let (well, ill) = (MemorySink::new(Outcome::Ack), MemorySink::new(refused()));
    let well_task = start(&log, "well", well.clone());
    let ill_task = start(&log, "ill", ill.clone());
    log.append_all(&sent);
    eventually("the healthy sink has all", || log.state("well").committed == log.head());
    assert_eq!(well.rows(), rows);
    assert_eq!(log.state("ill").committed, Seq::ZERO);
    eventually("it was tried again", || ill.store.lock().unwrap().tried.len() >= 3);
    assert_eq!(ill_task.status().state().0, SinkState::Retrying);
    let (_, held) = ill_task.buffer().held();
    assert!(held < 500, "memory of a sink that stands still is bounded: {held} rows");

    ill.answer(Outcome::Ack);
    eventually("it resumes by itself", || log.state("ill").committed == log.head());
    assert_eq!(ill.rows(), rows);
    let store = ill.store.lock().unwrap();
    let first = &store.tried[0];
    let tries = store.tried.iter().take_while(|tried| tried.0 == first.0).count();
    assert!(tries >= 3 && store.tried[..tries].iter().all(|tried| tried == first));
    drop(store);
    assert_eq!(ill_task.status().state().0, SinkState::Running);
    for task in [well_task, ill_task] {
        assert_eq!(task.drain(Instant::now() + DEADLINE), 0);
    }
}

#[test]
fn a_sink_that_waits_for_a_human_keeps_its_cursor_and_its_rows() {
    {
        let answer = Outcome::Misconfigured("no table".to_owned());
        let log = Log::new(1);
        log.append_all(&messages(2, 50));
        let sink = MemorySink::new(answer);
        let task = start(&log, "sink", sink.clone());
        eventually("it raises the alarm", || task.status().state().0 == SinkState::Alarmed);
        assert_eq!(log.state("sink").committed, Seq::ZERO);
        assert!(log.state("sink").pending.is_some(), "announced before it was sent");
        assert!(task.drain(Instant::now()) > 0, "what is left is counted");
        // A later start sends the same block first.
        sink.answer(Outcome::Ack);
        let task = start(&log, "sink", sink.clone());
        assert_eq!(task.drain(Instant::now() + DEADLINE), 0);
        let store = sink.store.lock().unwrap();
        assert_eq!(store.acked[0], store.tried[0]);
    }
}

#[test]
fn a_newer_session_fences_an_older_one_before_it_sends() {
    let log = Log::new(1);
    let sink = MemorySink::new(Outcome::Ack);
    let old = start(&log, "sink", sink.clone());
    let newer = log.consumer("sink");
    log.append_all(&messages(3, 20));
    eventually("the old one ends", || old.status().state().0 == SinkState::Ended);
    assert!(sink.store.lock().unwrap().tried.is_empty(), "fenced at the announcement");
    newer.commit(log.queue(), log.head(), Tally::default(), DEADLINE).unwrap();
}

#[test]
fn a_middle_that_is_away_only_delays() {
    let log = Log::new(1);
    log.set_away(true);
    let sink = MemorySink::new(Outcome::Ack);
    let task = start(&log, "sink", sink.clone());
    log.append_all(&messages(4, 20));
    eventually("it tries again", || task.status().state().0 == SinkState::Retrying);
    assert!(sink.store.lock().unwrap().tried.is_empty(), "nothing is sent unannounced");
    log.set_away(false);
    eventually("it goes on", || log.state("sink").committed == log.head());
    assert_eq!(task.drain(Instant::now() + DEADLINE), 0);
}

#[test]
fn a_store_whose_ack_is_not_durable_holds_the_cursor_back() {
    let log = Log::new(1);
    let mut sink = MemorySink::new(Outcome::Ack);
    sink.durability = Durability::After(Duration::from_millis(700));
    sink.idempotency = Idempotency::LastWriteWins;
    let task = start(&log, "sink", sink.clone());
    let began = Instant::now();
    log.append_all(&messages(5, 20));
    eventually("it is acked", || !sink.store.lock().unwrap().acked.is_empty());
    assert!(log.state("sink").pending.is_none(), "no range to repeat exactly");
    assert_eq!(task.drain(Instant::now() + DEADLINE), 0);
    assert_eq!(log.state("sink").committed, log.head());
    assert!(began.elapsed() >= Duration::from_millis(700));
}

/// A middle that comes back with another log, and does not take numbers of the first.
#[derive(Debug)]
struct Moving {
    old: Arc<Session>,
    new: Arc<Session>,
    moved: AtomicBool,
    /// The queues of what was declined.
    declined: Mutex<Vec<QueueId>>,
}

impl Moving {
    fn session(&self) -> &Session {
        if self.moved.load(Ordering::SeqCst) { &self.new } else { &self.old }
    }

    fn note(&self, queue: QueueId, done: Result<(), Error>) -> Result<(), Error> {
        if matches!(done, Err(Error::OtherQueue { .. })) {
            self.declined.lock().unwrap().push(queue);
        }
        done
    }
}

impl Source for Moving {
    fn next(&self, timeout: Duration) -> Result<Option<FeedEvent>, Error> {
        self.session().next(timeout)
    }

    fn head(&self) -> Seq {
        self.session().head()
    }
}

impl Consumer for Moving {
    fn prepare(
        &self,
        queue: QueueId,
        first: Seq,
        last: Seq,
        plan: &[u8],
        timeout: Duration,
    ) -> Result<(), Error> {
        self.note(queue, self.session().prepare(queue, first, last, plan, timeout))
    }

    fn commit(
        &self,
        queue: QueueId,
        upto: Seq,
        tally: Tally,
        timeout: Duration,
    ) -> Result<(), Error> {
        self.note(queue, self.session().commit(queue, upto, tally, timeout))
    }
}

/// A range of the old log was being sent when the middle came back with another: its last number was
/// committed as one of the new log, whose entries up to there were then never stored.
#[test]
fn numbers_of_a_log_that_is_gone_move_no_cursor_of_the_one_after_it_and_stop_nobody() {
    let (old, new) = (Log::new(1), Log::new(2));
    old.append_all(&messages(6, 300));
    new.append_all(&messages(7, 1000));
    let sink = MemorySink::new(refused());
    let consumer = Arc::new(Moving {
        old: old.consumer("sink"),
        new: new.consumer("sink"),
        moved: AtomicBool::new(false),
        declined: Mutex::default(),
    });
    let task = start_on(consumer.clone(), "sink", sink.clone());
    // The reader has more than there is room for, so it hears of the new log only later.
    eventually("a range of the old log is sent", || sink.store.lock().unwrap().tried.len() > 1);
    consumer.moved.store(true, Ordering::SeqCst);
    sink.answer(Outcome::Ack);
    eventually("all of the new log is committed", || new.state("sink").committed == new.head());
    assert_eq!(task.status().state().0, SinkState::Running);
    assert_eq!(task.status().committed(), new.head());
    assert_eq!(old.state("sink").committed, Seq::ZERO);
    let declined = consumer.declined.lock().unwrap();
    assert!(!declined.is_empty() && declined.iter().all(|queue| *queue == old.queue()));
    let store = sink.store.lock().unwrap();
    let of = |log: &Log| -> Vec<_> {
        let queue = log.queue();
        let tokens = store.acked.iter().map(|(token, _)| token);
        tokens.filter(|token| token.queue == queue).map(|token| (token.first, token.last)).collect()
    };
    // All that was read of the old one is stored too, and asked for twice at most.
    assert!(!of(&old).is_empty() && declined.len() <= 2 * of(&old).len());
    let mut after = Seq::ZERO;
    for (first, last) in of(&new) {
        assert!(first.follows(after), "{first} after {after}");
        after = last;
    }
    assert_eq!(after, new.head());
    drop((store, declined));
    assert_eq!(task.drain(Instant::now() + DEADLINE), 0);
}
