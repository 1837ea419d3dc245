//! One flipped bit anywhere in a file costs at most one entry, and is reported.
//!
//! Method: a small ring that is full, has gone around its end and was closed. Every byte of the
//! file gets one flipped bit, a different one from byte to byte (`FOREBAY_BITS=8` flips all eight),
//! and each time the image, and in turns a repair or an open and its reader, are compared with what
//! there was. What a flip costs depends on where it is:
//!
//! | region | costs | reported as |
//! | --- | --- | --- |
//! | super-block, 60 bytes and its checksum | the open, no entry | `Unsupported`, file untouched |
//! | rest of the first page | nothing | not at all: nobody reads it |
//! | the newer checkpoint | nothing but the last commits: the older one serves | `slot_damaged` |
//! | the older checkpoint | nothing | `slot_damaged` |
//! | head or payload of an entry | that entry | one damaged range, `entries_lost` 1, a `.bad` file |
//! | head of a filler before the ring's end | nothing | one damaged range: it might have been an entry |
//! | bytes between entries, and behind a filler's head | nothing | not at all: nobody reads them |
//!
//! Cannot show: two flips at once (see the tests of `tools`), damage larger than a record.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use forebay_queue::tools::{self, Image};
use forebay_queue::{Error, Options, Queue, Seq};

const PAGE: u64 = 4096;
const SUPER_BYTES: u64 = 64;

fn options() -> Options {
    Options {
        capacity_bytes: 2 * PAGE,
        entry_bytes_max: 1024,
        any_filesystem: true,
        checkpoint_interval: Duration::from_secs(3600),
        ..Options::default()
    }
}

type Entries = Vec<(Seq, Vec<u8>)>;

