//! A crowd of idle connections larger than one process may have: several fronts share the port by
//! `listen.reuse_port`, each with rings of its own, and several processes connect to it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use forebay_benches::{
    Goal, Report,
    load::{Crowd, Pace, Target, front::Devices},
    process,
    served::Served,
    sink::Sink,
};
use forebay_front::config::Level;
use forebay_ops::ByteSize;

use crate::{MESSAGE_BYTES, Options, config};

const JOIN: &str = "join-a-crowd";
/// Connections of one process: a tenth below the least limit of descriptors that is usual, as the
/// kernel does not spread them evenly.
const PROCESS_MAX: usize = 17_000;
/// How long the crowd is idle: longer than the front waits before it pings.
const IDLE: Duration = Duration::from_secs(35);
/// How often a part looks whether it was told something.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const KIB: f64 = 1024.0;
const GIB: f64 = KIB * KIB * KIB;

/// Is a part of the crowd, if the arguments say so.
pub(crate) fn join_if_asked() -> Result<bool> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, word, address, part, count] = &arguments[..] else { return Ok(false) };
    if word != JOIN {
        return Ok(false);
    }
    let (part, count): (usize, usize) = (part.parse()?, count.parse()?);
    let devices = Devices::new("crowd", MESSAGE_BYTES);
    let target = Target { sources: sources(part)?, ..Target::plain(address.parse()?) };
    let mut crowd = Crowd::connect(&devices, &target, part * PROCESS_MAX, count)?;
    say("open")?;
    // The others may still be connecting: pings are answered meanwhile.
    let told = Told::start();
    while !told.go.load(Ordering::Relaxed) {
        crowd.idle(LOOK_EVERY)?;
    }
    crowd.idle(IDLE)?;
    let flow = crowd.flow(Pace::Each(1), Duration::ZERO)?;
    say(&format!("acked {}", flow.messages))?;
    while !told.end.load(Ordering::Relaxed) {
        crowd.idle(LOOK_EVERY)?;
    }
    Ok(true)
}

/// Addresses of the part's own: two, as its connections are more than half of the ports of one.
fn sources(part: usize) -> Result<Vec<Ipv4Addr>> {
    let first = u8::try_from(2 * part + 2).context("too many parts")?;
    let last = first.checked_add(1).context("too many parts")?;
    Ok([first, last].map(|last| Ipv4Addr::new(127, 0, 0, last)).into())
}

/// What the parent has said to a part: a line to go, and then the end of the input.
#[derive(Default)]
struct Told {
    go: AtomicBool,
    end: AtomicBool,
}

impl Told {
    fn start() -> Arc<Self> {
        let told = Arc::<Self>::default();
        let shared = Arc::clone(&told);
        std::thread::spawn(move || {
            // A parent that is gone has nothing more to say either.
            let _ = std::io::stdin().read_line(&mut String::new());
            shared.go.store(true, Ordering::Relaxed);
            let _ = std::io::stdin().read_line(&mut String::new());
            shared.end.store(true, Ordering::Relaxed);
        });
        told
    }
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

struct Part {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Part {
    fn start(address: SocketAddr, number: usize, count: usize) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([JOIN, &address.to_string(), &number.to_string(), &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("no standard output")?;
        Ok(Self { child, lines: BufReader::new(out).lines() })
    }

    /// Lets it be idle and then send.
    fn go(&mut self) -> Result<()> {
        Ok(writeln!(self.child.stdin.as_mut().context("no standard input")?, "go")?)
    }

    fn next(&mut self) -> Result<String> {
        Ok(self.lines.next().context("a part of the crowd has ended")??)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn measure(options: &Options, report: &Report) -> Result<()> {
    let count = options.connections;
    let processes = count.div_ceil(PROCESS_MAX);
    let folder = options.place.folder()?;
    let sink = Sink::start()?;
    let mut fronts: Vec<Served> = Vec::new();
    for number in 0..processes {
        let mut config = config(folder.path(), &sink, Level::Disk)?;
        config.listen.reuse_port = true;
        config.queue.dir = folder.path().join(format!("front-{number}"));
        config.queue.capacity = ByteSize::mib(16);
        if let Some(first) = fronts.first() {
            config.listen.address = first.address();
        }
        fronts.push(Served::start(&config, None)?);
    }
    let address = fronts.first().context("--connections must be at least 1")?.address();
    let rss = |fronts: &[Served]| -> Result<u64> { fronts.iter().map(Served::rss_anon).sum() };
    let before = (rss(&fronts)?, process::kernel_memory()?);
    let started = Instant::now();
    let mut parts = Vec::new();
    for number in 0..processes {
        let share = (count - number * PROCESS_MAX).min(PROCESS_MAX);
        parts.push(Part::start(address, number, share)?);
    }
    for part in &mut parts {
        ensure!(part.next()? == "open", "a part of the crowd is not open");
    }
    let opened = started.elapsed().as_secs_f64();
    let grown = (rss(&fronts)? - before.0) as f64 / count as f64;
    let kernel = process::kernel_memory()?.saturating_sub(before.1) as f64 / count as f64 / 2.0;
    let cpu_before: f64 = fronts.iter().map(|front| front.cpu_seconds()).sum::<Result<f64>>()?;
    let idle_since = Instant::now();
    parts.iter_mut().try_for_each(Part::go)?;
    let mut acked = 0;
    for part in &mut parts {
        let line = part.next()?;
        acked += line.strip_prefix("acked ").context("no acks")?.parse::<usize>()?;
    }
    let cpu: f64 =
        fronts.iter().map(|front| front.cpu_seconds()).sum::<Result<f64>>()? - cpu_before;
    let busy = cpu / idle_since.elapsed().as_secs_f64();
    ensure!(acked == count, "{acked} of {count} messages acked");
    let name = |what: &str| format!("{count} connections, {processes} processes: {what}");
    report.add(&name("held and acked"), acked as f64, "connections", Goal::AtLeast(count as f64));
    report.add(&name("opened, both sides"), count as f64 / opened, "1/s", Goal::None);
    report.add(&name("fronts"), grown / KIB, "KiB each", Goal::AtMost(3.0));
    report.add(&name("kernel, one end"), kernel / KIB, "KiB each", Goal::None);
    report.add(
        &name("a GiB holds"),
        GIB / (grown + kernel),
        "connections",
        Goal::AtLeast(130_000.0),
    );
    report.add(&name("CPU of the fronts, idle with pings"), busy, "cores", Goal::None);
    drop(parts);
    for front in fronts {
        front.stop()?;
    }
    sink.stop()
}
