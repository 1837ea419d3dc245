//! The subscriber over a SUB and a DEALER.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use forebay_wire::feed::{PLAN_BYTES_MAX, Tally};
use forebay_wire::{QueueId, Seq};
use tokio::task::JoinHandle;

use crate::adapter::dealer::Dealer;
use crate::adapter::inbox::Inbox;
use crate::adapter::reply::Answering;
use crate::adapter::stats::SubscriberStats;
use crate::adapter::sub::Sub;
use crate::adapter::thread::{Clock, Stop, Thread, block_on};
use crate::config::SubscriberConfig;
use crate::error::Error;
use crate::machine::subscriber::{
    Action, Declined, Ending, Report, Request, RequestId, Subscriber as Machine,
};
use crate::seam::FeedEvent;

/// Frames taken at one go.
const FRAMES_AT_ONCE: usize = 32;

/// Follows a middle's log without a gap, and keeps a durable consumer's cursor there.
///
/// All methods take `&self`: one task may read while another prepares and commits. One reader at
/// a time.
#[derive(Debug)]
pub struct Subscriber {
    thread: Thread,
    inbox: Arc<Inbox>,
    stats: Arc<SubscriberStats>,
    consumer: String,
}

impl Subscriber {
    /// Starts the thread. The middle need not be there yet.
    ///
    /// # Errors
    /// The consumer's name is empty or too long, or the thread could not be started.
    pub fn start(config: SubscriberConfig) -> Result<Self, Error> {
        let consumer = config.consumer.clone().unwrap_or_default();
        if config.consumer.is_some()
            && !(1..=forebay_wire::feed::CONSUMER_BYTES_MAX).contains(&consumer.len())
        {
            let reason = "its name must have 1 to 64 bytes".to_owned();
            return Err(Error::Refused { consumer, reason });
        }
        let stats = Arc::new(SubscriberStats::default());
        let inbox = Arc::new(Inbox::new(&consumer));
        let (name, shared, events) =
            (config.thread.clone(), Arc::clone(&stats), Arc::clone(&inbox));
        let thread = Thread::spawn(&name, Box::new(|_| {}), move |stop| {
            let machine = Machine::new(&config, rand::random());
            let link = Link {
                machine,
                feed: Line::Down,
                fetch: Line::Down,
                clock: Clock::start(),
                asked: HashMap::new(),
                next_request: 0,
                inbox: Arc::clone(&events),
                stats: shared,
                config,
            };
            let thread = link.config.thread.clone();
            let result = block_on(&thread, link.run(stop));
            events.end(None);
            result
        })?;
        Ok(Self { thread, inbox, stats, consumer })
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> Arc<SubscriberStats> {
        Arc::clone(&self.stats)
    }

    /// The next event; `None` if there is none within `timeout`.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::Refused`], [`Error::Stopped`]: no event will come any more.
    pub fn next(&self, timeout: Duration) -> Result<Option<FeedEvent>, Error> {
        self.inbox.next(timeout)
    }

    /// The next event, for a task: pending until there is one.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Result<FeedEvent, Error>> {
        self.inbox.poll_next(context)
    }

    /// Announces the range `start..=end` of `queue`, durably at the middle on return. `plan` is what
    /// this consumer needs to write exactly the same again; at most
    /// [`forebay_wire::feed::PLAN_BYTES_MAX`] bytes. A range announced before and not committed is
    /// replaced. Blocks.
    ///
    /// # Errors
    /// - [`Error::Deadline`]: repeat it; it may or may not have been done, and is idempotent.
    /// - [`Error::OtherQueue`]: nothing was done, nor can be: the middle has another queue.
    /// - [`Error::Fenced`], [`Error::Refused`], [`Error::Stopped`]: stop.
    pub fn prepare(
        &self,
        queue: QueueId,
        start: Seq,
        end: Seq,
        plan: &[u8],
        timeout: Duration,
    ) -> Result<(), Error> {
        let announcement = self.announcement(start, end, plan)?;
        self.inbox.request(Some(queue), announcement).wait(timeout)
    }

