//! What the command lines of all benchmarks have in common.

use std::{io, path::PathBuf};

use clap::Args;
use tempfile::TempDir;

use crate::Report;

/// How figures are shown.
#[derive(Debug, Args)]
pub struct Shown {
    /// Print each figure as a JSON object on a line of its own.
    #[arg(long)]
    json: bool,
    /// Said by Cargo to whatever it runs.
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

impl Shown {
    /// What takes the figures.
    #[must_use]
    pub fn report(&self) -> Report {
        Report { json: self.json }
    }
}

/// Where a run keeps its files.
#[derive(Debug, Args)]
pub struct Place {
    /// A folder on the medium to be measured [default: that of temporary files].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Place {
    /// A folder for one run, gone with the value.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn folder(&self) -> io::Result<TempDir> {
        match &self.dir {
            Some(dir) => tempfile::tempdir_in(dir),
            None => tempfile::tempdir(),
        }
    }
}
