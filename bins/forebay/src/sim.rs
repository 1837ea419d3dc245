//! `forebay sim`: a fleet of simulated devices against any front.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;
use forebay_fleet::{
    checker::{Checker, Verdict, lake},
    fleet::{Fleet, Plan, Progress, Roaming},
    journal::Journal,
    latency::Summary,
    script::Script,
    series::{self, Series},
};
use forebay_ops::Shutdown;
use serde::Serialize;

use crate::{
    credentials::Credentials,
    descriptors,
    rate::Rate,
    words::{micros, thousands},
};

/// How long the end waits for acks, and then for the lake.
const PATIENCE: Duration = Duration::from_secs(60);
/// A lake gets its files some seconds after the acks: how often it is reread until then.
const REREAD_EVERY: Duration = Duration::from_secs(1);

/// Drives simulated devices against one or several fronts and reports ack latencies.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// WebSocket address of a front; several share the devices.
    #[arg(long, default_value = "ws://127.0.0.1:7400", value_name = "URL")]
    url: Vec<String>,
    /// Simulated devices.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    /// Messages a second of all devices together, or `unlimited`.
    #[arg(long, default_value = "1000", value_name = "N")]
    rate: Rate,
    /// Seconds over which the devices connect.
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS")]
    ramp: f64,
    /// Seconds of sending [default: until Ctrl-C].
    #[arg(long, value_name = "SECONDS")]
    duration: Option<f64>,
    /// Replay the CSV series (`timestamp,value`) below this folder instead of the built-in ones.
    #[arg(long, value_name = "DIR")]
    replay: Option<PathBuf>,
    /// Leave out the times that the series were recorded at: each reading is as of its arrival.
    #[arg(long)]
    untimed: bool,
    /// Bytes of each message on the wire; a text reading fills what the sensor value leaves.
    #[arg(long, default_value_t = 0, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(0..=60_000))]
    payload_bytes: u32,
    /// Messages one device sends before it waits for an ack.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    window: u32,
    /// Threads that carry the devices [default: half the CPUs].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Every second device goes on to the next front when its connection ends.
    #[arg(long)]
    roam: bool,
    /// Repeats the payloads.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Reread the lake in this folder at the end and compare; exit 1 if anything is wrong.
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = "forebay-data/storage/lake")]
    verify: Option<PathBuf>,
    #[command(flatten)]
    credentials: Credentials,
    /// Print the result as one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// What the fleet lived through.
