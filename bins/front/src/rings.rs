//! The rings of this front, one for each partition, and what an entry in one of them has reached.

use std::{
    ops::ControlFlow,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};

use forebay_queue::{Durability, Error, Making, Options, Queue, Seq};

use crate::{
    config::{self, Config, Level},
    forwarder::{self, Left},
    watermark::Watermark,
};

/// Bytes after which the messages of a read are appended even if more of it is left: a read of many
/// tiny messages grows, as each gets its identity in the ring.
const BATCH_BYTES: u64 = 256 * 1024;

/// A ring is rounded up to whole pages, of at most this size on any machine.
const PAGE_BYTES_MAX: u64 = 64 * 1024;

/// One partition's ring. Clones are further producers.
#[derive(Clone)]
pub(crate) struct Ring {
    /// The partition's name.
    pub name: String,
    /// The ring.
    pub queue: Queue,
    /// What is durable in the middle; the forwarder advances it.
    pub acked: Arc<Watermark>,
    /// Whether the last append found no room; shared by all clones.
    full: Arc<AtomicBool>,
    entry_bytes_max: u64,
    level: Level,
}

impl Ring {
    /// Opens the ring of the partition `name`, or makes it, which `watch` may call off.
    ///
    /// # Errors
    /// As [`Queue::open_or_create_with`]: the front cannot start.
    pub(crate) fn open(
        name: &str,
        config: &Config,
        watch: impl FnMut(Making) -> ControlFlow<()>,
    ) -> Result<Self, Error> {
        let options = Options {
            capacity_bytes: config.queue.capacity.get(),
            entry_bytes_max: u32::try_from(config.queue.entry_max.get()).unwrap_or(u32::MAX),
            durability: match config.durability() {
                config::Durability::Process => Durability::Process,
                config::Durability::Disk => Durability::Disk,
            },
            any_filesystem: config.queue.any_filesystem,
            ..Options::default()
        };
        let dir = Self::dir(name, config);
        let queue = Queue::open_or_create_with(&dir, &options, watch)?;
        let recovery = queue.recovery();
        tracing::info!(
            partition = name, queue = %queue.id(), path = %dir.display(),
            entries = recovery.entries, torn_tail = recovery.torn_tail,
            corrupt = recovery.corrupt_ranges, "ring open"
        );
        let capacity_bytes = queue.stat().capacity_bytes;
        if capacity_bytes.abs_diff(options.capacity_bytes) >= PAGE_BYTES_MAX {
            tracing::warn!(
                partition = name,
                capacity_bytes,
                configured_bytes = options.capacity_bytes,
                "the ring keeps the size it was made with: drain and remove it to change that"
            );
        }
        if recovery.corrupt_ranges > 0 {
            tracing::error!(
                partition = name,
                entries = recovery.entries_lost,
                bytes = recovery.corrupt_bytes,
                "the ring was damaged below its durable mark: entries are lost"
            );
        }
        Ok(Self {
            name: name.to_owned(),
            queue,
            acked: Arc::new(Watermark::default()),
            full: Arc::new(AtomicBool::new(false)),
            entry_bytes_max: config.queue.entry_max.get(),
            level: config.ack.level,
        })
    }

    /// Whether the partition `name` has a ring already: making one takes much longer than opening.
    pub(crate) fn exists(name: &str, config: &Config) -> bool {
        Self::dir(name, config).join("ring").exists()
    }

    fn dir(name: &str, config: &Config) -> PathBuf {
        config.queue.dir.join(format!("uplink-{name}"))
    }

    /// A ring over a queue of the test's own.
    #[cfg(test)]
    pub(crate) fn of(queue: Queue, level: Level) -> Self {
        Self {
            name: "0".to_owned(),
            queue,
            acked: Arc::default(),
            full: Arc::default(),
            entry_bytes_max: 1024,
            level,
        }
    }

    /// Appends all entries or none, as of `time_us`.
    ///
    /// # Errors
    /// [`Error::Full`]: nothing was appended, push back. Any other: the ring has failed.
    pub(crate) fn append(&self, time_us: u64, entries: &[&[u8]]) -> Result<Seq, Error> {
        let appended = match entries {
            [entry] => self.queue.append(time_us, entry),
            entries => self.queue.append_batch(time_us, entries).map(|span| span.last),
        };
        match &appended {
            Err(Error::Full { .. }) => self.full.store(true, Ordering::Relaxed),
            // A load first: the flag's line stays shared between the cores.
            Ok(_) if self.full.load(Ordering::Relaxed) => self.full.store(false, Ordering::Relaxed),
            _ => {}
        }
        appended
    }

    /// Whether the ring takes more, for those who have not tried.
    pub(crate) fn has_room(&self) -> bool {
        if !self.full.load(Ordering::Relaxed) {
            return true;
        }
        let stat = self.queue.stat();
        let room = stat.capacity_bytes.saturating_sub(stat.used_bytes);
        room > 2 * self.entry_bytes_max
    }

    /// What the middle has not acked.
    pub(crate) fn left(&self) -> Left {
        forwarder::left(&self.queue, &self.acked)
    }

    /// Bytes of the largest batch: a small part of the ring, so that an empty one takes it.
    pub(crate) fn batch_bytes_max(&self) -> usize {
        let share = self.queue.stat().capacity_bytes / 8;
        usize::try_from(share.min(BATCH_BYTES)).unwrap_or(usize::MAX)
    }

    /// The last seq that has reached the level of the acks.
    pub(crate) fn reached(&self) -> Seq {
        match self.level {
            Level::Process => self.queue.appended(),
            Level::Disk => self.queue.durable(),
            Level::Middle => self.acked.get(),
        }
    }

    /// Whether `seq` has reached the level of the acks; if not, `waker` is woken once it has.
    ///
    /// # Errors
    /// The ring has failed: nothing more will be durable, and the process must end.
    pub(crate) fn poll_reached(&self, seq: Seq, waker: &Waker) -> Result<bool, Error> {
        match self.level {
            Level::Process => Ok(self.queue.appended() >= seq),
            Level::Disk => self.queue.poll_durable(seq, waker),
            Level::Middle => Ok(self.acked.poll(seq, waker)),
        }
    }
}
