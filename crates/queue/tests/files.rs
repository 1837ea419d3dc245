//! A queue's directory: clear refusals, nothing touched, nobody disturbed.
//!
//! Method: real files. Cannot show here: full and failing disks, see the tests that mount their own.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use forebay_queue::{Durability, Error, Options, Queue, Seq};

const SOON: Duration = Duration::from_secs(20);

fn options() -> Options {
    Options {
        capacity_bytes: 64 << 10,
        entry_bytes_max: 4096,
        any_filesystem: true,
        ..Options::default()
    }
}

fn refused(dir: &Path) -> String {
    let before = fs::read(dir.join("ring")).expect("file");
    let error = Queue::open(dir, &options()).expect_err("a stranger");
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert_eq!(fs::read(dir.join("ring")).expect("file"), before, "touched");
    error.to_string()
}

#[test]
fn a_second_opener_is_refused_until_the_last_handle_is_dropped() {
    let dir = tempfile::tempdir().expect("directory");
    let queue = Queue::create(dir.path(), &options()).expect("create");
    let reader = queue.reader("r").expect("reader");
    drop(queue);
    assert!(matches!(Queue::open(dir.path(), &options()), Err(Error::Locked { .. })));
    drop(reader);
    Queue::open(dir.path(), &options()).expect("open");
}

#[test]
fn files_of_others_are_refused_and_not_touched() {
    let dir = tempfile::tempdir().expect("directory");
    drop(Queue::create(dir.path(), &options()).expect("create"));
    let path = dir.path().join("ring");
    let good = fs::read(&path).expect("file");

    fs::write(&path, b"short").expect("write");
    assert!(refused(dir.path()).contains("shorter than"));
    fs::write(&path, vec![b'x'; good.len()]).expect("write");
    assert!(refused(dir.path()).contains("not a forebay queue"));
    fs::write(&path, &good[..good.len() - 4096]).expect("write");
    assert!(refused(dir.path()).contains("truncated"));
    let mut other = good.clone();
    other[8] = 9;
    fs::write(&path, &other).expect("write");
    assert!(refused(dir.path()).contains("version 9"));
    let mut other = good.clone();
    other[8..12].copy_from_slice(&1u32.to_be_bytes());
    fs::write(&path, &other).expect("write");
    assert!(refused(dir.path()).contains("byte order"));
    let mut other = good.clone();
    other[20] ^= 1;
    fs::write(&path, &other).expect("write");
    assert!(refused(dir.path()).contains("checksum"));

    fs::write(&path, &good).expect("write");
    Queue::open(dir.path(), &options()).expect("the good one opens");
}