#[derive(Debug, Serialize)]
struct Report {
    devices: u32,
    seconds: f64,
    sent: u64,
    acked: u64,
    unacked: u64,
    resent: u64,
    rejected: u64,
    nacked: u64,
    reconnects: u64,
    refused: u64,
    messages_per_second: f64,
    ack_p50_us: u64,
    ack_p99_us: u64,
    ack_p999_us: u64,
    ack_max_us: u64,
    fleet_cpu_seconds: f64,
    seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    verify: Option<Verdict>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    descriptors::make_room(options.devices.into())?;
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let seed = options.seed.unwrap_or_else(|| rand::random::<u32>().into());
    let script =
        Script::new(series(options.replay.as_deref())?, options.payload_bytes as usize, seed);
    let script = if options.untimed { script.untimed() } else { script };
    let (script, journal) = (Arc::new(script), Arc::new(Journal::default()));
    let defaults = Plan::default();
    let plan = Plan {
        fronts: options.url.clone(),
        devices: options.devices,
        rate: options.rate.0,
        window: options.window,
        ramp: Duration::try_from_secs_f64(options.ramp).context("--ramp")?,
        threads: options.threads.unwrap_or(defaults.threads),
        roaming: if options.roam { Roaming::Half } else { Roaming::None },
        tokens: options.credentials.tokens()?,
        tls: options.credentials.tls()?,
    };
    let mut fleet = Fleet::start(plan, Arc::clone(&script), Arc::clone(&journal))
        .context("cannot start the devices")?;
    let started = Instant::now();
    let end = match options.duration {
        Some(seconds) => {
            Some(started + Duration::try_from_secs_f64(seconds).context("--duration")?)
        }
        None => None,
    };
    watch(&mut fleet, &shutdown, started, end, options.devices);
    let (seconds, during) = (started.elapsed().as_secs_f64(), fleet.progress());
    fleet.stop_sending();
    fleet.wait_acked(PATIENCE);
    let mut report = report(&fleet, options.devices, seconds, during, seed);
    report.fleet_cpu_seconds = fleet.end().cpu_seconds;
    if let Some(folder) = &options.verify {
        report.verify = Some(verify(folder, &script, &journal)?);
    }
    // Nothing acknowledged proves nothing.
    let clean = report.acked > 0
        && report.unacked == 0
        && report.verify.as_ref().is_none_or(Verdict::is_clean);
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The series to replay: those of a folder, or the built-in ones.
pub(crate) fn series(folder: Option<&std::path::Path>) -> Result<Vec<Series>> {
    match folder {
        Some(folder) => series::load(folder).context("cannot replay"),
        None => Ok(series::builtin()),
    }
}

/// A line a second on stderr until the time or the user ends it.
fn watch(
    fleet: &mut Fleet,
    shutdown: &Shutdown,
    started: Instant,
    end: Option<Instant>,
    devices: u32,
) {
    let mut before = Progress::default();
    for second in 1.. {
        let next = started + Duration::from_secs(second);
        let until = end.map_or(next, |end| end.min(next));
        let over = shutdown.wait_timeout(until.saturating_duration_since(Instant::now()));
        if over || end.is_some_and(|end| Instant::now() >= end) {
            return;
        }
        let (now, waits) = (fleet.progress(), fleet.latency_since());
        eprintln!("{}", line(second, devices, before, now, waits));
        before = now;
    }
}

fn line(second: u64, devices: u32, before: Progress, now: Progress, waits: Summary) -> String {
    format!(
        "{second:>4}s  {}/{devices} devices  sent {}/s  acked {}/s  ack p50 {} p99 {}  in flight {}  \
         resent {}",
        now.connected,
        thousands(now.sent - before.sent),
        thousands(now.acked - before.acked),
        micros(waits.p50_us),
        micros(waits.p99_us),
        thousands(now.sent.saturating_sub(now.acked)),
        thousands(now.resent),
    )
}

fn report(fleet: &Fleet, devices: u32, seconds: f64, during: Progress, seed: u64) -> Report {
    let (progress, waits) = (fleet.progress(), fleet.latency());
    Report {
        devices,
        seconds,
        sent: progress.sent,
        acked: progress.acked,
        unacked: progress.sent - progress.acked,
        resent: progress.resent,
        rejected: progress.rejected,
        nacked: progress.nacked,
        reconnects: progress.reconnects,
        refused: progress.refused,
        messages_per_second: during.acked as f64 / seconds,
        ack_p50_us: waits.p50_us,
        ack_p99_us: waits.p99_us,
        ack_p999_us: waits.p999_us,
        ack_max_us: waits.max_us,
        fleet_cpu_seconds: 0.0,
        seed,
        verify: None,
    }
}

/// Rereads the lake until everything acknowledged is there, or patience ends.
fn verify(folder: &std::path::Path, script: &Script, journal: &Journal) -> Result<Verdict> {
    let records = journal.records();
    let end = Instant::now() + PATIENCE;
    loop {
        let mut checker = Checker::new(script, &records);
        let read = lake::read(folder, &mut checker);
        let late = Instant::now() >= end;
        match read {
            Ok(_) => {
                let verdict = checker.finish();
                // Only what is missing may still come.
                if verdict.lost == 0 || late {
                    return Ok(verdict);
                }
            }
            // A file may be replaced by a compacted one while it is read.
            Err(error) if late => return Err(error.into()),
            Err(_) => {}
        }
        std::thread::sleep(REREAD_EVERY);
    }
}

fn print(report: &Report) {
    println!(
        "{} messages acknowledged in {:.1} s: {} a second over {} devices",
        thousands(report.acked),
        report.seconds,
        thousands(report.messages_per_second as u64),
        thousands(report.devices.into()),
    );
    println!(
        "ack latency p50 {}, p99 {}, p99.9 {}, longest {}",
        micros(report.ack_p50_us),
        micros(report.ack_p99_us),
        micros(report.ack_p999_us),
        micros(report.ack_max_us),
    );
    println!(
        "resent {}, nacked {}, rejected {}, reconnects {}, refused connections {}, unacked {}",
        thousands(report.resent),
        thousands(report.nacked),
        thousands(report.rejected),
        thousands(report.reconnects),
        thousands(report.refused),
        thousands(report.unacked),
    );
    if let Some(verdict) = &report.verify {
        println!(
            "lake: stored {}, lost {}, invented {}, duplicated {}, wrong {}, out of order {}",
            thousands(verdict.stored),
            thousands(verdict.lost),
            thousands(verdict.invented),
            thousands(verdict.duplicated),
            thousands(verdict.wrong),
            thousands(verdict.inversions),
        );
        verdict.findings.iter().for_each(|finding| println!("  {finding}"));
    }
}
