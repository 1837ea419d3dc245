//! Rows that a store will never take are found and set aside; all others are stored once, whatever
//! dies when.
//!
//! Method: a store in memory that takes a block whole or not at all and forgets no token, over a
//! middle in memory. A death is played by a process for which, from some step on, nothing works any
//! more: each announcement, sending and commit, before and after its effect. The steps between them
//! (a dead letter, a cursor in memory) are covered by the next of those.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use common::{Log, Session, eventually, rows::messages};
use forebay_link::{Error, FeedEvent, QueueId, Seq, Tally};
use forebay_model::Message;
use forebay_ops::Shutdown;
use forebay_storage::{
    feed::{Consumer, Source},
    registry::Current,
    rows::Rows,
    sink::{
        DeadLetters, Durability, EncodeError, Encoded, Idempotency, KeptKind, Letter, Limits,
        Outcome, Part, Sending, Sink, SinkState, SinkTask, SinkTaskConfig, Token,
    },
};

/// A row's identity.
type Id = (String, u64, u64, u16);

/// What a store in memory holds.
#[derive(Debug, Default)]
struct Store {
    tokens: BTreeMap<String, Vec<Id>>,
    rows: BTreeMap<Id, u32>,
    bad: BTreeSet<Id>,
    refuses_all: bool,
}

impl Store {
    fn insert(&mut self, token: String, rows: &[Id]) -> Outcome {
        if let Some(earlier) = self.tokens.get(&token) {
            assert_eq!(earlier, rows, "token {token} names other rows");
            return Outcome::Ack;
        }
        if self.refuses_all || rows.iter().any(|row| self.bad.contains(row)) {
            return Outcome::Poison("cannot parse".to_owned());
        }
        self.tokens.insert(token, rows.to_vec());
        for row in rows {
            *self.rows.entry(row.clone()).or_default() += 1;
        }
        Outcome::Ack
    }
}

/// The steps of one process, and at which it dies.
#[derive(Debug)]
struct Life {
    step: AtomicU64,
    dies_at: u64,
    dead: AtomicBool,
}

impl Life {
    fn new(dies_at: u64) -> Arc<Self> {
        Arc::new(Self { step: AtomicU64::new(0), dies_at, dead: AtomicBool::new(false) })
    }

    /// Takes one step; `None` if the process is dead before its effect or before its answer.
    fn step<T>(&self, effect: impl FnOnce() -> T) -> Option<T> {
        let step = self.step.fetch_add(2, Ordering::SeqCst);
        if step >= self.dies_at {
            self.dead.store(true, Ordering::SeqCst);
            return None;
        }
        let done = effect();
        if step + 1 >= self.dies_at {
            self.dead.store(true, Ordering::SeqCst);
            return None;
        }
        Some(done)
    }

    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
}

struct StoreSink {
    store: Arc<Mutex<Store>>,
    life: Arc<Life>,
}

impl Sink for StoreSink {
    fn encode(&mut self, rows: &Rows) -> Result<Encoded, EncodeError> {
        let ids: Vec<Id> = rows
            .iter()
            .map(|row| (row.device.to_owned(), row.session, row.seq, row.index))
            .collect();
        let bytes = serde_json::to_vec(&ids).unwrap().into();
        let part = Part { name: String::new(), bytes, rows: rows.len() as u64 };
        Ok(Encoded { parts: vec![part], left_out: 0 })
    }

    fn send<'a>(&'a mut self, encoded: &'a Encoded, token: &'a Token) -> Sending<'a> {
        let ids: Vec<Id> = serde_json::from_slice(&encoded.parts[0].bytes).unwrap();
        let insert = || self.store.lock().unwrap().insert(token.to_string(), &ids);
        let outcome = self.life.step(insert);
        let outcome = outcome.unwrap_or_else(|| Outcome::Transient("dead".to_owned()));
        Box::pin(std::future::ready(outcome))
    }

    fn durability(&self) -> Durability {
        Durability::OnAck
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::Token
    }
}

struct Mortal {
    session: Arc<Session>,
    life: Arc<Life>,
}

impl Source for Mortal {
    fn next(&self, timeout: Duration) -> Result<Option<FeedEvent>, Error> {
        self.session.next(timeout)
    }

    fn head(&self) -> Seq {
        self.session.head()
    }
}

