//! Writing CBOR (RFC 8949): the few item kinds our frames and entries are made of.
//!
//! Always definite lengths, always the shortest head, floats always 64 bits wide: two equal values
//! give equal bytes. Reading is done with `minicbor`, which borrows from its input.

/// Major types, shifted into place.
const UNSIGNED: u8 = 0 << 5;
const NEGATIVE: u8 = 1 << 5;
const BYTES: u8 = 2 << 5;
const TEXT: u8 = 3 << 5;
const ARRAY: u8 = 4 << 5;
const MAP: u8 = 5 << 5;

fn put_head(out: &mut Vec<u8>, major: u8, number: u64) {
    match number {
        0..=23 => out.push(major | number as u8),
        24..=0xff => out.extend_from_slice(&[major | 24, number as u8]),
        0x100..=0xffff => {
            let [a, b] = (number as u16).to_be_bytes();
            out.extend_from_slice(&[major | 25, a, b]);
        }
        0x1_0000..=0xffff_ffff => {
            let [a, b, c, d] = (number as u32).to_be_bytes();
            out.extend_from_slice(&[major | 26, a, b, c, d]);
        }
        _ => {
            let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
            out.extend_from_slice(&[major | 27, a, b, c, d, e, f, g, h]);
        }
    }
}

pub(crate) fn put_uint(out: &mut Vec<u8>, number: u64) {
    put_head(out, UNSIGNED, number);
}

pub(crate) fn put_int(out: &mut Vec<u8>, number: i64) {
    match u64::try_from(number) {
        Ok(number) => put_head(out, UNSIGNED, number),
        Err(_) => put_head(out, NEGATIVE, !(number as u64)),
    }
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_head(out, BYTES, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_head(out, TEXT, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

pub(crate) fn put_array(out: &mut Vec<u8>, count: usize) {
    put_head(out, ARRAY, count as u64);
}

pub(crate) fn put_map(out: &mut Vec<u8>, count: usize) {
    put_head(out, MAP, count as u64);
}

pub(crate) fn put_float(out: &mut Vec<u8>, number: f64) {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    out.extend_from_slice(&[0xfb, a, b, c, d, e, f, g, h]);
}

pub(crate) fn put_bool(out: &mut Vec<u8>, on: bool) {
    out.push(if on { 0xf5 } else { 0xf4 });
}

pub(crate) fn put_null(out: &mut Vec<u8>) {
    out.push(0xf6);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out);
        out
    }

    #[test]
    fn heads_are_the_shortest_that_hold_the_number() {
        for (number, bytes) in [
            (0, vec![0x00]),
            (23, vec![0x17]),
            (24, vec![0x18, 24]),
            (255, vec![0x18, 255]),
            (256, vec![0x19, 1, 0]),
            (65_536, vec![0x1a, 0, 1, 0, 0]),
            (1 << 32, vec![0x1b, 0, 0, 0, 1, 0, 0, 0, 0]),
        ] {
            assert_eq!(written(|out| put_uint(out, number)), bytes);
        }
    }

    #[test]
    fn integers_read_back_with_an_independent_reader() {
        for number in [0, -1, 23, -24, -25, i64::MAX, i64::MIN, 1 << 40] {
            let bytes = written(|out| put_int(out, number));
            assert_eq!(minicbor::Decoder::new(&bytes).i64().expect("an integer"), number);
        }
    }
}
