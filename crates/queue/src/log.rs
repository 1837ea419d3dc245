//! Walking over records: from a boundary to the next entry, around damage.
//!
//! Recovery, readers and tails all go over the ring with [`Log::next`], or with [`Log::pass`] where
//! payloads do not matter, so that they agree on what an entry is. Not here: which entries may be
//! seen (the callers know the end), and the order of seqs (recovery checks it).

use crate::crc;
use crate::faults::{Fault, Faults};
use crate::format::{ALIGN, Geometry, HEAD_BYTES, Head};
use crate::memory::Memory;

/// A ring that can be walked over.
#[derive(Clone, Copy)]
pub(crate) struct Log<'a> {
    pub(crate) memory: &'a Memory,
    pub(crate) geometry: &'a Geometry,
    pub(crate) faults: Faults,
}

/// What stands behind a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A sound entry; from [`Log::pass`], one with a sound head.
    Entry {
        /// Its head.
        head: Head,
        /// Where its head is; behind the boundary if there was padding.
        at: u64,
        /// The boundary after it.
        next: u64,
    },
    /// A sound head whose payload is not what was appended.
    BadPayload {
        /// The head.
        head: Head,
        /// The boundary after it.
        next: u64,
    },
    /// Damage that a repair has taken note of: entries up to the head's seq are gone.
    Gap {
        /// The head put over it.
        head: Head,
        /// The boundary after it.
        next: u64,
    },
    /// No head where one should be.
    BadHead {
        /// Where.
        at: u64,
    },
    /// Nothing more below the end.
    End,
}

impl<'a> Log<'a> {
    /// What stands behind the boundary `position`, below the boundary `end`.
    ///
    /// In the caller, as what it calls: a step is nine words, which would go through memory.
    #[inline(always)]
    pub(crate) fn next(&self, position: u64, end: u64) -> Step {
        match self.pass(position, end) {
            Step::Entry { head, at, next } if !self.is_sound(&head, at) => {
                Step::BadPayload { head, next }
            }
            step => step,
        }
    }

    #[inline]
    fn is_sound(&self, head: &Head, at: u64) -> bool {
        crc::checksum(self.payload(head, at)) == head.payload_crc || self.faults.has(Fault::NoCrc)
    }

    /// As [`Self::next`], for those who only pass: an entry's payload is not looked at, and may be
    /// damaged.
    #[inline(always)]
    pub(crate) fn pass(&self, mut position: u64, end: u64) -> Step {
        while position < end {
            let rest = self.geometry.rest(position);
            if rest < HEAD_BYTES {
                position += rest;
                continue;
            }
            let at = position;
            let Some(head) = self.head_at(at) else { return Step::BadHead { at } };
            let next = at + head.record_bytes();
            if next > end {
                return Step::BadHead { at };
            }
            if !head.is_entry() {
                if head.is_gap() {
                    return Step::Gap { head, next };
                }
                position = next;
                continue;
            }
            return Step::Entry { head, at, next };
        }
        Step::End
    }

    /// The head at `position`, if there is one; the position leaves room for it in its lap.
    #[inline(always)]
    pub(crate) fn head_at(&self, position: u64) -> Option<Head> {
        let bytes = self.memory.view(self.geometry.offset(position), HEAD_BYTES as usize);
        if self.faults.has(Fault::NoCrc) {
            return Head::decode_unchecked(bytes, self.geometry, position);
        }
        Head::decode(bytes, self.geometry, position)
    }

    /// The payload of the entry whose head is at `at`.
    #[inline]
    pub(crate) fn payload(&self, head: &Head, at: u64) -> &'a [u8] {
        self.memory.view(self.geometry.offset(at) + HEAD_BYTES as usize, head.len as usize)
    }

    /// The first head at or behind `from` that lies, with its record, below `end`. Fillers are
    /// passed over: what they announce is found by itself.
    pub(crate) fn search(&self, from: u64, end: u64) -> Option<(u64, Head)> {
        let mut position = from.next_multiple_of(ALIGN);
        while position + HEAD_BYTES <= end {
            if self.geometry.rest(position) >= HEAD_BYTES
                && let Some(head) = self.head_at(position)
                && head.is_entry()
                && position + head.record_bytes() <= end
            {
                return Some((position, head));
            }
            position += ALIGN;
        }
        None
    }

    /// The boundary at which to go on behind damage met at `at`, below `end`.
    pub(crate) fn resume(&self, at: u64, end: u64) -> u64 {
        self.search(at + ALIGN, end).map_or(end, |(found, _)| found)
    }
}
