//! A middle in memory, without or with sockets, and messages to put into it.
//!
//! It outlives the storage tiers that read it, as the middle's disk does, and fences older
//! sessions. Its bytes are those of the real one: frames, records, stored prefixes.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(feature = "clickhouse")]
pub mod clickhouse;
pub mod lake;
pub mod rows;

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    task::Waker,
    time::{Duration, Instant},
};

use forebay_link::{
    BatchBuilder, ConsumerState, Error, Fault, FeedEvent, FeedPublisher, FeedSource, Opened,
    Pending, PublisherConfig, Pushed, QueueId, RecordBatch, ReplayConfig, ReplayServer,
    ReplayStore, Seq, Start, Tally,
};
use forebay_model::Message;
use forebay_storage::{
    Config, config,
    feed::{Consumer, Middle, Source},
};
use forebay_wire::{entry, feed::Stored, frame::Kind};

/// Longest wait for anything.
pub const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Contents {
    queue: QueueId,
    entries: Vec<(Seq, u64, Vec<u8>)>,
    /// Entries up to here are gone.
    reclaimed: Seq,
    consumers: HashMap<String, ConsumerState>,
    away: bool,
    wakers: Vec<Waker>,
}

/// The middle's log.
#[derive(Debug, Clone)]
pub struct Log(Arc<(Mutex<Contents>, Condvar)>);

impl Log {
    pub fn new(queue: u128) -> Self {
        let contents = Contents {
            queue: QueueId::new(queue),
            entries: Vec::new(),
            reclaimed: Seq::ZERO,
            consumers: HashMap::new(),
            away: false,
            wakers: Vec::new(),
        };
        Self(Arc::new((Mutex::new(contents), Condvar::new())))
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.0.lock().unwrap()
    }

    pub fn queue(&self) -> QueueId {
        self.lock().queue
    }

    /// Appends a message as the middle does.
    pub fn append(&self, message: &Message<'_>) -> Seq {
        let mut payload = Stored::prefix(QueueId::new(9), Seq::from_parts(1, 1)).to_vec();
        entry::encode(message, &mut payload);
        self.append_raw(payload)
    }

    pub fn append_all<'a>(&self, messages: impl IntoIterator<Item = &'a Message<'a>>) -> Seq {
        messages.into_iter().map(|message| self.append(message)).last().unwrap_or(Seq::ZERO)
    }

    /// Appends a position marker.
    pub fn append_marker(&self) -> Seq {
        self.append_raw(Stored::prefix(QueueId::new(9), Seq::from_parts(1, 1)).to_vec())
    }

    pub fn append_raw(&self, payload: Vec<u8>) -> Seq {
        let mut contents = self.lock();
        let last = contents.entries.last().map_or(Seq::from_parts(1, 0), |(seq, _, _)| *seq);
        let seq = last.next().unwrap();
        contents.entries.push((seq, forebay_model::Timestamp::now().micros() as u64, payload));
        contents.wakers.drain(..).for_each(Waker::wake);
        self.0.1.notify_all();
        seq
    }

    pub fn head(&self) -> Seq {
        self.lock().entries.last().map_or(Seq::ZERO, |(seq, _, _)| *seq)
    }

    /// Forgets entries, as if they had been reclaimed.
    pub fn reclaim(&self, upto: Seq) {
        let mut contents = self.lock();
        contents.entries.retain(|(seq, _, _)| *seq > upto);
        contents.reclaimed = upto;
    }

    /// Forgets a consumer's cursor and range: it reads everything again. Its session stays, so that
    /// an older one is fenced all the same.
    pub fn forget(&self, consumer: &str) {
        let mut contents = self.lock();
        let state = contents.consumers.entry(consumer.to_owned()).or_default();
        state.committed = Seq::ZERO;
        state.pending = None;
    }

    /// Whether the middle answers announcements and commits.
    pub fn set_away(&self, away: bool) {
        self.lock().away = away;
    }

    pub fn state(&self, consumer: &str) -> ConsumerState {
        self.lock().consumers.get(consumer).cloned().unwrap_or_default()
    }

    /// A new session of a durable consumer.
    pub fn consumer(&self, name: &str) -> Arc<Session> {
        let mut contents = self.lock();
        let queue = contents.queue;
        let state = contents.consumers.entry(name.to_owned()).or_default();
        state.session += 1;
        let (session, after, pending) = (state.session, state.committed, state.pending.clone());
        let opened = Opened { queue, after, pending, tally: state.tally };
        let read = Read { opened: Some(opened), after };
        Arc::new(Session {
            log: self.clone(),
            durable: Some((name.to_owned(), session)),
            read: Mutex::new(read),
        })
    }

    /// The middle as live readers open it.
    pub fn middle(&self, name: &str) -> Middle {
        let log = self.clone();
        let open = move |start: Start, _: &str| -> Result<Arc<dyn Source>, Error> {
            let contents = log.lock();
            let after = match start {
                Start::Head => contents.entries.last().map_or(Seq::ZERO, |(seq, _, _)| *seq),
                Start::Oldest => Seq::ZERO,
                Start::After(seq) => seq,
            };
            let opened = Opened { queue: contents.queue, after, pending: None, tally: None };
            let read = Mutex::new(Read { opened: Some(opened), after });
            Ok(Arc::new(Session { log: log.clone(), durable: None, read }))
        };
        Middle { name: name.to_owned(), open: Arc::new(open) }
    }
}

