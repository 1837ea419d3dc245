//! A front's life: ready, draining, ended, started again on what it left.
//!
//! Method: in this process, over real sockets; the admin server is asked over plain HTTP. Not
//! shown: signals and exit codes (the command's own tests), and kills (the end-to-end tests).

mod support;

use std::{net::SocketAddr, time::Duration};

use forebay_front::{Config, StartError};
use forebay_ops::{ByteSize, Shutdown};
use forebay_wire::device::Format;
use support::{
    Event, Front, counts, data, large,
    middle::Middle,
    plain::{self, Plain},
    seqs, stored, until,
};

/// Status and body of an admin route.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut plain = Plain::to(address).await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    plain.write(request.as_bytes()).await;
    let answer = String::from_utf8(plain.read_to_end().await).expect("text");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), answer)
}

#[tokio::test]
async fn a_front_is_ready_while_its_ring_has_room_even_without_a_middle() {
    let front = Front::with(|config| {
        config.queue.capacity = ByteSize::mib(1);
        config.limits.read_pause = forebay_ops::Duration::from_millis(200);
    });
    let admin = front.running.addresses().admin;
    assert_eq!(get(admin, "/healthz").await.0, 200);
    assert_eq!(get(admin, "/readyz").await.0, 200);
    let mut device = front.device("pump", Format::Cbor).await;
    for seq in 1.. {
        device.send(&data(seq, large(60_000))).await;
        if !matches!(
            device.next().await,
            Event::Frame(forebay_wire::device::ServerFrame::Ack { .. })
        ) {
            break;
        }
    }
    let (status, body) = get(admin, "/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("the ring is full"), "{body}");
    assert_eq!(get(admin, "/healthz").await.0, 200, "a full ring is no reason to restart");
}

#[tokio::test]
async fn metrics_count_what_happened_and_name_no_device() {
    let front = Front::start();
    let mut device = front.device("pump-of-mine", Format::Cbor).await;
    device.data(1..=50).await;
    device.acked(50).await;
    until("the core's histograms", || {
        front.metric("forebay_front_append_seconds", &[]) >= 1.0
            && front.metric("forebay_front_ack_seconds", &[]) >= 1.0
    })
    .await;
    let (_, text) = get(front.running.addresses().admin, "/metrics").await;
    assert!(text.contains("forebay_front_messages_total 50"), "{text}");
    assert!(text.contains("forebay_front_queue_entries{partition=\"0\"} 50"), "{text}");
    assert!(text.contains("forebay_front_connections 1"), "{text}");
    assert!(text.contains("forebay_front_handshakes_total{outcome=\"opened\"} 1"), "{text}");
    assert!(text.contains("forebay_front_uplink_connected{partition=\"0\"} 0"), "{text}");
    assert!(!text.contains("pump-of-mine"), "a device id is no label");
}

#[tokio::test]
async fn a_drain_closes_with_1012_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let endpoint = format!("ipc://{}", dir.path().join("middle").display());
    let middle = Middle::start(&endpoint, false);
    let front = Front::with(|config| {
        config.uplink.middle.clone_from(&endpoint);
        config.drain.spread = forebay_ops::Duration::from_millis(300);
    });
    let (ingest, admin) = (front.running.addresses().ingest, front.running.addresses().admin);
    let mut devices = Vec::new();
    for number in 0..10 {
        let mut device = front.device(&format!("d{number}"), Format::Cbor).await;
        device.data(1..=20).await;
        devices.push(device);
    }
    for device in &mut devices {
        device.acked_at_last(20).await;
    }
    let Front { running, shutdown, dir: _ring, .. } = front;
    shutdown.begin("a test");
    let draining = tokio::task::spawn_blocking(move || running.drain(Duration::from_secs(20)));
    for device in &mut devices {
        let Event::Close(code, reason) = device.next().await else { panic!("not closed") };
        assert_eq!(code, 1012);
        assert!(reason.starts_with("retry_ms="), "{reason}");
    }
    drop(devices);
    let drained = draining.await.expect("drained");
    assert!(drained.is_complete(), "{drained:?}");
    assert_eq!(middle.seqs().len(), 200);
    assert!(tokio::net::TcpStream::connect(ingest).await.is_err(), "the port is free");
    assert!(tokio::net::TcpStream::connect(admin).await.is_err(), "the admin port is free");
    middle.stop();
}

