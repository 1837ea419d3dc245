//! The uplink sender over a DEALER.
//!
//! Each connection has a runtime of its own: when it is given up, everything the socket library
//! still had to do for it (a writer stuck on a half-open connection holds a whole window) ends
//! with it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use forebay_wire::records::BatchBuilder;

use crate::adapter::dealer::Dealer;
use crate::adapter::stats::SenderStats;
use crate::adapter::thread::{Clock, Stop, Thread, block_on};
use crate::config::SenderConfig;
use crate::error::{Error, Fault};
use crate::machine::sender::{Action, Report, Sender};
use crate::seam::{EntrySource, OnFailure};

/// Batches packed at one go, before the socket is looked at again.
const BATCHES_AT_ONCE: usize = 8;

/// Sends a queue's entries to a receiver and commits them as they are acked.
#[derive(Debug)]
pub struct UplinkSender {
    thread: Thread,
    stats: Arc<SenderStats>,
    endpoint: String,
}

impl UplinkSender {
    /// Starts the thread. The receiver need not be there yet. `on_failure` is called on the
    /// thread if the queue behind fails.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(
        config: SenderConfig,
        source: impl EntrySource,
        on_failure: OnFailure,
    ) -> Result<Self, Error> {
        let stats = Arc::new(SenderStats::default());
        let endpoint = config.connect.endpoint.clone();
        let (name, shared) = (config.thread.clone(), Arc::clone(&stats));
        let thread = Thread::spawn(&name, on_failure, move |stop| {
            let machine = Sender::new(&config, source.queue(), rand::random());
            let batch = BatchBuilder::new(config.batch_bytes);
            let clock = Clock::start();
            let mut link = Link { config, source, machine, batch, clock, stop, stats: shared };
            while !link.stop.is_set() {
                let thread = link.config.thread.clone();
                block_on(&thread, link.run_one_connection())?;
            }
            link.stats.welcomed.set(false);
            Ok(())
        })?;
        Ok(Self { thread, stats, endpoint })
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> Arc<SenderStats> {
        Arc::clone(&self.stats)
    }

    /// The receiver's endpoint, as configured.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Ends the thread; what is in flight is neither waited for nor committed.
    ///
    /// # Errors
    /// [`Error::Deadline`] if the thread did not end in time: it is left behind.
    pub fn stop(self, deadline: Duration) -> Result<(), Error> {
        self.thread.stop(deadline)
    }
}

struct Link<S> {
    config: SenderConfig,
    source: S,
    machine: Sender,
    batch: BatchBuilder,
    clock: Clock,
    stop: Stop,
    stats: Arc<SenderStats>,
}

/// What the actions of the machine ask of the loop.
enum Next {
    Wait,
    Connect,
    Drop,
}

impl<S: EntrySource> Link<S> {
    fn fault(&self, source: Fault) -> Error {
        Error::Queue { thread: self.config.thread.clone(), source }
    }

    /// Waits until it is time, connects, and works until the connection is given up.
    async fn run_one_connection(&mut self) -> Result<(), Error> {
        let Some(mut dealer) = self.connect().await? else { return Ok(()) };
        loop {
            self.machine.tick(self.clock.now());
            let more = self.fill()?;
            if !matches!(self.perform(Some(&dealer))?, Next::Wait) {
                return Ok(());
            }
            self.gauge();
            let after = if more { None } else { self.machine.wants() };
            let source = &mut self.source;
            let received = tokio::select! {
                biased;
                () = self.stop.set() => return Ok(()),
                frame = dealer.receive() => Some(frame),
                ready = poll_fn(|context| match source.poll_ready(after.unwrap_or_default(), context.waker()) {
                    Ok(false) => Poll::Pending,
                    Ok(true) => Poll::Ready(Ok(())),
                    Err(fault) => Poll::Ready(Err(fault)),
                }), if after.is_some() => {
                    ready.map_err(|fault| self.fault(fault))?;
                    None
                }
                () = tokio::task::yield_now(), if more => None,
                () = self.clock.sleep_until(self.machine.deadline()) => None,
            };
            match received {
                Some(Some(frame)) => {
                    self.machine.frame(self.clock.now(), &frame);
                    while let Some(frame) = dealer.receive_ready() {
                        self.machine.frame(self.clock.now(), &frame);
                    }
                }
                Some(None) => {
                    tracing::info!(endpoint = self.config.connect.endpoint, "connection lost");
                    self.machine.disconnected(self.clock.now());
                    return Ok(());
                }
                None => {}
            }
        }
    }

