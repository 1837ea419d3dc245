//! Every operation does what it says, in every order: a queue against a model of plain lists.
//!
//! Method: proptest makes sequences of operations on rings of one to three pages, so that they wrap
//! around within a few operations, and shrinks a failing one. The model keeps all entries ever
//! appended and each reader's places; a refused append must be refused for a reason the model
//! knows. Reopens are clean closes and kills; for power cuts see `power_cut/`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use forebay_queue::testing::{self, PAGE_BYTES};
use forebay_queue::{Durability, Error, Options, Queue, Reader, Seq};
use proptest::prelude::*;

const SOON: Duration = Duration::from_secs(20);
const NAMES: [&str; 3] = ["a", "b", "c"];
const HEAD_BYTES: u64 = 32;

#[derive(Clone, Debug)]
enum Operation {
    Append(usize),
    AppendBatch(Vec<usize>),
    Sync,
    Peek {
        reader: usize,
        entries: usize,
        bytes: usize,
        advance: bool,
    },
    /// Up to the nth stored entry, or beyond the last.
    Commit {
        reader: usize,
        nth: usize,
        durable: bool,
    },
    Rewind {
        reader: usize,
        nth: usize,
    },
    Remove(usize),
    Tail(usize),
    Reopen {
        clean: bool,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    let len = prop_oneof![8 => 0usize..200, 2 => 200usize..2_100, 1 => 2_016usize..2_017];
    let reader = 0..NAMES.len();
    prop_oneof![
        8 => len.clone().prop_map(Operation::Append),
        3 => prop::collection::vec(len, 1..8).prop_map(Operation::AppendBatch),
        4 => Just(Operation::Sync),
        6 => (reader.clone(), 0usize..20, 0usize..3_000, any::<bool>()).prop_map(
            |(reader, entries, bytes, advance)| Operation::Peek { reader, entries, bytes, advance }
        ),
        6 => (reader.clone(), 0usize..80, any::<bool>())
            .prop_map(|(reader, nth, durable)| Operation::Commit { reader, nth, durable }),
        2 => (reader.clone(), 0usize..80)
            .prop_map(|(reader, nth)| Operation::Rewind { reader, nth }),
        1 => reader.prop_map(Operation::Remove),
        2 => (0usize..80).prop_map(Operation::Tail),
        1 => any::<bool>().prop_map(|clean| Operation::Reopen { clean }),
    ]
}

/// A reader as it should be.
struct Place {
    committed: Seq,
    read: Seq,
    reader: Reader,
}

struct World {
    _dir: tempfile::TempDir,
    options: Options,
    queue: Option<Queue>,
    /// All that may be stored, oldest first.
    entries: VecDeque<(Seq, u64, Vec<u8>)>,
    /// How many of them readers may see.
    readable: usize,
    places: BTreeMap<&'static str, Place>,
    count: u64,
}

impl World {
    fn new(pages: u64, durability: Durability) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let options = Options {
            capacity_bytes: pages * PAGE_BYTES,
            entry_bytes_max: 2_016,
            durability,
            any_filesystem: true,
            checkpoint_interval: Duration::from_secs(3600),
            ..Options::default()
        };
        drop(Queue::create(dir.path(), &options).expect("create"));
        let queue = testing::open_dir(dir.path(), &options, &[]).expect("open");
        World {
            _dir: dir,
            options,
            queue: Some(queue),
            entries: VecDeque::new(),
            readable: 0,
            places: BTreeMap::new(),
            count: 0,
        }
    }

    fn queue(&self) -> Queue {
        self.queue.clone().expect("open")
    }

    fn payload(&mut self, len: usize) -> Vec<u8> {
        self.count += 1;
        let count = self.count;
        (0..len).map(|at| (at as u64 ^ count.wrapping_mul(131)) as u8).collect()
    }

    /// Takes up the reader of this name, as an application would at its start.
    fn place(&mut self, nth: usize) -> &mut Place {
        let (name, queue) = (NAMES[nth], self.queue());
        self.places.entry(name).or_insert_with(|| {
            let reader = queue.reader(name).expect("free");
            let committed = reader.cursor();
            Place { committed, read: committed, reader }
        })
    }

    fn seq_at(&self, nth: usize) -> Seq {
        match self.entries.get(nth) {
            Some((seq, ..)) => *seq,
            None => Seq::from_u64(self.queue().appended().get() + 1),
        }
    }

    fn note_readable(&mut self) {
        if self.options.durability == Durability::Process {
            self.readable = self.entries.len();
        }
    }

