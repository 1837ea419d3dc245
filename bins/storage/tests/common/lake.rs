//! A lake that is filled through the real sink, and changed as its caretaker would.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use forebay_ops::Shutdown;
use forebay_storage::{
    config::Compaction,
    lake::{
        Gate, Hour, LakeSink,
        compact::{Compacted, Compactor},
        file::hours,
    },
    registry::Current,
    sink::{Limits, SinkTask, SinkTaskConfig},
};

use super::{DEADLINE, Log};

fn limits(rows: usize) -> Limits {
    Limits { rows, held_bytes: 1 << 30, outstanding_bytes: 1 << 30, age: Duration::from_secs(3600) }
}

pub fn start(log: &Log, consumer: &str, gate: &Arc<Gate>, rows: usize) -> SinkTask {
    let config = SinkTaskConfig {
        name: "lake".to_owned(),
        limits: limits(rows),
        registry: Current::default(),
        dead_letters: gate.root().join("../dead"),
        stored: Box::new(|_| {}),
    };
    let sink = LakeSink::open(gate.root()).unwrap().behind(gate);
    SinkTask::start(config, log.consumer(consumer), sink, Shutdown::new()).unwrap()
}

/// Stores all of a log into a lake, in files of so many rows.
pub fn fill(log: &Log, lake: &Path, rows: usize) {
    let task = start(log, "lake", &Arc::new(Gate::new(lake)), rows);
    assert_eq!(task.drain(Instant::now() + DEADLINE), 0);
}

pub fn all_hours(lake: &Path) -> Vec<Hour> {
    hours(lake).unwrap().into_iter().map(|(hour, _)| hour).collect()
}

/// Compacts every hour that needs it, and removes what was replaced.
pub fn compact_all(lake: &Path) -> usize {
    let compactor = Compactor::new(Arc::new(Gate::new(lake)));
    let mut exchanged = 0;
    for hour in all_hours(lake) {
        let done = compactor.compact(hour, &|| false).unwrap();
        exchanged += usize::from(matches!(done, Compacted::Exchanged { .. }));
    }
    compactor.remove_unneeded().unwrap();
    exchanged
}

/// Compaction as soon as it can be.
pub fn soon() -> Compaction {
    Compaction {
        after: forebay_ops::Duration::from_millis(0),
        look_every: forebay_ops::Duration::from_millis(10),
        ..Compaction::default()
    }
}

/// Folders and files with a dot, other than marks.
pub fn hidden(lake: &Path) -> Vec<PathBuf> {
    let days = std::fs::read_dir(lake).unwrap().map(|day| day.unwrap().path());
    let within = |day: PathBuf| {
        std::fs::read_dir(day).into_iter().flatten().map(|entry| entry.unwrap().path())
    };
    let is_hidden = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with('.');
    days.flat_map(within).filter(is_hidden).collect()
}
