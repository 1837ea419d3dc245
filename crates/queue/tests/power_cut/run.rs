//! One run: a queue with options of its own, and its lives.
//!
//! A swarm: each run has its own sizes, rates and kinds of work, so that what needs a long streak
//! of one kind comes about too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_queue::testing::{self, Backing, Fault, PAGE_BYTES, Pace};
use forebay_queue::{Durability, Error, Options, Queue, Reader, Result, Seq};

use crate::disk::{Disk, Image, Weather};
use crate::model::Model;
use crate::random::Random;

/// Far apart, so that what is due does not depend on how fast the test runs.
const INTERVAL: Duration = Duration::from_secs(3600);

/// What the lives of a run are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Anything.
    Swarm,
    /// The ring is full again and again, and must not stay so.
    Full,
}

/// What differs from run to run.
struct Habits {
    weather: Weather,
    /// Fixed, or mixed.
    payload_bytes: Option<u64>,
    batch_max: u64,
    operations_max: u64,
    /// Chances of 1,024.
    process: u64,
    power: u64,
    midway: u64,
    checkpoint: u64,
    second_reader: u64,
}

/// A queue and its lives.
pub(crate) struct Run {
    /// How many lives ended with the power, and how many in the middle of an operation.
    pub(crate) power_cuts: u64,
    pub(crate) midway: u64,
    style: Style,
    random: Random,
    habits: Habits,
    options: Options,
    faults: Vec<Fault>,
    image: Image,
    model: Model,
    /// Whether what was promised was promised for the medium.
    is_on_medium: bool,
    payloads: u64,
}

/// What a life has at hand.
struct Hands<'a> {
    queue: &'a Queue,
    disk: &'a Disk,
    readers: Vec<Reader>,
    pace: Pace,
    now: Instant,
}

impl Run {
    /// The run of this seed.
    pub(crate) fn new(seed: u64, style: Style, faults: &[Fault]) -> Self {
        let mut random = Random::new(seed);
        let capacity = PAGE_BYTES * (1 + random.below(6));
        let entry_bytes_max = (capacity / 2 - 32).min(random.pick(&[200, 1500, 9000]));
        let habits = Habits {
            weather: Weather {
                writeback: random.pick(&[0, 20, 150, 500]),
                sync_failure: random.pick(&[0, 0, 8, 60]),
                arrival: random.pick(&[0, 300, 700, 1024]),
            },
            payload_bytes: match random.below(4) {
                0 => Some(random.below(300)),
                1 => Some(480),
                _ => None,
            },
            batch_max: random.pick(&[1, 3, 6, 16]),
            operations_max: random.pick(&[4, 16, 40, 80]),
            process: random.pick(&[0, 0, 0, 300, 1024]),
            power: random.pick(&[512, 800, 1000]),
            midway: random.pick(&[0, 700, 1024]),
            checkpoint: random.pick(&[30, 300, 1000]),
            second_reader: random.pick(&[0, 0, 200, 1000]),
        };
        let options = Options {
            capacity_bytes: capacity,
            entry_bytes_max: entry_bytes_max as u32,
            checkpoint_interval: INTERVAL,
            ..Options::default()
        };
        let mut file = testing::fresh(u128::from(seed) + 1, capacity);
        file.resize(testing::file_bytes(capacity) as usize, 0);
        Run {
            power_cuts: 0,
            midway: 0,
            style,
            random,
            habits,
            options,
            faults: faults.to_vec(),
            image: Image::of(file),
            model: Model::default(),
            is_on_medium: true,
            payloads: 0,
        }
    }

