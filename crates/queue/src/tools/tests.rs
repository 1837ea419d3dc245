//! The tools on queues that are sound, damaged, live and orphaned.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::*;
use crate::{Options, Queue, Seq};

fn options() -> Options {
    Options {
        capacity_bytes: 16 << 10,
        entry_bytes_max: 1024,
        any_filesystem: true,
        ..Options::default()
    }
}

/// A closed queue of 40 entries that has gone around its ring, and where each one's bytes are.
fn sample(dir: &std::path::Path) -> Vec<(Seq, Vec<u8>)> {
    let queue = Queue::create(dir, &options()).unwrap();
    let mut reader = queue.reader("r").unwrap();
    let mut kept = Vec::new();
    for n in 0..300u32 {
        let payload: Vec<u8> = (0..100 + n % 64).map(|byte| (byte * 7 + n) as u8).collect();
        let seq = queue.append(u64::from(n), &payload).unwrap();
        if n < 260 {
            queue.wait_durable(seq, std::time::Duration::from_secs(5)).unwrap();
            reader.commit_durable(seq, None).unwrap();
        } else {
            kept.push((seq, payload));
        }
    }
    drop(reader);
    queue.close().unwrap();
    kept
}

fn flip(dir: &std::path::Path, offset: u64, bit: u8) {
    let file = File::options().read(true).write(true).open(dir.join("ring")).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ (1 << bit)], offset).unwrap();
}

fn entries(image: &Image) -> Vec<(Seq, Vec<u8>)> {
    image.entries().map(|entry| (entry.seq, entry.payload.to_vec())).collect()
}

#[test]
fn one_flipped_bit_costs_exactly_one_entry_and_is_reported_and_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let kept = sample(dir.path());
    let ring = std::fs::read(dir.path().join("ring")).unwrap();
    let image = Image::open(dir.path()).unwrap();
    assert!(image.verdict().is_clean());
    assert_eq!(entries(&image), kept);
    let head = image.slots.newest.head.position;
    let used = image.used_bytes();
    // Every 8th byte and more of the retained part, a different bit each.
    for step in (0..used).step_by(5) {
        let at = image.geometry.offset(head + step) as u64;
        flip(dir.path(), at, (step % 8) as u8);
        let found = Image::open(dir.path()).unwrap();
        let verdict = found.verdict();
        let left = entries(&found);
        // A flip in the bytes between records is no damage.
        if verdict.is_clean() {
            assert_eq!(left, kept, "step {step}");
            flip(dir.path(), at, (step % 8) as u8);
            continue;
        }
        assert_eq!(verdict.damaged.len(), 1, "step {step}");
        let lost: Vec<_> = kept.iter().filter(|entry| !left.contains(entry)).collect();
        assert!(lost.len() == 1 && left.len() == kept.len() - 1, "step {step}: {}", lost.len());
        assert_eq!(verdict.damaged[0].entries_lost, 1, "step {step}");
        if step % 35 == 0 {
            let repaired = repair(dir.path()).unwrap();
            assert_eq!(repaired.before, verdict);
            assert!(repaired.after.is_clean(), "step {step}: {:?}", repaired.after);
            assert_eq!(entries(&Image::open(dir.path()).unwrap()), left);
            std::fs::remove_file(repaired.copy.unwrap()).unwrap();
            let queue = Queue::open(dir.path(), &options()).unwrap();
            assert_eq!(queue.recovery().corrupt_ranges, 0);
            drop(queue);
            std::fs::write(dir.path().join("ring"), &ring).unwrap();
        } else {
            flip(dir.path(), at, (step % 8) as u8);
        }
    }
}

#[test]
fn an_open_and_its_readers_pass_over_damage_and_keep_a_copy_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let kept = sample(dir.path());
    let image = Image::open(dir.path()).unwrap();
    let head = image.slots.newest.head.position;
    // The head of the first record, the payload of the second.
    let second = head + 32 + kept[0].1.len().next_multiple_of(8) as u64;
    flip(dir.path(), image.geometry.offset(head) as u64 + 9, 0);
    flip(dir.path(), image.geometry.offset(second) as u64 + 40, 0);
    drop(image);
    let queue = Queue::open(dir.path(), &options()).unwrap();
    assert_eq!((queue.recovery().corrupt_ranges, queue.recovery().entries_lost), (2, 2));
    assert_eq!(queue.stat().corrupt_total, 2);
    let mut reader = queue.reader("r").unwrap();
    let batch = reader.peek(1000, 1 << 20).unwrap();
    let read: Vec<_> = batch.iter().map(|entry| (entry.seq, entry.payload.to_vec())).collect();
    assert_eq!(read, kept[2..]);
    assert_eq!(queue.stat().corrupt_total, 2, "counted once");
    let bad = std::fs::read_dir(dir.path()).unwrap();
    let bad =
        bad.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|e| e == "bad"));
    assert_eq!(bad.count(), 2);
}

#[test]
fn a_damaged_checkpoint_slot_costs_nothing_but_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let kept = sample(dir.path());
    for place in [4096, 8192] {
        flip(dir.path(), place + 70, 3);
        let found = Image::open(dir.path()).unwrap();
        assert!(found.verdict().slot_damaged && !found.verdict().is_clean());
        let left = entries(&found);
        assert!(left.ends_with(&kept), "slot at {place}");
        assert!(repair(dir.path()).unwrap().after.is_clean());
    }
}

#[test]
fn an_image_beside_a_live_writer_is_always_clean() {
    let dir = tempfile::tempdir().unwrap();
    let queue = Queue::create(dir.path(), &options()).unwrap();
    let mut reader = queue.reader("r").unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                if queue.append(0, &[5; 200]).is_err() {
                    reader.commit(queue.durable()).unwrap();
                }
            }
        });
        for _ in 0..200 {
            let image = Image::open(dir.path()).unwrap();
            assert!(image.is_live());
            assert_eq!(image.verdict().damaged, []);
            assert_eq!(image.entries().count() as u64, image.verdict().entries);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        writer.join().unwrap();
    });
    assert!(matches!(repair(dir.path()), Err(crate::Error::Locked { .. })));
}

/// Looking once held a shared lock for as long as the copy took, and a tier that started at that
/// moment was told that its queue was locked.
#[test]
fn whoever_looks_at_a_queue_is_never_in_the_way_of_an_open() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let look = || {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                Image::open(dir.path()).unwrap();
            }
        };
        scope.spawn(look);
        scope.spawn(look);
        for _ in 0..50 {
            let queue = Queue::open(dir.path(), &options()).unwrap();
            assert!(Image::open(dir.path()).unwrap().is_live());
            queue.close().unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
