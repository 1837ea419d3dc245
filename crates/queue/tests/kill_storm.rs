//! Acked entries survive SIGKILL, at any moment, thousands of times.
//!
//! Method: a child process opens the queue in a directory, appends numbered entries, and writes
//! each number that is durable to an ack file; a reader thread in it writes each number before it
//! commits it. The parent kills the child at a random moment, in the open as well as under load,
//! and opens the queue itself: what was acked and not delivered must be there, in order, whole,
//! without a hole; what was never appended must not be. The ring is small, so that it wraps many
//! times a life.
//!
//! Cannot show: what a loss of power does, since the page cache survives a kill. That is the matter
//! of `power_cuts.rs` and `kernel_cuts.rs`.
//!
//! 2,000 cycles; `FOREBAY_CYCLES` makes it another number, `FOREBAY_SEED` other moments.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use forebay_queue::{Durability, Error, Options, Queue, Seq};

const DIR: &str = "FOREBAY_STORM_DIR";
const FIRST: &str = "FOREBAY_STORM_FIRST";
const FAULT: &str = "FOREBAY_STORM_FAULT";

/// Kinds of lines in the ack file, each followed by a number.
const ACKED: u8 = b'a';
const DELIVERED: u8 = b'd';
/// A line never lies across two pages: the kernel copies a write page by page and looks for a kill
/// in between. Of files with lines of nine bytes, 4 of 6,000 kills left one cut at a page's end.
const LINE_BYTES: usize = 16;
const _: () = assert!(4096 % LINE_BYTES == 0 && LINE_BYTES >= 9);

fn options(durability: Durability) -> Options {
    Options {
        capacity_bytes: 64 << 10,
        entry_bytes_max: 4 << 10,
        durability,
        any_filesystem: true,
        checkpoint_interval: Duration::from_millis(2),
        ..Options::default()
    }
}

