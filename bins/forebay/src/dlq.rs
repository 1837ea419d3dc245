//! `forebay dlq ...`: what sinks could not store, and sending it again once the store is mended.
//!
//! `list` and `show` only read. `list` also tells of gaps: entries that the middle gave up for a sink,
//! which are no letters and cannot be sent again from here. `replay` sends each row under the token of the piece that was
//! refused, so it counts once however often it is sent, and then marks the letter done. Which sink
//! takes it the letter says itself.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use forebay_model::registry::Registry;
use forebay_storage::{
    Config, dead,
    sink::{DeadLetters, Durability, Gap, Kept, KeptKind, Letter, Outcome, Sink},
};
use serde_json::json;

/// Between two looks at whether a store is still there, while its answer is waited out.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks at dead letters, and sends them again.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// List what sinks have set aside, and the gaps that the middle left them.
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

/// All letters of all sinks.
fn letters(config: &Config) -> Result<Vec<Kept>> {
    let folder = dead::folder(config);
    DeadLetters::list(folder).with_context(|| format!("cannot list {}", folder.display()))
}

fn list(options: &List) -> Result<ExitCode> {
    let config = options.place.config()?;
    let mut out = std::io::stdout().lock();
    let mut count = 0;
    for kept in letters(&config)? {
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
            let (kind, sink) = (word("kind"), word("sink"));
            writeln!(out, "  {kind} {} to {sink} {:?}", word("device"), word("reason"))?;
        }
    }
    let folder = dead::folder(&config);
    let gaps = DeadLetters::gaps(folder);
    let gaps = gaps.with_context(|| format!("cannot read the gaps in {}", folder.display()))?;
    for gap in &gaps {
        if options.place.json {
            writeln!(out, "{}", gap_summary(gap))?;
        } else {
            write_gap(&mut out, gap)?;
        }
    }
    if !options.place.json {
        writeln!(out, "{count} dead letters, {} gaps", gaps.len())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn gap_summary(gap: &Gap) -> serde_json::Value {
    let Gap { sink, queue, after, upto, entries, announced } = gap;
    let announced = announced.as_ref().map(|(first, last)| json!({ "first": first, "last": last }));
    json!({
        "kind": "gap", "sink": sink, "queue": queue, "after": after, "upto": upto,
        "entries": entries, "announced": announced,
    })
}

fn write_gap(out: &mut impl Write, gap: &Gap) -> std::io::Result<()> {
    let Gap { sink, queue, after, upto, entries, announced } = gap;
    let entries = entries.map_or_else(|| "some".to_owned(), |entries| entries.to_string());
    writeln!(out, "{sink} lacks {entries} entries of queue {queue}")?;
    writeln!(out, "  gap after {after} and up to {upto}: the middle gave them up")?;
    if let Some((first, last)) = announced {
        writeln!(out, "  the store may have {first} to {last}: it was about to be stored")?;
    }
    Ok(())
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
    Ok(letters(config)?.into_iter().find(|kept| kept.name == name))
}

fn path(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

/// Sends rows again; fails if any is not stored.
fn replay(options: &Replay) -> Result<ExitCode> {
    let config = options.place.config()?;
    let all = letters(&config)?;
    for name in &options.names {
        if !all.iter().any(|kept| kept.name == *name) {
            bail!("no dead letter has the name {name}");
        }
    }
    let asked = |kept: &Kept| options.names.is_empty() || options.names.contains(&kept.name);
    let is_open = |kept: &Kept| !kept.done && kept.kind == KeptKind::Row && asked(kept);
    let mut stores = Stores::new(&config)?;
    let mut tried = Vec::new();
    for kept in all.into_iter().filter(is_open) {
        let sent = stores.send(&kept);
        tried.push((kept, sent));
    }
    stores.hold();
    let (mut stored, mut refused) = (0, 0);
    let mut out = std::io::stdout().lock();
    for (kept, sent) in tried {
        let reason = sent.and_then(|sink| stores.forgotten(&sink)).err();
        if reason.is_none() {
            kept.mark_done().with_context(|| format!("cannot rename {}", kept.path.display()))?;
            stored += 1;
        } else {
            refused += 1;
        }
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

/// The stores that letters are sent to; each is opened when the first letter names it.
struct Stores<'a> {
    config: &'a Config,
    registry: Arc<Registry>,
    runtime: tokio::runtime::Runtime,
    /// By the name in the letters; one that cannot be opened says why at each.
    sinks: BTreeMap<String, Result<Opened, String>>,
    /// How long the last answer must be waited out until it is worth something.
    hold: Duration,
}

/// A store that letters were sent to.
struct Opened {
    sink: Box<dyn Sink>,
    /// The number of its life before the first letter.
    life: u64,
    /// It may have died since, and have forgotten what it had answered.
    died: bool,
}

impl Opened {
    /// Notes whether the store may have died since the first letter.
    async fn look(&mut self) {
        // Where an answer is worth something at once, a death after it forgets nothing.
        if matches!(self.sink.durability(), Durability::After(_)) {
            self.died |= self.sink.life().await != self.life;
        }
    }
}

impl<'a> Stores<'a> {
    fn new(config: &'a Config) -> Result<Self> {
        let registry = dead::registry(config).map_err(anyhow::Error::msg);
        let registry = registry.context("the device registry")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let sinks = BTreeMap::new();
        Ok(Self { config, registry, runtime, sinks, hold: Duration::ZERO })
    }

    /// Sends one letter; names the sink that took it, or says why it was not taken.
    fn send(&mut self, kept: &Kept) -> Result<String, String> {
        let letter = kept.letter().map_err(|error| error.to_string())?;
        let open = || {
            let mut sink = dead::open_sink(self.config, &letter.sink)?;
            let life = self.runtime.block_on(sink.life());
            Ok(Opened { sink, life, died: false })
        };
        let opened = self.sinks.entry(letter.sink.clone()).or_insert_with(open);
        let opened = opened.as_mut().map_err(|reason| reason.clone())?;
        self.runtime.block_on(send(&letter, &self.registry, &mut *opened.sink))?;
        if let Durability::After(hold) = opened.sink.durability() {
            self.hold = self.hold.max(hold);
        }
        Ok(letter.sink)
    }

    /// Waits where a store answers before its rows survive its death, as the storage tier does, and
    /// notes which stores may have died by then. Cut off here, the letters are not marked and can
    /// be sent again.
    fn hold(&mut self) {
        let end = Instant::now() + self.hold;
        if !self.hold.is_zero() {
            eprintln!("all are sent; {:?} until the store has them on disk", self.hold);
        }
        self.runtime.block_on(async {
            loop {
                let rest = end.saturating_duration_since(Instant::now());
                let mut sinks: Vec<_> = self.sinks.values_mut().flatten().collect();
                for opened in &mut sinks {
                    opened.look().await;
                }
                // There is nothing to wait for once all have died.
                if rest.is_zero() || sinks.iter().all(|opened| opened.died) {
                    return;
                }
                tokio::time::sleep(rest.min(LOOK_EVERY)).await;
            }
        });
    }

    /// Whether a store that took a letter may have forgotten it.
    fn forgotten(&self, sink: &str) -> Result<(), String> {
        match self.sinks.get(sink) {
            Some(Ok(opened)) if opened.died => Err(format!(
                "{sink}: the connection broke before its answer was worth something: \
                 it may have lost the row, send it again"
            )),
            _ => Ok(()),
        }
    }
}

async fn send(
    letter: &Letter,
    registry: &Arc<Registry>,
    sink: &mut dyn Sink,
) -> Result<(), String> {
    let rows = letter.rows(registry.clone()).map_err(|error| error.to_string())?;
    let encoded = sink.encode(&rows).map_err(|error| error.to_string())?;
    match sink.send(&encoded, &letter.token()).await {
        Outcome::Ack => Ok(()),
        Outcome::Transient(reason) | Outcome::Poison(reason) | Outcome::Misconfigured(reason) => {
            Err(reason)
        }
    }
}
