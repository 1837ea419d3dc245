//! The uplink receiver over a ROUTER.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::adapter::bind::{Passage, open};
use crate::adapter::router::Router;
use crate::adapter::server::Server;
use crate::adapter::stats::ReceiverStats;
use crate::adapter::thread::{Clock, Stop, Thread, block_on};
use crate::config::ReceiverConfig;
use crate::error::{Error, Fault};
use crate::machine::receiver::{Action, Receiver, Report};
use crate::pump::PumpConfig;
use crate::seam::{EntryStore, OnFailure};
use bytes::Bytes;
use forebay_wire::uplink::NackCode;

/// Frames taken at one go, before what is durable is acked.
const FRAMES_AT_ONCE: usize = 64;
/// How often the machine is told the time.
const TICK: Duration = Duration::from_secs(1);
/// How often while sources wait for credit.
const TICK_STARVING: Duration = Duration::from_millis(20);

/// Takes entries from many sources into one store and acks what is durable.
pub type UplinkReceiver = Server<ReceiverStats>;

impl Server<ReceiverStats> {
    /// Binds and starts the thread. `on_failure` is called on it if the store fails.
    ///
    /// # Errors
    /// The endpoint is malformed, public or taken, or the thread could not be started.
    pub fn start(
        config: ReceiverConfig,
        store: impl EntryStore,
        on_failure: OnFailure,
    ) -> Result<Self, Error> {
        let (door, passage) = open(&config.thread, &config.bind, PumpConfig::for_router())?;
        let stats = Arc::new(ReceiverStats::default());
        let (name, shared) = (config.thread.clone(), Arc::clone(&stats));
        let thread = Thread::spawn(&name, on_failure, move |stop| {
            let machine = Receiver::new(&config);
            let thread = config.thread.clone();
            let link = Link { thread, store, machine, clock: Clock::start(), stop, stats: shared };
            block_on(&config.thread, link.run(passage))
        })?;
        Ok(Self::new(thread, stats, door))
    }
}

struct Link<S> {
    thread: String,
    store: S,
    machine: Receiver<Bytes>,
    clock: Clock,
    stop: Stop,
    stats: Arc<ReceiverStats>,
}

impl<S: EntryStore> Link<S> {
    async fn run(mut self, passage: Passage) -> Result<(), Error> {
        let mut router = Router::new(passage).await?;
        let mut tick_at = TICK;
        loop {
            let awaits = self.machine.awaits();
            let store = &mut self.store;
            let received = tokio::select! {
                biased;
                () = self.stop.set() => return Ok(()),
                durable = poll_fn(|context| match store.poll_durable(awaits.unwrap_or_default(), context.waker()) {
                    Ok(false) => Poll::Pending,
                    Ok(true) => Poll::Ready(Ok(())),
                    Err(fault) => Poll::Ready(Err(fault)),
                }), if awaits.is_some() => {
                    durable.map_err(|fault| self.fault(fault))?;
                    None
                }
                received = router.receive() => match received {
                    Some(received) => Some(received),
                    None => return Err(self.fault("the socket ended".into())),
                },
                () = self.clock.sleep_until(Some(tick_at)) => None,
            };
            self.take(&mut router, received)?;
            let now = self.clock.now();
            if now >= tick_at {
                self.machine.tick(now, &mut self.store);
                let every = if self.machine.is_starving() { TICK_STARVING } else { TICK };
                tick_at = now + every;
            } else if self.machine.is_starving() {
                tick_at = tick_at.min(now + TICK_STARVING);
            }
            self.machine.settle(&mut self.store);
            self.perform(&router);
            self.stats.sources.set(self.machine.sources() as u64);
        }
    }

    /// Takes a frame and those that wait behind it, up to a bound.
    fn take(&mut self, router: &mut Router, first: Option<(Bytes, Bytes)>) -> Result<(), Error> {
        let mut received = first;
        for _ in 0..FRAMES_AT_ONCE {
            let Some((peer, frame)) = received.or_else(|| router.receive_ready()) else {
                return Ok(());
            };
            let now = self.clock.now();
            let taken = self.machine.frame(now, &peer, &frame, &mut self.store);
            taken.map_err(|fault| self.fault(fault))?;
            received = None;
        }
        Ok(())
    }

    fn fault(&self, source: Fault) -> Error {
        Error::Queue { thread: self.thread.clone(), source }
    }

    fn perform(&mut self, router: &Router) {
        while let Some(action) = self.machine.next_action() {
            match action {
                Action::Send(peer, frame) => {
                    if !router.send(peer, frame) {
                        tracing::debug!("an answer was dropped: the socket is behind");
                    }
                }
                Action::Report(report) => self.report(&report),
            }
        }
    }

    fn report(&self, report: &Report) {
        match report {
            Report::Opened { source, durable } => {
                self.stats.sessions.add(1);
                tracing::info!(%source, %durable, "uplink session open");
            }
            Report::Joined(joined) => {
                self.stats.lost.add(joined.lost.unwrap_or(1));
                let (source, after) = (joined.source, joined.after);
                let (committed, lost) = (joined.committed, joined.lost);
                tracing::error!(%source, %after, %committed, ?lost,
                    "this store never got what the source has committed: it went back in time");
            }
            Report::Taken { entries, repeated } => {
                self.stats.batches.add(1);
                self.stats.entries.add(u64::from(*entries));
                self.stats.repeated.add(u64::from(*repeated));
            }
            Report::Nacked { source, code } => {
                let counter = match code {
                    NackCode::Gap => &self.stats.gaps,
                    NackCode::Full => &self.stats.full,
                };
                counter.add(1);
                tracing::debug!(%source, ?code, "source sent back");
            }
            Report::Refused { source, code, reason } => {
                self.stats.refused.add(1);
                tracing::warn!(%source, ?code, reason, "source refused");
            }
            Report::Malformed(error) => {
                self.stats.malformed.add(1);
                tracing::debug!(%error, "malformed frame");
            }
        }
    }
}
