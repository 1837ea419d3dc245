//! A queue takes less than 1 MiB of memory beyond its mapping, full or empty.
//!
//! Method: the private memory of this process (`RssAnon`), which has no other test in it, before the
//! queue is made and after it has been filled, read, followed and refused work, several times over.
//! The ring's pages are the file's and do not count.

use std::time::Duration;

use forebay_queue::{Durability, Error, Options, Queue, Seq};

const MIB: u64 = 1 << 20;

fn rss_anon_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux 4.5");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

#[test]
fn a_queue_takes_less_than_a_mebibyte_beyond_its_mapping() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options {
        capacity_bytes: 32 * MIB,
        durability: Durability::Process,
        any_filesystem: true,
        ..Options::default()
    };
    let before = rss_anon_bytes();
    let queue = Queue::create(dir.path(), &options).expect("creates");
    let mut reader = queue.reader("reader").expect("opens");
    let mut tail = queue.tail(Some(Seq::NONE));
    let mut appended = 0u64;
    for _ in 0..5 {
        loop {
            match queue.append(0, &[7; 256]) {
                Ok(_) => appended += 1,
                Err(Error::Full { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        while !tail.read(100, 64 << 10).expect("the queue lives").is_empty() {}
        while reader.wait(Duration::ZERO) {
            let batch = reader.peek(100, 64 << 10).expect("the queue lives");
            let last = batch.last().expect("it waited for one");
            batch.advance();
            reader.commit(last).expect("read");
        }
    }
    assert!(appended > 4 * 32 * MIB / 320, "{appended} entries: the ring was not filled");
    let taken = rss_anon_bytes().saturating_sub(before);
    println!("{taken} bytes of private memory beside a ring of 32 MiB, filled five times");
    assert!(taken < MIB, "{taken} bytes beyond the mapping");
}