#[derive(Debug)]
struct Read {
    opened: Option<Opened>,
    after: Seq,
}

/// A session without sockets.
#[derive(Debug)]
pub struct Session {
    log: Log,
    durable: Option<(String, u64)>,
    read: Mutex<Read>,
}

impl Session {
    fn update(&self, queue: QueueId, update: impl FnOnce(&mut ConsumerState)) -> Result<(), Error> {
        let (name, session) = self.durable.as_ref().unwrap();
        let mut contents = self.log.lock();
        if contents.away {
            return Err(Error::Deadline { seconds: 0.0 });
        }
        let has = contents.queue;
        let state = contents.consumers.get_mut(name).unwrap();
        if state.session != *session {
            return Err(Error::Fenced { consumer: name.clone() });
        }
        if has != queue {
            return Err(Error::OtherQueue { consumer: name.clone(), queue: has });
        }
        update(state);
        Ok(())
    }
}

impl Source for Session {
    fn next(&self, timeout: Duration) -> Result<Option<FeedEvent>, Error> {
        let mut read = self.read.lock().unwrap();
        if let Some(opened) = read.opened.take() {
            return Ok(Some(FeedEvent::Opened(opened)));
        }
        let after = read.after;
        let nothing = |contents: &mut Contents| {
            contents.entries.last().is_none_or(|(seq, _, _)| *seq <= after)
        };
        let waited = self.log.0.1.wait_timeout_while(self.log.lock(), timeout, nothing).unwrap();
        let contents = waited.0;
        if after < contents.reclaimed {
            read.after = contents.reclaimed;
            return Ok(Some(FeedEvent::Missed { after, resume: contents.reclaimed }));
        }
        let from = contents.entries.partition_point(|(seq, _, _)| *seq <= after);
        let mut batch = BatchBuilder::new(64 * 1024);
        for (seq, time_us, payload) in &contents.entries[from..] {
            if batch.push(*seq, *time_us, payload) != Pushed::Taken {
                break;
            }
        }
        if batch.is_empty() {
            return Ok(None);
        }
        read.after = batch.last();
        let frame = batch.finish(Kind::Data, 0, contents.queue, 1, after);
        Ok(Some(FeedEvent::Batch(RecordBatch::from_frame(&frame).unwrap())))
    }

    fn head(&self) -> Seq {
        self.log.head()
    }
}

