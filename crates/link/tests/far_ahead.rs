//! A log that is far ahead all at once, as after a pause of the publisher's thread, costs the
//! publisher no more memory than the pump lets a subscriber have waiting.
//!
//! The subscriber is a process of its own; what it does not get in time it fetches. The log takes no
//! memory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod endless;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use endless::followed::{Followed, WAIT, follow};
use endless::{Endless, PAYLOAD_BYTES};
use forebay_testkit::rss_anon;

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const RECORDS: u64 = (512 << 20) / PAYLOAD_BYTES as u64;
/// What may wait for one peer, and what a run needs besides.
const GROWTH_BYTES_MAX: u64 = 40 << 20;

#[test]
#[ignore = "runs only as the child of the other test"]
fn child() {
    follow();
}

#[test]
fn a_log_far_ahead_of_its_subscriber_costs_a_bounded_amount_of_memory() {
    let log = Endless::new(9);
    let followed = Followed::start(&log);
    let folder = tempfile::tempdir().unwrap();
    let mut subscriber = followed.child(RECORDS, folder.path());

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
    followed.stop();
}
