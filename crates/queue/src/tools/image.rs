//! [`Image`]: a queue as it was at one moment, read without disturbing anybody.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::cursor::Cursors;
use crate::directory;
use crate::error::{Error, Result};
use crate::faults::Faults;
use crate::format::{self, Geometry, SLOT_BYTES, Slot, SuperBlock};
use crate::log::{Log, Step};
use crate::map::Mapping;
use crate::memory::Memory;
use crate::recovery::{self, Scan, Slots};
use crate::{Entry, QueueId, ReaderStat, Seq};

/// A copy of a queue in memory: what it holds, and what is damaged.
///
/// Takes no lock and can be made beside a live writer. Then it ends where the writer's last
/// checkpoint ended, at most [`checkpoint_interval`](crate::Options::checkpoint_interval) ago;
/// without a writer it holds everything that an open would recover. Needs as much memory as the
/// ring is large.
///
/// ```
/// # use forebay_queue::{Options, Queue, tools::Image};
/// # let dir = tempfile::tempdir().unwrap();
/// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
/// let queue = Queue::create(dir.path(), &options)?;
/// queue.append(7, b"hello")?;
/// queue.close()?;
/// let image = Image::open(dir.path())?;
/// assert!(image.verdict().is_clean());
/// assert_eq!(image.entries().next().unwrap().payload, b"hello");
/// # Ok::<(), forebay_queue::Error>(())
/// ```
#[derive(Debug)]
pub struct Image {
    pub(super) memory: Memory,
    pub(super) block: SuperBlock,
    pub(super) geometry: Geometry,
    pub(super) slots: Slots,
    pub(super) scan: Scan,
    is_live: bool,
}

/// What is damaged in a queue, from [`Image::verdict`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// Intact entries.
    pub entries: u64,
    /// Damaged ranges below the durable mark, in order.
    pub damaged: Vec<Damaged>,
    /// Whether one of the two checkpoint slots is damaged; the other one serves.
    pub slot_damaged: bool,
    /// Whether an unfinished entry stands behind the end: normal after a crash.
    pub torn_tail: bool,
}

/// One damaged range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damaged {
    /// Where in the file it starts.
    pub offset_bytes: u64,
    /// How long it is; it may go around the end of the ring.
    pub len_bytes: u64,
    /// Entries known to be lost in it.
    pub entries_lost: u64,
}

impl Verdict {
    /// Whether nothing that was promised is damaged. A torn tail was not promised.
    ///
    /// See [`Image`] for an example.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && !self.slot_damaged
    }
}

