//! Bytes on the medium.

/// The largest ring.
pub(crate) const CAPACITY_BYTES_MAX: u64 = 1 << 40;

/// The largest payload a ring of this capacity takes.
pub(crate) const fn entry_bytes_limit(capacity: u64) -> u64 {
    capacity / 2 - 32
}
