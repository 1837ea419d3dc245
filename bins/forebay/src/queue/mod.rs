//! `forebay queue ...`: looks at the queue of a front or a middle, live or orphaned, and mends it.
//!
//! Looking takes no lock and changes nothing. Exit codes: 65 if the queue is corrupt, 75 if it is
//! locked by a running tier or a deadline has passed, 1 for the rest.

mod drain;
mod dump;
mod entry;
mod export;
mod hand_over;
mod ls;
mod repair;
mod stat;
mod tail;
mod verify;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use forebay_queue::Error;

use crate::EXIT_LATE;

/// Stored bytes are damaged (`EX_DATAERR` of sysexits.h).
const EXIT_CORRUPT: u8 = 65;
/// The file of a queue's directory.
const RING: &str = "ring";

/// Looks at a queue, live or orphaned; mends or empties one that nobody has open.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// List every queue below a directory; exit 65 if one is damaged.
    Ls(ls::Options),
    /// Show what a queue holds and how far each reader is.
    Stat(Place),
    /// Show the newest entries, and with --follow those to come.
    Tail(tail::Options),
    /// Show all entries, decoded.
    Dump(dump::Options),
    /// Check every byte; exit 65 if anything promised is damaged.
    Verify(Place),
    /// Mend a damaged queue that nobody has open, after making a copy beside it.
    Repair(Place),
    /// Print what a reader has not committed, or hand it to a middle, and commit it. Nobody may
    /// have the queue open.
    Drain(drain::Options),
    /// Write all intact entries as lines of JSON, payloads in hexadecimal.
    Export(export::Options),
}

/// Which queue.
#[derive(Debug, Args)]
struct Place {
    /// Directory of the queue, or a directory that has only one, such as forebay-data/front.
    dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let done = match &options.deed {
        Deed::Ls(options) => ls::run(options),
        Deed::Stat(place) => stat::run(place),
        Deed::Tail(options) => tail::run(options),
        Deed::Dump(options) => dump::run(options),
        Deed::Verify(place) => verify::run(place),
        Deed::Repair(place) => repair::run(place),
        Deed::Drain(options) => drain::run(options),
        Deed::Export(options) => export::run(options),
    };
    let error = match done {
        Err(error) => error,
        done => return done,
    };
    if let Some(gone) = error.downcast_ref::<std::io::Error>()
        && gone.kind() == std::io::ErrorKind::BrokenPipe
    {
        // `forebay queue dump | head` is a way to end it.
        return Ok(ExitCode::SUCCESS);
    }
    let code = match error.downcast_ref::<Error>() {
        Some(Error::Locked { .. }) => EXIT_LATE,
        Some(Error::Corrupt { .. }) => EXIT_CORRUPT,
        _ => return Err(error),
    };
    eprintln!("forebay: {error:#}");
    Ok(ExitCode::from(code))
}

impl Place {
    /// The directory of the queue itself.
    fn queue(&self) -> Result<PathBuf> {
        find(&self.dir)
    }
}

/// A queue's directory: this one, or the only one in it.
fn find(dir: &Path) -> Result<PathBuf> {
    if dir.join(RING).exists() {
        return Ok(dir.to_owned());
    }
    let listed = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut queues: Vec<PathBuf> = listed
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join(RING).exists())
        .collect();
    queues.sort();
    match queues.len() {
        0 => bail!("no queue in {}", dir.display()),
        1 => Ok(queues.remove(0)),
        _ => {
            let names: Vec<String> = queues.iter().map(|path| path.display().to_string()).collect();
            bail!("several queues in {}: choose one of {}", dir.display(), names.join(", "))
        }
    }
}