#[test]
fn a_creation_that_did_not_finish_is_begun_again() {
    let dir = tempfile::tempdir().expect("directory");
    fs::write(dir.path().join("ring.new"), vec![7; 100_000]).expect("leftover");
    assert!(matches!(Queue::open(dir.path(), &options()), Err(Error::Missing { .. })));
    let queue = Queue::open_or_create(dir.path(), &options()).expect("create");
    assert_eq!(queue.append(0, b"x").expect("append"), Seq::new(1, 1));
    assert!(!dir.path().join("ring.new").exists());
    let mode = fs::metadata(dir.path().join("ring")).expect("file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_creation_that_is_called_off_leaves_nothing_and_the_next_one_succeeds() {
    let dir = tempfile::tempdir().expect("directory");
    let large = Options { capacity_bytes: 20 << 20, ..options() };
    let mut told = Vec::new();
    let queue = Queue::open_or_create_with(dir.path(), &large, |making| {
        told.push(making);
        ControlFlow::Continue(())
    });
    let id = queue.expect("create").id();
    let total = fs::metadata(dir.path().join("ring")).expect("file").len();
    assert!(told.iter().all(|making| making.total_bytes == total), "{told:?}");
    assert_eq!(told.last().map(|making| making.made_bytes), Some(total), "{told:?}");
    let steps = told.windows(2).map(|two| two[1].made_bytes.checked_sub(two[0].made_bytes));
    let steps: Vec<_> = steps.map(|step| step.expect("never back")).collect();
    assert!(steps.iter().all(|step| *step <= 16 << 20), "asked too rarely: {steps:?}");

    for nth in 1..=told.len() {
        let dir = tempfile::tempdir().expect("directory");
        let mut left = nth;
        let made = Queue::open_or_create_with(dir.path(), &large, |_| {
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(made, Err(Error::CalledOff { .. })), "question {nth}: {made:?}");
        assert_eq!(fs::read_dir(dir.path()).expect("directory").count(), 0, "question {nth}");
        Queue::open_or_create(dir.path(), &options()).expect("begun anew");
    }
    // What there is already is opened, whatever the watch would say.
    let again = Queue::open_or_create_with(dir.path(), &large, |_| ControlFlow::Break(()));
    assert_eq!(again.expect("open").id(), id);
}

/// Once whoever had waited for the lock on `ring.new` made his ring of it, although it had meanwhile
/// been renamed to somebody else's queue.
#[test]
fn a_queue_that_was_finished_while_another_maker_waited_is_not_made_again() {
    let dir = tempfile::tempdir().expect("directory");
    let home = tempfile::tempdir().expect("directory");
    drop(Queue::create(home.path(), &options()).expect("create"));
    let new_path = dir.path().join("ring.new");
    fs::rename(home.path().join("ring"), &new_path).expect("one file system");
    let (first, path) = (fs::File::open(&new_path).expect("file"), dir.path().join("ring"));
    let whole = fs::read(&new_path).expect("file");
    first.lock().expect("nobody has it");
    let holders = || {
        let descriptors = fs::read_dir("/proc/self/fd").expect("Linux").flatten();
        descriptors.filter(|one| fs::read_link(one.path()).is_ok_and(|to| to == new_path)).count()
    };
    assert_eq!(holders(), 1);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| Queue::create(dir.path(), &options()));
        let end = Instant::now() + SOON;
        while holders() < 2 && !second.is_finished() {
            assert!(Instant::now() < end, "the second maker does not come");
            std::thread::yield_now();
        }
        fs::rename(&new_path, &path).expect("it is ours");
        first.unlock().expect("it is ours");
        let refused = second.join().expect("no panic");
        assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
    });
    assert!(fs::read(&path).expect("file") == whole, "made again");
}

#[test]
fn memory_file_systems_are_refused_for_disk_and_taken_for_process() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
    let disk = Options { any_filesystem: false, ..options() };
    match Queue::create(dir.path(), &disk) {
        Err(Error::Filesystem { filesystem, .. }) => assert_eq!(filesystem, "tmpfs"),
        other => panic!("{other:?}"),
    }
    assert!(!dir.path().join("ring").exists());
    let process = Options { durability: Durability::Process, ..disk };
    Queue::create(dir.path(), &process).expect("process needs no medium");
}

#[test]
fn options_that_cannot_be_are_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("queue");
    for bad in [
        Options { capacity_bytes: 0, ..options() },
        Options { entry_bytes_max: 40_000, ..options() },
        Options { mode: 0o4600, ..options() },
        Options { sync_delay: Duration::ZERO, ..options() },
    ] {
        assert!(matches!(Queue::create(&path, &bad), Err(Error::Options { .. })), "{bad:?}");
    }
    assert!(!path.exists());
}

#[test]
fn too_large_entries_and_batches_are_refused_and_the_ring_goes_on() {
    let dir = tempfile::tempdir().expect("directory");
    let queue = Queue::create(dir.path(), &options()).expect("create");
    let error = queue.append(0, &[0; 4097]).expect_err("too large");
    assert!(matches!(error, Error::TooLarge { bytes: 4097, limit_bytes: 4096 }), "{error}");
    let batch = vec![[0u8; 4096]; 16];
    assert!(matches!(queue.append_batch(0, &batch), Err(Error::TooLarge { .. })));
    assert!(queue.append_batch(0, &[[0u8; 0]; 0]).is_err());
    assert_eq!(queue.append(0, &[]).expect("an empty entry"), Seq::new(1, 1));
}

