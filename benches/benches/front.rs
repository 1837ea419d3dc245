//! The front alone: memory of an idle connection, messages and handshakes a second of one core, the
//! latency of acks, and a crowd of 100,000.
//!
//! `cargo bench -p forebay-benches --bench front [-- memory rate latency handshakes --json
//! --rounds 3 --seconds 2 --connections 10000 --dir D]`, and on demand
//! `cargo bench -p forebay-benches --bench front -- crowd --connections 100000`.
//!
//! The front is a process of its own on CPU 0, with one thread for sessions; the generator of the
//! load and a middle that only counts are on CPU 1. So a rate is what one CPU does for everything
//! that the front does: the kernel's part, decoding, checking, the ring, its syncs and the way to
//! the middle. What a send costs the receiver's kernel is partly paid by the sender: on loopback
//! the packet is handed over within the system call.
//!
//! What it cannot show: a network, a disk with another cost of a sync, more cores than two.

#[path = "front/crowd.rs"]
mod crowd;
#[path = "front/memory.rs"]
mod memory;

use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use forebay_benches::{
    Goal, Report,
    load::{
        Crowd, Flow, Pace, Target,
        front::{Callers, Devices},
        trusting_everybody,
    },
    options::{Place, Shown},
    process,
    served::{self, Served},
    sink::Sink,
};
use forebay_front::{Config, config::Level};
use forebay_ops::ByteSize;
use forebay_testkit::certificates::{Authority, Validity};

/// The CPU of the front, and that of all else.
const FRONT_CPU: usize = 0;
const OTHER_CPU: usize = 1;
const MESSAGE_BYTES: usize = 256;
/// Messages a device has on their way where it does not wait for each ack.
const PIPELINE: u32 = 64;
/// What 10,000 devices send that report twice a second.
const DEVICES_PER_SECOND: f64 = 20_000.0;
/// Callers at a time in a storm of handshakes.
const CALLERS: usize = 200;

/// Measures the front alone.
#[derive(Parser)]
struct Options {
    /// What is measured.
    #[arg(
        default_values = ["memory", "rate", "latency", "handshakes"],
        value_parser = ["memory", "rate", "latency", "handshakes", "crowd"],
    )]
    parts: Vec<String>,
    /// Of each run.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Runs of which the median is taken.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Devices at a time.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    shown: Shown,
}

fn main() -> Result<()> {
    if served::serve_if_asked()? || crowd::join_if_asked()? {
        return Ok(());
    }
    let options = Options::parse();
    process::stay_on(OTHER_CPU)?;
    let report = options.shown.report();
    for part in &options.parts {
        match part.as_str() {
            "memory" => memory::measure(&options, &report)?,
            "rate" => rate(&options, &report)?,
            "latency" => latency(&options, &report)?,
            "handshakes" => handshakes(&options, &report)?,
            "crowd" => crowd::measure(&options, &report)?,
            other => unreachable!("{other} is no part"),
        }
    }
    Ok(())
}

/// A front, its folder and its middle.
struct Stand {
    served: Served,
    sink: Sink,
    target: Target,
    _folder: tempfile::TempDir,
}

impl Stand {
    fn start(options: &Options, level: Level, tls: bool) -> Result<Self> {
        let folder = options.place.folder()?;
        let sink = Sink::start()?;
        let mut config = config(folder.path(), &sink, level)?;
        let mut tls_config = None;
        if tls {
            let certificate =
                Authority::new("bench")?.issue("front", &["localhost"], Validity::Now)?;
            let files = certificate.write(folder.path(), "front")?;
            (config.tls.certificate, config.tls.key) = (files.certificate, files.key);
            tls_config = Some(trusting_everybody()?);
        }
        let served = Served::start(&config, Some(FRONT_CPU))?;
        let target = Target { tls: tls_config, ..Target::plain(served.address()) };
        Ok(Self { served, sink, target, _folder: folder })
    }

    fn end(self) -> Result<()> {
        self.served.stop()?;
        self.sink.stop()
    }
}

/// A front with one thread of sessions on a port of its own.
fn config(folder: &std::path::Path, sink: &Sink, level: Level) -> Result<Config> {
    let any = "127.0.0.1:0".parse()?;
    let mut config = Config::default();
    config.listen.address = any;
    config.listen.cores = Some(1);
    config.admin.address = any;
    config.ack.level = level;
    config.queue.dir = folder.join("front");
    config.queue.capacity = ByteSize::mib(64);
    config.uplink.middle = sink.endpoint().to_owned();
    Ok(config)
}

/// One run and what it cost the front.
struct Run {
    flow: Flow,
    cpu_seconds: f64,
}

