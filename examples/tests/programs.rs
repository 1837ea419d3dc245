//! Every example runs to its end, and devices in other languages reach a real front.
#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use forebay_examples::Tiers;
use forebay_testkit::{Child, node, or_skip, python, wait_until};

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

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
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
    python.arg(file("devices/device.py")).args([&tiers.front_url(), "pump-py", "--count", "300"]);
    let report = report(&run(python));
    assert_eq!((report["acked"].as_u64(), report["rejected"].as_u64()), (Some(300), Some(0)));
    tiers.end().unwrap();
}

#[test]
fn a_consumer_in_python_reads_the_feed_from_the_first_message_on() {
    let packages = ["websockets==15.0.1", "pyzmq==27.1.0", "cbor2==5.6.5"];
    let Some(venv) = or_skip(python::venv(&packages)) else { return };
    let tiers = Tiers::start().unwrap();
    let send = |count: &str| {
        let mut python = venv.command();
        python.arg(file("devices/device.py")).args([
            &tiers.front_url(),
            "pump-py",
            "--count",
            count,
        ]);
        run(python);
    };
    // Some before it subscribes, which it has to fetch, and some after.
    send("100");
    let mut consumer = venv.command();
    consumer.env("PYTHONDONTWRITEBYTECODE", "1").arg(file("feed/feed_consumer.py"));
    consumer.args(tiers.feed_and_fetch()).args(["--count", "300"]);
    let folder = tempfile::tempdir().unwrap();
    let mut consumer = Child::spawn("consumer", &mut consumer, folder.path()).unwrap();
    let within = Duration::from_secs(60);
    consumer.wait_for("pump-py 100 ", within).unwrap();
    send("200");
    wait_until("the consumer has all", within, || consumer.ended().unwrap().is_some());
    let log = consumer.log();
    let numbers = log.lines().map(|line| line.split(' ').nth(2).unwrap().parse::<u32>().unwrap());
    assert!(numbers.eq((1..=100).chain(1..=200)), "{log}");
    assert!(log.contains("temperature"), "{log}");
    tiers.end().unwrap();
}

#[test]
fn a_device_in_javascript_gets_every_message_acknowledged() {
    let Some(packages) = or_skip(node::packages(&["ws@8.18.3"])) else { return };
    let tiers = Tiers::start().unwrap();
    // What a file imports must lie beside it.
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("device.mjs");
    std::fs::copy(file("devices/device.mjs"), &copy).unwrap();
    std::os::unix::fs::symlink(packages.modules(), folder.path().join("node_modules")).unwrap();
    let mut node = packages.command();
    node.arg(copy).args([&tiers.front_url(), "pump-js", "300"]);
    let report = report(&run(node));
    assert_eq!((report["acked"].as_u64(), report["rejected"].as_u64()), (Some(300), Some(0)));
    tiers.end().unwrap();
}
