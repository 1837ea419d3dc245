//! `forebay queue dump`: all entries, decoded.

use std::{
    io::{self, BufWriter, Write as _},
    process::ExitCode,
};

use anyhow::Result;
use clap::Args;
use forebay_queue::tools::Image;

use super::{Place, entry};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    place: Place,
    /// At most so many entries, the oldest first.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Only entries that this reader has not committed.
    #[arg(long, value_name = "NAME")]
    reader: Option<String>,
}

pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let image = Image::open(options.place.queue()?)?;
    let above = match &options.reader {
        None => None,
        Some(name) => {
            let readers = image.readers();
            let reader = readers.iter().find(|reader| reader.name == *name);
            Some(reader.ok_or_else(|| anyhow::anyhow!("no reader {name:?}"))?.committed)
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let entries = image.entries().filter(|entry| above.is_none_or(|above| entry.seq > above));
    for one in entries.take(options.limit.unwrap_or(usize::MAX)) {
        if options.place.json {
            writeln!(out, "{}", entry::json(one))?;
        } else {
            writeln!(out, "{}", entry::words(one))?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
