//! `forebay run`: all tiers in one process, for a laptop or a single node.

use std::process::ExitCode;

use forebay_ops::tier::{self, TierArgs};
use prometheus::Registry;

use crate::node::Config;

/// Runs every tier until SIGTERM or SIGINT drains them; a second one ends at once.
pub(crate) fn run(args: &TierArgs) -> ExitCode {
    tier::run("forebay", args, |config: Config, _, shutdown| {
        // The longest of them: each has it for itself, one after another.
        let deadlines = [
            config.front.drain.deadline.get(),
            config.storage.drain.deadline.get(),
            config.middle.drain.deadline.get(),
        ];
        let middle = forebay_middle::start(config.middle, &Registry::new(), shutdown.clone())?;
        let storage = forebay_storage::start(config.storage, &Registry::new(), shutdown.clone())?;
        let front = forebay_front::start(config.front, &Registry::new(), &shutdown)?;
        shutdown.wait();
        // In the order in which they need each other: storage still commits at the middle.
        let front = front.drain(deadlines[0]);
        let storage = storage.drain(deadlines[1]);
        let middle = middle.drain(deadlines[2])?;
        tracing::info!(?front, ?storage, ?middle, "drained; what is left stays for the next start");
        Ok(())
    })
}
