//! Our front beside what users would pick instead: Redis Streams and NATS JetStream, each a real
//! server in a process of its own, the same messages, the same generator of load, the same run.
//!
//! `cargo bench -p forebay-benches --features peers --bench peers [-- rate loss --json --rounds 3
//! --seconds 1 --dir D]`
//!
//! Messages of 250 bytes; 1, 100 and 1,000 connections with 1 or 64 messages each on their way. Like
//! is compared with like: acked once it is safe from a kill of the process (`process`), or once it
//! is on the medium (`disk`). `loss` counts what is left of acked messages after a kill -9, and
//! after a power cut as the file system sees it (root only). Another broker is another file in
//! `peers/` and a line in `peers/broker.rs`.
//!
//! Our front decodes and checks every message, and sends it on to a middle that only counts; the
//! others keep it as opaque bytes. Both CPUs serve the server and the generator.

#[path = "peers/broker.rs"]
mod broker;
#[path = "peers/forebay.rs"]
mod forebay;
#[path = "peers/loss.rs"]
mod loss;
#[path = "peers/nats.rs"]
mod nats;
#[path = "peers/redis.rs"]
mod redis;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use clap::Parser;
use forebay_benches::{
    Goal, Report,
    load::{Crowd, Flow, Pace, Target},
    median,
    options::{Place, Shown},
    process, served,
};

use broker::{BROKERS, Kind, Safe};

const CONNECTIONS: [usize; 3] = [1, 100, 1000];
const WINDOWS: [u32; 2] = [1, 64];

/// Measures our front beside other brokers.
#[derive(Parser)]
struct Options {
    /// What is measured.
    #[arg(default_values = ["rate", "loss"], value_parser = ["rate", "loss"])]
    parts: Vec<String>,
    /// Of each run.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Runs of which the median is taken.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    shown: Shown,
}

/// One run and what it cost the server.
struct Run {
    flow: Flow,
    cpu_per_million: f64,
}

/// The medians of one broker in one setting.
#[derive(Debug, Clone, Copy)]
struct Medians {
    rate: f64,
    cpu_per_million: f64,
}

fn main() -> Result<()> {
    if served::serve_if_asked()? {
        return Ok(());
    }
    let options = Options::parse();
    let report = options.shown.report();
    for part in &options.parts {
        match part.as_str() {
            "rate" => rate(&options, &report)?,
            "loss" => loss::measure(&report)?,
            other => unreachable!("{other} is no part"),
        }
    }
    Ok(())
}

fn rate(options: &Options, report: &Report) -> Result<()> {
    for connections in CONNECTIONS {
        let mut seen: BTreeMap<(u32, usize), Medians> = BTreeMap::new();
        for (place, kind) in BROKERS.iter().enumerate() {
            for (window, medians) in WINDOWS.iter().zip(run(options, report, kind, connections)?) {
                seen.insert((*window, place), medians);
            }
        }
        for window in WINDOWS {
            for safe in [Safe::Process, Safe::Disk] {
                compare(report, &seen, (safe, connections, window));
            }
        }
    }
    Ok(())
}

/// Our medians beside those of the others that promise as much or less of the same.
fn compare(
    report: &Report,
    seen: &BTreeMap<(u32, usize), Medians>,
    (safe, connections, window): (Safe, usize, u32),
) {
    let of = |ours: bool| {
        BROKERS.iter().enumerate().filter(move |(_, kind)| kind.safe == safe && kind.ours == ours)
    };
    let medians = |(place, _): (usize, &Kind)| seen[&(window, place)];
    let Some(ours) = of(true).map(medians).next() else { return };
    let best = |of_one: fn(&Medians) -> f64, better: fn(f64, f64) -> f64| {
        of(false).map(medians).map(|one| of_one(&one)).reduce(better)
    };
    let name =
        |what: &str| format!("{}, {connections} connections, window {window}: {what}", safe.name());
    if let Some(best) = best(|one| one.rate, f64::max) {
        report.add(&name("ours"), ours.rate / best, "x the best", Goal::AtLeast(1.0));
    }
    if let Some(least) = best(|one| one.cpu_per_million, f64::min) {
        let ratio = ours.cpu_per_million / least;
        report.add(&name("CPU of ours"), ratio, "x the least", Goal::AtMost(1.0 / 3.0));
    }
}

/// All windows of one broker; a fresh server.
fn run(
    options: &Options,
    report: &Report,
    kind: &Kind,
    connections: usize,
) -> Result<Vec<Medians>> {
    let folder = options.place.folder()?;
    let mut broker = (kind.start)(folder.path(), true)
        .with_context(|| format!("{} did not start", kind.name))?;
    let target = Target::plain(broker.address());
    let mut all = Vec::new();
    {
        let mut crowd = Crowd::connect(broker.speech(), &target, 0, connections)?;
        let time = Duration::from_secs_f64(options.seconds);
        for window in WINDOWS {
            let pace = Pace::Window(window);
            crowd.flow(pace, time / 3)?;
            let mut runs = Vec::new();
            for _ in 0..options.rounds {
                let before = process::cpu_seconds(broker.pid())?;
                let flow = crowd.flow(pace, time)?;
                let spent = process::cpu_seconds(broker.pid())? - before;
                let cpu_per_million = spent * 1e6 / flow.messages as f64;
                runs.push(Run { flow, cpu_per_million });
            }
            let name = |what: &str| {
                let (safe, kind) = (kind.safe.name(), kind.name);
                format!("{safe}, {connections} x {window}, {kind}: {what}")
            };
            let rounds = |of: fn(&Run) -> f64| runs.iter().map(of).collect::<Vec<f64>>();
            let rates = rounds(|run| run.flow.rate());
            report.add_rounds(&name("acked"), &rates, "messages/s", Goal::None);
            for (part, of) in [
                ("ack p50", (|run| run.flow.quantile_ms(0.5)) as fn(&Run) -> f64),
                ("ack p99", |run| run.flow.quantile_ms(0.99)),
            ] {
                report.add_rounds(&name(part), &rounds(of), "ms", Goal::None);
            }
            let cpu = rounds(|run| run.cpu_per_million);
            report.add_rounds(&name("CPU"), &cpu, "s/million", Goal::None);
            all.push(Medians { rate: median(rates), cpu_per_million: median(cpu) });
        }
    }
    broker.kill()?;
    Ok(all)
}