    /// A refusal for want of space must be true: what is held, and what goes to padding.
    fn check_full(&self, sizes: &[usize], error: &Error) {
        let Error::Full { used_bytes, limit_bytes, needed_bytes } = error else {
            panic!("{error}");
        };
        assert!(used_bytes + needed_bytes > *limit_bytes, "{error}");
        let record = |len: usize| HEAD_BYTES + len.next_multiple_of(8) as u64;
        let least: u64 = sizes.iter().map(|len| record(*len)).sum();
        let largest = sizes.iter().map(|len| record(*len)).max().unwrap_or(0);
        assert!(*needed_bytes >= least && *needed_bytes < least + largest, "{error}");
        // Everything committed by everybody is never in the way.
        let held = self.places.values().map(|place| place.committed).min();
        if let Some(held) = held {
            let kept = self.entries.iter().filter(|(seq, ..)| *seq > held);
            let bytes: u64 = kept.map(|(_, _, payload)| record(payload.len())).sum();
            let padding = 2 * 2_048 + largest;
            assert!(bytes + padding + least > *limit_bytes, "{error}: only {bytes} are held");
        }
    }

    fn run(&mut self, operation: &Operation) {
        match operation {
            Operation::Append(len) => {
                let payload = self.payload(*len);
                match self.queue().append(self.count, &payload) {
                    Ok(seq) => self.entries.push_back((seq, self.count, payload)),
                    Err(Error::TooLarge { bytes, limit_bytes: 2_016 }) => {
                        assert_eq!(bytes, *len as u64);
                        assert!(*len > 2_016);
                    }
                    Err(error) => self.check_full(&[*len], &error),
                }
                self.note_readable();
            }
            Operation::AppendBatch(sizes) => self.append_batch(sizes),
            Operation::Sync => {
                let queue = self.queue();
                queue.wait_durable(queue.appended(), SOON).expect("durable");
                assert_eq!(queue.durable(), queue.appended());
                self.readable = self.entries.len();
            }
            Operation::Peek { reader, entries, bytes, advance } => {
                self.peek(*reader, *entries, *bytes, *advance);
            }
            Operation::Commit { reader, nth, durable } => self.commit(*reader, *nth, *durable),
            Operation::Rewind { reader, nth } => {
                let after = self.seq_at(*nth);
                // The newest entry not above it that a reader may see.
                let seen = self.entries.iter().take(self.readable).map(|entry| entry.0);
                let known = seen.filter(|seq| *seq <= after).max().unwrap_or(Seq::NONE);
                let place = self.place(*reader);
                place.reader.rewind(after).expect("open");
                place.read = known.max(place.committed);
            }
            Operation::Remove(reader) => {
                let (name, queue) = (NAMES[*reader], self.queue());
                let existed = queue.readers().iter().any(|known| known.name == name);
                if self.places.contains_key(name) {
                    let refused = queue.remove_reader(name);
                    assert!(matches!(refused, Err(Error::Reader { .. })), "{refused:?}");
                }
                self.places.remove(name);
                assert_eq!(queue.remove_reader(name).is_ok(), existed);
                assert!(queue.readers().iter().all(|known| known.name != name));
            }
            Operation::Tail(nth) => self.tail(*nth),
            Operation::Reopen { clean } => self.reopen(*clean),
        }
    }

    fn append_batch(&mut self, sizes: &[usize]) {
        let payloads: Vec<_> = sizes.iter().map(|len| self.payload(*len)).collect();
        let before = self.queue().appended();
        match self.queue().append_batch(self.count, &payloads) {
            Ok(span) => {
                assert!(span.first.follows(before) && span.count() == sizes.len() as u64);
                for (row, payload) in payloads.into_iter().enumerate() {
                    let seq = Seq::from_u64(span.first.get() + row as u64);
                    self.entries.push_back((seq, self.count, payload));
                }
            }
            Err(Error::TooLarge { bytes, limit_bytes }) => {
                assert!(bytes > limit_bytes);
                assert_eq!(self.queue().appended(), before, "all or nothing");
            }
            Err(error) => {
                self.check_full(sizes, &error);
                assert_eq!(self.queue().appended(), before, "all or nothing");
            }
        }
        self.note_readable();
    }

