//! The thread that follows one middle's log for last values and live readers.
//!
//! It has no cursor at the middle: it starts after what the last values include. What the middle
//! no longer has by then is in the lake, since nothing is reclaimed before it is stored there; the
//! last values are made up from those files, and only live readers have missed it. A lake that may be
//! detached (docs/stores.md) has no file of what was given up for it: then the last values miss that
//! too, until a device reports again.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use forebay_link::{Error, FeedEvent, QueueId, RecordBatch, Seq, Start};
use forebay_ops::{Shutdown, thread};
use forebay_wire::{entry, feed::Stored, live::Position};

use super::{
    Hub,
    hub::Entry,
    rebuild::{Gap, rebuild},
};
use crate::{
    feed::{Middle, Source},
    read::LakeFiles,
};

/// Longest wait for an event: how soon a drain is noticed.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// How a follower stands.
#[derive(Debug, Default)]
pub struct FollowerStatus {
    /// Entries handed out.
    pub entries: AtomicU64,
    received: AtomicU64,
    head: AtomicU64,
    ended: AtomicBool,
}

impl FollowerStatus {
    /// The last entry handed out, and the last one the middle is known to have.
    #[must_use]
    pub fn reached(&self) -> (Seq, Seq) {
        let seq = |number: &AtomicU64| Seq::new(number.load(Ordering::Relaxed));
        (seq(&self.received), seq(&self.head))
    }

    /// Whether it has ended, by a drain or a fault.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// What a follower needs.
#[derive(Debug, Clone)]
pub struct FollowerConfig {
    /// Whom it follows.
    pub middle: Middle,
    /// Where entries are that the middle no longer has; `None` without a lake.
    pub lake: Option<Arc<LakeFiles>>,
}

/// A follower at work.
#[derive(Debug)]
pub struct Follower {
    status: Arc<FollowerStatus>,
    thread: JoinHandle<()>,
}

impl Follower {
    /// Starts its thread, which ends when `shutdown` drains.
    ///
    /// # Errors
    /// The system gave no thread.
    pub fn start(config: FollowerConfig, hub: Arc<Hub>, shutdown: Shutdown) -> io::Result<Self> {
        let status = Arc::new(FollowerStatus::default());
        hub.follow(&config.middle.name);
        let run = Run { config, hub, shutdown, status: status.clone() };
        let thread =
            thread::spawn(format!("{}-follow", run.config.middle.name), move || run.run())?;
        Ok(Self { status, thread })
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> Arc<FollowerStatus> {
        self.status.clone()
    }

    /// Waits for the end of its thread, which a drain brings about.
    pub fn join(self) {
        let _ = self.thread.join();
    }
}

struct Run {
    config: FollowerConfig,
    hub: Arc<Hub>,
    shutdown: Shutdown,
    status: Arc<FollowerStatus>,
}

/// Why following stopped.
enum Stop {
    /// The log is another one than expected: begin with its oldest entry.
    OtherQueue,
    Ended,
}

impl Run {
    fn run(self) {
        let mut expected = self.hub.last().position(&self.config.middle.name);
        loop {
            let start = expected.map_or(Start::Oldest, |at| Start::After(at.seq));
            match self.follow(start, expected.map(|at| at.queue)) {
                Ok(Stop::OtherQueue) => expected = None,
                Ok(Stop::Ended) => break,
                Err(error) => {
                    let middle = &self.config.middle.name;
                    tracing::error!(%middle, %error, "live readers no longer follow this middle");
                    break;
                }
            }
        }
        self.status.ended.store(true, Ordering::Relaxed);
    }

    fn follow(&self, start: Start, expected: Option<QueueId>) -> Result<Stop, Error> {
        let source = (self.config.middle.open)(start, "live")?;
        let mut queue = None;
        while !self.shutdown.is_draining() {
            let event = match source.next(WAIT_MAX) {
                Ok(event) => event,
                Err(Error::Stopped) => return Ok(Stop::Ended),
                Err(error) => return Err(error),
            };
            match event {
                None => {}
                Some(FeedEvent::Opened(opened)) => {
                    // A number of one queue says nothing about another.
                    if expected.or(queue).is_some_and(|expected| expected != opened.queue) {
                        return Ok(Stop::OtherQueue);
                    }
                    queue = Some(opened.queue);
                    if start == Start::Oldest && opened.after > Seq::ZERO {
                        self.mend(opened.queue, Seq::ZERO, opened.after);
                    }
                    self.reached(&*source, opened.queue, opened.after);
                }
                Some(FeedEvent::Missed { after, resume }) => {
                    if let Some(queue) = queue {
                        self.mend(queue, after, resume);
                        self.reached(&*source, queue, resume);
                    }
                }
                Some(FeedEvent::Batch(batch)) => self.publish(&*source, &batch),
                Some(event) => tracing::debug!(?event, "passed over an event"),
            }
        }
        Ok(Stop::Ended)
    }

    fn publish(&self, source: &dyn Source, batch: &RecordBatch) {
        let mut entries = Vec::with_capacity(batch.count() as usize);
        for record in batch {
            let Some(stored) = Stored::decode(record.payload) else { continue };
            if stored.is_marker() {
                continue;
            }
            // An entry that does not decode is the sinks' to keep and to report.
            if let Ok(message) = entry::decode(stored.entry) {
                entries.push(Entry { seq: record.seq, canonical: stored.entry, message });
            }
        }
        let upto = Position { queue: batch.queue(), seq: batch.last() };
        self.hub.publish(&self.config.middle.name, upto, &entries);
        self.status.entries.fetch_add(u64::from(batch.count()), Ordering::Relaxed);
        self.note(source, batch.last());
    }

    fn reached(&self, source: &dyn Source, queue: QueueId, seq: Seq) {
        self.hub.reached(&self.config.middle.name, Position { queue, seq });
        self.note(source, seq);
    }

    fn note(&self, source: &dyn Source, seq: Seq) {
        self.status.received.store(seq.get(), Ordering::Relaxed);
        self.status.head.store(source.head().get(), Ordering::Relaxed);
    }

    /// Makes up the last values from the lake where the middle has no entries any more.
    fn mend(&self, queue: QueueId, after: Seq, upto: Seq) {
        let Some(lake) = &self.config.lake else { return };
        match rebuild(lake, self.hub.last(), Gap { queue, after, upto }) {
            Ok(rows) => {
                tracing::info!(%queue, %after, %upto, rows, "made up last values from the lake");
            }
            Err(error) => {
                tracing::error!(%queue, %after, %upto, %error, "last values may be older than what is stored");
            }
        }
    }
}
