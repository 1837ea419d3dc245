//! Acked entries survive a cut of the file system under a live queue, on ext4 and on XFS.
//!
//! Method: a loop-mounted file system, a child process with a queue on it, two producers and a
//! reader at full load, and `FS_IOC_SHUTDOWN` at a random moment: the kernel drops every dirty page
//! and the journal, as a loss of power would. The child then ends, by an error or by SIGBUS: a
//! store to a page that the kernel can no longer provide. Unmount, mount (the journal is replayed),
//! open, compare: what the child had acked before the cut must be there, in order, whole; what it
//! had delivered must not be missing before it.
//!
//! Cannot show: a device that loses what it acknowledged, torn sectors (see the simulator of the
//! queue's own tests). Needs root and loop devices, else it is skipped, loudly.
//!
//! 60 seconds in all; `FOREBAY_CUT_SECONDS` makes it another time, `FOREBAY_SEED` other moments.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use forebay_queue::testing::{Fault, open_dir_threaded};
use forebay_queue::{Error, Options, Queue, Seq};
use forebay_testkit::{Filesystem, LoopMount, or_skip};

const PRODUCERS: usize = 2;

const DIR: &str = "FOREBAY_CUTS_DIR";
const ACKS: &str = "FOREBAY_CUTS_ACKS";
const NEXT: &str = "FOREBAY_CUTS_NEXT";
const FAULT: &str = "FOREBAY_CUTS_FAULT";

fn options() -> Options {
    Options {
        capacity_bytes: 256 << 10,
        entry_bytes_max: 4 << 10,
        checkpoint_interval: Duration::from_millis(3),
        ..Options::default()
    }
}

/// Entry `number` of a producer, recomputable, of 32 to 2,000 bytes.
fn payload(producer: usize, number: u64) -> Vec<u8> {
    let mixed = (number << 8 | producer as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let len = 32 + (mixed >> 40) as usize % if number.is_multiple_of(16) { 2_000 } else { 300 };
    let mut bytes = vec![producer as u8; 8];
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend((16..len).map(|at| (mixed >> (at % 57)) as u8 ^ at as u8));
    bytes
}

fn identity(entry: &[u8]) -> (usize, u64) {
    let producer = usize::from(entry[0]);
    let number = u64::from_le_bytes(entry[8..16].try_into().expect("eight bytes"));
    assert_eq!(entry, payload(producer, number), "{producer}:{number} is not what was appended");
    (producer, number)
}

/// The acks of the child: kind, producer, number; a kill leaves each line whole or not at all,
/// because none lies across two pages (see `kill_storm.rs` of the queue).
const ACKED: u8 = b'a';
const DELIVERED: u8 = b'd';
const LINE_BYTES: usize = 16;
const _: () = assert!(4096 % LINE_BYTES == 0);

fn line(acks: &File, kind: u8, producer: usize, number: u64) {
    let mut bytes = [kind; LINE_BYTES];
    bytes[1] = producer as u8;
    bytes[2..10].copy_from_slice(&number.to_le_bytes());
    (&*acks).write_all(&bytes).expect("the disk has room");
}

/// The child: appends and reads until its file system is cut off.
#[test]
#[ignore = "the child process of the tests here"]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let path = |name| std::env::var(name).expect("the parent said so");
    let acks = OpenOptions::new().append(true).open(path(ACKS)).expect("the parent made it");
    let faults: &[Fault] =
        if std::env::var_os(FAULT).is_some() { &[Fault::AckWithoutSync] } else { &[] };
    let queue = open_dir_threaded(Path::new(&dir), &options(), faults).expect("a cut queue opens");
    let next: Vec<u64> =
        path(NEXT).split(',').map(|next| next.parse().expect("a number")).collect();
    std::thread::scope(|scope| {
        for (producer, first) in next.into_iter().enumerate() {
            let (queue, acks) = (&queue, &acks);
            scope.spawn(move || produce(queue, acks, producer, first));
        }
        scope.spawn(|| deliver(&queue, &acks));
    });
}