    /// Says that all up to `upto` are safe here, a number of the queue that the reader was last told
    /// of; durable at the middle on return. Blocks. For who reads and commits on one thread.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn commit(&self, upto: Seq, timeout: Duration) -> Result<(), Error> {
        self.inbox.request(None, Request::Commit { upto, tally: None }).wait(timeout)
    }

    /// [`Self::commit`] of a number of `queue`, with what has become of all up to it: the middle
    /// keeps that with the cursor, and [`Opened`](crate::Opened) brings it back.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn commit_counted(
        &self,
        queue: QueueId,
        upto: Seq,
        tally: Tally,
        timeout: Duration,
    ) -> Result<(), Error> {
        self.inbox.request(Some(queue), Request::Commit { upto, tally: Some(tally) }).wait(timeout)
    }

    /// [`Self::prepare`] for a task, in the queue that the reader was last told of: resolves once it
    /// is durable, over reconnects, without a deadline of its own.
    ///
    /// # Errors
    /// As [`Self::prepare`], without the deadline.
    pub async fn prepared(&self, start: Seq, end: Seq, plan: &[u8]) -> Result<(), Error> {
        self.inbox.request(None, self.announcement(start, end, plan)?).await
    }

    /// [`Self::commit`] for a task, likewise.
    ///
    /// # Errors
    /// As [`Self::prepared`].
    pub async fn committed(&self, upto: Seq) -> Result<(), Error> {
        self.inbox.request(None, Request::Commit { upto, tally: None }).await
    }

    /// Ends the thread; events not yet read are dropped and will be delivered again.
    ///
    /// # Errors
    /// [`Error::Deadline`] if the thread did not end in time: it is left behind.
    pub fn stop(self, deadline: Duration) -> Result<(), Error> {
        self.thread.stop(deadline)
    }

    fn announcement(&self, start: Seq, end: Seq, plan: &[u8]) -> Result<Request, Error> {
        if plan.len() > PLAN_BYTES_MAX || start > end {
            let reason = format!("range {start} to {end} with a plan of {} bytes", plan.len());
            return Err(Error::Refused { consumer: self.consumer.clone(), reason });
        }
        Ok(Request::Prepare { start, end, plan: plan.to_vec() })
    }
}

/// One of the two connections.
enum Line<T> {
    Down,
    Connecting(JoinHandle<Result<T, String>>),
    Up(Box<T>),
}

/// What comes of a connection.
enum Happened<T> {
    /// A frame, or that it is lost.
    Frame(Option<Bytes>),
    /// It was built, or not.
    Built(Result<T, String>),
}

/// A socket that frames come from.
trait Receive {
    async fn receive(&mut self) -> Option<Bytes>;
}

impl Receive for Sub {
    async fn receive(&mut self) -> Option<Bytes> {
        Self::receive(self).await
    }
}

impl Receive for Dealer {
    async fn receive(&mut self) -> Option<Bytes> {
        Self::receive(self).await
    }
}

impl<T: Receive> Line<T> {
    /// What happens next; never anything while it is down. May be dropped while it waits.
    async fn next(&mut self) -> Happened<T> {
        match self {
            Self::Down => std::future::pending().await,
            Self::Connecting(task) => {
                Happened::Built(task.await.unwrap_or_else(|error| Err(error.to_string())))
            }
            Self::Up(socket) => Happened::Frame(socket.receive().await),
        }
    }

    fn drop_socket(&mut self) {
        if let Self::Connecting(task) = std::mem::replace(self, Self::Down) {
            task.abort();
        }
    }
}

struct Link {
    config: SubscriberConfig,
    machine: Machine,
    feed: Line<Sub>,
    fetch: Line<Dealer>,
    clock: Clock,
    asked: HashMap<RequestId, Answering>,
    next_request: RequestId,
    inbox: Arc<Inbox>,
    stats: Arc<SubscriberStats>,
}

/// What woke the loop.
enum Woken {
    Feed(Happened<Sub>),
    Fetch(Happened<Dealer>),
    Other,
}

impl Link {
    async fn run(mut self, mut stop: Stop) -> Result<(), Error> {
        loop {
            self.machine.tick(self.clock.now());
            self.collect();
            if self.perform() {
                return Ok(());
            }
            self.gauge();
            let woken = tokio::select! {
                () = stop.set() => return Ok(()),
                () = self.inbox.notify.notified() => Woken::Other,
                happened = self.feed.next() => Woken::Feed(happened),
                happened = self.fetch.next() => Woken::Fetch(happened),
                () = self.clock.sleep_until(self.machine.deadline()) => Woken::Other,
            };
            self.take(woken);
        }
    }

    fn take(&mut self, woken: Woken) {
        let now = self.clock.now();
        match woken {
            Woken::Other => {}
            Woken::Feed(Happened::Frame(Some(frame))) => {
                self.machine.feed_frame(now, &frame);
                let Line::Up(sub) = &mut self.feed else { return };
                for _ in 1..FRAMES_AT_ONCE {
                    let Some(frame) = sub.receive_ready() else { return };
                    self.machine.feed_frame(now, &frame);
                }
            }
            Woken::Fetch(Happened::Frame(Some(frame))) => {
                self.machine.fetch_frame(now, &frame);
                let Line::Up(dealer) = &mut self.fetch else { return };
                for _ in 1..FRAMES_AT_ONCE {
                    let Some(frame) = dealer.receive_ready() else { return };
                    self.machine.fetch_frame(now, &frame);
                }
            }
            Woken::Feed(Happened::Frame(None)) => {
                self.feed.drop_socket();
                self.machine.feed_lost(now);
            }
            Woken::Fetch(Happened::Frame(None)) => {
                self.fetch.drop_socket();
                self.machine.fetch_lost(now);
            }
            Woken::Feed(Happened::Built(Ok(sub))) => {
                self.feed = Line::Up(Box::new(sub));
                self.machine.feed_connected(now);
            }
            Woken::Fetch(Happened::Built(Ok(dealer))) => {
                self.fetch = Line::Up(Box::new(dealer));
                self.machine.fetch_connected(now);
            }
            Woken::Feed(Happened::Built(Err(error))) => {
                tracing::debug!(endpoint = self.config.feed.endpoint, error, "no connection");
                self.feed = Line::Down;
                self.machine.feed_lost(now);
            }
            Woken::Fetch(Happened::Built(Err(error))) => {
                tracing::debug!(endpoint = self.config.fetch.endpoint, error, "no connection");
                self.fetch = Line::Down;
                self.machine.fetch_lost(now);
            }
        }
    }

