//! One device session's row: its key, what is stored of it, when it was last heard of.

use super::{RunningTime, ranges::Ranges};

/// Which session a number belongs to, borrowed from an entry's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    /// The tenant's id.
    pub tenant: &'a str,
    /// The device's id.
    pub device: &'a str,
    /// The session's number.
    pub session: u64,
}

/// What is known of one session.
#[derive(Debug)]
pub struct Row {
    /// The tenant's length in one byte, the tenant, the device.
    name: Box<[u8]>,
    session: u64,
    /// When it was last heard of, stored or not.
    pub seen: RunningTime,
    /// The numbers that are stored, or rejected for good.
    pub stored: Ranges,
}

/// Bytes that the allocator adds to and rounds up a small block by, on average.
const BLOCK_OVERHEAD_BYTES: usize = 16;

impl Row {
    /// A row for `key`.
    ///
    /// # Panics
    /// A tenant of more than 255 bytes: the model's limit is 64.
    #[must_use]
    pub fn new(key: Key<'_>, seen: RunningTime, stored: Ranges) -> Self {
        let tenant_bytes =
            u8::try_from(key.tenant.len()).expect("a tenant id has at most 64 bytes");
        let mut name = Vec::with_capacity(1 + key.tenant.len() + key.device.len());
        name.push(tenant_bytes);
        name.extend_from_slice(key.tenant.as_bytes());
        name.extend_from_slice(key.device.as_bytes());
        Self { name: name.into_boxed_slice(), session: key.session, seen, stored }
    }

    /// The tenant's id, as bytes.
    #[must_use]
    pub fn tenant(&self) -> &[u8] {
        &self.name[1..=usize::from(self.name[0])]
    }

    /// The device's id, as bytes.
    #[must_use]
    pub fn device(&self) -> &[u8] {
        &self.name[1 + usize::from(self.name[0])..]
    }

    /// The session's number.
    #[must_use]
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Whether it is the row of `key`.
    #[must_use]
    pub fn is(&self, key: &Key<'_>) -> bool {
        self.session == key.session
            && self.name.len() == 1 + key.tenant.len() + key.device.len()
            && self.device() == key.device.as_bytes()
            && self.tenant() == key.tenant.as_bytes()
    }

    /// Bytes on the heap, as far as they can be known.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.name.len() + BLOCK_OVERHEAD_BYTES + self.stored.heap_bytes()
    }
}