    /// Opens, checks, works, ends.
    pub(crate) fn life(&mut self) {
        let is_process = self.random.chance(self.habits.process);
        self.options.durability = if is_process { Durability::Process } else { Durability::Disk };
        // Of what was only promised to survive a kill, a power cut may take anything.
        self.is_on_medium &= !is_process;
        let is_power = !is_process && self.random.chance(self.habits.power);
        let cut_at = if self.random.chance(self.habits.midway) {
            let calls_max = self.random.pick(&[10, 40, 120]);
            1 + self.random.below(calls_max)
        } else {
            u64::MAX
        };
        let seed = self.random.next();
        let disk = Arc::new(Disk::new(&self.image, seed, self.habits.weather, cut_at));
        if is_power && self.is_on_medium {
            disk.arm_power();
        }
        let backing: Arc<dyn Backing> = Arc::<Disk>::clone(&disk);
        let lived = testing::open(backing, &self.options, &self.faults)
            .and_then(|queue| self.live(&queue, &disk, is_power));
        // An injected failure of a sync ends a life at any point; nothing else does.
        assert!(matches!(lived, Ok(()) | Err(Error::Io { .. })), "{lived:?}");
        self.midway += u64::from(disk.is_cut());
        self.power_cuts += u64::from(is_power && self.is_on_medium);
        // Dropped without a thread, the queue did nothing more: that was the end.
        self.image = disk.end();
    }

    fn live(&mut self, queue: &Queue, disk: &Disk, is_power: bool) -> Result<()> {
        if disk.is_cut() {
            return Ok(());
        }
        self.model.check(queue)?;
        if self.options.durability == Durability::Disk {
            self.is_on_medium = true;
            if is_power {
                disk.arm_power();
            }
        }
        let (pace, now) = (Pace::default(), Instant::now());
        let mut hands = Hands { queue, disk, readers: Vec::new(), pace, now };
        let second = self.random.chance(self.habits.second_reader);
        for name in ["first", "second"].iter().take(1 + usize::from(second)) {
            let reader = queue.reader(name)?;
            if disk.is_cut() {
                return Ok(());
            }
            self.model.check_reader(&reader);
            hands.readers.push(reader);
        }
        if self.style == Style::Full {
            self.fill_and_drain(&mut hands)?;
            if disk.is_cut() {
                return Ok(());
            }
        }
        for _ in 0..self.random.below(self.habits.operations_max + 1) {
            match self.operate(&mut hands) {
                Ok(()) | Err(Error::Full { .. } | Error::TooLarge { .. }) => {}
                failed => return failed,
            }
            if disk.is_cut() {
                return Ok(());
            }
            self.model.promise(queue.durable());
        }
        Ok(())
    }

    fn operate(&mut self, hands: &mut Hands<'_>) -> Result<()> {
        match self.random.below(12) {
            0..=3 => self.append(hands),
            4 => self.append_batch(hands),
            5 | 6 => self.wait_durable(hands),
            7 | 8 => self.read(hands),
            9 => {
                // An hour later, or at once.
                if self.random.chance(self.habits.checkpoint) {
                    hands.now += 2 * INTERVAL;
                }
                testing::step(hands.queue, &mut hands.pace, hands.now).map(|_| ())
            }
            10 => self.commit_durable(hands),
            _ => self.change_readers(hands),
        }
    }

    fn payload(&mut self) -> Vec<u8> {
        let max = u64::from(self.options.entry_bytes_max);
        let len = match self.habits.payload_bytes {
            Some(len) => len,
            None if self.random.chance(128) => self.random.below(max + 1),
            None => self.random.below(120),
        };
        self.payloads += 1;
        bytes_of(self.payloads, len.min(max) as usize)
    }

    fn append(&mut self, hands: &mut Hands<'_>) -> Result<()> {
        let payload = self.payload();
        let seq = hands.queue.append(1, &payload)?;
        self.model.may_hold(seq, payload);
        Ok(())
    }

    fn append_batch(&mut self, hands: &mut Hands<'_>) -> Result<()> {
        let count = 1 + self.random.below(self.habits.batch_max);
        let payloads: Vec<_> = (0..count).map(|_| self.payload()).collect();
        let span = hands.queue.append_batch(1, &payloads)?;
        for (row, payload) in payloads.into_iter().enumerate() {
            self.model.may_hold(Seq::from_u64(span.first.get() + row as u64), payload);
        }
        Ok(())
    }

