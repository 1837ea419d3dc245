//! `forebay queue drain`: prints what a reader has not committed, and commits it.

use std::{
    io::{self, BufWriter, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use forebay_ops::tls::MutualTls;
use forebay_queue::{Durability, tools};

use super::{Place, entry, hand_over};
use crate::words::thousands;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    place: Place,
    /// The reader whose entries are taken, as `queue stat` names it.
    #[arg(long, value_name = "NAME", default_value = "forwarder")]
    reader: String,
    /// Only say how many there are to take; commit nothing.
    #[arg(long)]
    dry_run: bool,
    /// Hand the entries of a front's ring to the middle at this endpoint, instead of printing them;
    /// each is committed once it is durable there.
    #[arg(long, value_name = "ENDPOINT", conflicts_with_all = ["reader", "dry_run"])]
    to: Option<String>,
    /// With --to, where there are several middles: the names of all partitions of the installation.
    #[arg(long, value_name = "NAME", requires = "to", value_delimiter = ',')]
    partition: Vec<String>,
    /// With --to: a middle that survives its process but not its machine will do.
    #[arg(long, requires = "to")]
    accept_process: bool,
    /// With --to: the longest time it may take; exit 75 if something is left then.
    #[arg(long, value_name = "TIME", requires = "to", default_value = "60s")]
    timeout: forebay_ops::Duration,
    #[command(flatten)]
    tls: Tls,
}

/// Certificates for a middle that speaks mutual TLS, as `uplink.tls` of a front names them.
#[derive(Debug, Args)]
struct Tls {
    /// With --to: PEM file of this end's certificate and its chain.
    #[arg(long, value_name = "FILE", requires_all = ["to", "key", "ca"])]
    certificate: Option<PathBuf>,
    /// PEM file of its private key.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// PEM file of the authorities that the middle's certificate must come from.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    ca: Option<PathBuf>,
    /// PEM file of revocation lists, one from each of the authorities.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    crl: Option<PathBuf>,
}

impl Tls {
    fn settings(&self) -> MutualTls {
        let file = |path: &Option<PathBuf>| path.clone().unwrap_or_default();
        MutualTls {
            certificate: file(&self.certificate),
            key: file(&self.key),
            ca: file(&self.ca),
            crl: file(&self.crl),
        }
    }
}

pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let dir = options.place.queue()?;
    if let Some(to) = &options.to {
        let target = hand_over::Target {
            to,
            partitions: &options.partition,
            accept_process: options.accept_process,
            timeout: options.timeout.get(),
            tls: options.tls.settings(),
            json: options.place.json,
        };
        return hand_over::run(&dir, &target);
    }
    // A misspelt name would make a new reader, which then holds the space of all entries.
    let image = tools::Image::open(&dir)?;
    let readers = image.readers();
    let reader = readers.iter().find(|reader| reader.name == options.reader);
    let reader = reader.with_context(|| {
        let names: Vec<&str> = readers.iter().map(|reader| reader.name.as_str()).collect();
        format!("no reader {:?}; there are: {}", options.reader, names.join(", "))
    })?;
    if options.dry_run {
        let count = image.entries().filter(|entry| entry.seq > reader.committed).count();
        println!("{}", thousands(count as u64));
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(!image.is_live(), forebay_queue::Error::Locked { path: dir });
    drop(image);
    let mut out = BufWriter::new(io::stdout().lock());
    let mut failed = None;
    // The level only concerns new entries, and none is appended; a cursor is synced in any case.
    let level = forebay_queue::Options {
        durability: Durability::Process,
        any_filesystem: true,
        ..forebay_queue::Options::default()
    };
    let count = tools::drain(&dir, &level, &options.reader, |one| {
        let line =
            if options.place.json { entry::json(one).to_string() } else { entry::words(one) };
        // Flushed before it counts as taken: what nobody got stays in the queue.
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Ok(()) => true,
            Err(error) => {
                failed = Some(error);
                false
            }
        }
    })?;
    eprintln!("{} entries drained", thousands(count));
    match failed {
        Some(error) => Err(error).context("the rest stays in the queue"),
        None => Ok(ExitCode::SUCCESS),
    }
}
