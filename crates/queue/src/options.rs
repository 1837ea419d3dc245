//! How a queue is made and opened: [`Options`], checked as a whole before anything is touched.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::format;

/// What an entry has survived once the queue calls it durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// The death of the process: the entry is in the shared mapping. Costs no system call.
    Process,
    /// The death of the machine: the entry is on the medium.
    #[default]
    Disk,
}

/// How to create and open a queue; start from [`Options::default`].
///
/// ```
/// use forebay_queue::{Durability, Options};
/// let options = Options { capacity_bytes: 8 << 20, ..Options::default() };
/// assert_eq!(options.durability, Durability::Disk);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Size of the ring; rounded up to whole pages. Fixed at creation, all of it is allocated
    /// then. Default 64 MiB: keep it below a quarter of the container's memory.
    pub capacity_bytes: u64,
    /// The largest payload. Default 64 KiB, the largest device message. At most half the
    /// capacity less a record's head, so that an empty ring always takes an entry.
    pub entry_bytes_max: u32,
    /// What `durable` means. Chosen at each open. Default [`Durability::Disk`].
    pub durability: Durability,
    /// Permission bits of a created ring file. Default 0600; group and others need a reason.
    pub mode: u32,
    /// Accept file systems that cannot promise [`Durability::Disk`]: tmpfs, overlay, NFS, FUSE,
    /// 9p, btrfs, ZFS. Default off; [`Durability::Process`] never needs it.
    pub any_filesystem: bool,
    /// How long an appended entry may wait for others before it is synced when nobody waits for
    /// it. Default 1 ms. Waiters are served at once, whatever this says; except that while many
    /// entries come and only tasks wait, a sync begins at most 1 ms after the one before has ended.
    pub sync_delay: Duration,
    /// How often cursors and marks become durable while they move. Default 100 ms.
    pub checkpoint_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            capacity_bytes: 64 << 20,
            entry_bytes_max: 64 << 10,
            durability: Durability::Disk,
            mode: 0o600,
            any_filesystem: false,
            sync_delay: Duration::from_millis(1),
            checkpoint_interval: Duration::from_millis(100),
        }
    }
}

impl Options {
    /// Checks what holds for creation and for opening.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |option, reason: String| Err(Error::Options { option, reason });
        if self.mode & !0o777 != 0 {
            return refuse("mode", format!("{:o} holds more than permission bits", self.mode));
        }
        if self.sync_delay.is_zero() || self.checkpoint_interval.is_zero() {
            return refuse("sync_delay", "a zero interval would never let the thread rest".into());
        }
        Ok(())
    }

    /// The capacity in whole pages, checked against the entry limit.
    pub(crate) fn capacity_checked(&self, page_bytes: u64) -> Result<u64> {
        if self.capacity_bytes == 0 || self.capacity_bytes > format::CAPACITY_BYTES_MAX {
            let reason =
                format!("{} is not in 1..={}", self.capacity_bytes, format::CAPACITY_BYTES_MAX);
            return Err(Error::Options { option: "capacity_bytes", reason });
        }
        let capacity = self.capacity_bytes.next_multiple_of(page_bytes);
        let limit = format::entry_bytes_limit(capacity);
        if u64::from(self.entry_bytes_max) > limit {
            let reason = format!(
                "{} does not fit a ring of {capacity} bytes: at most {limit}",
                self.entry_bytes_max
            );
            return Err(Error::Options { option: "entry_bytes_max", reason });
        }
        Ok(capacity)
    }
}
