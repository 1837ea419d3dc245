//! The replay server over a ROUTER.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use zeromq::Listener;

use crate::adapter::bind::{Door, open};
use crate::adapter::router::Router;
use crate::adapter::stats::ReplayStats;
use crate::adapter::thread::{Stop, Thread, block_on};
use crate::config::ReplayConfig;
use crate::error::{Error, Fault};
use crate::machine::replay::{Action, Replay, Report};
use crate::pump::{PumpConfig, PumpStats};
use crate::seam::{OnFailure, ReplayStore};

/// Serves fetches, and the cursors of durable consumers.
#[derive(Debug)]
pub struct ReplayServer {
    thread: Thread,
    stats: Arc<ReplayStats>,
    door: Door,
}

impl ReplayServer {
    /// Binds and starts the thread. `on_failure` is called on it if the store fails.
    ///
    /// # Errors
    /// The endpoint is malformed, public or taken, or the thread could not be started.
    pub fn start(
        config: ReplayConfig,
        store: impl ReplayStore,
        on_failure: OnFailure,
    ) -> Result<Self, Error> {
        let (door, listener) = open(&config.thread, &config.bind, PumpConfig::for_router())?;
        let stats = Arc::new(ReplayStats::default());
        let (name, shared) = (config.thread.clone(), Arc::clone(&stats));
        let thread = Thread::spawn(&name, on_failure, move |stop| {
            block_on(&config.thread, run(&config, store, listener, stop, &shared))
        })?;
        Ok(Self { thread, stats, door })
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> Arc<ReplayStats> {
        Arc::clone(&self.stats)
    }

    /// The endpoint, with the port that was bound.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.door.endpoint
    }

    /// The address that was bound; `None` for a Unix socket.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        self.door.address
    }

    /// What the pump before it has done so far; `None` without one.
    #[must_use]
    pub fn pump(&self) -> Option<Arc<PumpStats>> {
        self.door.pump()
    }

    /// Ends the thread.
    ///
    /// # Errors
    /// [`Error::Deadline`] if the thread did not end in time: it is left behind.
    pub fn stop(self, deadline: Duration) -> Result<(), Error> {
        let closed = self.door.close(deadline);
        self.thread.stop(deadline).and(closed)
    }
}

async fn run(
    config: &ReplayConfig,
    mut store: impl ReplayStore,
    listener: Listener,
    mut stop: Stop,
    stats: &ReplayStats,
) -> Result<(), Error> {
    let fault = |source: Fault| Error::Queue { thread: config.thread.clone(), source };
    let mut router = Router::new(listener).await?;
    let mut machine = Replay::<Bytes>::new(config);
    loop {
        let (peer, frame) = tokio::select! {
            biased;
            () = stop.set() => return Ok(()),
            received = router.receive() => match received {
                Some(received) => received,
                None => return Err(fault("the socket ended".into())),
            },
        };
        machine.frame(&peer, &frame, &mut store).map_err(fault)?;
        while let Some(action) = machine.next_action() {
            match action {
                Action::Send(peer, frame) => {
                    if !router.send(peer, frame) {
                        tracing::debug!("an answer was dropped: the socket is behind");
                    }
                }
                Action::Report(report) => tell(stats, &report),
            }
        }
        // The socket's own tasks run on this thread: let them write.
        tokio::task::yield_now().await;
    }
}

fn tell(stats: &ReplayStats, report: &Report) {
    match report {
        Report::Fetched { records, bytes } => {
            stats.fetches.add(1);
            stats.records.add(*records);
            stats.bytes.add(*bytes);
        }
        Report::Granted { consumer, session, committed } => {
            stats.sessions.add(1);
            tracing::info!(consumer, session, %committed, "consumer session open");
        }
        Report::Prepared => stats.prepares.add(1),
        Report::Committed => stats.commits.add(1),
        Report::Fenced { consumer, session, newest } => {
            stats.fenced.add(1);
            tracing::warn!(consumer, session, newest, "an older session was refused");
        }
        Report::Malformed(error) => {
            stats.malformed.add(1);
            tracing::debug!(%error, "malformed frame");
        }
    }
}
