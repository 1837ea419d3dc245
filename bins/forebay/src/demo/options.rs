//! What `forebay demo` takes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Runs all tiers with simulated devices, then proves that nothing acknowledged was lost.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Simulated devices.
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=15_000))]
    pub(super) devices: u32,
    /// Messages a second of all devices together, or `unlimited`.
    #[arg(long, default_value = "20000", value_name = "N")]
    pub(super) rate: crate::rate::Rate,
    /// Messages one device sends before it waits for an ack.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(super) window: u32,
    /// Bytes of each message on the wire; a text reading fills what the sensor value leaves.
    #[arg(long, default_value_t = 256, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub(super) payload_bytes: u32,
    /// What a message has survived when it is acknowledged.
    #[arg(long, default_value = "disk", value_name = "LEVEL")]
    pub(super) durability: Durability,
    /// Keep the queues and the lake here [default: a new folder, removed after a clean end].
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// Replay the CSV series (`timestamp,value`) below this folder instead of the built-in ones.
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// End after so many seconds of sending [default: on Ctrl-C].
    #[arg(long, value_name = "N")]
    pub(super) seconds: Option<f64>,
    /// Run each tier as a process of its own, and kill and restart them at random.
    #[arg(long)]
    pub(super) chaos: bool,
    /// Repeats the payloads, and the order of the kills [default: random, and printed].
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
    /// End with code 1 unless everything acknowledged is stored, exactly once.
    #[arg(long)]
    pub(super) check: bool,
    /// Print the result as one JSON object on stdout.
    #[arg(long)]
    pub(super) json: bool,
    /// Clients that follow the live feed.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(super) live: u32,
}

/// What a message has survived when it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    /// The death of the process that took it.
    Process,
    /// The death of the machine.
    Disk,
}

impl Durability {
    /// The word of the option.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Disk => "disk",
        }
    }
}
