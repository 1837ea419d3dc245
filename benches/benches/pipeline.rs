//! The whole path on one machine: simulated devices, front, middle, storage, Parquet lake.
//!
//! `cargo bench -p forebay-benches --bench pipeline [-- --json --seconds 5 --rounds 3 --devices 200
//! --durability disk --window 64 --dir D]`
//!
//! Messages of 256 bytes in CBOR over real WebSockets, each durability level, windows of 1 and 64
//! messages a device. The rate is from the first message sent to the last one stored, so nothing
//! that is still queued counts. The three tiers run in a process of their own, a new one for each
//! run: its CPU time and private memory are theirs alone. Each run ends with a comparison of what was
//! acknowledged with what is stored; a figure of a run that lost or doubled anything is worth
//! nothing, and the bench fails.
//!
//! What it cannot show: a network, and disks with another cost of a sync.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, builder::TypedValueParser as _};
use forebay_benches::{
    Goal,
    options::{Place, Shown},
};
use forebay_fleet::{
    checker::{Checker, lake},
    fleet::{Fleet, Plan},
    journal::Journal,
    latency::Summary,
    script::Script,
    series::builtin,
};
use forebay_ops::{Shutdown, logs};
use prometheus::Registry;
use rustix::time::{ClockId, clock_gettime};

const MESSAGE_BYTES: usize = 256;
const END_WITHIN: Duration = Duration::from_secs(60);
/// How long the tiers are looked at before the first device comes.
const IDLE_FOR: Duration = Duration::from_secs(1);
/// First argument of the process that is the tiers.
const TIERS: &str = "tiers";
/// How often a queue that empties is looked at, and memory.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What a Kafka/MQTT design of the same shape reported on three machines of two CPUs each.
const KAFKA_MQTT_PER_SECOND: f64 = 370.0;
/// Private memory of all tiers together, with default settings: 100 and 150 MB.
const MIB_IDLE: f64 = 100e6 / 1048576.0;
const MIB_LOADED: f64 = 150e6 / 1048576.0;
/// A thousand times that is what we aim at.
const GOAL_PER_SECOND: f64 = 1000.0 * KAFKA_MQTT_PER_SECOND;

/// Measures the whole path.
#[derive(Parser)]
struct Options {
    /// Of each run.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Runs of which the median is taken.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Devices at a time.
    #[arg(long, default_value_t = 200)]
    devices: u32,
    /// One of the levels [default: both].
    #[arg(long, value_parser = ["process", "disk"])]
    durability: Option<String>,
    /// One of the windows [default: both].
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(["1", "64"])
        .map(|window| if window == "1" { 1_u32 } else { 64 }))]
    window: Option<u32>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    shown: Shown,
}

/// What one run gives.
struct Figures {
    messages_per_second: f64,
    tiers_cpu_seconds_per_million: f64,
    fleet_cpu_seconds_per_million: f64,
    ack_p50_us: f64,
    ack_p99_us: f64,
    /// Largest private memory of the tiers before there was a device, and under load.
    idle_mib: f64,
    loaded_mib: f64,
}

fn main() -> Result<()> {
    logs::init_with(logs::Format::Text, "error")?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [TIERS, dir, durability] = &*arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        return serve(Path::new(dir), durability);
    }
    let options = Options::parse();
    let report = options.shown.report();
    let is_wanted = |durability| options.durability.as_deref().is_none_or(|it| it == durability);
    for durability in ["process", "disk"].into_iter().filter(|it| is_wanted(*it)) {
        for window in [1, 64].into_iter().filter(|it| options.window.is_none_or(|one| one == *it)) {
            let runs: Vec<Figures> = (0..options.rounds)
                .map(|_| measure(&options, durability, window))
                .collect::<Result<_>>()?;
            let name = |what: &str| format!("{durability}, window {window}: {what}");
            let add = |what: &str, of: fn(&Figures) -> f64, unit: &str, goal: Goal| {
                let rounds: Vec<f64> = runs.iter().map(of).collect();
                report.add_rounds(&name(what), &rounds, unit, goal);
            };
            let rate = match (durability, window) {
                ("disk", 64) => Goal::AtLeast(GOAL_PER_SECOND),
                _ => Goal::None,
            };
            add("stored", |run| run.messages_per_second, "messages/s", rate);
            add(
                "CPU of the tiers",
                |run| run.tiers_cpu_seconds_per_million,
                "s/million",
                Goal::None,
            );
            add(
                "CPU of the fleet",
                |run| run.fleet_cpu_seconds_per_million,
                "s/million",
                Goal::None,
            );
            add("ack p50", |run| run.ack_p50_us, "us", Goal::None);
            add("ack p99", |run| run.ack_p99_us, "us", Goal::None);
            add("RssAnon of the tiers, idle", |run| run.idle_mib, "MiB", Goal::AtMost(MIB_IDLE));
            let loaded = Goal::AtMost(MIB_LOADED);
            add("RssAnon of the tiers, loaded", |run| run.loaded_mib, "MiB", loaded);
            add(
                "beside a Kafka/MQTT design's 370/s",
                |run| run.messages_per_second / KAFKA_MQTT_PER_SECOND,
                "x",
                Goal::None,
            );
        }
    }
    Ok(())
}

