//! CRC-32C (Castagnoli) of short pieces, one after another.
//!
//! Records are mostly a few hundred bytes: there the processor's own instruction beats the folding
//! that `crc-fast` does for long blocks, so that takes over above [`FOLD_BYTES_MIN`] only. The
//! instruction takes three cycles and may begin every cycle: from [`LANES_BYTES_MIN`] on, three
//! lanes run side by side. All compute the same function, and a test says so.
//!
//! A *state* is the running remainder: it starts at [`START`], and [`finish`] turns it into the
//! checksum that is stored.
#![allow(unsafe_code)]

/// CRC-32C's, lowest power in the highest bit.
#[cfg(any(test, target_arch = "x86_64"))]
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The state before the first byte.
pub(crate) const START: u32 = !0;

/// From here on the folding code is faster than lanes; measured, see `benches/queue`.
const FOLD_BYTES_MIN: usize = 512;
/// From here on three lanes are faster than one, their joining included; measured likewise.
#[cfg(target_arch = "x86_64")]
const LANES_BYTES_MIN: usize = 96;

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
        if bytes.len() >= LANES_BYTES_MIN && is_x86_feature_detected!("pclmulqdq") {
            // SAFETY: the only demand is SSE 4.2 and PCLMULQDQ, which were just detected.
            return unsafe { x86::update_lanes(state, bytes) };
        }
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

/// Feeds four words and a half, the shape of a record's head, to the state.
#[inline(always)]
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
    use std::arch::x86_64::{
        _mm_clmulepi64_si128, _mm_crc32_u8, _mm_crc32_u16, _mm_crc32_u32, _mm_crc32_u64,
        _mm_cvtsi64_si128, _mm_cvtsi128_si64, _mm_xor_si128,
    };

    /// The longest of two equal lanes, for what is not folded.
    const LANE_WORDS_MAX: usize = super::FOLD_BYTES_MIN / 24;

    /// What a state is multiplied with to stand before that many words more: x^(64 n - 33) modulo
    /// the polynomial, lowest power in the highest bit. 33 less, for 32 come with the instruction
    /// that reduces the product, and one with the product of two such reflected numbers.
    const SHIFTS: [u32; 2 * LANE_WORDS_MAX + 3] = {
        let mut shifts = [0; 2 * LANE_WORDS_MAX + 3];
        // x^31 is bit 0.
        let mut power = 1u32;
        let mut words = 1;
        while words < shifts.len() {
            shifts[words] = power;
            let mut bit = 0;
            while bit < 64 {
                power = (power >> 1) ^ (super::POLYNOMIAL & (power & 1).wrapping_neg());
                bit += 1;
            }
            words += 1;
        }
        shifts
    };

    /// Two lanes of equal length and a third with what is left, side by side, and then joined.
    #[target_feature(enable = "sse4.2,pclmulqdq")]
    #[inline]
    pub(super) fn update_lanes(state: u32, bytes: &[u8]) -> u32 {
        let (words, rest) = bytes.as_chunks::<8>();
        let lane = words.len() / 3;
        let (first, others) = words.split_at(lane);
        let (second, third) = others.split_at(lane);
        let (alike, longer) = third.split_at(lane);
        let (mut a, mut b, mut c) = (u64::from(state), 0, 0);
        for ((x, y), z) in first.iter().zip(second).zip(alike) {
            a = _mm_crc32_u64(a, u64::from_le_bytes(*x));
            b = _mm_crc32_u64(b, u64::from_le_bytes(*y));
            c = _mm_crc32_u64(c, u64::from_le_bytes(*z));
        }
        for z in longer {
            c = _mm_crc32_u64(c, u64::from_le_bytes(*z));
        }
        let shifted = |state: u64, words: usize| {
            let state = _mm_cvtsi64_si128(state as i64);
            let shift = _mm_cvtsi64_si128(i64::from(SHIFTS[words]));
            _mm_clmulepi64_si128::<0>(state, shift)
        };
        let product = _mm_xor_si128(shifted(a, lane + third.len()), shifted(b, third.len()));
        let joined = _mm_crc32_u64(0, _mm_cvtsi128_si64(product) as u64) ^ c;
        update_rest(joined as u32, rest)
    }

    /// Fewer than eight bytes, in at most three steps.
    #[target_feature(enable = "sse4.2")]
    #[inline]
    fn update_rest(mut state: u32, mut rest: &[u8]) -> u32 {
        if let Some((&four, behind)) = rest.split_first_chunk() {
            state = _mm_crc32_u32(state, u32::from_le_bytes(four));
            rest = behind;
        }
        if let Some((&two, behind)) = rest.split_first_chunk() {
            state = _mm_crc32_u16(state, u16::from_le_bytes(two));
            rest = behind;
        }
        if let [one] = rest {
            state = _mm_crc32_u8(state, *one);
        }
        state
    }

    #[target_feature(enable = "sse4.2")]
    #[inline]
    pub(super) fn update(state: u32, bytes: &[u8]) -> u32 {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut wide = u64::from(state);
        for word in words {
            wide = _mm_crc32_u64(wide, u64::from_le_bytes(*word));
        }
        update_rest(wide as u32, rest)
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
                state = (state >> 1) ^ (POLYNOMIAL & (state & 1).wrapping_neg());
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
        for len in (0..600).chain([1024, 2999]) {
            for start in [START, 0, 0x1234_5678] {
                let expected = slow(start, &bytes[..len]);
                assert_eq!(update(start, &bytes[..len]), expected, "len {len}");
                assert_eq!(fold(start, &bytes[..len]), expected, "folded, len {len}");
                #[cfg(target_arch = "x86_64")]
                if is_x86_feature_detected!("sse4.2") {
                    // SAFETY: the only demand is that the processor has SSE 4.2, just detected.
                    let lane = unsafe { x86::update(start, &bytes[..len]) };
                    assert_eq!(lane, expected, "in one lane, len {len}");
                }
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