/// A closed ring, as full as it gets, whose oldest entry lies in the middle of the file.
fn sample(dir: &Path) -> Entries {
    let queue = Queue::create(dir, &options()).expect("create");
    let mut reader = queue.reader("r").expect("reader");
    let payload =
        |n: usize| -> Vec<u8> { (0..60 + n * 53 % 290).map(|at| (at * 7 + n) as u8).collect() };
    let mut kept = Entries::new();
    for n in 0..70 {
        let seq = queue.append(0, &payload(n)).expect("room");
        queue.wait_durable(seq, Duration::from_secs(5)).expect("durable");
        reader.commit_durable(seq, None).expect("commit");
    }
    for n in 70.. {
        match queue.append(0, &payload(n)) {
            Ok(seq) => kept.push((seq, payload(n))),
            Err(Error::Full { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    drop(reader);
    queue.close().expect("close");
    kept
}

fn flip(dir: &Path, at: u64, bit: u64) {
    let file = File::options().read(true).write(true).open(dir.join("ring")).expect("file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("within");
    file.write_all_at(&[byte[0] ^ (1 << bit)], at).expect("within");
}

/// What an open delivers, and whether it says that something is wrong.
fn opened(dir: &Path) -> (Entries, u64, u64, bool) {
    let queue = Queue::open(dir, &options()).expect("open");
    let found = queue.recovery().clone();
    let mut reader = queue.reader("r").expect("reader");
    let batch = reader.peek(usize::MAX, usize::MAX).expect("open");
    let entries = batch.iter().map(|entry| (entry.seq, entry.payload.to_vec())).collect();
    (entries, found.corrupt_ranges, found.entries_lost, found.slot_damaged)
}

fn bad_files(dir: &Path) -> usize {
    let files = std::fs::read_dir(dir).expect("directory").flatten();
    files.filter(|file| file.path().extension().is_some_and(|end| end == "bad")).count()
}

/// What one flip did; checks what holds for all of them.
fn cost(home: &Path, ring: &[u8], kept: &Entries, at: u64, bit: u64) -> &'static str {
    let dir = home.join("queue");
    std::fs::create_dir(&dir).expect("directory");
    std::fs::write(dir.join("ring"), ring).expect("copy");
    flip(&dir, at, bit);
    let place = format!("byte {at}, bit {bit}");
    let image = match Image::open(&dir) {
        Err(Error::Unsupported { .. }) => {
            let refused = Queue::open(&dir, &options());
            assert!(matches!(refused, Err(Error::Unsupported { .. })), "{place}: {refused:?}");
            flip(&dir, at, bit);
            assert_eq!(std::fs::read(dir.join("ring")).expect("file"), ring, "{place}: touched");
            return "refused, nothing lost";
        }
        other => other.expect("an image"),
    };
    let verdict = image.verdict();
    let left: Entries = image.entries().map(|entry| (entry.seq, entry.payload.to_vec())).collect();
    // An older checkpoint may know older entries too: those that are kept must all be there.
    let lost = kept.iter().filter(|entry| !left.contains(entry)).count();
    let known = left.iter().filter(|(seq, _)| *seq >= kept[0].0);
    assert!(known.clone().all(|entry| kept.contains(entry)), "{place}: invented");
    assert!(known.clone().is_sorted_by_key(|(seq, _)| *seq), "{place}: out of order");
    assert!(lost <= 1, "{place}: lost {lost}");
    assert!(lost == 0 || verdict.damaged.len() == 1, "{place}: not reported");
    assert!(lost == 0 || verdict.damaged[0].entries_lost == 1, "{place}: {verdict:?}");
    drop(image);

    // `repair` keeps all that `verify` found intact, and leaves nothing to complain of.
    if at.is_multiple_of(3) {
        let repaired = tools::repair(&dir).expect("repair");
        assert!(repaired.after.is_clean(), "{place}: {repaired:?}");
        assert_eq!(repaired.copy.is_some(), !verdict.is_clean(), "{place}");
        let mended = Image::open(&dir).expect("image");
        let all: Entries =
            mended.entries().map(|entry| (entry.seq, entry.payload.to_vec())).collect();
        assert_eq!(all, left, "{place}: repair lost something");
        drop(mended);
        let (entries, ranges, ..) = opened(&dir);
        assert!(entries.ends_with(&left[left.len() - (kept.len() - lost)..]), "{place}");
        assert_eq!(ranges, 0, "{place}: an alarm after the repair");
    } else if at % 3 == 1 {
        let (entries, ranges, entries_lost, slot) = opened(&dir);
        assert!(entries == left || entries.len() > kept.len() - lost, "{place}");
        assert_eq!((ranges > 0, slot), (!verdict.damaged.is_empty(), verdict.slot_damaged));
        assert_eq!(entries_lost, verdict.damaged.iter().map(|damage| damage.entries_lost).sum());
        assert_eq!(bad_files(&dir) as u64, ranges, "{place}: the copy of the damage");
    }
    match (lost, verdict.damaged.len(), verdict.slot_damaged) {
        (1, 1, false) => "one entry, reported",
        (0, 0, true) => "nothing, slot reported",
        (0, 0, false) => "nothing, nobody reads it",
        (0, 1, false) => "nothing, damage reported",
        other => panic!("{place}: {other:?}"),
    }
}

fn region(at: u64) -> &'static str {
    match at {
        _ if at < SUPER_BYTES => "super-block",
        _ if at < PAGE => "rest of the first page",
        _ if at < 3 * PAGE => "checkpoints",
        _ => "ring",
    }
}

#[test]
fn one_flipped_bit_anywhere_costs_at_most_one_entry_and_is_reported() {
    // In memory where possible: twenty thousand files are made, and none needs to survive.
    let home = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let home = home.expect("directory");
    let first = home.path().join("sample");
    let kept = sample(&first);
    let ring = std::fs::read(first.join("ring")).expect("file");
    let bits: u64 = std::env::var("FOREBAY_BITS").map_or(1, |text| text.parse().expect("a number"));
    let mut costs: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for at in 0..ring.len() as u64 {
        // Nobody reads the rest of the first page: a sample of it will do.
        if (SUPER_BYTES..PAGE).contains(&at) && at % 64 != 0 {
            continue;
        }
        for turn in 0..bits {
            let cost = cost(home.path(), &ring, &kept, at, (at + turn) % 8);
            std::fs::remove_dir_all(home.path().join("queue")).expect("remove");
            *costs.entry((region(at), cost)).or_default() += 1;
        }
    }
    println!("{} entries; flips: {costs:#?}", kept.len());
    let count = |region, cost| costs.get(&(region, cost)).copied().unwrap_or(0);
    assert_eq!(count("super-block", "refused, nothing lost"), SUPER_BYTES * bits);
    assert_eq!(count("checkpoints", "nothing, slot reported"), 2 * PAGE * bits);
    // Every byte of an entry counts: 32 of its head and those of its payload.
    let bytes: u64 = kept.iter().map(|(_, payload)| 32 + payload.len() as u64).sum();
    assert_eq!(count("ring", "one entry, reported"), bytes * bits);
    assert_eq!(count("ring", "nothing, damage reported"), 32 * bits, "the filler's head");
}