#[test]
fn a_full_ring_becomes_writable_again_whenever_its_reader_commits() {
    let dir = tempfile::tempdir().expect("directory");
    let mut queue = Queue::create(dir.path(), &options()).expect("create");
    for round in 0..60usize {
        let mut reader = queue.reader("r").expect("reader");
        let payload = vec![round as u8; 100 + round * 61 % 4000];
        let full = loop {
            if let Err(error) = queue.append(0, &payload) {
                break error;
            }
        };
        assert!(matches!(full, Error::Full { limit_bytes: 65_536, .. }), "{full}");
        queue.wait_durable(queue.appended(), SOON).expect("durable");
        let batch = reader.peek(usize::MAX, usize::MAX).expect("peek");
        let last = batch.last().expect("a full ring is not empty");
        assert!(batch.iter().all(|entry| entry.payload == payload));
        batch.advance();
        reader.commit(last).expect("commit");
        queue.append(0, &vec![0; 4096]).expect("room again, for the largest");
        let upto = queue.appended();
        queue.wait_durable(upto, SOON).expect("durable");
        reader.commit(upto).expect("commit");
        if round % 7 == 0 {
            drop((reader, queue));
            queue = Queue::open(dir.path(), &options()).expect("open");
        }
    }
}

#[test]
fn a_reader_holds_space_for_itself_only() {
    let dir = tempfile::tempdir().expect("directory");
    let queue = Queue::create(dir.path(), &options()).expect("create");
    let mut fast = queue.reader("fast").expect("reader");
    drop(queue.reader("slow").expect("reader"));
    while queue.append(0, &[1; 1000]).is_ok() {}
    queue.wait_durable(queue.appended(), SOON).expect("durable");
    fast.commit(queue.appended()).expect("commit");
    assert!(matches!(queue.append(0, &[1; 1000]), Err(Error::Full { .. })), "held by slow");
    assert!(matches!(queue.reader("fast"), Err(Error::Reader { .. })), "in use");
    assert!(matches!(queue.remove_reader("fast"), Err(Error::Reader { .. })), "in use");
    queue.remove_reader("slow").expect("remove");
    queue.append(0, &[1; 1000]).expect("room");
    assert!(matches!(queue.reader(""), Err(Error::Reader { .. })));
    assert!(matches!(queue.reader(&"x".repeat(41)), Err(Error::Reader { .. })));
}

#[test]
fn a_tail_names_the_gap_when_it_is_overtaken() {
    let dir = tempfile::tempdir().expect("directory");
    let queue = Queue::create(dir.path(), &options()).expect("create");
    let mut reader = queue.reader("r").expect("reader");
    let first = queue.append(0, &[1; 1000]).expect("append");
    let mut tail = queue.tail(Some(Seq::NONE));
    assert!(tail.wait(SOON));
    assert_eq!(tail.read(10, 1 << 20).expect("read").len(), 1);
    for _ in 0..300 {
        let seq = queue.append(0, &[2; 1000]).expect("append");
        queue.wait_durable(seq, SOON).expect("durable");
        reader.commit(seq).expect("commit");
    }
    let batch = tail.read(10, 1 << 20).expect("read");
    let gap = batch.gap().expect("it was overtaken");
    assert_eq!(gap.after, first);
    assert_eq!(Some(gap.next), batch.iter().next().map(|entry| entry.seq));
    let mut new_only = queue.tail(None);
    assert!(new_only.read(10, 1 << 20).expect("read").is_empty());
    let mut from = queue.tail(Some(queue.appended()));
    let next = queue.append(0, b"next").expect("append");
    queue.wait_durable(next, SOON).expect("durable");
    for tail in [&mut new_only, &mut from] {
        let batch = tail.read(10, 1 << 20).expect("read");
        assert_eq!(batch.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [next]);
        assert_eq!(batch.gap(), None);
    }
}

