//! Doors for tests: other memory, no thread, planted faults. Only with the feature `testing`.
//!
//! A queue opened here is the real one over a [`Backing`] of the test's own. Without a thread it
//! does nothing by itself: [`Queue::wait_durable`] syncs inline, [`step`] is the sync thread's one
//! step at a time of the test's choosing, and dropping it is a kill.

use std::sync::Arc;
use std::time::Instant;

use crate::directory;
use crate::faults::Faults;
use crate::format::{self, Geometry, SuperBlock};
use crate::memory::Memory;
use crate::open::{first_slots, open_ring};
use crate::{Error, Options, Queue, QueueId, Result};

pub use crate::faults::Fault;
pub use crate::map::Mapping;
pub use crate::memory::Backing;
pub use crate::pace::{Pace, Rest};

/// Bytes of a page in simulated files.
pub const PAGE_BYTES: u64 = format::SLOT_BYTES as u64;

/// Bytes that the backing of a ring of this capacity, in whole pages, must have.
#[must_use]
pub const fn file_bytes(capacity_bytes: u64) -> u64 {
    3 * PAGE_BYTES + capacity_bytes
}

/// The first bytes of a new queue; what follows them, up to [`file_bytes`], is zero.
#[must_use]
pub fn fresh(id: u128, capacity_bytes: u64) -> Vec<u8> {
    let block = SuperBlock {
        id: QueueId::from_u128(id),
        capacity: capacity_bytes,
        page_bytes: PAGE_BYTES as u32,
    };
    let mut bytes = vec![0; file_bytes(0) as usize];
    bytes[..format::SUPER_BYTES].copy_from_slice(&block.encode());
    let geometry = Geometry::new(&block);
    for (place, slot) in first_slots().iter().enumerate() {
        let at = geometry.slot_offset(place);
        bytes[at..at + format::SLOT_BYTES].copy_from_slice(&slot.encode());
    }
    bytes
}

/// Opens the queue in `backing`, without a thread, with these safeguards taken out.
///
/// # Errors
/// As [`Queue::open`].
pub fn open(backing: Arc<dyn Backing>, options: &Options, faults: &[Fault]) -> Result<Queue> {
    options.check()?;
    let memory = Memory::Simulated(backing);
    let unsupported = |reason| Error::Unsupported { path: memory.path(), reason };
    if memory.len_bytes() < file_bytes(0) as usize {
        return Err(unsupported("shorter than a super-block".into()));
    }
    let block = SuperBlock::decode(memory.view(0, format::SUPER_BYTES)).map_err(unsupported)?;
    if block.file_bytes() != memory.len_bytes() as u64 || u64::from(block.page_bytes) != PAGE_BYTES
    {
        return Err(unsupported("another size than its super-block says".into()));
    }
    Ok(Queue::without_thread(open_ring(memory, &block, options, Faults::planted(faults))?))
}

/// Opens the queue in a directory, without a thread, with these safeguards taken out.
///
/// # Errors
/// As [`Queue::open`].
pub fn open_dir(dir: &std::path::Path, options: &Options, faults: &[Fault]) -> Result<Queue> {
    options.check()?;
    let (memory, block) = directory::open(dir, options)?;
    Ok(Queue::without_thread(open_ring(memory, &block, options, Faults::planted(faults))?))
}

/// Opens the queue in a directory with its thread, with these safeguards taken out.
///
/// # Errors
/// As [`Queue::open`].
pub fn open_dir_threaded(
    dir: &std::path::Path,
    options: &Options,
    faults: &[Fault],
) -> Result<Queue> {
    options.check()?;
    let (memory, block) = directory::open(dir, options)?;
    Queue::start(open_ring(memory, &block, options, Faults::planted(faults))?)
}

/// One step of the sync thread at the time `now`; says what the thread would do next.
///
/// # Errors
/// A failed sync, which ends the queue.
pub fn step(queue: &Queue, pace: &mut Pace, now: Instant) -> Result<Rest> {
    queue.ring().step(pace, now)
}

/// Writes a checkpoint now.
///
/// # Errors
/// A failed sync, which ends the queue.
pub fn checkpoint(queue: &Queue) -> Result<()> {
    let ring = queue.ring();
    let mut syncer = ring.lock_sync();
    ring.checkpoint(&mut syncer)
}

/// What a clean close does, without ending the handle: all durable, last checkpoint.
///
/// # Errors
/// A failed sync, which ends the queue.
pub fn finish(queue: &Queue) -> Result<()> {
    queue.ring().finish()
}
