//! Where messages end in the bytes that a codec takes.
//!
//! A codec does not tell whether it holds part of a message, and one that holds none need not be
//! kept while its connection is idle. Frames are only counted here (RFC 6455, section 5.2): whether
//! they are right is the codec's business.

/// Flags and length of a frame's head, without the mask.
const HEAD_BYTES_MAX: usize = 10;
const MASK_BYTES: u64 = 4;

/// A walk over the bytes of one direction.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: u8,
    /// What has yet to come of the frame whose head is known, its mask included.
    left_bytes: u64,
    /// A message has begun whose last frame has not.
    in_message: bool,
}

impl Walk {
    /// Goes on over `bytes`.
    pub(crate) fn over(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left_bytes > 0 {
                let passed =
                    bytes.len().min(usize::try_from(self.left_bytes).unwrap_or(usize::MAX));
                self.left_bytes -= passed as u64;
                bytes = &bytes[passed..];
                continue;
            }
            self.head[usize::from(self.head_bytes)] = *first;
            self.head_bytes += 1;
            bytes = rest;
            self.end_head();
        }
    }

    /// Whether all messages that have begun have ended.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.head_bytes == 0 && self.left_bytes == 0 && !self.in_message
    }

    /// Takes note of the head, if it is whole.
    fn end_head(&mut self) {
        let [flags, length, longer @ ..] = self.head;
        let payload_bytes = match (self.head_bytes, length & 0x7f) {
            (2, short @ 0..=125) => u64::from(short),
            (4, 126) => u64::from(u16::from_be_bytes([longer[0], longer[1]])),
            (10, 127) => u64::from_be_bytes(longer),
            _ => return,
        };
        let mask_bytes = if length & 0x80 == 0 { 0 } else { MASK_BYTES };
        self.left_bytes = payload_bytes.saturating_add(mask_bytes);
        self.head_bytes = 0;
        // Control frames may stand within a message.
        if flags & 0x08 == 0 {
            self.in_message = flags & 0x80 == 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame with so long a payload.
    fn frame(flags: u8, payload_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![flags];
        match payload_bytes {
            short @ 0..=125 => bytes.push(0x80 | u8::try_from(short).expect("short")),
            medium @ 126..=65_535 => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(medium).expect("medium").to_be_bytes());
            }
            long => {
                bytes.push(0x80 | 127);
                bytes.extend((long as u64).to_be_bytes());
            }
        }
        // A payload that looks like heads.
        bytes.resize(bytes.len() + 4 + payload_bytes, 0x81);
        bytes
    }

    #[test]
    fn the_end_of_a_message_is_found_however_its_bytes_are_cut() {
        for payload_bytes in [0, 1, 125, 126, 300, 65_535, 65_536] {
            let bytes = frame(0x82, payload_bytes);
            for step in [1, 2, 3, 7, 64, 1000, bytes.len()] {
                let mut walk = Walk::default();
                let mut passed = 0;
                for part in bytes.chunks(step) {
                    assert_eq!(walk.is_between_messages(), passed == 0, "{payload_bytes} {step}");
                    walk.over(part);
                    passed += part.len();
                }
                assert!(walk.is_between_messages(), "{payload_bytes} {step}");
            }
        }
    }

    #[test]
    fn a_message_in_parts_ends_with_its_last_whatever_stands_between() {
        let mut walk = Walk::default();
        for (flags, between) in [
            (0x01, false), // text, not the last
            (0x89, false), // a ping
            (0x00, false), // a continuation
            (0x8a, false), // a pong
            (0x80, true),  // the last
            (0x89, true),
            (0x82, true), // binary, whole
        ] {
            walk.over(&frame(flags, 200));
            assert_eq!(walk.is_between_messages(), between, "{flags:#x}");
        }
        let whole: Vec<u8> = [0x01, 0x89, 0x80, 0x82].iter().flat_map(|&f| frame(f, 5)).collect();
        walk.over(&whole[..whole.len() - 1]);
        assert!(!walk.is_between_messages());
        walk.over(&whole[whole.len() - 1..]);
        assert!(walk.is_between_messages());
    }

    #[test]
    fn a_frame_without_mask_and_payload_is_its_head() {
        let mut walk = Walk::default();
        walk.over(&[0x82, 0, 0x82]);
        assert!(!walk.is_between_messages());
        walk.over(&[0]);
        assert!(walk.is_between_messages());
    }
}