    /// Tells the machine what the reader took and asked for.
    fn collect(&mut self) {
        let heard_at_bytes =
            if self.machine.waits_for_room() { 1 } else { self.config.buffer_bytes / 4 };
        let (taken_bytes, requests) = self.inbox.collect(heard_at_bytes);
        let now = self.clock.now();
        if taken_bytes > 0 {
            let buffered = self.stats.buffered_bytes.get();
            self.stats.buffered_bytes.set(buffered.saturating_sub(taken_bytes as u64));
            self.machine.taken(now, taken_bytes);
        }
        for (queue, request, answering) in requests {
            self.next_request += 1;
            self.asked.insert(self.next_request, answering);
            self.machine.request(now, self.next_request, queue, request);
        }
    }

    /// Does what the machine wants; returns whether it has ended.
    fn perform(&mut self) -> bool {
        let mut ended = false;
        while let Some(action) = self.machine.next_action() {
            match action {
                Action::ConnectFeed => {
                    self.stats.connects.add(1);
                    let connect = Sub::connect(self.config.feed.clone());
                    self.feed = Line::Connecting(tokio::spawn(connect));
                }
                Action::ConnectFetch => {
                    self.stats.connects.add(1);
                    let connect = Dealer::connect(self.config.fetch.clone());
                    self.fetch = Line::Connecting(tokio::spawn(connect));
                }
                Action::DropFeed => self.feed.drop_socket(),
                Action::DropFetch => self.fetch.drop_socket(),
                Action::Send(frame) => {
                    if let Line::Up(dealer) = &self.fetch
                        && !dealer.send(frame)
                    {
                        self.fetch.drop_socket();
                        self.machine.fetch_lost(self.clock.now());
                    }
                }
                Action::Yield(event) => {
                    self.count(&event);
                    self.inbox.put(event);
                }
                Action::Finished(id, result) => {
                    if let Some(answering) = self.asked.remove(&id) {
                        let consumer = self.config.consumer.clone().unwrap_or_default();
                        answering.answer(result.map_err(|declined| match declined {
                            Declined::Unfit(reason) => Error::Refused { consumer, reason },
                            Declined::OtherQueue(queue) => Error::OtherQueue { consumer, queue },
                        }));
                    }
                }
                Action::End(ending) => {
                    self.end(&ending);
                    ended = true;
                }
                Action::Report(report) => self.report(&report),
            }
        }
        ended
    }

    fn end(&mut self, ending: &Ending) {
        let consumer = self.config.consumer.clone().unwrap_or_default();
        tracing::error!(consumer, ?ending, "the subscriber ends");
        self.inbox.end(Some(ending.clone()));
        for (_, answering) in self.asked.drain() {
            let consumer = consumer.clone();
            answering.answer(Err(match ending {
                Ending::Fenced => Error::Fenced { consumer },
                Ending::Refused(reason) => Error::Refused { consumer, reason: reason.clone() },
            }));
        }
    }

    fn gauge(&self) {
        let (feed, fetch) = self.machine.alive();
        self.stats.feed_alive.set(feed);
        self.stats.fetch_alive.set(fetch);
        self.stats.received.set(self.machine.position().get());
        self.stats.head.set(self.machine.head().get());
    }

    fn count(&self, event: &FeedEvent) {
        match event {
            FeedEvent::Batch(batch) => {
                self.stats.batches.add(1);
                self.stats.records.add(u64::from(batch.count()));
                self.stats.buffered_bytes.add(batch.bytes_len() as u64);
            }
            FeedEvent::Missed { after, resume } => {
                self.stats.missed.add(1);
                tracing::warn!(%after, %resume, "records are gone from the middle");
            }
            FeedEvent::Opened(opened) => {
                tracing::info!(queue = %opened.queue, after = %opened.after,
                    pending = opened.pending.is_some(), "following the feed");
            }
        }
    }

    fn report(&self, report: &Report) {
        match report {
            Report::Gap { position, prev } => {
                self.stats.gaps.add(1);
                tracing::debug!(%position, %prev, "gap in the feed: fetching");
            }
            Report::Dropped => self.stats.dropped.add(1),
            Report::Fetched { records } => self.stats.fetched.add(u64::from(*records)),
            Report::FeedSilent => tracing::warn!("the feed is silent"),
            Report::FetchSilent => tracing::warn!("the fetch connection is silent"),
            Report::QueueChanged { queue } => {
                tracing::error!(%queue, "the middle's log is another one than before");
            }
            Report::Malformed(error) => tracing::warn!(%error, "malformed frame"),
        }
    }
}