/// Entry `number` of life `life`: recomputable, of 17 to about 1,500 bytes.
fn payload(life: u64, number: u64) -> Vec<u8> {
    let mixed = (number ^ life << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let len = 17 + (mixed >> 40) as usize % if number.is_multiple_of(8) { 1_500 } else { 200 };
    let mut bytes = Vec::with_capacity(len);
    bytes.extend_from_slice(&life.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend((16..len).map(|at| (mixed >> (at % 57)) as u8 ^ at as u8));
    bytes
}

fn number_of(entry: &[u8]) -> (u64, u64) {
    let word = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("eight bytes"));
    let (life, number) = (word(0), word(8));
    assert_eq!(entry, payload(life, number), "the payload of {number} is not what was appended");
    (life, number)
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The child: appends and reads until it is killed.
#[test]
#[ignore = "the child process of the tests here"]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let life = u64::from(std::process::id());
    let durability =
        if variable("FOREBAY_STORM_DISK", 1) == 1 { Durability::Disk } else { Durability::Process };
    let dir = Path::new(&dir);
    let queue = Queue::open(dir.join("queue"), &options(durability)).expect("a killed queue opens");
    let acks = Mutex::new(
        OpenOptions::new().append(true).open(dir.join("acks")).expect("the parent made it"),
    );
    std::thread::scope(|scope| {
        scope.spawn(|| deliver(&queue, &acks));
        append(&queue, &acks, life, variable(FIRST, 1));
    });
}

fn line(acks: &Mutex<File>, kind: u8, number: u64) {
    let mut bytes = [kind; LINE_BYTES];
    bytes[1..9].copy_from_slice(&number.to_le_bytes());
    // One write call a line, within a page: a kill leaves it whole or not at all.
    acks.lock().expect("no panic").write_all(&bytes).expect("the disk has room");
}

fn append(queue: &Queue, acks: &Mutex<File>, life: u64, first: u64) {
    let mut number = first;
    let acks_early = std::env::var(FAULT).is_ok();
    loop {
        let count = 1 + number % 7;
        if acks_early {
            line(acks, ACKED, number + count - 1);
        }
        let batch: Vec<_> = (number..number + count).map(|number| payload(life, number)).collect();
        match queue.append_batch(number, &batch) {
            Ok(span) => {
                queue.wait_durable(span.last, Duration::from_secs(60)).expect("syncs in time");
                number += count;
                line(acks, ACKED, number - 1);
            }
            Err(Error::Full { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn deliver(queue: &Queue, acks: &Mutex<File>) {
    let mut reader = queue.reader("storm").expect("opens once");
    loop {
        let batch = reader.peek(16, 8 << 10).expect("the queue lives");
        let last = batch.iter().last().map(|entry| (entry.seq, number_of(entry.payload).1));
        let Some((seq, number)) = last else {
            let _ = reader.wait(Duration::from_millis(5));
            continue;
        };
        line(acks, DELIVERED, number);
        batch.advance();
        reader.commit(seq).expect("the queue lives");
    }
}

/// What the child said before it died: the highest number acked and delivered.
fn said(dir: &Path) -> (u64, u64) {
    let bytes = std::fs::read(dir.join("acks")).expect("the ack file");
    assert!(bytes.len().is_multiple_of(LINE_BYTES), "a torn ack line: {} bytes", bytes.len());
    let (mut acked, mut delivered) = (0, 0);
    for line in bytes.chunks(LINE_BYTES) {
        let number = u64::from_le_bytes(line[1..9].try_into().expect("eight bytes"));
        match line[0] {
            ACKED => acked = acked.max(number),
            _ => delivered = delivered.max(number),
        }
    }
    (acked, delivered)
}

/// Opens what is left and compares; returns the number to go on with, or what is wrong.
fn check(dir: &Path, durability: Durability) -> Result<u64, String> {
    let (acked, delivered) = said(dir);
    let queue =
        Queue::open(dir.join("queue"), &options(durability)).map_err(|error| error.to_string())?;
    let recovery = queue.recovery();
    if recovery.corrupt_ranges > 0 {
        return Err(format!("damage after a kill: {recovery:?}"));
    }
    let mut tail = queue.tail(Some(Seq::NONE));
    let mut numbers = Vec::new();
    loop {
        let batch = tail.read(1_000, 1 << 20).map_err(|error| error.to_string())?;
        if batch.is_empty() {
            break;
        }
        numbers.extend(batch.iter().map(|entry| number_of(entry.payload).1));
    }
    if let Some(pair) = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1) {
        return Err(format!("{} is followed by {}", pair[0], pair[1]));
    }
    let first = numbers.first().copied().unwrap_or(delivered + 1);
    let last = numbers.last().copied().unwrap_or(delivered);
    if first > delivered + 1 {
        return Err(format!("{first} is the oldest, but {delivered} the last delivered"));
    }
    if last < acked {
        return Err(format!("{last} is the newest, but {acked} was acked"));
    }
    Ok(last + 1)
}

/// Waits until the child has said something, or two seconds: then its end is checked all the same.
fn wait_for_work(dir: &Path) {
    let len = || std::fs::metadata(dir.join("acks")).map_or(0, |found| found.len());
    let (before, started) = (len(), Instant::now());
    while len() == before && started.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn storm(durability: Durability, cycles: u64, faulty: bool) -> Result<(), String> {
    let home = tempfile::tempdir().expect("a folder");
    let dir = home.path();
    Queue::create(dir.join("queue"), &options(durability)).expect("creates").close().expect("ends");
    File::create(dir.join("acks")).expect("a file");
    let seed = variable("FOREBAY_SEED", 1);
    let mut random = seed;
    let mut next = 1;
    for cycle in 0..cycles {
        let mut child = Command::new(std::env::current_exe().expect("this test"));
        child.args(["child", "--exact", "--ignored", "--nocapture"]);
        child.env(DIR, dir).env(FIRST, next.to_string());
        child.env("FOREBAY_STORM_DISK", u8::from(durability == Durability::Disk).to_string());
        if faulty {
            child.env(FAULT, "1");
        }
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // Half the kills hit the start and the open, half hit it under load.
        if random >> 63 == 0 {
            wait_for_work(dir);
        }
        std::thread::sleep(Duration::from_micros((random >> 33) % 3_000));
        child.kill().expect("it is ours");
        let output = child.wait_with_output().expect("it is ours");
        if output.status.code().is_some() {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("cycle {cycle}, seed {seed}: the child ended by itself: {text}"));
        }
        next =
            check(dir, durability).map_err(|why| format!("cycle {cycle}, seed {seed}: {why}"))?;
    }
    assert!(next > cycles, "{next} entries in {cycles} cycles: the children did not get to work");
    Ok(())
}

/// Both levels of durability, half of the cycles each.
#[test]
fn acked_entries_survive_sigkill() {
    let cycles = variable("FOREBAY_CYCLES", 2_000) / 2;
    std::thread::scope(|scope| {
        let levels = [Durability::Disk, Durability::Process];
        let storms = levels.map(|level| scope.spawn(move || storm(level, cycles, false)));
        for storm in storms {
            storm.join().expect("no panic").expect("nothing lost");
        }
    });
}

/// The twin: a child that acks before it appends must be caught.
#[test]
fn the_storm_notices_an_ack_that_comes_too_early() {
    let why = storm(Durability::Disk, 1_000, true).expect_err("the planted fault was not noticed");
    assert!(why.contains("was acked"), "{why}");
}
