//! Numbers of few bytes: LEB128, seven bits a byte, the lowest first.

/// Bytes of the longest one.
const BYTES_MAX: usize = 10;

/// Writes `value` behind `out`.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a number from the front of `bytes`; the number and what follows it.
///
/// `None` if it is cut off, longer than 64 bits, or not written in its shortest form.
pub(super) fn take(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().copied().take(BYTES_MAX).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if at == BYTES_MAX - 1 && bits > 1 {
            return None;
        }
        value |= bits << (7 * at);
        if byte & 0x80 == 0 {
            let shortest = byte != 0 || at == 0;
            return shortest.then(|| (value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_shortest_form_is_read() {
        assert_eq!(take(&[0x80, 0x00]), None);
        assert_eq!(take(&[0xff; 10]), None);
        assert_eq!(take(&[0x80]), None);
        assert_eq!(take(&[]), None);
        assert_eq!(take(&[0, 7]), Some((0, &[7][..])));
    }

    proptest! {
        #[test]
        fn every_number_comes_back(value: u64, bits in 0u32..64, more: u8) {
            let value = value >> bits;
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            bytes.push(more);
            prop_assert_eq!(take(&bytes), Some((value, &[more][..])));
        }
    }
}
