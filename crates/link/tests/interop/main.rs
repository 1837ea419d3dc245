//! The link and the real ZeroMQ: libzmq, driven from Python by the documented frames.
//!
//! libzmq's DEALER against our ROUTER, its ROUTER against our DEALER, its SUB against our PUB; and
//! ends of different versions, which tell each other so. Python reads and writes the frames by
//! `examples/feed/forebay_frames.py`, which was written from docs/protocol.md.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../memory/mod.rs"]
mod memory;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use forebay_link::{
    FeedPublisher, PublisherConfig, ReceiverConfig, ReplayConfig, ReplayServer, SenderConfig, Seq,
    UplinkReceiver, UplinkSender,
};
use forebay_testkit::{Child, or_skip, python, wait_until};
use memory::{Memory, eventually, no_failure};
use serde_json::Value;
use tempfile::TempDir;

const STOP: Duration = Duration::from_secs(5);
const WAIT: Duration = Duration::from_secs(60);
const ANY: &str = "tcp://127.0.0.1:0";

/// A program of this folder, with libzmq and the frames of the examples; `None` after a skip.
fn script(name: &str) -> Option<Command> {
    let venv = or_skip(python::venv(&["pyzmq==27.1.0"]))?;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = venv.command();
    command.arg(here.join("tests/interop").join(name));
    command.env("PYTHONPATH", here.join("../../examples/feed"));
    // No compiled files beside the examples.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    Some(command)
}

fn lines(log: &str) -> Vec<Value> {
    // The last line may be half written.
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Runs to its end, and gives what it printed.
fn run(mut command: Command) -> Vec<Value> {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    lines(&String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_dealer_of_libzmq_is_taken_acked_sent_back_and_refused_as_documented() {
    let Some(mut dealer) = script("dealer.py") else { return };
    let store = Memory::new(2);
    let config = ReceiverConfig::new("receiver", ANY);
    let receiver = UplinkReceiver::start(config, store.clone(), no_failure()).unwrap();
    dealer.args([receiver.endpoint(), "1000"]);
    let told = run(dealer);
    let at = |what: &str| told.iter().find(|line| line["what"] == what).unwrap();
    let version = at("version");
    assert_eq!(
        (&version["code"], &version["oldest"], &version["newest"]),
        (&1.into(), &1.into(), &1.into())
    );
    assert_eq!(version["reason"], "version 9 is not read here");
    assert_eq!(at("partitions")["code"], 2);
    assert!(at("partitions")["reason"].as_str().unwrap().contains("partition map"), "{told:?}");
    assert_eq!((&at("welcome")["durable"], &at("welcome")["level"]), (&0.into(), &2.into()));
    assert_eq!((&at("nack")["durable"], &at("nack")["code"]), (&0.into(), &1.into()));
    assert_eq!(at("done")["acked"], 1000);
    let stored = store.stored();
    let expected = (0..1000).map(|n| format!("entry {n}").into_bytes());
    assert!(stored.iter().map(|(_, _, payload)| payload.clone()).eq(expected));
    assert_eq!(stored[999].1, Seq::from_parts(1, 1000));
    assert_eq!(stored[0].0.to_bytes(), *b"a source in pyth");
    receiver.stop(STOP).unwrap();
}

/// A sender to a router in Python that answers as `mode` says.
fn sender_to_router(mode: &str, source: &Memory) -> Option<(Child, UplinkSender, TempDir)> {
    let mut router = script("router.py")?;
    router.arg(mode);
    let folder = tempfile::tempdir().unwrap();
    let mut router = Child::spawn("router", &mut router, folder.path()).unwrap();
    router.wait_for("}", WAIT).unwrap();
    let port = &lines(&router.log())[0]["port"];
    let mut config = SenderConfig::new("sender", format!("tcp://127.0.0.1:{port}"));
    config.connect.backoff_max = Duration::from_millis(200);
    let sender = UplinkSender::start(config, source.clone(), no_failure()).unwrap();
    Some((router, sender, folder))
}

#[test]
fn a_router_of_libzmq_gets_every_entry_and_its_acks_commit_them() {
    let source = Memory::new(1);
    let Some((router, sender, _folder)) = sender_to_router("", &source) else { return };
    let mut last = Seq::ZERO;
    for number in 0..1000 {
        last = source.append(format!("entry {number}").as_bytes());
    }
    eventually("committed", || source.lock().committed == last);
    let got: Vec<Value> = lines(&router.log()).into_iter().skip(1).collect();
    let expected = (0..1000_u64).map(|number| {
        let seq = Seq::from_parts(1, number + 1).get();
        serde_json::json!({ "seq": seq, "payload": format!("entry {number}") })
    });
    assert!(got.into_iter().eq(expected));
    sender.stop(STOP).unwrap();
}

#[test]
fn a_receiver_of_another_version_or_one_that_refuses_ours_commits_nothing() {
    for mode in ["version", "refuse"] {
        let source = Memory::new(1);
        let Some((_router, sender, _folder)) = sender_to_router(mode, &source) else { return };
        source.append(b"entry");
        eventually("refused", || sender.stats().refused.get());
        assert_eq!(source.lock().committed, Seq::ZERO);
        assert_eq!(sender.stats().sessions.get(), 0);
        sender.stop(STOP).unwrap();
    }
}

#[test]
fn a_sub_of_libzmq_that_loses_most_of_the_feed_mends_it_by_fetches() {
    const RECORDS: u64 = 3_000;
    let Some(mut subscriber) = script("subscriber.py") else { return };
    let log = Memory::new(9);
    let publisher = PublisherConfig::new("publisher", ANY);
    let publisher = FeedPublisher::start(publisher, log.clone(), no_failure()).unwrap();
    let replay = ReplayConfig::new("replay", ANY);
    let replay = ReplayServer::start(replay, log.clone(), no_failure()).unwrap();
    // Some before it, most while it follows.
    for number in 0..500 {
        log.append(format!("record {number}").as_bytes());
    }
    subscriber.args([publisher.endpoint(), replay.endpoint(), &RECORDS.to_string()]);
    let folder = tempfile::tempdir().unwrap();
    let mut subscriber = Child::spawn("subscriber", &mut subscriber, folder.path()).unwrap();
    subscriber.wait_for("record 499", WAIT).unwrap();
    for number in 500..RECORDS {
        log.append(format!("record {number}").as_bytes());
        if number % 100 == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    wait_until("it has all", WAIT, || subscriber.ended().unwrap().is_some());
    let mut told = lines(&subscriber.log());
    let lost = told.pop().unwrap();
    assert!(lost["lost"].as_u64().unwrap() > 10, "{lost}");
    let expected = (0..RECORDS).map(|number| {
        let seq = Seq::from_parts(1, number + 1).get();
        serde_json::json!({ "seq": seq, "payload": format!("record {number}") })
    });
    assert!(told.into_iter().eq(expected));
    publisher.stop(STOP).unwrap();
    replay.stop(STOP).unwrap();
}