#[test]
fn an_idle_queue_causes_no_wake_up() {
    let dir = tempfile::tempdir().expect("directory");
    let queue = Queue::create(dir.path(), &options()).expect("create");
    let mut reader = queue.reader("r").expect("reader");
    let seq = queue.append(0, b"x").expect("append");
    queue.wait_durable(seq, SOON).expect("durable");
    reader.commit(seq).expect("commit");
    let wakeups = || -> u64 {
        let mut sum = 0;
        for task in fs::read_dir("/proc/self/task").expect("tasks").flatten() {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if name.trim() != "queue-sync" {
                continue;
            }
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let line =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sum += line.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
        }
        sum
    };
    // Other tests of this process have queues too: this one is proven by any quiet half second.
    let deadline = Instant::now() + SOON;
    loop {
        let before = wakeups();
        std::thread::sleep(Duration::from_millis(500));
        if wakeups() == before {
            break;
        }
        assert!(Instant::now() < deadline, "the sync thread never rests");
    }
    queue.append(0, b"y").expect("append");
    assert!(reader.wait(SOON), "and it still wakes up");
}

#[test]
fn many_producers_make_one_order() {
    let dir = tempfile::tempdir().expect("directory");
    let queue = Queue::create(dir.path(), &Options { capacity_bytes: 1 << 20, ..options() })
        .expect("create");
    let mut reader = queue.reader("r").expect("reader");
    let (producers, each) = (4u32, 5_000u32);
    std::thread::scope(|scope| {
        for producer in 0..producers {
            let queue = queue.clone();
            scope.spawn(move || {
                for n in 0..each {
                    let mut payload = [producer, n].map(u32::to_le_bytes).concat();
                    payload.resize(8 + (n % 90) as usize, producer as u8);
                    let seq = loop {
                        match queue.append(0, &payload) {
                            Ok(seq) => break seq,
                            Err(Error::Full { .. }) => std::thread::yield_now(),
                            Err(error) => panic!("{error}"),
                        }
                    };
                    if n % 100 == 0 {
                        queue.wait_durable(seq, SOON).expect("durable");
                    }
                }
            });
        }
        let mut next = vec![0u32; producers as usize];
        let mut previous = Seq::NONE;
        while next.iter().any(|n| *n < each) {
            assert!(reader.wait(SOON), "stuck at {previous}");
            let batch = reader.peek(500, 1 << 20).expect("peek");
            for entry in batch.iter() {
                assert!(entry.seq.follows(previous) || previous == Seq::NONE);
                previous = entry.seq;
                let word = |at: usize| {
                    u32::from_le_bytes(*entry.payload[at..].first_chunk().expect("8 bytes"))
                };
                let (producer, n) = (word(0) as usize, word(4));
                assert_eq!(n, next[producer], "a producer's own order");
                next[producer] += 1;
            }
            batch.advance();
            reader.commit(previous).expect("commit");
        }
    });
}

#[test]
fn a_truncated_file_cannot_be_opened_and_an_older_slot_serves() {
    let dir = tempfile::tempdir().expect("directory");
    let queue = Queue::create(dir.path(), &options()).expect("create");
    let seq = queue.append(0, b"kept").expect("append");
    queue.wait_durable(seq, SOON).expect("durable");
    drop(queue);
    let file = fs::File::options().write(true).open(dir.path().join("ring")).expect("file");
    file.write_all_at(&[0xff; 4096], 4096).expect("damage slot 0");
    let queue = Queue::open(dir.path(), &options()).expect("open");
    assert!(queue.recovery().slot_damaged);
    assert_eq!(queue.recovery().entries, 1);
    drop(queue);
    file.write_all_at(&[0xff; 4096], 4096).expect("damage slot 0");
    file.write_all_at(&[0xff; 4096], 8192).expect("damage slot 1");
    assert!(matches!(Queue::open(dir.path(), &options()), Err(Error::Corrupt { .. })));
}