impl Image {
    /// Reads the queue in `dir`.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Unsupported`], [`Error::Io`] as for
    /// [`Queue::open`](crate::Queue::open); [`Error::Corrupt`] if both checkpoints are damaged.
    ///
    /// See [`Image`] for an example.
    pub fn open(dir: impl AsRef<Path>) -> Result<Image> {
        let path = dir.as_ref().join(format::FILE_NAME);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::Missing { path: path.clone() },
            _ => Error::io("open", &path, error),
        })?;
        // No lock is held while it is copied: a tier that starts at this moment must not find the
        // queue locked. If one has started meanwhile, the copy is made again beside it.
        loop {
            let is_live = directory::is_locked(&file, &path)?;
            let image = Self::read(&file, &path, is_live);
            if is_live || !directory::is_locked(&file, &path)? {
                return image;
            }
        }
    }

    pub(super) fn read(file: &File, path: &Path, is_live: bool) -> Result<Image> {
        let block = directory::read_super_block(file, path)?;
        let geometry = Geometry::new(&block);
        let wrap = |error| Error::io("read", path, error);
        let map = Mapping::anonymous(block.file_bytes() as usize).map_err(wrap)?;
        let copy = |from: u64, to: u64| -> Result<()> {
            let mut buffer = vec![0; 1 << 20];
            let mut at = from;
            while at < to {
                let piece = buffer.len().min((to - at) as usize);
                file.read_exact_at(&mut buffer[..piece], at).map_err(wrap)?;
                map.store(at as usize, &buffer[..piece]);
                at += piece as u64;
            }
            Ok(())
        };
        let ring = geometry.offset(0) as u64;
        copy(0, ring)?;
        let path = path.to_owned();
        let before = read_checkpoint(&map, &geometry);
        copy(ring, block.file_bytes())?;
        // Beside a writer: what was appended since the first look may be half copied, and what was
        // reclaimed since is overwritten, so that the later head and the earlier tail count.
        if is_live {
            copy(0, ring)?;
        }
        let memory = Memory::Mapped { map, lock: None, path };
        let slots = recovery::read_slots(&memory, &geometry).ok_or_else(|| Error::Corrupt {
            path: memory.path(),
            offset_bytes: geometry.slot_offset(0) as u64,
            reason: "both checkpoint slots are damaged".into(),
        })?;
        let lap = slots.newest.head.position + geometry.capacity;
        let limit = match before {
            Some(slot) if is_live => slot.tail.position.clamp(slots.newest.head.position, lap),
            _ => lap,
        };
        let log = Log { memory: &memory, geometry: &geometry, faults: Faults::default() };
        let scan = recovery::scan(log, &slots.newest, limit, u64::MAX);
        Ok(Image { memory, block, geometry, slots, scan, is_live })
    }

    /// The queue's random name.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.block.id
    }

    /// Size of the ring.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        self.block.capacity
    }

    /// Whether a writer had it open.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.is_live
    }

    /// Bytes between the oldest retained entry and the end.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.scan.tail.position - self.slots.newest.head.position
    }

    /// The seq of the last entry in the image.
    #[must_use]
    pub fn last(&self) -> Seq {
        self.scan.tail.seq
    }

    /// The named readers as of the last checkpoint.
    ///
    /// ```
    /// # use forebay_queue::{Options, Queue, tools::Image};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// let queue = Queue::create(dir.path(), &options)?;
    /// let reader = queue.reader("lake")?;
    /// assert_eq!(Image::open(dir.path())?.readers()[0].name, "lake"); // beside the writer
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    #[must_use]
    pub fn readers(&self) -> Vec<ReaderStat> {
        let rows = Cursors::of_rows(&self.slots.newest.readers).rows();
        let stat = |row: format::Row| ReaderStat {
            name: row.name,
            committed: row.cursor.seq,
            committed_durable: row.cursor.seq,
            pending_bytes: self.scan.tail.position.saturating_sub(row.cursor.position),
            in_use: self.is_live,
        };
        rows.into_iter().map(stat).collect()
    }

    /// What is damaged.
    ///
    /// See [`Image`] for an example.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let damaged = |damage: &recovery::Damage| Damaged {
            offset_bytes: self.geometry.offset(damage.from) as u64,
            len_bytes: damage.to - damage.from,
            entries_lost: damage.lost,
        };
        Verdict {
            entries: self.scan.entries,
            damaged: self.scan.damage.iter().map(damaged).collect(),
            // A live writer may be writing one of them at this moment.
            slot_damaged: self.slots.damaged && !self.is_live,
            torn_tail: self.scan.torn && !self.is_live,
        }
    }

    /// The intact entries, oldest first.
    ///
    /// See [`Image`] for an example.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let log = Log { memory: &self.memory, geometry: &self.geometry, faults: Faults::default() };
        let end = self.scan.tail.position;
        let mut position = self.slots.newest.head.position;
        let mut damage = self.scan.damage.iter().peekable();
        std::iter::from_fn(move || {
            loop {
                if let Some(known) = damage.next_if(|damage| damage.from == position) {
                    position = known.to;
                    continue;
                }
                match log.next(position, end) {
                    Step::Entry { head, at, next } => {
                        position = next;
                        let payload = log.payload(&head, at);
                        return Some(Entry { seq: head.seq, time_us: head.time_us, payload });
                    }
                    Step::Gap { next, .. } | Step::BadPayload { next, .. } => position = next,
                    Step::BadHead { .. } | Step::End => return None,
                }
            }
        })
    }

    /// Writes the intact entries, oldest first, one JSON object a line:
    /// `{"seq":"1:7","time_us":0,"payload":"68656c6c6f"}`, the payload in hexadecimal.
    ///
    /// # Errors
    /// What the writer said.
    ///
    /// ```
    /// # use forebay_queue::{Options, Queue, tools::Image};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// let queue = Queue::create(dir.path(), &options)?;
    /// queue.append(7, b"hi")?;
    /// queue.close()?;
    /// let mut out = Vec::new();
    /// assert_eq!(Image::open(dir.path())?.export(&mut out).unwrap(), 1);
    /// assert_eq!(out, b"{\"seq\":\"1:1\",\"time_us\":7,\"payload\":\"6869\"}\n");
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    pub fn export(&self, out: &mut impl Write) -> io::Result<u64> {
        let mut count = 0;
        let mut line = String::new();
        for entry in self.entries() {
            use std::fmt::Write as _;
            line.clear();
            // Writing to a string cannot fail.
            let (seq, time_us) = (entry.seq, entry.time_us);
            let _ = write!(line, "{{\"seq\":\"{seq}\",\"time_us\":{time_us},\"payload\":\"");
            for byte in entry.payload {
                let _ = write!(line, "{byte:02x}");
            }
            line.push_str("\"}\n");
            out.write_all(line.as_bytes())?;
            count += 1;
        }
        out.flush()?;
        Ok(count)
    }
}

/// The newest valid checkpoint in the copied front of a file.
fn read_checkpoint(map: &Mapping, geometry: &Geometry) -> Option<Slot> {
    (0..2)
        .filter_map(|place| {
            Slot::decode(map.view(geometry.slot_offset(place), SLOT_BYTES), geometry.capacity)
        })
        .max_by_key(|slot| slot.generation)
}