#[tokio::test]
async fn a_draining_front_refuses_new_devices_and_is_not_ready() {
    let front = Front::with(|config| {
        config.drain.spread = forebay_ops::Duration::from_secs(1);
        config.ack.level = forebay_front::config::Level::Middle;
    });
    let (ingest, admin) = (front.running.addresses().ingest, front.running.addresses().admin);
    let mut device = front.device("pump", Format::Cbor).await;
    // Its acks never come, as there is no middle: the drain waits for them a while.
    device.data(1..=5).await;
    until("the entries", || front.stat().appended.counter() == 5).await;
    let Front { running, config, dir, .. } = front;
    let draining = tokio::task::spawn_blocking(move || running.drain(Duration::from_secs(4)));
    loop {
        let (status, body) = get(admin, "/readyz").await;
        // Before that it settles: not ready, and still taking devices.
        if body.contains("draining: closing") {
            assert_eq!(status, 503);
            break;
        }
    }
    let mut plain = Plain::to(ingest).await;
    plain.write(plain::request("new", "").as_bytes()).await;
    let answer = String::from_utf8(plain.read_to_end().await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(device.closed().await, 1012, "nothing was acked, the device sends it again");
    drop(device);
    let drained = draining.await.expect("drained");
    assert_eq!((drained.connections, drained.entries), (0, 5));
    assert!(drained.bytes > 0);
    // What was left is sent after the next start.
    assert_eq!(seqs(&stored(&config), "pump"), [1, 2, 3, 4, 5]);
    drop(dir);
}

/// One request to the admin port with a method and the token; its body.
async fn drain_route(admin: SocketAddr, method: &str, token: &str) -> String {
    let mut plain = Plain::to(admin).await;
    let head = format!("{method} /v1/drain HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    plain.write(format!("{head}authorization: Bearer {token}\r\n\r\n").as_bytes()).await;
    String::from_utf8(plain.read_to_end().await).expect("text")
}

#[tokio::test]
async fn a_front_is_taken_out_of_service_by_its_drain_route_and_put_back() {
    const TOKEN: &str = "a token of this test";
    let tokens = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(tokens.path(), TOKEN).expect("written");
    let dir = tempfile::tempdir().expect("a directory");
    let endpoint = format!("ipc://{}", dir.path().join("middle").display());
    let middle = Middle::start(&endpoint, false);
    let front = Front::with(|config| {
        config.uplink.middle.clone_from(&endpoint);
        config.admin.token_file = Some(tokens.path().to_owned());
        config.shutdown.settle = Some(forebay_ops::Duration::from_secs(0));
    });
    let admin = front.running.addresses().admin;
    let mut device = front.device("pump", Format::Cbor).await;
    device.data(1..=20).await;
    device.acked_at_last(20).await;
    assert!(drain_route(admin, "POST", "another token of it").await.contains(" 403 "));
    assert!(drain_route(admin, "POST", TOKEN).await.contains(" 200 "));
    assert_eq!(device.closed().await, 1012);
    drop(device);
    loop {
        let body = drain_route(admin, "GET", TOKEN).await;
        if body.contains("\"phase\":\"drained\"") {
            assert!(body.contains("\"entries\":0"), "{body}");
            break;
        }
    }
    assert_eq!(middle.seqs().len(), 20, "all is with the middle");
    assert_eq!(get(admin, "/readyz").await.0, 503);
    assert!(drain_route(admin, "DELETE", TOKEN).await.contains("\"phase\":\"serving\""));
    assert_eq!(get(admin, "/readyz").await.0, 200);
    let mut device = front.connect("pump", Some(Format::Cbor)).await;
    device.hello(1, 21).await;
    device.data(21..=30).await;
    device.acked_at_last(30).await;
    let Front { running, dir: _ring, .. } = front;
    assert!(running.drain(Duration::from_secs(10)).is_complete());
    middle.stop();
}

#[tokio::test]
async fn what_a_front_left_is_forwarded_by_the_next() {
    let front = Front::start();
    let mut device = front.device("pump", Format::Cbor).await;
    device.data(1..=100).await;
    device.acked(100).await;
    drop(device);
    let Front { running, dir, .. } = front;
    running.stop();
    let endpoint = format!("ipc://{}", dir.path().join("middle").display());
    let middle = Middle::start(&endpoint, false);
    let front = Front::in_dir(dir, |config| config.uplink.middle.clone_from(&endpoint));
    let mut device = front.connect("pump", Some(Format::Cbor)).await;
    device.hello(1, 101).await;
    device.data(101..=150).await;
    device.acked(150).await;
    let Front { running, dir: _dir, .. } = front;
    assert!(running.drain(Duration::from_secs(10)).is_complete());
    let seqs: Vec<u64> = middle.seqs().into_iter().map(|(_, seq)| seq).collect();
    assert_eq!(seqs, (1..=150).collect::<Vec<_>>());
    middle.stop();
}

#[tokio::test]
async fn devices_are_spread_over_partitions_and_stay_on_theirs() {
    let dir = tempfile::tempdir().expect("a directory");
    let front = Front::in_dir(dir, |config| {
        for name in ["a", "b", "c"] {
            let endpoint = format!("{}.{name}", config.uplink.middle);
            config.uplink.partitions.insert(name.to_owned(), endpoint);
        }
    });
    let names: Vec<String> = (0..30).map(|number| format!("d{number}")).collect();
    for from in [1, 6] {
        for name in &names {
            let mut device = front.connect(name, Some(Format::Cbor)).await;
            device.hello(1, from).await;
            device.data(from..from + 5).await;
            device.acked_at_last(from + 4).await;
        }
    }
    let queues = front.running.queues();
    let held = counts(queues.iter().map(|(name, _)| name.clone()));
    assert_eq!(held.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(queues.iter().all(|(_, stat)| stat.appended.counter() >= 10), "{queues:?}");
    assert!(queues.iter().all(|(_, stat)| stat.appended.counter() % 10 == 0), "{queues:?}");
    let total: u64 = queues.iter().map(|(_, stat)| stat.appended.counter()).sum();
    assert_eq!(total, 300);
}

#[test]
fn a_front_that_cannot_start_says_why_and_leaves_nothing_running() {
    let front = Front::start();
    let registry = prometheus::Registry::new();
    let mut config = Config { ..front.config.clone() };
    // Its ring is in use.
    let error = forebay_front::start(config.clone(), &registry, &Shutdown::new());
    assert!(matches!(error.err(), Some(StartError::Ring { .. })));
    // Its port is in use.
    config.listen.address = front.running.addresses().ingest;
    let error = forebay_front::start(config.clone(), &registry, &Shutdown::new());
    assert!(matches!(error.err(), Some(StartError::Listen { .. })));
    // Its settings contradict each other.
    config.ack.credit = 0;
    let error = forebay_front::start(config, &registry, &Shutdown::new());
    assert!(error.err().expect("refused").to_string().contains("ack.credit"));
}
