//! The replay server over a ROUTER.

use std::sync::Arc;

use crate::adapter::bind::{Passage, open};
use crate::adapter::router::Router;
use crate::adapter::server::Server;
use crate::adapter::stats::ReplayStats;
use crate::adapter::thread::{Stop, Thread, block_on};
use crate::config::ReplayConfig;
use crate::error::{Error, Fault};
use crate::machine::replay::{Action, Replay, Report};
use crate::pump::PumpConfig;
use crate::seam::{OnFailure, ReplayStore};
use bytes::Bytes;

/// Serves fetches, and the cursors of durable consumers.
pub type ReplayServer = Server<ReplayStats>;

impl Server<ReplayStats> {
    /// Binds and starts the thread. `on_failure` is called on it if the store fails.
    ///
    /// # Errors
    /// The endpoint is malformed, public or taken, or the thread could not be started.
    pub fn start(
        config: ReplayConfig,
        store: impl ReplayStore,
        on_failure: OnFailure,
    ) -> Result<Self, Error> {
        let (door, passage) = open(&config.thread, &config.bind, PumpConfig::for_router())?;
        let stats = Arc::new(ReplayStats::default());
        let (name, shared) = (config.thread.clone(), Arc::clone(&stats));
        let thread = Thread::spawn(&name, on_failure, move |stop| {
            block_on(&config.thread, run(&config, store, passage, stop, &shared))
        })?;
        Ok(Self::new(thread, stats, door))
    }
}

async fn run(
    config: &ReplayConfig,
    mut store: impl ReplayStore,
    passage: Passage,
    mut stop: Stop,
    stats: &ReplayStats,
) -> Result<(), Error> {
    let fault = |source: Fault| Error::Queue { thread: config.thread.clone(), source };
    let mut router = Router::new(passage).await?;
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
