//! The `forebay` command: a demonstration, all tiers in one process or each alone, a device
//! simulator, a live tail, and tools for queues and configurations.
//!
//! One file a subcommand; each returns the exit code.
#![forbid(unsafe_code)]

mod descriptors;
mod rate;
mod sim;
mod version;
mod words;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Device data in over WebSockets, safe on disk before it is acknowledged, into stores at their
/// own pace.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Drive simulated devices against a front and report ack latencies.
    Sim(sim::Options),
    /// Print the version and the protocols.
    Version,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Sim(options) => sim::run(&options),
        Command::Version => version::run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("forebay: {error:#}");
        ExitCode::FAILURE
    })
}
