//! One slot of the snapshot: a file that is overwritten in place, and read back whole or not at all.
//!
//! The order is the proof: chunks, sync, header, sync. A header that validates was written after
//! everything it speaks of was on the medium; until it is, the other slot holds.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use super::format::{
    BODY_OFFSET, Bad, CHUNK_HEADER_BYTES, Chunk, HEADER_BYTES, Header, Item, chunk_header,
    decode_chunk,
};

/// Where a slot's bytes lie. The tests put one here that loses what was not synced.
pub trait Medium {
    /// Writes all of `bytes` at `offset`; they are on the medium after the next [`Self::sync`].
    ///
    /// # Errors
    /// Any: the slot is torn, write it again from the beginning later.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns when all that was written is on the medium.
    ///
    /// # Errors
    /// Any: the pages may be marked clean without being written. End the process.
    fn sync(&mut self) -> io::Result<()>;

    /// Fills `bytes` from `offset`, or as far as there are any; says how far.
    ///
    /// # Errors
    /// Any: the slot cannot be read.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize>;

    /// How many bytes there are.
    ///
    /// # Errors
    /// Any: the slot cannot be read.
    fn length_bytes(&self) -> io::Result<u64>;
}

/// A slot in a file.
#[derive(Debug)]
pub struct FileMedium(File);

impl FileMedium {
    /// Opens the file, or creates it, readable by its owner only. The folder is yours to sync.
    ///
    /// # Errors
    /// Any of the file system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(path).map(Self)
    }
}

impl Medium for FileMedium {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.0.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn length_bytes(&self) -> io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }
}

/// Why a snapshot could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The slot is torn and the other one holds: try again later.
    #[error("writing the dedup snapshot: {0}")]
    Write(#[source] io::Error),
    /// What the medium holds is not known: end the process.
    #[error("syncing the dedup snapshot: {0}")]
    Sync(#[source] io::Error),
}

/// A snapshot on its way into a slot.
pub struct SlotWriter<'a, M> {
    medium: &'a mut M,
    generation: u64,
    chunks: u32,
    body_bytes: u64,
}

impl<'a, M: Medium> SlotWriter<'a, M> {
    /// Begins snapshot `generation`. From here on the slot's former content is lost.
    pub fn begin(medium: &'a mut M, generation: u64) -> Self {
        Self { medium, generation, chunks: 0, body_bytes: 0 }
    }

    /// Writes one chunk and empties it.
    ///
    /// # Errors
    /// [`WriteError::Write`]: begin again later.
    pub fn chunk(&mut self, chunk: &mut Chunk) -> Result<(), WriteError> {
        let bytes = chunk.finish(self.generation, self.chunks);
        self.medium.write_at(BODY_OFFSET + self.body_bytes, bytes).map_err(WriteError::Write)?;
        self.body_bytes += bytes.len() as u64;
        self.chunks += 1;
        chunk.clear();
        Ok(())
    }

    /// Returns when all chunks are on the medium.
    ///
    /// # Errors
    /// [`WriteError::Sync`]: end the process.
    pub fn sync_body(&mut self) -> Result<(), WriteError> {
        self.medium.sync().map_err(WriteError::Sync)
    }

    /// Writes the header; what it says of the body's size is filled in here.
    ///
    /// # Errors
    /// [`WriteError::Write`]: begin again later.
    pub fn header(&mut self, header: Header) -> Result<Header, WriteError> {
        let header = Header {
            chunks: self.chunks,
            body_bytes: self.body_bytes,
            generation: self.generation,
            ..header
        };
        self.medium.write_at(0, &header.encode()).map_err(WriteError::Write)?;
        Ok(header)
    }

    /// Returns when the header is on the medium, and so the whole snapshot.
    ///
    /// # Errors
    /// [`WriteError::Sync`]: end the process.
    pub fn sync_header(self) -> Result<(), WriteError> {
        self.medium.sync().map_err(WriteError::Sync)
    }
}

/// Why a slot could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The medium cannot be read.
    #[error("reading the dedup snapshot: {0}")]
    Read(#[from] io::Error),
    /// It holds no snapshot, or not a whole one.
    #[error(transparent)]
    Bad(#[from] Bad),
}

/// Reads the slot's header.
///
/// # Errors
/// [`ReadError::Bad`]: there is no snapshot in it.
pub fn read_header(medium: &impl Medium) -> Result<Header, ReadError> {
    let mut bytes = [0; HEADER_BYTES];
    let filled = medium.read_at(0, &mut bytes)?;
    Ok(Header::decode(&bytes[..filled])?)
}

/// Reads the slot's chunks in order and hands over what they tell.
///
/// What was handed over before an error is true all the same: each chunk has its own checksum.
///
/// # Errors
/// [`ReadError::Bad`] names the chunk from which on the snapshot cannot be used.
pub fn read_body(
    medium: &impl Medium,
    header: &Header,
    mut take: impl FnMut(Item),
) -> Result<(), ReadError> {
    let end = medium.length_bytes()?.min(BODY_OFFSET.saturating_add(header.body_bytes));
    let mut at = BODY_OFFSET;
    let mut payload = Vec::new();
    for index in 0..header.chunks {
        let bad = |what| Bad::Chunk { index, what };
        let mut head = [0; CHUNK_HEADER_BYTES];
        if medium.read_at(at, &mut head)? < head.len() {
            return Err(bad("missing").into());
        }
        at += head.len() as u64;
        let (length, crc) = chunk_header(head);
        if u64::from(length) > end.saturating_sub(at) {
            return Err(bad("longer than the file").into());
        }
        payload.resize(length as usize, 0);
        if medium.read_at(at, &mut payload)? < payload.len() {
            return Err(bad("cut off").into());
        }
        decode_chunk(header.generation, index, crc, &payload, &mut take)?;
        at += u64::from(length);
    }
    Ok(())
}
