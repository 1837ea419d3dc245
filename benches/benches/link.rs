//! The link between tiers against a raw TCP stream of the same frames, and against libzmq.
//!
//! `cargo bench -p forebay-benches --features peers --bench link [-- --json] [-- --quick]`
//!
//! Entries of 256 bytes. Whatever carries them, the same source packs the same frames with their
//! checksums, and the same store checks them and takes the records; what differs is what lies
//! between: the link with its machines, threads, the `zeromq` crate and the pump; libzmq with the
//! least window that works; a TCP connection with blocking reads and writes. All of a kind run one
//! after the other in each round; a figure is the median over the rounds. CPU time is that of the
//! whole process, both ends. Everything goes over loopback TCP.
//!
//! What it cannot show: a network, and ends that do other work.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;
use forebay_benches::{Goal, Report, median, options::Shown};
use rustix::time::{ClockId, clock_gettime};

#[path = "link/ends.rs"]
mod ends;
#[cfg(feature = "peers")]
#[path = "link/libzmq.rs"]
mod libzmq;
#[path = "link/ours.rs"]
mod ours;
#[path = "link/peer.rs"]
mod peer;
#[path = "link/raw.rs"]
mod raw;
#[path = "link/rings.rs"]
mod rings;
#[path = "link/secured.rs"]
mod secured;

use ends::{Drain, Feed, Spring};
use ours::Way;
use secured::Secured;

const ENTRY_BYTES: usize = 256;

/// What one run cost.
#[derive(Debug, Clone, Copy)]
struct Cost {
    entries_per_second: f64,
    cpu_ns_per_entry: f64,
}

/// Measures `work`, which moves `entries`.
fn cost(entries: u64, work: impl FnOnce()) -> Cost {
    let (cpu_before, began) = (cpu_nanos(), Instant::now());
    work();
    let seconds = began.elapsed().as_secs_f64();
    let spent = cpu_nanos() - cpu_before;
    Cost { entries_per_second: entries as f64 / seconds, cpu_ns_per_entry: spent / entries as f64 }
}

/// CPU nanoseconds of this process so far.
fn cpu_nanos() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 * 1e9 + spent.tv_nsec as f64
}

/// The costs of one way of moving entries, round by round.
struct Series {
    name: &'static str,
    costs: Vec<Cost>,
}