    fn wait_durable(&mut self, hands: &mut Hands<'_>) -> Result<()> {
        let upto = hands.queue.appended();
        hands.queue.wait_durable(upto, Duration::ZERO)?;
        if !hands.disk.is_cut() {
            self.model.promise(upto);
        }
        Ok(())
    }

    fn read(&mut self, hands: &mut Hands<'_>) -> Result<()> {
        let nth = self.random.below(hands.readers.len() as u64) as usize;
        let reader = &mut hands.readers[nth];
        let mut previous = reader.cursor();
        let batch = reader.peek(1 + self.random.below(8) as usize, 1 << 20)?;
        for entry in batch.iter() {
            assert!(entry.seq.follows(previous) || previous == Seq::NONE, "reader's gap");
            self.model.check_entry(entry.seq, entry.payload);
            previous = entry.seq;
        }
        // Shown to a reader: whoever it is may have acted on it.
        self.model.promise(previous);
        batch.advance();
        self.model.will_commit(reader.name(), previous);
        reader.commit(previous)
    }

    fn commit_durable(&mut self, hands: &mut Hands<'_>) -> Result<()> {
        let nth = self.random.below(hands.readers.len() as u64) as usize;
        let reader = &mut hands.readers[nth];
        let upto = reader.cursor();
        let note = self.model.next_note(upto);
        reader.commit_durable(upto, Some(&note.to_le_bytes()))?;
        if !hands.disk.is_cut() {
            self.model.has_committed(reader.name(), upto, note);
        }
        Ok(())
    }

    /// Takes the second reader away, or brings it in again.
    fn change_readers(&mut self, hands: &mut Hands<'_>) -> Result<()> {
        if !self.random.chance(self.habits.second_reader) {
            return Ok(());
        }
        if hands.readers.len() == 2 {
            hands.readers.pop();
            self.model.forget("second");
            return hands.queue.remove_reader("second");
        }
        let reader = hands.queue.reader("second")?;
        if !hands.disk.is_cut() {
            self.model.check_reader(&reader);
        }
        hands.readers.push(reader);
        Ok(())
    }

    /// Appends until the ring refuses, commits everything, and the largest entry must go in.
    fn fill_and_drain(&mut self, hands: &mut Hands<'_>) -> Result<()> {
        loop {
            match self.append(hands) {
                Err(Error::Full { .. }) => break,
                other => other?,
            }
        }
        if hands.disk.is_cut() {
            return Ok(());
        }
        // A reader from an earlier life that nobody holds any more.
        if hands.readers.len() == 1 && hands.queue.readers().len() == 2 {
            self.model.forget("second");
            hands.queue.remove_reader("second")?;
        }
        if self.random.chance(512) {
            self.wait_durable(hands)?;
        } else {
            // The refusal asked for it: without a waiter, the next step of the thread does it.
            testing::step(hands.queue, &mut hands.pace, hands.now)?;
        }
        for reader in &mut hands.readers {
            let batch = reader.peek(usize::MAX, usize::MAX)?;
            let last = batch.last();
            // Counter 0: nothing was appended in this life, all of it is of earlier ones.
            let end = hands.queue.appended();
            assert!(end.counter() == 0 || last == Some(end), "given up to {last:?}, not {end}");
            if !hands.disk.is_cut() {
                self.model.promise(last.unwrap_or_default());
            }
            batch.advance();
            if let Some(last) = last {
                self.model.will_commit(reader.name(), last);
                reader.commit(last)?;
            }
        }
        self.payloads += 1;
        let largest = bytes_of(self.payloads, self.options.entry_bytes_max as usize);
        match hands.queue.append(1, &largest) {
            Ok(seq) => self.model.may_hold(seq, largest),
            Err(error @ Error::Full { .. }) => panic!("all is committed, and yet: {error}"),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// A payload that nobody else has.
fn bytes_of(number: u64, len: usize) -> Vec<u8> {
    let mut stream = Random::new(number);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&stream.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
