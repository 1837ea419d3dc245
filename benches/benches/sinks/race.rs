//! Ours and a store's own loader by turns, and what comes of it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use forebay_benches::{Goal, Report};
use forebay_link::QueueId;
use forebay_storage::{
    rows::Rows,
    sink::{Encoded, Outcome, Sink, Token},
};
use tokio::runtime::Runtime;

use super::load::process_cpu;

/// Rounds of each race.
pub(crate) const ROUNDS: usize = 5;

/// The rounds of a race.
#[derive(Default)]
pub(crate) struct Race {
    ours: Vec<f64>,
    sent: Vec<f64>,
    theirs: Vec<f64>,
    cpu_us: Vec<f64>,
}

impl Race {
    /// Takes the time of both for so many rows. `ours` says how long it encoded; who goes first
    /// changes from round to round.
    pub(crate) fn round(
        &mut self,
        rows: usize,
        ours: impl FnOnce() -> Result<Duration>,
        theirs: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let rate = |took: Duration| rows as f64 / took.as_secs_f64();
        let ours_first = self.ours.len().is_multiple_of(2);
        let mut theirs = Some(theirs);
        let mut take_theirs = || -> Result<Duration> {
            let began = Instant::now();
            theirs.take().map_or(Ok(()), |theirs| theirs())?;
            Ok(began.elapsed())
        };
        let before = if ours_first { None } else { Some(take_theirs()?) };
        let (cpu, began) = (process_cpu(), Instant::now());
        let encoding = ours()?;
        let took = began.elapsed();
        self.cpu_us.push((process_cpu() - cpu) * 1e6 / rows as f64);
        let loader = before.map_or_else(&mut take_theirs, Ok)?;
        self.ours.push(rate(took));
        self.sent.push(rate(took - encoding));
        self.theirs.push(rate(loader));
        Ok(())
    }

    /// Prints what came of it; the goal is for all of ours against the loader.
    pub(crate) fn tell(&self, report: &Report, store: &str, loader: &str, at_least: f64) {
        let ratios = |ours: &[f64]| -> Vec<f64> {
            ours.iter().zip(&self.theirs).map(|(ours, theirs)| ours / theirs).collect()
        };
        report.add_rounds(&format!("{store}: ours"), &self.ours, "rows/s", Goal::None);
        report.add_rounds(&format!("{store}: {loader}"), &self.theirs, "rows/s", Goal::None);
        let goal = Goal::AtLeast(at_least);
        report.add_rounds(&format!("{store}: ours"), &ratios(&self.ours), "x loader", goal);
        let sent = ratios(&self.sent);
        report.add_rounds(&format!("{store}: ours, sent"), &sent, "x loader", Goal::None);
        report.add_rounds(&format!("{store}: our CPU"), &self.cpu_us, "us/row", Goal::None);
    }
}

/// Encodes and sends batches as ranges of one queue; says how long the encoding took.
pub(crate) fn store(
    runtime: &Runtime,
    sink: &mut impl Sink,
    batches: &[Rows],
    queue: u128,
) -> Result<Duration> {
    let mut encoding = Duration::ZERO;
    for rows in batches {
        let began = Instant::now();
        let encoded = sink.encode(rows)?;
        encoding += began.elapsed();
        send(runtime, sink, &encoded, rows, queue)?;
    }
    Ok(encoding)
}

/// Sends an encoded batch under a token of its own queue.
pub(crate) fn send(
    runtime: &Runtime,
    sink: &mut impl Sink,
    encoded: &Encoded,
    rows: &Rows,
    queue: u128,
) -> Result<()> {
    let (first, last) = rows.span().context("a batch without rows")?;
    let token = Token::whole(QueueId::new(queue), first, last);
    let outcome = runtime.block_on(sink.send(encoded, &token));
    ensure!(outcome == Outcome::Ack, "not stored: {outcome:?}");
    Ok(())
}

pub(crate) fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Writes the bytes of a loader's input to files of their own.
pub(crate) fn files<'a>(
    folder: &Path,
    name: &str,
    contents: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<PathBuf>> {
    let write = |(number, bytes): (usize, &[u8])| {
        let path = folder.join(format!("{name}-{number}"));
        std::fs::write(&path, bytes)?;
        Ok(path)
    };
    contents.into_iter().enumerate().map(write).collect()
}

/// Runs a loader; its words are shown if it fails.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    let (said, complaint) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {said}{complaint}");
    Ok(said.into_owned())
}

/// Posts files, each to its own address, one after the other by one curl over one connection.
pub(crate) fn curl<'a>(posts: impl IntoIterator<Item = (String, &'a PathBuf)>) -> Result<()> {
    let mut command = Command::new("curl");
    for (number, (url, file)) in posts.into_iter().enumerate() {
        if number > 0 {
            command.arg("--next");
        }
        command.args(["-s", "-S", "--fail-with-body", "-H", "Expect:", "--data-binary"]);
        command.arg(format!("@{}", file.display())).arg(url);
    }
    run(&mut command).map(drop)
}