    fn peek(&mut self, reader: usize, entries_max: usize, bytes_max: usize, advance: bool) {
        let read = self.place(reader).read;
        let mut bytes = 0;
        let mut expected = Vec::new();
        for entry in self.entries.iter().take(self.readable).filter(|(seq, ..)| *seq > read) {
            bytes += entry.2.len();
            if expected.len() == entries_max || (bytes > bytes_max && !expected.is_empty()) {
                break;
            }
            expected.push(entry.clone());
        }
        let place = self.place(reader);
        let batch = place.reader.peek(entries_max, bytes_max).expect("open");
        let given: Vec<_> =
            batch.iter().map(|entry| (entry.seq, entry.time_us, entry.payload.to_vec())).collect();
        assert_eq!(given, expected, "after {read}");
        assert_eq!(batch.last(), expected.last().map(|entry| entry.0));
        if advance {
            place.read = batch.last().unwrap_or(place.read);
            batch.advance();
        }
    }

    fn commit(&mut self, reader: usize, nth: usize, durable: bool) {
        let upto = self.seq_at(nth);
        let end = self.entries.iter().take(self.readable).map(|entry| entry.0).next_back();
        let place = self.place(reader);
        let done = if durable {
            place.reader.commit_durable(upto, Some(&upto.get().to_le_bytes()))
        } else {
            place.reader.commit(upto)
        };
        if upto > place.committed && end.is_none_or(|end| upto > end) {
            assert!(matches!(done, Err(Error::Beyond { .. })), "{upto} of {end:?}: {done:?}");
        } else {
            done.expect("open");
            place.committed = place.committed.max(upto);
            place.read = place.read.max(place.committed);
            assert_eq!(place.reader.cursor(), place.committed);
            if durable {
                assert_eq!(place.reader.note(), upto.get().to_le_bytes());
            }
        }
    }

    /// A tail gives what is left above a seq, and never what nobody appended; what it gave too much
    /// is given again, and so is all of it.
    fn tail(&mut self, nth: usize) {
        let after = if nth == 0 { Seq::NONE } else { self.seq_at(nth) };
        let mut tail = self.queue().tail(Some(after));
        let (mut given, mut before) = (Vec::new(), after);
        loop {
            let batch = tail.read(7, 1 << 20).expect("open");
            if batch.is_empty() {
                break;
            }
            let rows = batch.iter().take(1 + nth % 7);
            given.extend(rows.map(|entry| (entry.seq, entry.time_us, entry.payload.to_vec())));
            let (first, last) = (batch.iter().next().expect("one at least").seq, given.last());
            let last = last.expect("one at least").0;
            // Among what was read last, and behind what is looked up again.
            if nth.is_multiple_of(2) {
                tail.seek(before);
                let again = tail.read(1, 1 << 20).expect("open");
                assert_eq!(again.iter().next().map(|entry| entry.seq), Some(first));
            }
            tail.seek(last);
            before = last;
        }
        tail.seek(after);
        let again = tail.read(1, 1 << 20).expect("open");
        assert_eq!(again.iter().next().map(|entry| entry.seq), given.first().map(|first| first.0));
        let expected: Vec<_> =
            self.entries.iter().take(self.readable).filter(|(seq, ..)| *seq > after).collect();
        assert!(given.len() <= expected.len(), "more than there is");
        assert!(given.iter().eq(expected[expected.len() - given.len()..].iter().copied()));
        // What a reader has not committed is still there.
        let held = self.places.values().map(|place| place.committed).min();
        if let Some(held) = held {
            let owed = expected.iter().filter(|(seq, ..)| *seq > held).count();
            assert!(given.len() >= owed, "{} of {owed}", given.len());
        }
    }

    fn reopen(&mut self, clean: bool) {
        let committed: BTreeMap<_, _> =
            self.places.iter().map(|(name, place)| (*name, place.committed)).collect();
        self.places.clear();
        let queue = self.queue.take().expect("open");
        if clean {
            testing::finish(&queue).expect("closes");
        }
        drop(queue);
        let queue = testing::open_dir(self._dir.path(), &self.options, &[]).expect("open");
        assert_eq!((queue.recovery().corrupt_ranges, queue.recovery().torn_tail), (0, false));
        self.readable = self.entries.len();
        self.queue = Some(queue);
        // What the checkpoint did not know yet is delivered again; after a close, nothing is.
        for (name, before) in committed {
            let nth = NAMES.iter().position(|known| *known == name).expect("one of them");
            let place = self.place(nth);
            assert!(place.committed <= before);
            assert!(!clean || place.committed == before, "{name} at {before}");
        }
    }
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_queue_does_what_a_list_would(
        pages in 1u64..4,
        process in any::<bool>(),
        operations in prop::collection::vec(operation(), 1..150),
    ) {
        let durability = if process { Durability::Process } else { Durability::Disk };
        let mut world = World::new(pages, durability);
        for operation in &operations {
            world.run(operation);
        }
    }
}
