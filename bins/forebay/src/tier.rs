//! `forebay front | middle | storage`: the same library mains as the thin binaries.

use std::process::ExitCode;

use clap::Args;
use forebay_ops::tier::{self, TierArgs};
use rustix::process::{Signal, set_parent_process_death_signal};

/// Runs this tier until SIGTERM or SIGINT; a second one ends it at once.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    tier: TierArgs,
    /// End when the process that started this one ends; a demo's children do.
    #[arg(long, hide = true)]
    with_parent: bool,
}

impl Options {
    /// Whoever started us must not leave us behind, however it ends.
    fn follow_parent(&self) {
        if self.with_parent {
            // A kernel that refuses leaves us where we would be without it.
            let _ = set_parent_process_death_signal(Some(Signal::KILL));
        }
    }
}

pub(crate) fn front(options: &Options) -> ExitCode {
    options.follow_parent();
    tier::run("front", &options.tier, |config: forebay_front::Config, registry, shutdown| {
        forebay_front::run(config, registry, &shutdown)
    })
}

pub(crate) fn middle(options: &Options) -> ExitCode {
    options.follow_parent();
    tier::run("middle", &options.tier, |config: forebay_middle::Config, registry, shutdown| {
        forebay_middle::run(config, registry, shutdown)
    })
}

pub(crate) fn storage(options: &Options) -> ExitCode {
    options.follow_parent();
    tier::run("storage", &options.tier, |config: forebay_storage::Config, registry, shutdown| {
        forebay_storage::run(config, registry, shutdown)
    })
}
