//! `forebay queue tail`: the newest entries, and those to come.

use std::{
    collections::VecDeque,
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use forebay_ops::Shutdown;
use forebay_queue::{Entry, Seq, tools::Image};

use super::{Place, entry};

/// How often a live queue is looked at again: each look copies the ring.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    place: Place,
    /// How many of the newest entries.
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
    entries: usize,
    /// Go on with the entries to come, until Ctrl-C. Those that are reclaimed between two looks
    /// are told as a gap.
    #[arg(short, long)]
    follow: bool,
}

pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let dir = options.place.queue()?;
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let mut last = show(options, &Image::open(&dir)?, None)?;
    while options.follow && !shutdown.wait_timeout(LOOK_EVERY) {
        last = show(options, &Image::open(&dir)?, Some(last))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows the newest entries, or all above `after`; returns the last one shown or known.
fn show(options: &Options, image: &Image, after: Option<Seq>) -> Result<Seq> {
    let mut out = io::stdout().lock();
    let mut print = |one: Entry<'_>| {
        if options.place.json {
            writeln!(out, "{}", entry::json(one))
        } else {
            writeln!(out, "{}", entry::words(one))
        }
    };
    let Some(after) = after else {
        let mut newest = VecDeque::with_capacity(options.entries.min(1 << 16) + 1);
        for one in image.entries() {
            newest.push_back(one);
            if newest.len() > options.entries {
                newest.pop_front();
            }
        }
        newest.into_iter().try_for_each(print)?;
        return Ok(image.last());
    };
    let mut before = after;
    for one in image.entries().filter(|one| one.seq > after) {
        if !one.seq.follows(before) && before != Seq::NONE {
            eprintln!("-- gap: {before} to {}", one.seq);
        }
        before = one.seq;
        print(one)?;
    }
    Ok(image.last().max(after))
}
