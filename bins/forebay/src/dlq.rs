//! `forebay dlq ...`: what sinks could not store, and sending it again once the store is mended.
//!
//! `list` and `show` only read. `replay` sends each row under the token of the piece that was
//! refused, so it counts once however often it is sent, and then marks the letter done.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use forebay_storage::{
    Config,
    dead::{DeadLetterFolder, folders, open_sink},
    sink::{DeadLetters, Kept, KeptKind, Outcome, Sink},
};
use serde_json::json;

/// Looks at dead letters, and sends them again.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// List what sinks have set aside.
    List(List),
    /// Show one letter whole.
    Show(Show),
    /// Send rows again to the stores that refused them, and mark them done.
    Replay(Replay),
}

#[derive(Debug, Args)]
struct Place {
    /// The storage tier's configuration; its defaults if absent.
    #[arg(short, long)]
    config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    place: Place,
    /// Those that were stored after all, too.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
struct Show {
    /// Its name, as `list` shows it.
    name: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct Replay {
    /// Names, as `list` shows them; all that are not done if absent.
    names: Vec<String>,
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    match &options.deed {
        Deed::List(options) => list(options),
        Deed::Show(options) => show(options),
        Deed::Replay(options) => replay(options),
    }
}

impl Place {
    fn config(&self) -> Result<Config> {
        forebay_ops::config::load(self.config.as_deref()).context("the storage configuration")
    }
}

/// All letters with the folder they lie in.
fn letters(config: &Config) -> Result<Vec<(DeadLetterFolder, Kept)>> {
    let mut found = Vec::new();
    for folder in folders(config) {
        let path = &folder.path;
        let listed = DeadLetters::list(path);
        let listed = listed.with_context(|| format!("cannot list {}", path.display()))?;
        found.extend(listed.into_iter().map(|kept| (folder.clone(), kept)));
    }
    Ok(found)
}

fn list(options: &List) -> Result<ExitCode> {
    let config = options.place.config()?;
    let mut out = std::io::stdout().lock();
    let mut count = 0;
    for (_, kept) in letters(&config)? {
        if kept.done && !options.all {
            continue;
        }
        count += 1;
        let what = summary(&kept);
        if options.place.json {
            writeln!(out, "{what}")?;
        } else {
            let word = |key: &str| what[key].as_str().unwrap_or("-").to_owned();
            let done = if kept.done { " (done)" } else { "" };
            writeln!(out, "{}{done}", kept.name)?;
            // A device and a store chose these words: nothing in them may move the cursor.
            writeln!(out, "  {} {} {:?}", word("kind"), word("device"), word("reason"))?;
        }
    }
    if !options.place.json {
        writeln!(out, "{count} dead letters")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(kept: &Kept) -> serde_json::Value {
    match (kept.kind, kept.letter()) {
        (KeptKind::Row, Ok(letter)) => json!({
            "name": kept.name, "kind": "row", "done": kept.done, "sink": letter.sink,
            "tenant": letter.tenant, "device": letter.device, "key": letter.key,
            "received_us": letter.received_us, "reason": letter.reason,
        }),
        (KeptKind::Row, Err(error)) => {
            json!({ "name": kept.name, "kind": "damaged", "done": kept.done, "reason": error.to_string() })
        }
        (KeptKind::Entry, _) => {
            let reason = "the entry does not decode";
            json!({ "name": kept.name, "kind": "entry", "done": kept.done, "reason": reason })
        }
    }
}

fn show(options: &Show) -> Result<ExitCode> {
    let config = options.place.config()?;
    let Some(kept) = named(&config, &options.name)? else {
        bail!("no dead letter has the name {}", options.name)
    };
    let mut out = std::io::stdout().lock();
    match kept.kind {
        KeptKind::Row => {
            let letter = kept.letter().with_context(|| path(&kept.path))?;
            writeln!(out, "{}", serde_json::to_string_pretty(&letter)?)?;
        }
        KeptKind::Entry => {
            let bytes = std::fs::read(&kept.path).with_context(|| path(&kept.path))?;
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let shown = json!({ "name": kept.name, "kind": "entry", "bytes": hex });
            writeln!(out, "{}", serde_json::to_string_pretty(&shown)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn named(config: &Config, name: &str) -> Result<Option<Kept>> {
    Ok(letters(config)?.into_iter().map(|(_, kept)| kept).find(|kept| kept.name == name))
}

fn path(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

/// Sends rows again; fails if any is not stored.
fn replay(options: &Replay) -> Result<ExitCode> {
    let config = options.place.config()?;
    let all = letters(&config)?;
    for name in &options.names {
        if !all.iter().any(|(_, kept)| kept.name == *name) {
            bail!("no dead letter has the name {name}");
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut sinks: Vec<(String, Box<dyn Sink>)> = Vec::new();
    let (mut stored, mut refused) = (0, 0);
    let mut out = std::io::stdout().lock();
    for (folder, kept) in all {
        let asked = options.names.is_empty() || options.names.contains(&kept.name);
        if !asked || kept.done || kept.kind != KeptKind::Row {
            continue;
        }
        let place = match sinks.iter().position(|(sink, _)| *sink == folder.sink) {
            Some(place) => place,
            None => {
                let sink = open_sink(&config, &folder.sink).map_err(anyhow::Error::msg)?;
                sinks.push((folder.sink.clone(), sink));
                sinks.len() - 1
            }
        };
        let sent = runtime.block_on(send(&kept, &mut *sinks[place].1));
        if sent.is_ok() {
            kept.mark_done().with_context(|| format!("cannot rename {}", kept.path.display()))?;
            stored += 1;
        } else {
            refused += 1;
        }
        let reason = sent.err();
        if options.place.json {
            let (name, stored) = (&kept.name, reason.is_none());
            writeln!(out, "{}", json!({ "name": name, "stored": stored, "reason": reason }))?;
        } else if let Some(reason) = reason {
            writeln!(out, "{}: {reason:?}", kept.name)?;
        }
    }
    if !options.place.json {
        writeln!(out, "{stored} stored, {refused} not stored")?;
    }
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn send(kept: &Kept, sink: &mut dyn Sink) -> Result<(), String> {
    let letter = kept.letter().map_err(|error| error.to_string())?;
    let rows = letter.rows().map_err(|error| error.to_string())?;
    let encoded = sink.encode(&rows).map_err(|error| error.to_string())?;
    match sink.send(&encoded, &letter.token()).await {
        Outcome::Ack => Ok(()),
        Outcome::Transient(reason) | Outcome::Poison(reason) | Outcome::Misconfigured(reason) => {
            Err(reason)
        }
    }
}
