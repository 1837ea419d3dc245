//! The shared mapping, and the only pointers of the crate.
//!
//! [`Mapping`] is a block of bytes that producers fill and readers look at, at the same time. It
//! checks bounds itself. What it cannot check is *who* touches a range, and that is the ring's
//! rule, on which every proof here rests:
//!
//! **Ring rule.** A range of bytes is stored to only by its owner. `reserved..` belongs to nobody
//! and is not touched; `tail..reserved` belongs, piece by piece, to the producer whose
//! compare-and-swap reserved it; `reclaimed..tail` is immutable: nobody stores there, everybody may
//! look. A range changes from one state to the next through an atomic with release and acquire,
//! and goes back (`reclaimed` moves) only when no reader's cursor stands below and no tail is
//! copying. The pages in front of the ring belong to whoever holds the sync lock.
#![allow(unsafe_code)]
// Public for `testing`, which is not in every build.
#![allow(unreachable_pub)]

use std::fs::File;
use std::io;

use memmap2::{Advice, MmapOptions, MmapRaw};

/// A block of memory, of a file or anonymous, that many threads fill and look at.
pub struct Mapping {
    map: MmapRaw,
    page_bytes: usize,
    /// Whether a sync means anything: an anonymous block has no medium.
    has_file: bool,
}

impl Mapping {
    /// Maps a whole file, shared, ready for the ring: no read-ahead and small folios, not
    /// inherited by children, not in core dumps, every page present.
    ///
    /// `MADV_RANDOM` comes before anything touches a page: on recent kernels ext4 otherwise caches
    /// the file in folios of up to 2 MiB, and one stored byte makes a sync write the whole folio.
    ///
    /// # Errors
    /// What the system said; a page that cannot be had is an error here and not a signal later.
    pub(crate) fn of_file(file: &File, len: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(len).map_raw(file)?;
        map.advise(Advice::Random)?;
        map.advise(Advice::DontFork)?;
        map.advise(Advice::DontDump)?;
        match map.advise(Advice::PopulateWrite) {
            // Linux before 5.14: pages come at the first touch instead.
            Err(error) if error.raw_os_error() == Some(22) => {}
            other => other?,
        }
        Ok(Mapping { map, page_bytes: rustix::param::page_size(), has_file: true })
    }

    /// An anonymous block of zeroes: for tools, tests and simulators.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn anonymous(len: usize) -> io::Result<Self> {
        let map = MmapRaw::from(MmapOptions::new().len(len).map_anon()?);
        Ok(Mapping { map, page_bytes: rustix::param::page_size(), has_file: false })
    }

    /// Bytes of the block.
    #[cfg(any(test, feature = "testing", feature = "floor"))]
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.map.len()
    }

    /// Copies `bytes` to `offset`. By the ring rule the caller owns that range.
    ///
    /// # Panics
    /// If the range leaves the block.
    #[inline]
    pub fn store(&self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len());
        // SAFETY: `check` has shown offset..offset + len to lie within the mapping, which lives as
        // long as `self`, so the pointer stays in bounds.
        let target = unsafe { self.map.as_mut_ptr().add(offset) };
        // SAFETY: the source is a valid slice; the target is in bounds and mapped writable; both
        // are bytes, so aligned. They do not overlap: a safe slice over the target could only come
        // from `view`, and by the ring rule the range is its owner's alone, so nobody views it and
        // nobody else stores to it meanwhile.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
    }

    /// Asks the processor to fetch a range that is about to be stored to; only a hint, and nothing
    /// where the range leaves the block.
    #[inline]
    pub(crate) fn prefetch(&self, offset: usize, len: usize) {
        #[cfg(target_arch = "x86_64")]
        self.lines(offset, len, |line| {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            // SAFETY: a prefetch reads and writes nothing and cannot fault, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(line) };
        });
    }

    /// Asks the processor to fetch a range that is about to be looked at; only a hint, and nothing
    /// where the range leaves the block.
    #[inline]
    pub(crate) fn prefetch_view(&self, offset: usize, len: usize) {
        #[cfg(target_arch = "x86_64")]
        self.lines(offset, len, |line| {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch reads and writes nothing and cannot fault, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
        });
    }

    /// Visits the range at steps of a processor's line; none if the range leaves the block.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn lines(&self, offset: usize, len: usize, mut visit: impl FnMut(*const i8)) {
        if offset.checked_add(len).is_some_and(|end| end <= self.map.len()) {
            for at in (offset..offset + len).step_by(64) {
                // SAFETY: `at` lies below offset + len, just shown to lie within the mapping.
                let line = unsafe { self.map.as_mut_ptr().add(at) };
                visit(line.cast_const().cast());
            }
        }
    }

    /// Looks at `len` bytes at `offset`. By the ring rule nobody stores there while the slice
    /// lives.
    ///
    /// # Panics
    /// If the range leaves the block.
    #[inline]
    #[must_use]
    pub fn view(&self, offset: usize, len: usize) -> &[u8] {
        self.check(offset, len);
        // SAFETY: in bounds by `check`, as above.
        let start = unsafe { self.map.as_mut_ptr().add(offset) };
        // SAFETY: the bytes are mapped, initialised (file contents or zeroes) and live as long as
        // `self`, to which the slice's lifetime is tied; by the ring rule they are immutable for
        // that long: the range lies in `reclaimed..tail`, held there by a reader's cursor, by the
        // reclaim lock, or by recovery being alone; or it is the caller's own.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// Makes a range durable: whole pages, waiting for the medium.
    ///
    /// # Errors
    /// What the system said. The pages are then marked clean without being stored: do not retry.
    pub fn sync(&self, offset: usize, len: usize) -> io::Result<()> {
        if self.has_file { self.map.flush_range(offset, len) } else { Ok(()) }
    }

    /// Marks every page of a range dirty, contents unchanged, so that the next sync writes it even
    /// if an earlier one failed and left the pages marked clean. Only while nobody else stores.
    pub fn redirty(&self, offset: usize, len: usize) {
        self.check(offset, len);
        let end = offset + len;
        let mut at = offset;
        while at < end {
            // SAFETY: `at` is below offset + len, which `check` has shown to lie in the mapping.
            let byte = unsafe { self.map.as_mut_ptr().add(at) };
            // SAFETY: in bounds, mapped readable and initialised; volatile, so the pair is kept.
            let value = unsafe { byte.read_volatile() };
            // SAFETY: in bounds and mapped writable; called by recovery alone, before any producer
            // or reader exists, so that nobody else looks or stores.
            unsafe { byte.write_volatile(value) };
            at = (at / self.page_bytes + 1) * self.page_bytes;
        }
    }

    /// Makes a range present and writable ahead of its use; only a hint.
    pub(crate) fn populate(&self, offset: usize, len: usize) {
        if len > 0 && offset.checked_add(len).is_some_and(|end| end <= self.map.len()) {
            let _ = self.map.advise_range(Advice::PopulateWrite, offset, len);
        }
    }

    #[inline]
    fn check(&self, offset: usize, len: usize) {
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.map.len());
        assert!(fits, "{offset} + {len} leaves a block of {} bytes", self.map.len());
    }
}

impl std::fmt::Debug for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mapping").field("len_bytes", &self.map.len()).finish_non_exhaustive()
    }
}
