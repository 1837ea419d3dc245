//! Every example runs to its end, and devices in other languages reach a real front.
#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use forebay_examples::Tiers;
use forebay_testkit::{node, or_skip, python};

/// The executable of an example, built by the same command as this test.
fn example(name: &str) -> Command {
    let here = std::env::current_exe().expect("this test has a path");
    let folder = here.parent().and_then(Path::parent).expect("below target").join("examples");
    Command::new(folder.join(name))
}

fn run(mut command: Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

fn device(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("devices").join(file)
}

/// The last line that a device prints: what it sent and what became of it.
fn report(output: &Output) -> serde_json::Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    let _ = writeln!(std::io::stderr(), "{line}");
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn a_queue_alone_gives_back_what_was_appended() {
    let output = run(example("queue_alone"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("1:5 reading 5"), "{text}");
}

#[test]
fn a_device_knows_when_its_messages_are_safe() {
    let output = run(example("device_client"));
    assert!(String::from_utf8_lossy(&output.stdout).contains("up to 100"), "{output:?}");
}

#[test]
fn a_live_reader_sees_events_as_they_come() {
    let output = run(example("live_subscriber"));
    assert!(String::from_utf8_lossy(&output.stdout).contains("count = Int(4)"), "{output:?}");
}

#[test]
fn tiers_in_one_program_fill_a_lake() {
    let output = run(example("all_tiers_embedded"));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1000 messages in"), "{output:?}");
}

#[test]
fn a_device_in_python_gets_every_message_acknowledged() {
    let Some(venv) = or_skip(python::venv(&["websockets==15.0.1"])) else { return };
    let tiers = Tiers::start().unwrap();
    let mut python = venv.command();
    python.arg(device("device.py")).args([&tiers.front_url(), "pump-py", "--count", "300"]);
    let report = report(&run(python));
    assert_eq!((report["acked"].as_u64(), report["rejected"].as_u64()), (Some(300), Some(0)));
    tiers.end().unwrap();
}

#[test]
fn a_device_in_javascript_gets_every_message_acknowledged() {
    let Some(packages) = or_skip(node::packages(&["ws@8.18.3"])) else { return };
    let tiers = Tiers::start().unwrap();
    // What a file imports must lie beside it.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("device.mjs");
    std::fs::copy(device("device.mjs"), &file).unwrap();
    std::os::unix::fs::symlink(packages.modules(), folder.path().join("node_modules")).unwrap();
    let mut node = packages.command();
    node.arg(file).args([&tiers.front_url(), "pump-js", "300"]);
    let report = report(&run(node));
    assert_eq!((report["acked"].as_u64(), report["rejected"].as_u64()), (Some(300), Some(0)));
    tiers.end().unwrap();
}
