//! A middle over real sockets: entries of many fronts reach a consumer, each once and in order.
//!
//! Fronts and consumer are the link's own ends over queues in memory. Kills of the process are in
//! `kill.rs`.

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use forebay_link::Error;
use support::{Consumer, DEADLINE, Front, config, config_at, start};

#[test]
fn what_is_acked_reaches_the_consumer_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let middle = start(config(dir.path()));
    let fronts: Vec<_> = (1..=5).map(Front::new).collect();
    let senders: Vec<_> =
        fronts.iter().map(|front| front.connect(&middle.addresses().uplink)).collect();
    let mut consumer = Consumer::connect(middle.addresses());
    for (at, front) in fronts.iter().enumerate() {
        front.append(&format!("device-{at}"), 1..=3000);
        // Every front also has the same messages of one device that roams.
        front.append("roamer", 1..=500);
    }
    fronts.iter().for_each(|front| front.wait_acked(3500));
    // The log may end with the mark of a front that had nothing new: one more message comes after.
    fronts[0].append("last", 1..=1);
    fronts[0].wait_acked(3501);
    consumer.take_until(5 * 3000 + 500 + 1);
    consumer.commit();
    consumer.assert_once();
    for sender in senders {
        sender.stop(DEADLINE).expect("ends");
    }
    consumer.subscriber.stop(DEADLINE).expect("ends");
    assert_eq!(middle.drain(DEADLINE).expect("closed").consumers_behind, []);
}

#[test]
fn a_restart_goes_on_where_the_consumer_and_the_fronts_stood() {
    let dir = tempfile::tempdir().expect("a directory");
    let middle = start(config(dir.path()));
    let addresses = middle.addresses().clone();
    let front = Front::new(1);
    let sender = front.connect(&addresses.uplink);
    let mut consumer = Consumer::connect(&addresses);
    front.append("pump", 1..=1000);
    front.wait_acked(1000);
    consumer.take_until(400);
    consumer.commit();
    let left = middle.drain(Duration::ZERO).expect("closed");
    assert!(left.consumers_behind.len() <= 1);

    front.append("pump", 900..=2000);
    let middle = start(config_at(dir.path(), &addresses));
    front.wait_acked(2101);
    consumer.take_until(2000);
    consumer.commit();
    consumer.assert_once();
    sender.stop(DEADLINE).expect("ends");
    consumer.subscriber.stop(DEADLINE).expect("ends");
    assert_eq!(middle.drain(DEADLINE).expect("closed").consumers_behind, []);
}

#[test]
fn of_two_processes_with_one_consumer_name_the_newer_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let middle = start(config(dir.path()));
    let front = Front::new(1);
    let sender = front.connect(&middle.addresses().uplink);
    front.append("pump", 1..=100);
    let mut older = Consumer::connect(middle.addresses());
    older.take_until(100);
    older.commit();
    let mut newer = Consumer::connect(middle.addresses());
    front.append("pump", 101..=200);
    newer.take_until(100);
    newer.commit();
    let fenced = older.subscriber.commit(older.last, DEADLINE);
    assert!(matches!(fenced, Err(Error::Fenced { .. })), "{fenced:?}");
    sender.stop(DEADLINE).expect("ends");
    middle.drain(Duration::ZERO).expect("closed");
}

#[test]
fn a_consumer_that_nobody_named_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = config(dir.path());
    settings.consumers.required = vec!["another".to_owned()];
    let middle = start(settings);
    let consumer = Consumer::connect(middle.addresses());
    let end = std::time::Instant::now() + DEADLINE;
    loop {
        match consumer.subscriber.next(Duration::from_millis(100)) {
            Err(Error::Refused { consumer, .. }) => break assert_eq!(consumer, "lake"),
            Err(error) => panic!("{error}"),
            Ok(_) => assert!(std::time::Instant::now() < end, "nobody refused it"),
        }
    }
    middle.drain(Duration::ZERO).expect("closed");
}

#[test]
fn a_full_log_holds_the_fronts_until_the_consumer_commits() {
    let dir = tempfile::tempdir().expect("a directory");
    let middle = start(config(dir.path()));
    let front = Front::new(1);
    let sender = front.connect(&middle.addresses().uplink);
    const MESSAGES: u64 = 200_000;
    front.append("pump", 1..=MESSAGES);
    let mut consumer = Consumer::connect(middle.addresses());
    // More than twice what the log holds: it must fill, push back, and drain.
    let mut most = 0;
    for taken in (10_000..=MESSAGES).step_by(10_000) {
        consumer.take_until(taken as usize);
        most = most.max(middle.used_bytes());
        consumer.commit();
    }
    front.wait_acked(MESSAGES);
    consumer.assert_once();
    assert!(most <= 8 << 20);
    sender.stop(DEADLINE).expect("ends");
    consumer.subscriber.stop(DEADLINE).expect("ends");
    middle.drain(DEADLINE).expect("closed");
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(DEADLINE)).expect("set");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

#[test]
fn the_admin_port_tells_how_it_stands() {
    let dir = tempfile::tempdir().expect("a directory");
    let middle = start(config(dir.path()));
    let front = Front::new(1);
    let sender = front.connect(&middle.addresses().uplink);
    front.append("pump", (1..=10).chain(5..=10));
    front.wait_acked(16);
    let admin = middle.addresses().admin;
    assert!(get(admin, "/readyz").starts_with("HTTP/1.1 200"));
    assert!(get(admin, "/healthz").starts_with("HTTP/1.1 200"));
    let metrics = get(admin, "/metrics");
    for line in [
        "forebay_middle_entries_total 10",
        "forebay_middle_duplicates_total{kind=\"message\"} 6",
        "forebay_middle_sources 1",
        "forebay_middle_dedup_sessions 1",
        "forebay_middle_consumer_lag_bytes{consumer=\"lake\"}",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert!(get(admin, "/status").contains("\"dedup_complete\":true"));
    sender.stop(DEADLINE).expect("ends");
    middle.drain(Duration::ZERO).expect("closed");
}