fn run(stand: &Stand, crowd: &mut Crowd<'_, Devices>, pace: Pace, time: Duration) -> Result<Run> {
    let before = stand.served.cpu_seconds()?;
    let flow = crowd.flow(pace, time)?;
    Ok(Run { flow, cpu_seconds: stand.served.cpu_seconds()? - before })
}

fn runs(
    options: &Options,
    stand: &Stand,
    crowd: &mut Crowd<'_, Devices>,
    pace: Pace,
) -> Result<Vec<Run>> {
    let time = Duration::from_secs_f64(options.seconds);
    // Pages of the ring, and each connection's first message.
    run(stand, crowd, pace, time.min(Duration::from_secs(1)))?;
    (0..options.rounds).map(|_| run(stand, crowd, pace, time)).collect()
}

/// The rounds of one figure.
fn rounds(runs: &[Run], of: impl Fn(&Run) -> f64) -> Vec<f64> {
    runs.iter().map(of).collect()
}

fn rate(options: &Options, report: &Report) -> Result<()> {
    let devices = Devices::new("bench", MESSAGE_BYTES);
    for (level, level_name) in [(Level::Process, "process"), (Level::Disk, "disk")] {
        let stand = Stand::start(options, level, false)?;
        let mut crowd = Crowd::connect(&devices, &stand.target, 0, options.connections)?;
        for (window, how, goal) in
            [(1, "one at a time", 100_000.0), (PIPELINE, "pipelined", 1_200_000.0)]
        {
            let runs = runs(options, &stand, &mut crowd, Pace::Window(window))?;
            let goal = match level {
                Level::Process => Goal::AtLeast(goal),
                _ => Goal::None,
            };
            let name = format!("{level_name}, {how}, {} connections", crowd.len());
            let rates = rounds(&runs, |run| run.flow.rate());
            report.add_rounds(&format!("{name}: one CPU"), &rates, "messages/s", goal);
            let each = rounds(&runs, |run| run.cpu_seconds * 1e6 / run.flow.messages as f64);
            report.add_rounds(&format!("{name}: CPU"), &each, "us/message", Goal::None);
            let p99 = rounds(&runs, |run| run.flow.quantile_ms(0.99));
            report.add_rounds(&format!("{name}: ack p99"), &p99, "ms", Goal::None);
        }
        drop(crowd);
        stand.end()?;
    }
    Ok(())
}

fn latency(options: &Options, report: &Report) -> Result<()> {
    let devices = Devices::new("bench", MESSAGE_BYTES);
    for (level, level_name) in [(Level::Process, "process"), (Level::Disk, "disk")] {
        let stand = Stand::start(options, level, false)?;
        let mut crowd = Crowd::connect(&devices, &stand.target, 0, options.connections)?;
        let runs = runs(options, &stand, &mut crowd, Pace::PerSecond(DEVICES_PER_SECOND))?;
        let name = format!("{level_name}, {} connections, 20,000/s", crowd.len());
        for (part, what) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")] {
            let goal = match (level, what) {
                (Level::Process, "p99") => Goal::AtMost(3.0),
                _ => Goal::None,
            };
            let rounds = rounds(&runs, |run| run.flow.quantile_ms(part));
            report.add_rounds(&format!("{name}: ack {what}"), &rounds, "ms", goal);
        }
        let busy = rounds(&runs, |run| run.cpu_seconds / run.flow.seconds);
        report.add_rounds(&format!("{name}: CPU"), &busy, "cores", Goal::AtMost(1.0));
        drop(crowd);
        stand.end()?;
    }
    Ok(())
}

fn handshakes(options: &Options, report: &Report) -> Result<()> {
    for (tls, name, goal) in [(false, "plain", 20_000.0), (true, "TLS 1.3, P-256", 2_500.0)] {
        let stand = Stand::start(options, Level::Process, tls)?;
        let mut crowd = Crowd::connect(&Callers, &stand.target, 0, CALLERS)?;
        crowd.reopen_all()?;
        let time = Duration::from_secs_f64(options.seconds);
        crowd.storm(time / 2)?;
        let (mut rates, mut each) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            let before = stand.served.cpu_seconds()?;
            let (count, seconds) = crowd.storm(time)?;
            rates.push(count as f64 / seconds);
            each.push((stand.served.cpu_seconds()? - before) * 1e6 / count as f64);
        }
        report.add_rounds(&format!("handshakes, {name}: one CPU"), &rates, "1/s", Goal::None);
        report.add_rounds(&format!("handshakes, {name}: CPU"), &each, "us each", Goal::None);
        let core: Vec<f64> = each.iter().map(|each| 1e6 / each).collect();
        let name = format!("handshakes, {name}: a CPU-second of the front");
        report.add_rounds(&name, &core, "1/s", Goal::AtLeast(goal));
        drop(crowd);
        stand.end()?;
    }
    Ok(())
}