impl Consumer for Mortal {
    fn prepare(
        &self,
        queue: QueueId,
        first: Seq,
        last: Seq,
        plan: &[u8],
        timeout: Duration,
    ) -> Result<(), Error> {
        let done = self.life.step(|| self.session.prepare(queue, first, last, plan, timeout));
        done.unwrap_or(Err(Error::Deadline { seconds: 0.0 }))
    }

    fn commit(
        &self,
        queue: QueueId,
        upto: Seq,
        tally: Tally,
        timeout: Duration,
    ) -> Result<(), Error> {
        let done = self.life.step(|| self.session.commit(queue, upto, tally, timeout));
        done.unwrap_or(Err(Error::Deadline { seconds: 0.0 }))
    }
}

const ROWS: usize = 40;

fn start(log: &Log, store: &Arc<Mutex<Store>>, life: &Arc<Life>, dead: &Path) -> SinkTask {
    let config = SinkTaskConfig {
        name: "sink".to_owned(),
        limits: Limits {
            rows: ROWS,
            held_bytes: 1 << 20,
            outstanding_bytes: 1 << 20,
            age: Duration::from_millis(10),
        },
        registry: Current::default(),
        dead_letters: dead.to_owned(),
        stored: Box::new(|_| {}),
    };
    let sink = StoreSink { store: store.clone(), life: life.clone() };
    let consumer = Arc::new(Mortal { session: log.consumer("sink"), life: life.clone() });
    SinkTask::start(config, consumer, sink, Shutdown::new()).unwrap()
}

fn ids(messages: &[Message<'_>]) -> Vec<Id> {
    let of = |message: &Message<'_>| {
        let (device, session) = (message.device.to_string(), message.session.get());
        let seq = message.seq.get();
        (0..message.body.rows()).map(move |index| (device.clone(), session, seq, index as u16))
    };
    messages.iter().flat_map(of).collect()
}

fn letters(dead: &Path) -> Vec<Letter> {
    let kept = DeadLetters::list(dead).unwrap();
    assert!(kept.iter().all(|kept| kept.kind == KeptKind::Row));
    kept.iter().map(|kept| kept.letter().unwrap()).collect()
}

fn letter_ids(dead: &Path) -> BTreeSet<Id> {
    let id = |letter: Letter| (letter.device, letter.session, letter.seq, letter.index);
    letters(dead).into_iter().map(id).collect()
}

