//! Every message is accepted exactly once and in order, whatever mixture of lost connections, full
//! queues, gaps, rejections, late acks and changing credit a front serves; and a device that is told
//! everything is acked can believe it. The front keeps the rules of docs/protocol.md; the seed of
//! each storm is printed.
//!
//! Not shown: faults below TCP, and fronts that break the rules (the device's other tests).

use std::{collections::BTreeSet, time::Duration};

use forebay_client::{Backoff, Device, Options, SpoolOptions};
use forebay_model::{Body, Reading, Value};
use forebay_wire::device::{Format, NackCode, ServerFrame};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::SmallRng};
use tokio::sync::watch;

mod server;

use server::{Server, id, within};

const MESSAGES: u64 = 3000;

/// A front with the memory of one session.
struct Front {
    server: Server,
    random: SmallRng,
    /// Accepted numbers with their values, in order.
    accepted: Vec<(u64, String)>,
    rejected: BTreeSet<u64>,
    /// The highest number for which an ack was sent.
    acked: u64,
}

impl Front {
    fn last(&self) -> u64 {
        self.accepted
            .last()
            .map_or(0, |(number, _)| *number)
            .max(self.rejected.iter().next_back().copied().unwrap_or(0))
    }

    /// Serves connections until everything is acked and the device has gone.
    async fn serve(mut self, mut done: watch::Receiver<bool>) -> Self {
        loop {
            let peer = tokio::select! {
                peer = self.server.accept() => peer,
                _ = done.wait_for(|done| *done) => return self,
            };
            tokio::select! {
                () = self.converse(peer) => {}
                _ = done.wait_for(|done| *done) => return self,
            }
        }
    }

    async fn converse(&mut self, mut peer: server::Peer) {
        let (_, next) = peer.hello().await;
        assert!(next <= self.last() + 1, "hello skips {} to {next}", self.last() + 1);
        // An ack that was lost on the way may be told in the welcome, or the front has forgotten.
        let told = self.random.random_bool(0.5).then_some(self.last()).filter(|last| *last > 0);
        self.acked = self.acked.max(told.unwrap_or(0));
        let mut credit = self.random.random_range(1..80);
        peer.welcome(told, credit, 30).await;
        let mut nacked = false;
        loop {
            let Some((number, value)) = peer.next_data().await else { return };
            if self.random.random_bool(0.004) {
                return;
            }
            let expected = self.last() + 1;
            if number > expected {
                if !nacked {
                    nacked = true;
                    peer.nack(number, NackCode::Gap, 0, Some(expected)).await;
                }
                continue;
            }
            if number == expected {
                if self.random.random_bool(0.01) {
                    let ms = self.random.random_range(0..3);
                    nacked = true;
                    peer.nack(number, NackCode::Full, ms, None).await;
                    continue;
                }
                nacked = false;
                if self.random.random_bool(0.01) {
                    self.rejected.insert(number);
                    self.reject(&mut peer, number).await;
                } else {
                    self.accepted.push((number, value));
                }
            } else if self.rejected.contains(&number) {
                self.reject(&mut peer, number).await;
            }
            // Late acks are cumulative; a small credit must not wait for one, nor the last message.
            let behind = self.last() - self.acked;
            if self.random.random_bool(0.2)
                || behind >= u64::from(credit)
                || self.last() == MESSAGES
            {
                let changed = self.random.random_bool(0.1);
                let changed = changed.then(|| self.random.random_range(1..80));
                credit = changed.unwrap_or(credit);
                self.acked = self.last();
                peer.say(ServerFrame::Ack { ack: id(self.last()), credit: changed }).await;
            }
        }
    }

    async fn reject(&mut self, peer: &mut server::Peer, number: u64) {
        let (code, reason) = ("wrong_type".into(), "planted".into());
        peer.say(ServerFrame::Reject { seq: id(number), code, reason }).await;
    }
}

async fn storm(seed: u64, options: Options) {
    // libtest shows it when the test fails.
    println!("seed {seed}");
    let server = Server::bind().await;
    let url = server.url.clone();
    let random = SmallRng::seed_from_u64(seed);
    let front = Front { server, random, accepted: vec![], rejected: BTreeSet::new(), acked: 0 };
    let (done, hears) = watch::channel(false);
    let front = tokio::spawn(front.serve(hears));
    let device = within("connect", Device::connect(&url, "pump-7", options)).await;
    let device = device.expect("connected");
    for number in 1..=MESSAGES {
        let value = Value::Int(number as i64 * 7);
        let reading = Reading { key: "n".into(), value, unit: None, time: None };
        let seq = within("send", device.send(Body::Readings(vec![reading]))).await.expect("taken");
        assert_eq!(seq.get(), number);
    }
    within("flush", device.flush()).await.expect("all acked");
    let statistics = device.statistics();
    let told: BTreeSet<u64> =
        device.rejections().iter().map(|rejection| rejection.seq.get()).collect();
    assert_eq!(within("close", device.close()).await, 0);
    done.send_replace(true);
    let front = within("the front", front).await.expect("the rules were kept");
    let mut stored = front.accepted.iter();
    for number in (1..=MESSAGES).filter(|number| !front.rejected.contains(number)) {
        assert_eq!(stored.next(), Some(&(number, format!("Int({})", number * 7))));
    }
    assert_eq!(stored.next(), None);
    // A rejection that was lost with its connection is not repeated once the ack has passed it.
    assert!(told.is_subset(&front.rejected));
    assert_eq!(statistics.acked, MESSAGES);
    assert!(statistics.connections > 1 && statistics.resent > 0, "no storm: {statistics:?}");
}

fn options(format: Format) -> Options {
    let (first, longest) = (Duration::from_millis(1), Duration::from_millis(4));
    Options { format, backoff: Backoff { first, longest }, ..Options::default() }
}

#[tokio::test]
async fn a_storm_costs_no_message_from_memory() {
    for (seed, format) in [(1, Format::Cbor), (2, Format::Json), (3, Format::Cbor)] {
        storm(seed, options(format)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_on_two_threads_costs_no_message() {
    let seed = rand::rng().next_u64();
    storm(seed, options(Format::Cbor)).await;
}

#[tokio::test]
async fn a_storm_costs_no_message_from_a_spool() {
    let dir = tempfile::tempdir().expect("a directory");
    let queue = forebay_queue::Options {
        capacity_bytes: 128 << 10,
        entry_bytes_max: 1 << 10,
        durability: forebay_queue::Durability::Process,
        any_filesystem: true,
        ..forebay_queue::Options::default()
    };
    let spool = Some(SpoolOptions { dir: dir.path().to_owned(), queue });
    storm(4, Options { spool, ..options(Format::Json) }).await;
}
