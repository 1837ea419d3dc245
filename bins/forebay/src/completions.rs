//! `forebay completions`: what a shell needs to complete this command.

use std::{io, process::ExitCode};

use anyhow::Result;
use clap::{Args, Command};
use clap_complete::Shell;

/// Prints a completion script for a shell.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The shell.
    shell: Shell,
}

pub(crate) fn run(options: &Options, mut command: Command) -> Result<ExitCode> {
    clap_complete::generate(options.shell, &mut command, "forebay", &mut io::stdout());
    Ok(ExitCode::SUCCESS)
}
