//! `forebay version`: what this executable is and what it speaks.

use std::process::ExitCode;

use anyhow::Result;
use forebay_wire::device::Format;

pub(crate) fn run() -> Result<ExitCode> {
    println!("forebay {}", env!("CARGO_PKG_VERSION"));
    println!("device protocol: {}", Format::ALL.map(Format::subprotocol).join(", "));
    Ok(ExitCode::SUCCESS)
}
