//! A storage tier that cannot start leaves nothing running: no caretaker that holds the lake, no sink
//! that stores and commits, nobody who follows a middle.
//!
//! Method: a tier whose last step fails, as the port for readers is taken; the threads of this
//! process, which has no other test in it, are counted by the kernel.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::TcpListener;

use common::{Log, Served, eventually, rows::messages};
use forebay_ops::Shutdown;
use forebay_storage::{StartError, start};
use prometheus::Registry;

/// The names of all threads, in order.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
    let mut names: Vec<String> = tasks.flatten().filter_map(name).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_start_that_fails_leaves_no_thread_running() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    log.append_all(&messages(41, 100));
    let served = Served::start(&log);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = served.settings(dir.path());
    config.http.address = taken.local_addr().unwrap();
    let before = threads();
    let registry = Registry::new();
    let error = start(config, &registry, Shutdown::new()).unwrap_err();
    assert!(matches!(error, StartError::Listen { .. }), "{error}");
    // It may show a last time what was counted.
    drop(registry);
    eventually("all threads have ended", || threads() == before);
}
