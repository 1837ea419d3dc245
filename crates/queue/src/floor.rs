//! The floor that benchmarks compare with: memory copy, CRC-32C and store, and nothing else.
//!
//! It uses the queue's own mapping and checksum, so that a ratio shows what the queue adds. Only
//! with the feature `floor`; it is no queue.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::crc;
use crate::map::Mapping;

/// A file, mapped as a ring is, into which records are stored one after another.
#[derive(Debug)]
pub struct Floor {
    map: Mapping,
    at: usize,
    last: (usize, usize),
}

impl Floor {
    /// Makes and maps a file of `len` bytes, prepared as a ring file is.
    ///
    /// # Errors
    /// What the system said.
    pub fn create(path: &Path, len: usize) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        let zeroes = vec![0; 1 << 20];
        for at in (0..len).step_by(zeroes.len()) {
            let piece = zeroes.len().min(len - at);
            std::os::unix::fs::FileExt::write_all_at(&file, &zeroes[..piece], at as u64)?;
        }
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(Floor { map: Mapping::of_file(&file, len)?, at: 0, last: (0, 0) })
    }

    /// Stores one record: its checksum, a head of 32 bytes, the payload.
    pub fn store(&mut self, payload: &[u8]) {
        let bytes = 32 + payload.len().next_multiple_of(8);
        if self.at + bytes > self.map.len_bytes() {
            self.at = 0;
        }
        let mut head = [0; 32];
        head[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        head[4..8].copy_from_slice(&crc::checksum(payload).to_le_bytes());
        self.map.store(self.at + 32, payload);
        self.map.store(self.at, &head);
        self.last = (self.at, bytes);
        self.at += bytes;
    }

    /// Makes the last record durable.
    ///
    /// # Errors
    /// What the system said.
    pub fn sync(&self) -> io::Result<()> {
        self.map.sync(self.last.0, self.last.1)
    }
}
