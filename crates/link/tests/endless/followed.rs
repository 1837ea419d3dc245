//! The feed of an endless log, and a subscriber that follows it in a process of its own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use forebay_link::{
    FeedEvent, FeedPublisher, OnFailure, PublisherConfig, ReplayConfig, ReplayServer, Start,
    Subscriber, SubscriberConfig,
};
use forebay_testkit::Child;

use super::Endless;

const ANY: &str = "tcp://127.0.0.1:0";
const STOP: Duration = Duration::from_secs(10);
/// Longest wait for anything.
pub(crate) const WAIT: Duration = Duration::from_secs(120);
/// Where the child finds the feed, and how many records it has.
const ENDPOINTS: &str = "FOREBAY_TEST_ENDPOINTS";
const RECORDS: &str = "FOREBAY_TEST_RECORDS";

/// A publisher and its replay server, in this process.
pub(crate) struct Followed {
    pub(crate) publisher: FeedPublisher,
    replay: ReplayServer,
}

fn no_failure() -> OnFailure {
    Box::new(|error| panic!("{error}"))
}

fn subscriber(feed: &str, fetch: &str) -> Subscriber {
    let mut config = SubscriberConfig::new("subscriber", feed, fetch);
    config.start = Start::Oldest;
    Subscriber::start(config).unwrap()
}

impl Followed {
    pub(crate) fn start(log: &Endless) -> Self {
        let publisher = PublisherConfig::new("publisher", ANY);
        let publisher = FeedPublisher::start(publisher, log.clone(), no_failure()).unwrap();
        let replay = ReplayConfig::new("replay", ANY);
        let replay = ReplayServer::start(replay, log.clone(), no_failure()).unwrap();
        Self { publisher, replay }
    }

    /// A subscriber in this process.
    pub(crate) fn subscriber(&self) -> Subscriber {
        subscriber(self.publisher.endpoint(), self.replay.endpoint())
    }

    /// A subscriber in a process of its own, which has begun: this test's binary runs [`follow`].
    pub(crate) fn child(&self, records: u64, folder: &Path) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--ignored", "--nocapture"]);
        command.env(ENDPOINTS, format!("{} {}", self.publisher.endpoint(), self.replay.endpoint()));
        command.env(RECORDS, records.to_string());
        let mut child = Child::spawn("subscriber", &mut command, folder).unwrap();
        child.wait_for("opened", WAIT).unwrap();
        child
    }

    pub(crate) fn stop(self) {
        self.publisher.stop(STOP).unwrap();
        self.replay.stop(STOP).unwrap();
    }
}

/// What the child does: it takes all records, each once and in order, and says how far it is.
pub(crate) fn follow() {
    let endpoints = std::env::var(ENDPOINTS).unwrap();
    let (feed, fetch) = endpoints.split_once(' ').unwrap();
    let records: u64 = std::env::var(RECORDS).unwrap().parse().unwrap();
    let subscriber = subscriber(feed, fetch);
    let (mut received, mut told) = (0, 0);
    while received < records {
        match subscriber.next(WAIT).unwrap() {
            Some(FeedEvent::Batch(batch)) => {
                assert_eq!(batch.first().counter(), received + 1, "a gap");
                received = batch.last().counter();
                if received >= told + records / 100 {
                    told = received;
                    println!("received {told}");
                }
            }
            Some(FeedEvent::Opened(_)) => println!("opened"),
            other => panic!("{other:?}"),
        }
    }
    println!("has all");
}