/// All tiers in this process.
struct Tiers {
    shutdown: Shutdown,
    front: forebay_front::Running,
    middle: forebay_middle::Running,
    storage: forebay_storage::Running,
    registries: [Registry; 2],
}

impl Tiers {
    fn start(dir: &Path, durability: &str) -> Result<Self> {
        let any = "127.0.0.1:0".parse()?;
        let shutdown = Shutdown::new();
        let registries = [Registry::new(), Registry::new()];
        let mut middle = forebay_middle::Config::default();
        for listen in [&mut middle.uplink.listen, &mut middle.feed.listen, &mut middle.fetch.listen]
        {
            *listen = "tcp://127.0.0.1:0".to_owned();
        }
        middle.admin.address = any;
        middle.queue.dir = dir.join("middle");
        let mut front = forebay_front::Config::default();
        front.listen.address = any;
        front.admin.address = any;
        front.queue.dir = dir.join("front");
        if durability == "process" {
            front.ack.level = forebay_front::config::Level::Process;
            front.queue.any_filesystem = true;
            middle.queue.durability = forebay_middle::Durability::Process;
            middle.queue.any_filesystem = true;
        }
        let middle = forebay_middle::start(middle, &registries[1], shutdown.clone())?;
        let addresses = middle.addresses();
        front.uplink.middle = addresses.uplink.clone();
        let mut storage = forebay_storage::Config::default();
        storage.middles[0].feed = addresses.feed.clone();
        storage.middles[0].fetch = addresses.fetch.clone();
        storage.http.address = any;
        storage.admin.address = any;
        storage.lake.dir = dir.join("lake");
        storage.lake.dead_letters = dir.join("dead-letters");
        storage.lake.flush.age = forebay_ops::Duration::from_secs(1);
        storage.last.snapshot = dir.join("last.jsonl");
        let storage = forebay_storage::start(storage, &Registry::new(), shutdown.clone())?;
        let front = forebay_front::start(front, &registries[0], &shutdown)?;
        Ok(Self { shutdown, front, middle, storage, registries })
    }

    /// Whether everything acknowledged is stored: nothing waits in the front, then in the middle.
    fn is_empty(&self) -> bool {
        let [front, middle] = &self.registries;
        gauge(front, "forebay_front_queue_entries") == 0.0
            && gauge(middle, "forebay_middle_consumer_lag_bytes") == 0.0
    }

    fn end(self) -> Result<()> {
        self.shutdown.begin("measured");
        let front = self.front.drain(END_WITHIN);
        ensure!(front.is_complete(), "the front still held {} entries", front.entries);
        let _ = self.storage.drain(END_WITHIN);
        let middle = self.middle.drain(END_WITHIN)?;
        ensure!(middle.consumers_behind.is_empty(), "left: {:?}", middle.consumers_behind);
        Ok(())
    }
}

/// The tiers' process: tells where devices go, then answers one question a line.
fn serve(dir: &Path, durability: &str) -> Result<()> {
    let tiers = Tiers::start(dir, durability)?;
    println!("{}", tiers.front.addresses().ingest);
    for line in std::io::stdin().lines() {
        match line?.as_str() {
            "cpu" => println!("{}", cpu()),
            "empty" => println!("{}", tiers.is_empty()),
            _ => break,
        }
    }
    tiers.end()?;
    println!("ended");
    Ok(())
}