/// Lets one process die at a step, and others go on to the end; returns whether it died.
fn storm(messages: &[Message<'_>], bad: &BTreeSet<Id>, dies_at: &[u64], mend: bool) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let dead: PathBuf = dir.path().join("dead");
    let log = Log::new(1);
    log.append_all(messages);
    let store = Arc::new(Mutex::new(Store { bad: bad.clone(), ..Store::default() }));
    let mut died = false;
    for &dies_at in dies_at.iter().chain([&u64::MAX]) {
        let life = Life::new(dies_at);
        let task = start(&log, &store, &life, &dead);
        eventually("it dies or ends", || {
            life.is_dead() || log.state("sink").committed == log.head()
        });
        task.drain(Instant::now());
        died |= life.is_dead();
        if mend {
            store.lock().unwrap().bad.clear();
        }
    }
    let store = store.lock().unwrap();
    let set_aside = letter_ids(&dead);
    for id in ids(messages) {
        let stored = store.rows.get(&id).copied().unwrap_or(0);
        let aside = set_aside.contains(&id);
        if mend {
            assert!(stored == 1 || (stored == 0 && aside), "{id:?} {stored} {dies_at:?}");
        } else {
            assert_eq!((stored, aside), (u32::from(!bad.contains(&id)), bad.contains(&id)));
        }
    }
    assert!(set_aside.is_subset(bad), "nothing healthy is set aside");
    died
}

/// Some rows of all, at the places given.
fn some(messages: &[Message<'_>], places: &[usize]) -> BTreeSet<Id> {
    let ids = ids(messages);
    places.iter().map(|&place| ids[place].clone()).collect()
}

#[test]
fn bad_rows_are_found_whatever_their_place_and_the_rest_flows() {
    let messages = messages(11, 60);
    let rows = ids(&messages).len();
    for places in [
        vec![0],
        vec![rows - 1],
        vec![0, 1, 2, 3, 4],
        vec![5, 6, 39, 40, 41, 80],
        (0..rows).step_by(7).collect(),
        (10..35).collect(),
    ] {
        storm(&messages, &some(&messages, &places), &[], false);
    }
}

#[test]
fn a_death_at_any_step_of_the_search_changes_nothing() {
    let messages = messages(12, 40);
    let bad = some(&messages, &[0, 1, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 44]);
    let steps = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let step = steps.fetch_add(1, Ordering::Relaxed);
                    for mend in [false, true] {
                        // A second death soon after the first: while the search is taken up again.
                        let died = storm(&messages, &bad, &[step, step % 7 + 2], mend);
                        if step > 20 && !died {
                            done.store(true, Ordering::Relaxed);
                        }
                    }
                    if step > 400 {
                        done.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert!(steps.into_inner() > 60, "a search has many steps");
}

#[test]
fn a_store_that_takes_nothing_is_an_alarm_and_no_row_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    let messages = messages(13, 40);
    log.append_all(&messages);
    let store = Arc::new(Mutex::new(Store { refuses_all: true, ..Store::default() }));
    let life = Life::new(u64::MAX);
    let task = start(&log, &store, &life, dir.path());
    eventually("it raises the alarm", || task.status().state().0 == SinkState::Alarmed);
    assert_eq!(log.state("sink").committed, Seq::ZERO);
    store.lock().unwrap().refuses_all = false;
    eventually("it goes on by itself", || log.state("sink").committed == log.head());
    assert_eq!(task.status().state().0, SinkState::Running);
    task.drain(Instant::now());
    assert!(letters(dir.path()).is_empty());
    assert!(ids(&messages).iter().all(|id| store.lock().unwrap().rows[id] == 1));
}

#[test]
fn a_full_disk_for_dead_letters_holds_the_sink_up_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // A file where the folder should be: no letter can be kept.
    let dead = dir.path().join("dead");
    std::fs::write(&dead, "in the way").unwrap();
    let log = Log::new(1);
    let messages = messages(14, 40);
    log.append_all(&messages);
    let bad = some(&messages, &[7]);
    let store = Arc::new(Mutex::new(Store { bad: bad.clone(), ..Store::default() }));
    let life = Life::new(u64::MAX);
    let task = start(&log, &store, &life, &dead);
    eventually("it cannot go on", || task.status().state().0 == SinkState::Retrying);
    assert!(task.status().state().1.contains("dead letter"));
    assert_eq!(log.state("sink").committed, Seq::ZERO);
    std::fs::remove_file(&dead).unwrap();
    eventually("it goes on by itself", || log.state("sink").committed == log.head());
    task.drain(Instant::now());
    assert_eq!(letter_ids(&dead), bad);
}

#[test]
fn a_letter_is_the_row_as_it_was_and_counts_once_however_often_it_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    let messages = messages(15, 60);
    log.append_all(&messages);
    let bad = some(&messages, &[3, 20, 21, 70]);
    let store = Arc::new(Mutex::new(Store { bad: bad.clone(), ..Store::default() }));
    let life = Life::new(u64::MAX);
    let task = start(&log, &store, &life, dir.path());
    eventually("all is decided", || log.state("sink").committed == log.head());
    task.drain(Instant::now());
    let mut all = Rows::new(log.queue());
    for (number, message) in messages.iter().enumerate() {
        all.append(Seq::from_parts(1, number as u64 + 1), message);
    }
    let mut shown: BTreeSet<String> = all.iter().map(|row| format!("{row:?}")).collect();
    store.lock().unwrap().bad.clear();
    let mut sink = StoreSink { store: store.clone(), life };
    for letter in letters(dir.path()) {
        let rows = letter.rows(Arc::default()).unwrap();
        assert!(shown.remove(&format!("{:?}", rows.row(0))), "{letter:?}");
        let encoded = sink.encode(&rows).unwrap();
        for _ in 0..3 {
            let token = letter.token();
            let sending = sink.send(&encoded, &token);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            assert_eq!(runtime.block_on(sending), Outcome::Ack);
        }
    }
    assert_eq!(shown.len() + bad.len(), all.len());
    assert!(ids(&messages).iter().all(|id| store.lock().unwrap().rows[id] == 1));
}
