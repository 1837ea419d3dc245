//! `forebay config check | print`: a configuration without running it.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Subcommand};
use forebay_ops::config::{self, ConfigError, Settings};

use crate::{admin::Tier, node};

/// Checks or prints a configuration.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// Say everything that is wrong with a configuration; exit 78 if anything is.
    Check(Which),
    /// Print the settings in effect as TOML, defaults and environment included.
    Print(Which),
}

#[derive(Debug, Args)]
struct Which {
    /// The TOML file [default: the defaults and the environment alone].
    file: Option<PathBuf>,
    /// The same, as the commands that run it have it.
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Whose configuration it is.
    #[arg(long, default_value = "node")]
    tier: Tier,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let (which, print) = match &options.deed {
        Deed::Check(which) => (which, false),
        Deed::Print(which) => (which, true),
    };
    let done = match which.tier {
        Tier::Node => go::<node::Config>(which, print),
        Tier::Front => go::<forebay_front::Config>(which, print),
        Tier::Middle => go::<forebay_middle::Config>(which, print),
        Tier::Storage => go::<forebay_storage::Config>(which, print),
    };
    Ok(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forebay: {error}");
            ExitCode::from(error.exit_code())
        }
    })
}

fn go<C: Settings>(which: &Which, print: bool) -> Result<(), ConfigError> {
    let config: C =
        config::load(which.file.as_ref().or(which.config.as_ref()).map(PathBuf::as_path))?;
    if print {
        print!("{}", config::to_toml(&config)?);
    } else {
        eprintln!("no fault found");
    }
    Ok(())
}
