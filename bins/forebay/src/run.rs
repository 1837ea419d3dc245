//! `forebay run`: all tiers in one process, for a laptop or a single node.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use forebay_ops::{
    drain::{self, ShutdownSettings},
    notify,
    tier::{self, TierArgs},
};
use prometheus::Registry;

use crate::node::Config;

/// Runs every tier until SIGTERM or SIGINT drains them; a second one ends at once.
pub(crate) fn run(args: &TierArgs) -> ExitCode {
    tier::run("forebay", args, |config: Config, _, shutdown| {
        let longest = |settings: &[&ShutdownSettings]| {
            settings.iter().map(|one| one.timeout).max().map_or(Duration::ZERO, |one| one.get())
        };
        let ends = [&config.front.shutdown, &config.middle.shutdown, &config.storage.shutdown];
        // One process, one time to end in: the longest of the three.
        let timeout = longest(&ends);
        let message = ends.iter().find_map(|settings| settings.message.clone());
        let middle = match forebay_middle::start(config.middle, &Registry::new(), shutdown.clone())
        {
            Err(error) if error.is_called_off() => {
                tier::ended_early("forebay", message.as_deref(), &shutdown, &error);
                return Ok(());
            }
            started => started?,
        };
        let storage = forebay_storage::start(config.storage, &Registry::new(), shutdown.clone())?;
        let front = match forebay_front::start(config.front, &Registry::new(), &shutdown) {
            Err(error) if error.is_called_off() => {
                tracing::info!(%error, "the front ended before it served");
                None
            }
            started => Some(started?),
        };
        if front.is_some() {
            notify::ready();
        }
        // Has begun if there is no front.
        shutdown.wait();
        notify::stopping();
        let began = Instant::now();
        let rest = || timeout.saturating_sub(began.elapsed());
        // In the order in which they need each other: storage still commits at the middle. None may
        // take the time of those behind it.
        let front = front.map(|front| ("front", front.drain(rest() / 2).remains()));
        let storage = ("storage", storage.drain(rest() * 2 / 3).remains());
        let middle = ("middle", middle.drain(rest())?.remains());
        match front {
            Some(front) => {
                drain::tell(message.as_deref(), &[front, middle, storage], began.elapsed())
            }
            // Of what its other rings hold nobody knows.
            None => drain::tell_early(message.as_deref(), began.elapsed()),
        }
        Ok(())
    })
}