/// The tiers, seen from outside.
struct TiersProcess {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    ingest: String,
}

impl TiersProcess {
    fn start(dir: &Path, durability: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(TIERS).arg(dir).arg(durability);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let questions = child.stdin.take().context("its standard input")?;
        let answers = BufReader::new(child.stdout.take().context("its standard output")?);
        let mut tiers = Self { child, questions, answers, ingest: String::new() };
        tiers.ingest = tiers.answer()?;
        Ok(tiers)
    }

    fn ask(&mut self, question: &str) -> Result<String> {
        writeln!(self.questions, "{question}")?;
        self.answer()
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "the tiers have ended");
        Ok(line.trim_end().to_owned())
    }

    /// Private memory.
    fn rss_anon_mib(&self) -> f64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
        kib.unwrap_or(f64::INFINITY) / 1024.0
    }

    fn end(mut self) -> Result<()> {
        ensure!(self.ask("end")? == "ended", "the tiers did not end");
        ensure!(self.child.wait()?.success(), "the tiers failed");
        Ok(())
    }
}

impl Drop for TiersProcess {
    fn drop(&mut self) {
        // Where a run failed; otherwise it has ended, and there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sum of a gauge over its labels.
fn gauge(registry: &Registry, name: &str) -> f64 {
    registry
        .gather()
        .iter()
        .filter(|family| family.name() == name)
        .flat_map(|family| family.get_metric())
        .map(|metric| metric.get_gauge().get_value())
        .sum()
}

fn measure(options: &Options, durability: &str, window: u32) -> Result<Figures> {
    let folder = options.place.folder()?;
    let mut tiers = TiersProcess::start(folder.path(), durability)?;
    let largest = |most: f64, tiers: &TiersProcess| most.max(tiers.rss_anon_mib());
    let (mut idle_mib, mut loaded_mib) = (0.0, 0.0);
    let began = Instant::now();
    while began.elapsed() < IDLE_FOR {
        std::thread::sleep(LOOK_EVERY);
        idle_mib = largest(idle_mib, &tiers);
    }
    let script = Arc::new(Script::new(builtin(), MESSAGE_BYTES, 1));
    let journal = Arc::new(Journal::default());
    let plan = Plan {
        fronts: vec![format!("ws://{}", tiers.ingest)],
        devices: options.devices,
        rate: None,
        window,
        ..Plan::default()
    };
    let cpu_before: f64 = tiers.ask("cpu")?.parse()?;
    let started = Instant::now();
    let fleet = Fleet::start(plan, Arc::clone(&script), Arc::clone(&journal))?;
    while started.elapsed().as_secs_f64() < options.seconds {
        std::thread::sleep(LOOK_EVERY);
        loaded_mib = largest(loaded_mib, &tiers);
    }
    fleet.stop_sending();
    ensure!(fleet.wait_acked(END_WITHIN), "acks are missing");
    while tiers.ask("empty")? != "true" {
        ensure!(started.elapsed().as_secs_f64() < options.seconds + 60.0, "queues do not empty");
        std::thread::sleep(LOOK_EVERY);
        loaded_mib = largest(loaded_mib, &tiers);
    }
    let seconds = started.elapsed().as_secs_f64();
    let Summary { p50_us, p99_us, .. } = fleet.latency();
    let spent = tiers.ask("cpu")?.parse::<f64>()? - cpu_before;
    let ending = fleet.end();
    tiers.end()?;
    let records = journal.records();
    let mut checker = Checker::new(&script, &records);
    lake::read(&folder.path().join("lake"), &mut checker)?;
    let verdict = checker.finish();
    ensure!(
        verdict.is_clean() && verdict.stored == ending.totals.acked,
        "the store is not what was acknowledged: {verdict:#?}"
    );
    let messages = ending.totals.acked;
    let millions = messages as f64 / 1e6;
    Ok(Figures {
        messages_per_second: messages as f64 / seconds,
        tiers_cpu_seconds_per_million: spent / millions,
        fleet_cpu_seconds_per_million: ending.cpu_seconds / millions,
        ack_p50_us: p50_us as f64,
        ack_p99_us: p99_us as f64,
        idle_mib,
        loaded_mib,
    })
}

/// CPU seconds of this process so far.
fn cpu() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}
