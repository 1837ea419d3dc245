//! `forebay queue ls`: every queue below a directory, and how it stands.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use clap::Args;
use forebay_queue::tools::Image;
use serde::Serialize;

use super::{EXIT_CORRUPT, RING};
use crate::words::{bytes, thousands};

/// How deep below the directory queues are looked for: forebay-data/front/uplink-0 is two.
const DEPTH_MAX: usize = 4;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Directory with queues at any place below it.
    #[arg(default_value = "forebay-data")]
    dir: PathBuf,
    /// Print JSON: one object a queue.
    #[arg(long)]
    json: bool,
}

/// How a queue's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Clean,
    Damaged,
    Unusable,
}

#[derive(Debug, Serialize)]
struct Row {
    dir: String,
    state: State,
    /// Why it is unusable.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// `live` while a tier has it open, otherwise `orphaned`.
    owner: &'static str,
    id: String,
    entries: u64,
    used_bytes: u64,
    capacity_bytes: u64,
    /// What the slowest reader has not committed; all, where there is no reader.
    pending_entries: u64,
    pending_bytes: u64,
    oldest_pending_seconds: Option<u64>,
}

pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let mut dirs = Vec::new();
    find(&options.dir, DEPTH_MAX, &mut dirs)
        .with_context(|| format!("cannot read {}", options.dir.display()))?;
    dirs.sort();
    let mut bad = false;
    for dir in &dirs {
        // One at a time: a look at a ring takes as much memory as the ring.
        let row = row(dir);
        bad |= row.state != State::Clean;
        if options.json {
            println!("{}", serde_json::to_string(&row)?);
        } else {
            print(&row);
        }
    }
    if dirs.is_empty() {
        eprintln!("no queue below {}", options.dir.display());
    }
    Ok(if bad { ExitCode::from(EXIT_CORRUPT) } else { ExitCode::SUCCESS })
}

/// The directories below `dir` that are queues.
fn find(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if dir.join(RING).is_file() {
        found.push(dir.to_owned());
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // Not through links: they may lead around in a circle.
        if entry.file_type()?.is_dir() {
            find(&entry.path(), depth - 1, found)?;
        }
    }
    Ok(())
}

fn row(dir: &Path) -> Row {
    let name = dir.display().to_string();
    let image = match Image::open(dir) {
        Ok(image) => image,
        Err(error) => {
            return Row {
                dir: name,
                state: State::Unusable,
                reason: Some(error.to_string()),
                owner: "unknown",
                id: String::new(),
                entries: 0,
                used_bytes: 0,
                capacity_bytes: 0,
                pending_entries: 0,
                pending_bytes: 0,
                oldest_pending_seconds: None,
            };
        }
    };
    let verdict = image.verdict();
    let slowest = image.readers().into_iter().max_by_key(|reader| reader.pending_bytes);
    let above = slowest.as_ref().map(|reader| reader.committed);
    let mut pending = image.entries().filter(|entry| above.is_none_or(|above| entry.seq > above));
    let oldest_us = pending.next().map(|entry| entry.time_us);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Row {
        dir: name,
        state: if verdict.is_clean() { State::Clean } else { State::Damaged },
        reason: None,
        owner: if image.is_live() { "live" } else { "orphaned" },
        id: image.id().to_string(),
        entries: verdict.entries,
        used_bytes: image.used_bytes(),
        capacity_bytes: image.capacity_bytes(),
        pending_entries: u64::from(oldest_us.is_some()) + pending.count() as u64,
        pending_bytes: slowest.map_or(image.used_bytes(), |reader| reader.pending_bytes),
        oldest_pending_seconds: oldest_us
            .map(|time| now.as_secs().saturating_sub(time / 1_000_000)),
    }
}

fn print(row: &Row) {
    if let Some(reason) = &row.reason {
        println!("{}  UNUSABLE: {reason}", row.dir);
        return;
    }
    let state = if row.state == State::Clean { "clean" } else { "DAMAGED" };
    let oldest =
        row.oldest_pending_seconds.map(|age| format!(", the oldest {} s old", thousands(age)));
    println!(
        "{}  {} {state}, {} of {} used, {} to hand on ({}){}",
        row.dir,
        row.owner,
        bytes(row.used_bytes),
        bytes(row.capacity_bytes),
        thousands(row.pending_entries),
        bytes(row.pending_bytes),
        oldest.unwrap_or_default()
    );
}
