//! Any bytes are safe to recover, and a queue that opened keeps what it is given.
//!
//! The input is a list of edits of a file that was sound: so the super-block mostly holds, and what
//! is behind it is looked at. Every checksum that an edit broke may be mended by an edit, so that
//! the fuzzer comes past them. Cannot show: what a mapping does; the bytes are in memory.
#![no_main]

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use forebay_queue::testing::{self, Backing, Mapping, PAGE_BYTES};
use forebay_queue::{Durability, Options, Seq};
use libfuzzer_sys::fuzz_target;

const CAPACITY: u64 = 2 * PAGE_BYTES;

/// Memory whose syncs always succeed.
struct Block(Mapping);

impl Backing for Block {
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

fn block(bytes: &[u8]) -> Arc<Block> {
    let block = Mapping::anonymous(testing::file_bytes(CAPACITY) as usize).expect("memory");
    block.store(0, bytes);
    Arc::new(Block(block))
}

fn options(durability: Durability) -> Options {
    Options { capacity_bytes: CAPACITY, entry_bytes_max: 600, durability, ..Options::default() }
}

/// A queue that has gone around its ring, with a reader half way; made once.
fn sound() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let made = block(&testing::fresh(1, CAPACITY));
        let opened = Arc::<Block>::clone(&made);
        let queue = testing::open(opened, &options(Durability::Disk), &[]).expect("opens");
        let mut reader = queue.reader("r").expect("reader");
        for n in 0..90u8 {
            let seq = queue.append(u64::from(n), &vec![n; 20 + usize::from(n)]).expect("room");
            queue.wait_durable(seq, Duration::ZERO).expect("durable");
            if n < 60 {
                reader.commit_durable(seq, None).expect("commit");
            }
        }
        made.view(0, made.len_bytes()).to_vec()
    })
}

/// Each edit: two bytes of place, one of length and kind, then the bytes to put there.
fn edit(file: &Block, mut input: &[u8]) {
    let len = file.len_bytes();
    while let [low, high, kind, rest @ ..] = input {
        let at = usize::from(u16::from_le_bytes([*low, *high])) % len;
        let count = usize::from(*kind & 63).min(rest.len()).min(len - at);
        if kind & 64 == 0 {
            file.store(at, &rest[..count]);
            input = &rest[count..];
        } else {
            // A copy of what lies elsewhere: ghosts, laps, swapped slots.
            let from = at / 8 * 8;
            let to = (from + usize::from(*kind) * 512) % (len - 512);
            let bytes = file.view(from.min(len - 512), 512).to_vec();
            file.store(to, &bytes);
            input = rest;
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((first, edits)) = input.split_first() else { return };
    let durability = if first & 1 == 0 { Durability::Disk } else { Durability::Process };
    let file = if first & 2 == 0 { block(sound()) } else { block(&testing::fresh(1, CAPACITY)) };
    edit(&file, edits);
    let open =
        || testing::open(Arc::<Block>::clone(&file) as Arc<dyn Backing>, &options(durability), &[]);
    let Ok(queue) = open() else { return };
    let mut kept = Vec::new();
    for n in 0..40u8 {
        match queue.append(0, &vec![n; 1 + usize::from(n) * 7]) {
            Ok(seq) => kept.push((seq, n)),
            Err(_) => break,
        }
    }
    queue.wait_durable(queue.appended(), Duration::ZERO).expect("syncs succeed");
    if let Ok(mut reader) = queue.reader("r") {
        let last = reader.peek(1000, 1 << 20).expect("open").last();
        if let Some(last) = last {
            reader.commit(last).expect("it was given");
        }
    }
    drop(queue);
    // What was appended after the recovery is there after the next one, in order.
    let queue = open().expect("it opened before");
    let mut tail = queue.tail(Some(Seq::NONE));
    let mut found = Vec::new();
    loop {
        let batch = tail.read(64, 1 << 20).expect("open");
        if batch.is_empty() {
            break;
        }
        found.extend(batch.iter().map(|entry| (entry.seq, entry.payload.to_vec())));
    }
    assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "out of order");
    for (seq, n) in kept {
        let there = found.iter().find(|(known, _)| *known == seq);
        let expected = vec![n; 1 + usize::from(n) * 7];
        assert_eq!(there.map(|(_, payload)| payload), Some(&expected), "{seq} is lost");
    }
});