/// Runs every way once a round.
fn rounds(count: usize, ways: &mut [(&'static str, &mut dyn FnMut() -> Cost)]) -> Vec<Series> {
    let mut all: Vec<Series> =
        ways.iter().map(|(name, _)| Series { name, costs: Vec::new() }).collect();
    // The first is for warming up.
    for round in 0..=count {
        for (series, (_, way)) in all.iter_mut().zip(ways.iter_mut()) {
            let cost = way();
            if round > 0 {
                series.costs.push(cost);
            }
        }
    }
    all
}

/// Prints a kind's figures; the first series is ours, and the goals are set against the others.
fn report(report: &Report, kind: &str, all: &[Series]) {
    let rates = |series: &Series| -> Vec<f64> {
        series.costs.iter().map(|cost| cost.entries_per_second).collect()
    };
    let cpus = |series: &Series| -> Vec<f64> {
        series.costs.iter().map(|cost| cost.cpu_ns_per_entry).collect()
    };
    for series in all {
        let name = format!("{kind}: {}", series.name);
        report.add_rounds(&name, &rates(series), "entries/s", Goal::None);
        report.add_rounds(&name, &cpus(series), "CPU ns each", Goal::None);
    }
    let Some((ours, others)) = all.split_first() else { return };
    for other in others {
        // Round by round: what else this machine does weighs on both alike.
        let ratio = |each: fn(&Cost) -> f64| {
            let pairs = ours.costs.iter().zip(&other.costs);
            median(pairs.map(|(ours, other)| each(ours) / each(other)).collect())
        };
        let cpu = ratio(|cost| cost.cpu_ns_per_entry);
        let name = format!("{kind}: CPU, ours against {}", other.name);
        match other.name {
            "raw TCP" => report.add(&name, cpu, "x", Goal::AtMost(2.0)),
            "libzmq" => report.add(&name, cpu, "x", Goal::AtMost(1.0)),
            _ => report.add(&name, cpu, "x", Goal::None),
        }
        if other.name == "libzmq" {
            let rate = ratio(|cost| cost.entries_per_second);
            let name = format!("{kind}: rate, ours against libzmq");
            report.add(&name, rate, "x", Goal::AtLeast(1.0));
        }
    }
}

fn uplink(to: &Report, tls: &Secured, entries: u64, count: usize) {
    let run =
        |way: Way<'_>| cost(entries, || ours::uplink(Spring::new(entries), Drain::default(), way));
    let mut ours = || run(Way::Pumped);
    let mut bare = || run(Way::Bare);
    let mut secured = || run(Way::Secured(tls));
    let mut raw = || cost(entries, || raw::uplink(Spring::new(entries), Drain::default()));
    #[cfg(feature = "peers")]
    let mut libzmq = || cost(entries, || libzmq::uplink(Spring::new(entries), Drain::default()));
    let all = rounds(
        count,
        &mut [
            ("ours", &mut ours),
            ("ours without pump", &mut bare),
            ("ours with TLS", &mut secured),
            ("raw TCP", &mut raw),
            #[cfg(feature = "peers")]
            ("libzmq", &mut libzmq),
        ],
    );
    report(to, "DEALER to ROUTER, acked", &all);
}

fn feed(to: &Report, tls: &Secured, entries: u64, count: usize) {
    let run = |way: Way<'_>| ours::feed(&Feed::new(entries), way);
    let mut ours = || run(Way::Pumped);
    let mut bare = || run(Way::Bare);
    let mut secured = || run(Way::Secured(tls));
    let mut raw = || cost(entries, || raw::feed(&Feed::new(entries)));
    #[cfg(feature = "peers")]
    let mut libzmq = || libzmq::feed(&Feed::new(entries));
    let all = rounds(
        count,
        &mut [
            ("ours", &mut ours),
            ("ours without pump", &mut bare),
            ("ours with TLS", &mut secured),
            ("raw TCP", &mut raw),
            #[cfg(feature = "peers")]
            ("libzmq", &mut libzmq),
        ],
    );
    report(to, "PUB to SUB", &all);
}

fn between_queues(to: &Report, dir: &Path, entries: u64, count: usize) {
    let rings = std::cell::RefCell::new(rings::Rings::create(dir, entries));
    let run = |carry: fn(rings::RingSource, rings::RingStore)| {
        let rings = &rings;
        move || {
            let mut rings = rings.borrow_mut();
            let (source, store) = rings.fill(entries);
            let cost = cost(entries, || carry(source, store));
            rings.empty();
            cost
        }
    };
    let mut ours = run(|source, store| ours::uplink(source, store, Way::Pumped));
    let mut raw = run(raw::uplink);
    #[cfg(feature = "peers")]
    let mut libzmq = run(libzmq::uplink);
    let all = rounds(
        count,
        &mut [
            ("ours", &mut ours),
            ("raw TCP", &mut raw),
            #[cfg(feature = "peers")]
            ("libzmq", &mut libzmq),
        ],
    );
    report(to, "between two queues, disk", &all);
}

/// Measures the link.
#[derive(Parser)]
struct Options {
    /// Fewer entries and rounds.
    #[arg(long)]
    quick: bool,
    /// One part alone; the last two print bare figures, for a profiler.
    #[arg(long, value_parser = ["uplink", "feed", "queues", "ours", "our-feed"])]
    only: Option<String>,
    #[command(flatten)]
    shown: Shown,
}

fn main() {
    let options = Options::parse();
    let to = options.shown.report();
    let (entries, count) = if options.quick { (200_000, 3) } else { (1_000_000, 9) };
    let only = options.only.as_deref();
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    let dir = std::env::var_os("FOREBAY_BENCH_DIR")
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-link"), PathBuf::from);
    std::fs::create_dir_all(&dir).expect("bench directory");
    let tls = Secured::create(&dir);
    if wanted("uplink") {
        uplink(&to, &tls, entries, count);
    }
    if wanted("feed") {
        feed(&to, &tls, entries, count);
    }
    if wanted("queues") {
        between_queues(&to, &dir, entries / 2, count);
    }
    for _ in 0..count {
        match only {
            Some("ours") => {
                let run = || ours::uplink(Spring::new(entries), Drain::default(), Way::Pumped);
                println!("{:?}", cost(entries, run));
            }
            Some("our-feed") => println!("{:?}", ours::feed(&Feed::new(entries), Way::Pumped)),
            _ => break,
        }
    }
    let _ = std::fs::remove_dir_all(&dir);
}