fn produce(queue: &Queue, acks: &File, producer: usize, first: u64) {
    let mut number = first;
    loop {
        let seq = match queue.append(number, &payload(producer, number)) {
            Ok(seq) => seq,
            Err(Error::Full { .. }) => {
                std::thread::yield_now();
                continue;
            }
            Err(Error::Io { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        if number.is_multiple_of(3) {
            match queue.wait_durable(seq, Duration::from_secs(20)) {
                Ok(()) => line(acks, ACKED, producer, number),
                Err(Error::Io { .. }) => return,
                Err(error) => panic!("{error}"),
            }
        }
        number += 1;
    }
}

fn deliver(queue: &Queue, acks: &File) {
    let Ok(mut reader) = queue.reader("cuts") else { return };
    loop {
        let Ok(batch) = reader.peek(64, 64 << 10) else { return };
        let mut last = None;
        for entry in batch.iter() {
            let (producer, number) = identity(entry.payload);
            line(acks, DELIVERED, producer, number);
            last = Some(entry.seq);
        }
        batch.advance();
        match last {
            Some(seq) if reader.commit(seq).is_err() => return,
            Some(_) => {}
            None => {
                let _ = reader.wait(Duration::from_millis(2));
            }
        }
    }
}

/// What is known of one producer's numbers.
#[derive(Clone, Copy)]
struct Known {
    /// The next to append.
    next: u64,
    acked: u64,
    delivered: u64,
}

/// Reads what the child said since `at`.
fn hear(acks: &mut File, known: &mut [Known]) {
    let mut bytes = Vec::new();
    acks.read_to_end(&mut bytes).expect("readable");
    assert!(bytes.len().is_multiple_of(LINE_BYTES), "a torn line");
    for line in bytes.chunks(LINE_BYTES) {
        let number = u64::from_le_bytes(line[2..10].try_into().expect("eight bytes"));
        let known = &mut known[usize::from(line[1])];
        let heard = if line[0] == ACKED { &mut known.acked } else { &mut known.delivered };
        *heard = number.max(*heard);
    }
}

/// Compares what is left with what was promised, and says where each producer goes on.
fn check(dir: &Path, known: &mut [Known]) -> Result<(), String> {
    let queue = Queue::open(dir, &options()).map_err(|error| error.to_string())?;
    if queue.recovery().corrupt_ranges > 0 {
        return Err(format!("damage after a cut: {:?}", queue.recovery()));
    }
    let mut numbers = vec![Vec::new(); PRODUCERS];
    let mut tail = queue.tail(Some(Seq::NONE));
    loop {
        let batch = tail.read(4_096, 1 << 20).map_err(|error| error.to_string())?;
        if batch.is_empty() {
            break;
        }
        for entry in batch.iter() {
            let (producer, number) = identity(entry.payload);
            numbers[producer].push(number);
        }
    }
    for (producer, (numbers, known)) in numbers.iter().zip(known).enumerate() {
        if let Some(pair) = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1) {
            return Err(format!("{producer}: {} is followed by {}", pair[0], pair[1]));
        }
        let first = numbers.first().copied().unwrap_or(known.delivered + 1);
        let last = numbers.last().copied().unwrap_or(known.delivered);
        if first > known.delivered + 1 {
            return Err(format!("{producer}: oldest {first}, delivered {}", known.delivered));
        }
        if last < known.acked {
            return Err(format!("{producer}: newest {last}, acked {}", known.acked));
        }
        known.next = last + 1;
    }
    Ok(())
}

/// Cuts for a while; returns how many cuts there were, or what a cut showed.
fn cuts(
    filesystem: Filesystem,
    bytes: u64,
    time: Duration,
    faulty: bool,
) -> Option<Result<u64, String>> {
    let mut mount = or_skip(LoopMount::new(filesystem, bytes))?;
    let home = tempfile::tempdir().expect("a folder");
    let acks_path = home.path().join("acks");
    let dir = mount.path().join("queue");
    Queue::create(&dir, &options()).expect("creates").close().expect("closes");
    let mut random: u64 =
        std::env::var("FOREBAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut known = [Known { next: 1, acked: 0, delivered: 0 }; PRODUCERS];
    let started = Instant::now();
    let mut done = 0;
    while started.elapsed() < time {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let written = File::create(&acks_path).expect("a file");
        let mut acks = File::open(&acks_path).expect("just made");
        let mut child = Command::new(std::env::current_exe().expect("this test"));
        child.args(["child", "--exact", "--ignored", "--nocapture"]).env(DIR, &dir);
        child.env(NEXT, known.map(|known| known.next.to_string()).join(","));
        child.env(ACKS, &acks_path).stdout(Stdio::null()).stderr(Stdio::null());
        if faulty {
            child.env(FAULT, "1");
        }
        let mut child = child.spawn().expect("starts");
        let spawned = Instant::now();
        while written.metadata().expect("open").len() == 0 {
            assert!(spawned.elapsed() < Duration::from_secs(20), "the child says nothing");
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_micros((random >> 33) % 10_000));
        // Before the cut: what is acked later may rest on nothing, and nobody has heard it.
        hear(&mut acks, &mut known);
        mount.cut().expect("the file system can be cut");
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        // Delivered is what was durable, also while the cut came.
        let mut late = known;
        hear(&mut acks, &mut late);
        for (known, late) in known.iter_mut().zip(late) {
            known.delivered = late.delivered;
        }
        mount.unmount().expect("unmounts");
        mount.mount().expect("mounts");
        done += 1;
        if let Err(why) = check(&dir, &mut known) {
            return Some(Err(format!("cut {done}: {why}")));
        }
    }
    let entries: u64 = known.iter().map(|known| known.next).sum();
    assert!(entries > done * 10, "{entries} entries in {done} cuts: no load");
    Some(Ok(done))
}

fn time() -> Duration {
    let seconds = std::env::var("FOREBAY_CUT_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60)) / 2
}

#[test]
fn acked_entries_survive_cuts_of_ext4() {
    if let Some(result) = cuts(Filesystem::Ext4, 32 << 20, time(), false) {
        println!("{} cuts of ext4", result.expect("nothing is lost"));
    }
}

#[test]
fn acked_entries_survive_cuts_of_xfs() {
    if let Some(result) = cuts(Filesystem::Xfs, 320 << 20, time(), false) {
        println!("{} cuts of XFS", result.expect("nothing is lost"));
    }
}

/// The twin: an ack without a sync must be noticed, and soon.
#[test]
fn a_cut_notices_an_ack_without_a_sync() {
    let time = Duration::from_secs(20);
    if let Some(result) = cuts(Filesystem::Ext4, 32 << 20, time, true) {
        result.expect_err("the planted fault was not noticed");
    }
}

/// A maker that is killed between its rename and its sync of the folder leaves a name that a cut
/// would take, and with it all that was acked under it.
#[test]
fn what_is_acked_in_a_ring_whose_maker_was_killed_survives_a_cut() {
    for (filesystem, bytes) in [(Filesystem::Ext4, 32 << 20), (Filesystem::Xfs, 320 << 20)] {
        let Some(mut mount) = or_skip(LoopMount::new(filesystem, bytes)) else { continue };
        let dir = mount.path().join("queue");
        Queue::create(&dir, &options()).expect("creates").close().expect("closes");
        let (unnamed, ring) = (dir.join("ring.new"), dir.join("ring"));
        std::fs::rename(&ring, &unnamed).expect("renamed");
        File::open(&dir).and_then(|folder| folder.sync_all()).expect("synced");
        // The last that the killed maker did.
        std::fs::rename(&unnamed, &ring).expect("renamed");
        let queue = Queue::open(&dir, &options()).expect("opens");
        let seq = queue.append(0, b"acked").expect("room");
        queue.wait_durable(seq, Duration::from_secs(20)).expect("durable");
        // Closed, for a store to a page that is cut off ends a process.
        queue.close().expect("closes");
        mount.cut().expect("the file system can be cut");
        mount.unmount().expect("unmounts");
        mount.mount().expect("mounts");
        let queue = Queue::open(&dir, &options());
        let queue = queue.unwrap_or_else(|error| panic!("{filesystem:?}: {error}"));
        let mut tail = queue.tail(Some(Seq::NONE));
        assert_eq!(
            tail.read(9, 1 << 20).expect("open").iter().next().map(|one| one.seq),
            Some(seq)
        );
    }
}
