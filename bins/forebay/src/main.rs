//! The `forebay` command: a demonstration, all tiers in one process or each alone, a device
//! simulator, a live tail, and tools for queues and configurations.
//!
//! One file a subcommand; each returns the exit code.
#![forbid(unsafe_code)]

mod admin;
mod check;
mod completions;
mod config;
mod credentials;
mod demo;
mod descriptors;
mod dlq;
mod drain;
mod health;
mod keys;
mod node;
#[cfg(test)]
mod page;
mod place;
mod process;
mod queue;
mod rate;
mod run;
mod scrape;
mod sim;
mod tail;
mod tier;
mod top;
mod version;
mod words;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use forebay_ops::tier::TierArgs;

/// A deadline has passed, or somebody else has it: try again later (`EX_TEMPFAIL` of sysexits.h).
const EXIT_LATE: u8 = 75;

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
    /// Show all tiers at work with simulated devices, and prove that nothing acknowledged is lost.
    Demo(demo::Options),
    /// Run all tiers in this process, from a configuration with `[front] [middle] [storage]`.
    Run(TierArgs),
    /// Run a front: devices in, acknowledgements out.
    Front(tier::Options),
    /// Run a middle: fan-in from fronts, fan-out to storage.
    Middle(tier::Options),
    /// Run a storage tier: the lake, last values, the live feed.
    Storage(tier::Options),
    /// Drive simulated devices against a front and report ack latencies.
    Sim(sim::Options),
    /// Follow the live feed from a terminal.
    Tail(tail::Options),
    /// Make, rotate, revoke and list the API keys of devices and readers.
    Keys(keys::Options),
    /// Look at a queue, live or orphaned; mend or empty one that nobody has open.
    Queue(queue::Options),
    /// Look at rows that stores refused, and send them again.
    Dlq(dlq::Options),
    /// Check or print a configuration.
    Config(config::Options),
    /// Say whether tiers are well and ready, by exit code: a container's health check.
    Health(health::Options),
    /// Show all tiers at a glance: rates, depths, ages, ack times, sinks, live readers.
    Top(top::Options),
    /// Tell how old the oldest unstored message is, per tier and sink, and where one message is.
    Where(place::Options),
    /// Check that everything accepted is stored, set aside, or still on its way, and say where not.
    Check(check::Options),
    /// Take a running tier out of service before it is scaled in, or put it back.
    Drain(drain::Options),
    /// Print a completion script for a shell.
    Completions(completions::Options),
    /// Print the version and the protocols.
    Version(version::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Run(args) => Ok(run::run(&args)),
        Command::Front(options) => Ok(tier::front(&options)),
        Command::Middle(options) => Ok(tier::middle(&options)),
        Command::Storage(options) => Ok(tier::storage(&options)),
        Command::Sim(options) => sim::run(&options),
        Command::Tail(options) => tail::run(&options),
        Command::Keys(options) => keys::run(&options),
        Command::Queue(options) => queue::run(&options),
        Command::Dlq(options) => dlq::run(&options),
        Command::Config(options) => config::run(&options),
        Command::Health(options) => health::run(&options),
        Command::Top(options) => top::run(&options),
        Command::Where(options) => place::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Drain(options) => drain::run(&options),
        Command::Completions(options) => completions::run(&options, Cli::command()),
        Command::Version(options) => version::run(&options),
    };
    result.unwrap_or_else(|error| {
        eprintln!("forebay: {error:#}");
        ExitCode::FAILURE
    })
}
