//! A log that is far ahead all at once, as after a pause of the publisher's thread, costs the
//! publisher no more memory than the pump lets a subscriber have waiting.
//!
//! The subscriber is a process of its own; what it does not get in time it fetches. The log takes no
//! memory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod endless;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use endless::{Endless, PAYLOAD_BYTES};
use forebay_link::{
    FeedEvent, FeedPublisher, OnFailure, PublisherConfig, ReplayConfig, ReplayServer, Start,
    Subscriber, SubscriberConfig,
};
use forebay_testkit::{Child, rss_anon};

const ANY: &str = "tcp://127.0.0.1:0";
const STOP: Duration = Duration::from_secs(10);
const WAIT: Duration = Duration::from_secs(120);
/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const RECORDS: u64 = (512 << 20) / PAYLOAD_BYTES as u64;
/// What may wait for one peer, and what a run needs besides.
const GROWTH_BYTES_MAX: u64 = 40 << 20;
const ENDPOINTS: &str = "FOREBAY_TEST_ENDPOINTS";

fn no_failure() -> OnFailure {
    Box::new(|error| panic!("{error}"))
}

#[test]
#[ignore = "runs only as the child of the other test"]
fn child() {
    let endpoints = std::env::var(ENDPOINTS).unwrap();
    let (feed, fetch) = endpoints.split_once(' ').unwrap();
    let mut config = SubscriberConfig::new("subscriber", feed, fetch);
    config.start = Start::Oldest;
    let subscriber = Subscriber::start(config).unwrap();
    let mut received = 0;
    while received < RECORDS {
        match subscriber.next(WAIT).unwrap() {
            Some(FeedEvent::Batch(batch)) => {
                assert_eq!(batch.first().counter(), received + 1, "a gap");
                received = batch.last().counter();
            }
            Some(FeedEvent::Opened(_)) => println!("opened"),
            other => panic!("{other:?}"),
        }
    }
    println!("has all, {} of it fetched", subscriber.stats().fetched.get());
}

#[test]
fn a_log_far_ahead_of_its_subscriber_costs_a_bounded_amount_of_memory() {
    let log = Endless::new(9);
    let publisher = PublisherConfig::new("publisher", ANY);
    let publisher = FeedPublisher::start(publisher, log.clone(), no_failure()).unwrap();
    let replay = ReplayConfig::new("replay", ANY);
    let replay = ReplayServer::start(replay, log.clone(), no_failure()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored", "--nocapture"]);
    command.env(ENDPOINTS, format!("{} {}", publisher.endpoint(), replay.endpoint()));
    let mut subscriber = Child::spawn("subscriber", &mut command, folder.path()).unwrap();
    subscriber.wait_for("opened", WAIT).unwrap();

    let pid = std::process::id();
    let before = rss_anon(pid).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let watch = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            let mut most = before;
            while !over.load(Ordering::Relaxed) {
                most = most.max(rss_anon(pid).unwrap());
                std::thread::sleep(LOOK_EVERY);
            }
            most
        })
    };
    log.grow_to(RECORDS);
    subscriber.wait_for("has all", WAIT).unwrap();
    over.store(true, Ordering::Relaxed);
    let grown = watch.join().unwrap().saturating_sub(before);
    println!("512 MiB ahead at once: private memory grew by {} MiB at most", grown >> 20);
    assert!(grown < GROWTH_BYTES_MAX, "the publisher grew by {grown} bytes");
    publisher.stop(STOP).unwrap();
    replay.stop(STOP).unwrap();
}