impl Consumer for Session {
    fn prepare(
        &self,
        queue: QueueId,
        first: Seq,
        last: Seq,
        plan: &[u8],
        _: Duration,
    ) -> Result<(), Error> {
        let plan = plan.to_vec();
        self.update(queue, |state| state.pending = Some(Pending { start: first, end: last, plan }))
    }

    fn commit(&self, queue: QueueId, upto: Seq, tally: Tally, _: Duration) -> Result<(), Error> {
        self.update(queue, |state| {
            if upto > state.committed {
                (state.committed, state.tally) = (upto, Some(tally));
            }
            state.pending.take_if(|pending| pending.end <= upto);
        })
    }
}

impl Contents {
    fn fill(&self, after: Seq, batch: &mut BatchBuilder) {
        let from = self.entries.partition_point(|(seq, _, _)| *seq <= after);
        for (seq, time_us, payload) in &self.entries[from..] {
            if batch.push(*seq, *time_us, payload) != Pushed::Taken {
                break;
            }
        }
    }
}

impl FeedSource for Log {
    fn queue(&self) -> QueueId {
        Log::queue(self)
    }

    fn head(&mut self) -> Seq {
        Log::head(self)
    }

    fn fill(&mut self, after: Seq, batch: &mut BatchBuilder) -> Result<(), Fault> {
        self.lock().fill(after, batch);
        Ok(())
    }

    fn poll_ready(&mut self, after: Seq, waker: &Waker) -> Result<bool, Fault> {
        let mut contents = self.lock();
        let ready = contents.entries.last().is_some_and(|(seq, _, _)| *seq > after);
        if !ready {
            contents.wakers.push(waker.clone());
        }
        Ok(ready)
    }
}

impl ReplayStore for Log {
    fn queue(&self) -> QueueId {
        Log::queue(self)
    }

    fn head(&mut self) -> Seq {
        Log::head(self)
    }

    fn fill(&mut self, after: Seq, batch: &mut BatchBuilder) -> Result<(), Fault> {
        self.lock().fill(after, batch);
        Ok(())
    }

    fn consumer(&mut self, name: &str) -> Result<Option<ConsumerState>, Fault> {
        Ok(Some(self.state(name)))
    }

    fn record(&mut self, name: &str, state: &ConsumerState) -> Result<(), Fault> {
        self.lock().consumers.insert(name.to_owned(), state.clone());
        Ok(())
    }
}

/// The log behind real sockets, as the middle serves it.
pub struct Served {
    pub publisher: FeedPublisher,
    pub replay: ReplayServer,
}

impl Served {
    /// Settings of a tier that follows this middle, with all its files below `dir`.
    pub fn settings(&self, dir: &Path) -> Config {
        let any = ([127, 0, 0, 1], 0).into();
        let mut config = Config {
            middles: vec![config::Middle {
                feed: self.publisher.endpoint().to_owned(),
                fetch: self.replay.endpoint().to_owned(),
                ..config::Middle::default()
            }],
            ..Config::default()
        };
        config.http.address = any;
        config.http.tiers.clear();
        config.admin.address = any;
        config.lake.dir = dir.join("lake");
        config.lake.dead_letters = dir.join("dead");
        config.last.snapshot = dir.join("last.jsonl");
        config
    }

    pub fn start(log: &Log) -> Self {
        let failed = || -> forebay_link::OnFailure {
            Box::new(|error| {
                eprintln!("a link failed: {error}");
                std::process::abort();
            })
        };
        let publisher = PublisherConfig::new("publisher", "tcp://127.0.0.1:0");
        let replay = ReplayConfig::new("replay", "tcp://127.0.0.1:0");
        Self {
            publisher: FeedPublisher::start(publisher, log.clone(), failed()).unwrap(),
            replay: ReplayServer::start(replay, log.clone(), failed()).unwrap(),
        }
    }
}

/// Waits until `condition` holds; fails loudly when it does not in time.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