    /// Connects when it is due; `None` if the link is to stop, or it failed.
    async fn connect(&mut self) -> Result<Option<Dealer>, Error> {
        loop {
            self.machine.tick(self.clock.now());
            if matches!(self.perform(None)?, Next::Connect) {
                break;
            }
            self.gauge();
            tokio::select! {
                () = self.stop.set() => return Ok(None),
                () = self.clock.sleep_until(self.machine.deadline()) => {}
            }
        }
        self.stats.connects.add(1);
        let dealer = tokio::select! {
            () = self.stop.set() => return Ok(None),
            dealer = Dealer::connect(self.config.connect.clone()) => dealer,
        };
        let now = self.clock.now();
        match dealer {
            Ok(dealer) => {
                let bounds = self.source.bounds().map_err(|fault| self.fault(fault))?;
                self.machine.connected(now, bounds);
                Ok(Some(dealer))
            }
            Err(error) => {
                tracing::debug!(endpoint = self.config.connect.endpoint, error, "no connection");
                self.machine.disconnected(now);
                Ok(None)
            }
        }
    }

    /// Packs and sends while the window is open; returns whether there may be more at once.
    fn fill(&mut self) -> Result<bool, Error> {
        for _ in 0..BATCHES_AT_ONCE {
            let Some(after) = self.machine.wants() else { return Ok(false) };
            let filled = self.source.fill(after, &mut self.batch);
            filled.map_err(|fault| self.fault(fault))?;
            if self.batch.is_empty() {
                return Ok(false);
            }
            self.stats.batches.add(1);
            self.stats.entries.add(u64::from(self.batch.count()));
            self.stats.bytes.add(self.batch.frame_bytes() as u64);
            self.stats.sent.set(self.batch.last().get());
            self.machine.batch(&mut self.batch);
        }
        Ok(true)
    }

    fn perform(&mut self, dealer: Option<&Dealer>) -> Result<Next, Error> {
        let mut next = Next::Wait;
        while let Some(action) = self.machine.next_action() {
            match action {
                Action::Connect => next = Next::Connect,
                Action::Disconnect => next = Next::Drop,
                Action::Send(frame) => {
                    if !dealer.is_some_and(|dealer| dealer.send(frame)) && dealer.is_some() {
                        self.machine.disconnected(self.clock.now());
                        next = Next::Drop;
                    }
                }
                Action::Commit(upto) => {
                    self.source.commit(upto).map_err(|fault| self.fault(fault))?;
                    self.stats.acked.set(upto.get());
                }
                Action::Report(report) => self.report(&report),
            }
        }
        Ok(next)
    }

    fn gauge(&self) {
        let (in_flight, credit) = self.machine.window();
        self.stats.in_flight_bytes.set(in_flight as u64);
        self.stats.credit_bytes.set(credit as u64);
        self.stats.welcomed.set(self.machine.is_welcomed());
    }

    fn report(&self, report: &Report) {
        let endpoint = self.config.connect.endpoint.as_str();
        match report {
            Report::Welcomed { durable, after } => {
                self.stats.sessions.add(1);
                self.stats.refused.set(false);
                tracing::info!(endpoint, %durable, %after, "uplink session open");
            }
            Report::Refused { code, reason } => {
                self.stats.refused.set(true);
                tracing::error!(endpoint, ?code, reason, "the receiver refuses this source");
            }
            Report::LevelTooLow { offered } => {
                self.stats.refused.set(true);
                let required = self.config.level.as_str();
                let offered = offered.as_str();
                tracing::error!(endpoint, offered, required, "the receiver's acks promise less");
            }
            Report::Ahead { durable, next } => {
                self.stats.refused.set(true);
                tracing::error!(endpoint, %durable, %next,
                    "the receiver has numbers this queue never gave out: its directory is an old copy");
            }
            Report::Silent => tracing::warn!(endpoint, "the receiver is silent"),
            Report::Rewound { code, from, to } => {
                self.stats.rewinds.add(1);
                tracing::debug!(endpoint, ?code, %from, %to, "going back");
            }
            Report::AckBeyondSent { durable, sent } => {
                tracing::error!(endpoint, %durable, %sent, "ack of what was not sent");
            }
            Report::Malformed(error) => tracing::warn!(endpoint, %error, "malformed frame"),
        }
    }
}
