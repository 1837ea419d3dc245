//! `forebay version`: what this executable is and what it speaks.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use forebay_wire::{device::Format, frame};
use serde_json::json;

/// Prints the version and the protocols.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    let device = Format::ALL.map(Format::subprotocol);
    let (reads, writes) = (frame::VERSION_MIN, frame::VERSION);
    if options.json {
        let between = json!({ "writes": writes, "reads_from": reads });
        let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        let debug = cfg!(debug_assertions);
        println!(
            "{}",
            json!({
                "version": version, "device_protocols": device, "between_tiers": between,
                "target": target, "debug_build": debug,
            })
        );
    } else {
        println!("forebay {version}");
        println!("device protocol: {}", device.join(", "));
        println!("between tiers: writes version {writes}, reads from {reads} on");
    }
    Ok(ExitCode::SUCCESS)
}
