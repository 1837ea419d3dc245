//! CRC-32C (Castagnoli) of short pieces, one after another.
//!
//! Records are mostly a few hundred bytes: there a single lane of the processor's own instruction
//! beats the folding that `crc-fast` does for long blocks, so that takes over above
//! [`FOLD_BYTES_MIN`] only. Both compute the same function, and a test says so.
//!
//! A *state* is the running remainder: it starts at [`START`], and [`finish`] turns it into the
//! checksum that is stored.
#![allow(unsafe_code)]

/// The state before the first byte.
pub(crate) const START: u32 = !0;

/// From here on the folding code is faster than one lane; measured, see `benches/queue`.
const FOLD_BYTES_MIN: usize = 512;

/// The checksum of everything that went into `state`.
pub(crate) const fn finish(state: u32) -> u32 {
    !state
}

/// The checksum of one piece.
#[inline]
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    finish(update(START, bytes))
}

/// Feeds a piece to the state.
#[inline]
pub(crate) fn update(state: u32, bytes: &[u8]) -> u32 {
    if bytes.len() >= FOLD_BYTES_MIN {
        return fold(state, bytes);
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("sse4.2") {
        // SAFETY: the only demand is that the processor has SSE 4.2, which was just detected.
        return unsafe { x86::update(state, bytes) };
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("crc") {
        // SAFETY: the only demand is that the processor has the CRC extension, just detected.
        return unsafe { arm::update(state, bytes) };
    }
    fold(state, bytes)
}

/// Feeds seven words and a half, the shape of a record's head, to the state.
#[inline]
pub(crate) fn update_words<const N: usize>(state: u32, words: [u64; N], last: u32) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("sse4.2") {
        // SAFETY: the only demand is that the processor has SSE 4.2, which was just detected.
        return unsafe { x86::update_words(state, words, last) };
    }
    let mut state = state;
    for word in words {
        state = update(state, &word.to_le_bytes());
    }
    update(state, &last.to_le_bytes())
}

fn fold(state: u32, bytes: &[u8]) -> u32 {
    let mut digest =
        crc_fast::Digest::new_with_init_state(crc_fast::CrcAlgorithm::Crc32Iscsi, u64::from(state));
    digest.update(bytes);
    !(digest.finalize() as u32)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64};

    #[target_feature(enable = "sse4.2")]
    #[inline]
    pub(super) fn update(state: u32, bytes: &[u8]) -> u32 {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut wide = u64::from(state);
        for word in words {
            wide = _mm_crc32_u64(wide, u64::from_le_bytes(*word));
        }
        let mut state = wide as u32;
        for &byte in rest {
            state = _mm_crc32_u8(state, byte);
        }
        state
    }

    #[target_feature(enable = "sse4.2")]
    #[inline]
    pub(super) fn update_words<const N: usize>(state: u32, words: [u64; N], last: u32) -> u32 {
        let mut wide = u64::from(state);
        for word in words {
            wide = _mm_crc32_u64(wide, word);
        }
        _mm_crc32_u32(wide as u32, last)
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::{__crc32cb, __crc32cd};

    #[target_feature(enable = "crc")]
    #[inline]
    pub(super) fn update(mut state: u32, bytes: &[u8]) -> u32 {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            state = __crc32cd(state, u64::from_le_bytes(*word));
        }
        for &byte in rest {
            state = __crc32cb(state, byte);
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, a bit at a time.
    fn slow(mut state: u32, bytes: &[u8]) -> u32 {
        for &byte in bytes {
            state ^= u32::from(byte);
            for _ in 0..8 {
                state = (state >> 1) ^ (0x82f6_3b78 & (state & 1).wrapping_neg());
            }
        }
        state
    }

    #[test]
    fn the_check_value_of_the_standard_comes_out() {
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
        assert_eq!(checksum(b""), 0);
    }

    #[test]
    fn every_way_to_compute_gives_the_same_state() {
        let bytes: Vec<u8> = (0..3000u32).map(|n| (n * 31 + 7) as u8).collect();
        for len in [0, 1, 7, 8, 9, 63, 64, 255, 256, 511, 512, 513, 1024, 2999] {
            for start in [START, 0, 0x1234_5678] {
                let expected = slow(start, &bytes[..len]);
                assert_eq!(update(start, &bytes[..len]), expected, "len {len}");
                assert_eq!(fold(start, &bytes[..len]), expected, "folded, len {len}");
                let (left, right) = bytes[..len].split_at(len / 3);
                assert_eq!(update(update(start, left), right), expected, "split, len {len}");
            }
        }
        let words = [1u64, u64::MAX, 0x0123_4567_89ab_cdef];
        let mut flat: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        flat.extend(77u32.to_le_bytes());
        assert_eq!(update_words(START, words, 77), slow(START, &flat));
    }
}
