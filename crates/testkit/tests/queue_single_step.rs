//! A process that dies between any two instructions leaves a queue that opens and has lost nothing.
//!
//! Method: appends, batches, syncs, reads, commits and checkpoints on a ring so small that all of
//! it wraps run one machine instruction at a time. Whenever an instruction has changed the file, or
//! something was promised, that state is kept; afterwards a copy of each state is opened, as after
//! a SIGKILL at this very place, and compared with what was acked and delivered so far.
//!
//! Cannot show: what a loss of power does (the page cache survives), other interleavings of
//! threads (there is one), kills within one instruction. x86-64 only.
#![cfg(target_arch = "x86_64")]

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_queue::testing::{self, Backing, Fault, Mapping};
use forebay_queue::{Error, Options, Queue, Reader, Seq};
use forebay_testkit::single_step::{self, Run};

/// Acked in the upper half, delivered in the lower: one word, because a kill may come between two.
static SAID: AtomicU64 = AtomicU64::new(0);

fn options() -> Options {
    Options {
        capacity_bytes: 4 << 10,
        entry_bytes_max: 512,
        any_filesystem: true,
        ..Options::default()
    }
}

/// Entry `number`, recomputable, of 9 to 498 bytes.
fn payload(number: u64) -> Vec<u8> {
    let len = 8 + [490, 1, 470, 200, 480][number as usize % 5];
    (0..len)
        .map(|at| if at < 8 { number.to_le_bytes()[at] } else { (number + at as u64) as u8 })
        .collect()
}

fn number_in(entry: &[u8]) -> u64 {
    u64::from_le_bytes(entry[..8].try_into().expect("eight bytes"))
}

fn number_of(entry: &[u8]) -> u64 {
    let number = number_in(entry);
    assert_eq!(entry, payload(number), "entry {number} is not what was appended");
    number
}

fn work(queue: &Queue, reader: &mut Reader, payloads: &[Vec<u8>]) {
    let (mut acked, mut delivered) = (0, 0);
    let say = |acked: u64, delivered: u64| {
        SAID.store(acked << 32 | delivered, Ordering::Relaxed);
    };
    let mut number = 1_usize;
    for round in 0..20 {
        let count = 1 + round as usize % 4;
        let batch = &payloads[number..number + count];
        let appended = match count {
            1 => queue.append(round, &batch[0]),
            _ => queue.append_batch(round, batch).map(|span| span.last),
        };
        match appended {
            Ok(seq) => {
                number += count;
                if round % 3 > 0 {
                    queue.wait_durable(seq, Duration::from_secs(5)).expect("syncs");
                    acked = number as u64 - 1;
                    say(acked, delivered);
                }
            }
            Err(Error::Full { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        if round % 2 == 1 {
            let batch = reader.peek(5, 4_096).expect("lives");
            let last = batch.iter().last().map(|entry| (entry.seq, number_in(entry.payload)));
            batch.advance();
            if let Some((seq, number)) = last {
                delivered = number;
                say(acked, delivered);
                reader.commit(seq).expect("lives");
            }
        }
        if round % 8 == 2 {
            testing::checkpoint(queue).expect("syncs");
        }
    }
}

/// A copy of the file, as memory that a queue can be opened on.
struct Copied(Mapping);

impl Copied {
    fn of(bytes: &[u8]) -> Self {
        let mapping = Mapping::anonymous(bytes.len()).expect("memory");
        mapping.store(0, bytes);
        Copied(mapping)
    }
}

impl Backing for Copied {
    fn len_bytes(&self) -> usize {
        self.0.len_bytes()
    }
    fn store(&self, offset: usize, bytes: &[u8]) {
        self.0.store(offset, bytes);
    }
    fn view(&self, offset: usize, len: usize) -> &[u8] {
        self.0.view(offset, len)
    }
    fn sync(&self, _: usize, _: usize) -> io::Result<()> {
        Ok(())
    }
}

fn check(bytes: &[u8], said: u64) -> Result<(), String> {
    let (acked, delivered) = (said >> 32, said & 0xffff_ffff);
    let queue = testing::open(Arc::new(Copied::of(bytes)), &options(), &[])
        .map_err(|error| error.to_string())?;
    if queue.recovery().corrupt_ranges > 0 || queue.recovery().entries_lost > 0 {
        return Err(format!("{:?}", queue.recovery()));
    }
    let mut tail = queue.tail(Some(Seq::NONE));
    let mut numbers = Vec::new();
    loop {
        let batch = tail.read(100, 1 << 20).map_err(|error| error.to_string())?;
        if batch.is_empty() {
            break;
        }
        numbers.extend(batch.iter().map(|entry| number_of(entry.payload)));
    }
    let first = numbers.first().copied().unwrap_or(delivered + 1);
    let last = numbers.last().copied().unwrap_or(delivered);
    let in_order = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
    if !in_order || first > delivered + 1 || last < acked {
        return Err(format!("acked {acked}, delivered {delivered}, but there are {numbers:?}"));
    }
    Ok(())
}

fn step_through(faults: &[Fault]) -> Run {
    let home = tempfile::tempdir().expect("a folder");
    let dir = home.path().join("queue");
    Queue::create(&dir, &options()).expect("creates").close().expect("closes");
    let queue = testing::open_dir(&dir, &options(), faults).expect("opens");
    // Before the first step: every instruction costs a look.
    let payloads: Vec<_> = (0..100).map(payload).collect();
    let mut reader = queue.reader("step").expect("opens once");
    let file = File::open(dir.join("ring")).expect("the ring");
    SAID.store(0, Ordering::Relaxed);
    single_step::record(&file, &SAID, || work(&queue, &mut reader, &payloads)).expect("records")
}

fn check_each(run: &Run) -> Result<(), String> {
    run.each(|instruction, bytes, said| {
        check(bytes, said).map_err(|why| format!("after instruction {instruction}: {why}"))
    })
}

/// The second half is the twin: with one checkpoint slot instead of two, a kill within its writing
/// must be noticed. One test, because the steps of two would share a signal handler.
#[test]
fn a_queue_survives_a_kill_after_any_instruction() {
    let run = step_through(&[]);
    println!("{} instructions, {} states", run.instructions, run.states());
    check_each(&run).expect("nothing lost");
    assert!(run.instructions > 50_000 && run.states() > 300, "it did not get to work");
    let faulty = step_through(&[Fault::OneSlot]);
    let why = check_each(&faulty).expect_err("the planted fault was not noticed");
    println!("noticed: {why}");
}
