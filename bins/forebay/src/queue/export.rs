//! `forebay queue export`: all intact entries as lines of JSON.

use std::{
    fs::File,
    io::{self, BufWriter},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Args;
use forebay_queue::tools::Image;

use super::Place;
use crate::words::thousands;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    place: Place,
    /// Write to this new file instead of stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let image = Image::open(options.place.queue()?)?;
    let count = match &options.out {
        None => image.export(&mut BufWriter::new(io::stdout().lock()))?,
        Some(path) => {
            let file = File::create_new(path)
                .with_context(|| format!("cannot make {}", path.display()))?;
            let mut out = BufWriter::new(file);
            let count = image.export(&mut out)?;
            out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            count
        }
    };
    eprintln!("{} entries exported", thousands(count));
    Ok(ExitCode::SUCCESS)
}
