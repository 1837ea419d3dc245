//! A front, a middle and a storage tier that speak only mutual TLS with each other: everything
//! that devices were told is safe arrives once, while all certificates are replaced twice under
//! load, and a stranger on any of the ports gets nothing.
//!
//! Real tiers in one process, real sockets, a real lake, compared as sets by the fleet's checker.
//! Not shown: tiers that die, which the kill storm does over plain connections.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forebay_fleet::{
    checker::{Checker, lake},
    fleet::{Fleet, Plan},
    journal::Journal,
    script::Script,
    series::builtin,
};
use forebay_ops::{ByteSize, Shutdown, tls::MutualTls};
use forebay_testkit::certificates::{Authority, Validity};
use forebay_testkit::wait_until;
use prometheus::Registry;

const WITHIN: Duration = Duration::from_secs(30);
const TIERS: [&str; 3] = ["front", "middle", "storage"];
const ROTATIONS: f64 = 2.0;

struct Installation {
    folder: tempfile::TempDir,
    authority: Authority,
    registries: [Registry; 3],
}

impl Installation {
    fn new() -> Self {
        let authority = Authority::new("installation").unwrap();
        let this = Self {
            folder: tempfile::tempdir().unwrap(),
            authority,
            registries: Default::default(),
        };
        this.authority.write(this.path(), "ca").unwrap();
        let none = this.authority.revocations(&[]).unwrap();
        std::fs::write(this.path().join("crl.pem"), none).unwrap();
        this.issue();
        this
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A new certificate and key for each tier.
    fn issue(&self) {
        for tier in TIERS {
            let names = &["localhost", "127.0.0.1"];
            let certificate = self.authority.issue(tier, names, Validity::Now).unwrap();
            certificate.write(self.path(), tier).unwrap();
        }
    }

    fn tls(&self, tier: &str) -> MutualTls {
        let file = |name: String| -> PathBuf { self.path().join(name) };
        MutualTls {
            certificate: file(format!("{tier}.pem")),
            key: file(format!("{tier}.key")),
            ca: file("ca.pem".to_owned()),
            crl: file("crl.pem".to_owned()),
        }
    }

    /// The sum of a metric over all its labels, in one tier's registry.
    fn sum(&self, tier: usize, name: &str) -> f64 {
        let families = self.registries[tier].gather();
        let metrics = families.iter().filter(|family| family.name() == name);
        let metrics = metrics.flat_map(|family| family.get_metric());
        metrics
            .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
            .sum()
    }
}

fn middle(place: &Installation, shutdown: Shutdown) -> forebay_middle::Running {
    let mut config = forebay_middle::Config::default();
    for (listen, tls) in [
        (&mut config.uplink.listen, &mut config.uplink.tls),
        (&mut config.feed.listen, &mut config.feed.tls),
        (&mut config.fetch.listen, &mut config.fetch.tls),
    ] {
        *listen = "tcp://127.0.0.1:0".to_owned();
        *tls = place.tls("middle");
    }
    config.admin.address.set_port(0);
    config.queue.dir = place.path().join("middle-queue");
    config.queue.capacity = ByteSize::mib(16);
    config.queue.any_filesystem = true;
    forebay_middle::start(config, &place.registries[1], shutdown).unwrap()
}

fn storage(
    place: &Installation,
    middle: &forebay_middle::Addresses,
    shutdown: Shutdown,
) -> forebay_storage::Running {
    let mut config = forebay_storage::Config::default();
    config.middles[0].feed.clone_from(&middle.feed);
    config.middles[0].fetch.clone_from(&middle.fetch);
    config.feed.tls = place.tls("storage");
    config.http.address.set_port(0);
    config.admin.address.set_port(0);
    config.lake.dir = place.path().join("lake");
    config.lake.dead_letters = place.path().join("dead-letters");
    config.lake.flush.age = Duration::from_millis(300).into();
    config.last.snapshot = place.path().join("last.jsonl");
    forebay_storage::start(config, &place.registries[2], shutdown).unwrap()
}

fn front(place: &Installation, uplink: &str, shutdown: &Shutdown) -> forebay_front::Running {
    let mut config = forebay_front::Config::default();
    config.listen.address.set_port(0);
    config.listen.cores = Some(1);
    config.admin.address.set_port(0);
    config.queue.dir = place.path().join("front-queue");
    config.queue.capacity = ByteSize::mib(8);
    config.queue.any_filesystem = true;
    config.uplink.middle = uplink.to_owned();
    config.uplink.tls = place.tls("front");
    forebay_front::start(config, &place.registries[0], shutdown).unwrap()
}

#[test]
fn three_tiers_over_mutual_tls_deliver_all_they_acknowledged_once() {
    let begin = std::time::Instant::now();
    let place = Installation::new();
    let shutdown = Shutdown::new();
    let middle = middle(&place, shutdown.clone());
    let storage = storage(&place, middle.addresses(), shutdown.clone());
    let front = front(&place, &middle.addresses().uplink, &shutdown);

    let script = Arc::new(Script::new(builtin(), 200, 7));
    let journal = Arc::new(Journal::default());
    let plan = Plan {
        fronts: vec![format!("ws://{}", front.addresses().ingest)],
        devices: 40,
        rate: Some(1_500.0),
        window: 64,
        ..Plan::default()
    };
    let fleet = Fleet::start(plan, Arc::clone(&script), Arc::clone(&journal)).unwrap();
    let taken = |tier| place.sum(tier, "forebay_reload_taken_total");
    println!("{:?}: tiers and fleet run", begin.elapsed());
    for rotation in 1..=ROTATIONS as u32 {
        place.issue();
        // One set of files in the front and in storage, three ports in the middle.
        let all = f64::from(rotation);
        wait_until("all certificates are taken over", WITHIN, || {
            taken(0) >= all && taken(1) >= 3.0 * all && taken(2) >= all
        });
    }
    println!("{:?}: certificates replaced", begin.elapsed());
    fleet.stop_sending();
    assert!(fleet.wait_acked(WITHIN), "{:?}", fleet.progress());
    fleet.end();
    strangers_get_nothing(middle.addresses());
    assert!(place.sum(1, "forebay_middle_connections_accepted_total") >= 3.0);
    let refused = || [0, 1, 2].map(|tier| place.sum(tier, "forebay_tls_refused_total"));
    wait_until("the strangers, and only they, are counted", WITHIN, || {
        refused() == [0.0, 3.0, 0.0]
    });
    println!("{:?}: strangers refused", begin.elapsed());

    shutdown.begin("test");
    assert!(front.drain(WITHIN).is_complete());
    assert!(storage.drain(WITHIN).is_complete());
    let left = middle.drain(WITHIN).unwrap();
    assert_eq!(left.consumers_behind, [], "storage has committed all");

    println!("{:?}: drained", begin.elapsed());
    let records = journal.records();
    let mut checker = Checker::new(&script, &records);
    let files = lake::read(&place.path().join("lake"), &mut checker).unwrap();
    let verdict = checker.finish();
    println!("{} messages acked, {} stored in {files} files", verdict.acked, verdict.stored);
    assert!(verdict.is_clean(), "{verdict:#?}");
    assert_eq!(verdict.acked, verdict.stored, "{verdict:#?}");
    assert!(verdict.acked > 1_000, "hardly any load");
}

/// Who speaks plain ZeroMQ to a port of the middle is sent away without a word.
fn strangers_get_nothing(middle: &forebay_middle::Addresses) {
    for endpoint in [&middle.uplink, &middle.feed, &middle.fetch] {
        let mut stranger = TcpStream::connect(endpoint.strip_prefix("tcp://").unwrap()).unwrap();
        stranger.set_read_timeout(Some(WITHIN)).unwrap();
        let mut greeting = [0; 64];
        (greeting[0], greeting[9], greeting[10]) = (0xff, 0x7f, 3);
        stranger.write_all(&greeting).unwrap();
        let mut answer = Vec::new();
        let _closed = stranger.read_to_end(&mut answer);
        // An alert of TLS, which is 7 bytes long; nothing of ZeroMQ.
        assert!(answer.len() <= 7, "{answer:?}");
    }
}
