//! A subscriber that stops, or that hardly reads, costs the publisher a bounded amount of memory
//! and the other subscribers nothing.
//!
//! The publisher runs in this process, whose private memory is watched while 1 GiB is published;
//! one subscriber is a process under SIGSTOP, one speaks ZMTP by itself and reads 10 KiB a second,
//! one is a good one. The log takes no memory. Continued, the stopped one mends what it missed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod endless;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use endless::followed::{Followed, WAIT, follow};
use endless::{Endless, PAYLOAD_BYTES};
use forebay_link::FeedEvent;
use forebay_testkit::rss_anon;
use rustix::process::Signal;

const STOP: Duration = Duration::from_secs(10);
const RECORDS: u64 = (1 << 30) / PAYLOAD_BYTES as u64;
/// How far the log is ahead of the good reader.
const AHEAD: u64 = 12_000;
/// Two peers at the pump's bound of 16 MiB each, and as much again for what a run needs besides.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// A subscriber that says how far it is, now and then.
#[test]
#[ignore = "runs only as the child of the other test"]
fn child() {
    follow();
}

/// Subscribes by hand, and reads 1 KiB ten times a second until `over`.
fn read_slowly(address: SocketAddr, over: &AtomicBool) -> usize {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut greeting = [0; 64];
    (greeting[0], greeting[9], greeting[10]) = (0xff, 0x7f, 3);
    greeting[12..16].copy_from_slice(b"NULL");
    stream.write_all(&greeting).unwrap();
    stream.write_all(b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB").unwrap();
    stream.write_all(b"\x00\x0f\x01forebay.feed.1").unwrap();
    let (mut chunk, mut bytes) = ([0; 1024], 0);
    while !over.load(Ordering::Relaxed) {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(count) => bytes += count,
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bytes
}

#[test]
fn stopped_and_slow_subscribers_cannot_grow_the_publisher() {
    let log = Endless::new(9);
    let followed = Followed::start(&log);
    let good = followed.subscriber();

    let folder = tempfile::tempdir().unwrap();
    let mut stopped = followed.child(RECORDS, folder.path());
    log.grow_to(RECORDS / 20);
    stopped.wait_for("received", WAIT).unwrap();
    stopped.signal(Signal::STOP).unwrap();

    let over = Arc::new(AtomicBool::new(false));
    let slow = {
        let (address, over) = (followed.publisher.address().unwrap(), Arc::clone(&over));
        std::thread::spawn(move || read_slowly(address, &over))
    };
    let pid = std::process::id();
    let before = rss_anon(pid).unwrap();
    let (mut most, mut received) = (before, 0);
    let began = Instant::now();
    while received < RECORDS {
        match good.next(WAIT).unwrap() {
            Some(FeedEvent::Batch(batch)) => received = batch.last().counter(),
            Some(FeedEvent::Opened(_)) => {}
            other => panic!("{other:?}"),
        }
        log.grow_to((received + AHEAD).min(RECORDS));
        most = most.max(rss_anon(pid).unwrap());
    }
    let (seconds, grown) = (began.elapsed().as_secs_f64(), most - before);
    let behind = followed.publisher.pump().unwrap().behind.get();
    println!(
        "1 GiB published in {seconds:.1} s, {behind} subscribers closed for being behind; private \
         memory grew by {} MiB at most; of the good reader's records {} were fetched",
        grown >> 20,
        good.stats().fetched.get()
    );
    assert!(grown < GROWTH_BYTES_MAX, "the publisher grew by {grown} bytes");
    assert!(behind >= 2, "{behind} were closed");

    stopped.signal(Signal::CONT).unwrap();
    stopped.wait_for("has all", WAIT).unwrap();
    over.store(true, Ordering::Relaxed);
    followed.stop();
    let slowly = slow.join().unwrap();
    assert!(slowly > 0, "the slow reader was served");
    good.stop(STOP).unwrap();
}
