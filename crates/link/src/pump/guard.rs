//! Reads the framing of ZMTP 3 as it passes, and says when to stop it.
//!
//! The socket library allocates what a frame's header announces: a header alone, from anybody who
//! reaches the port, could end the process. So each length is checked before the library sees the
//! header that holds it. The bytes are neither kept nor changed, and may come in any pieces.

/// A greeting: signature, version, mechanism, role, filler.
const GREETING_BYTES: usize = 64;
/// Longest command: a READY with its properties.
const COMMAND_BYTES_MAX: u64 = 4_096;
/// Most parts of one message: ours have one or two.
const PARTS_MAX: u32 = 8;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// What a peer may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest message, over all its parts, in bytes.
    pub message_bytes_max: u64,
    /// Most messages of one connection; `None` for no bound.
    pub messages_max: Option<u64>,
}

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// It does not begin as ZMTP 3 with the NULL mechanism does.
    #[error("no ZMTP 3 greeting with mechanism NULL")]
    Greeting,
    /// A frame with flags that do not exist, or data before the handshake.
    #[error("a frame with flags {flags:#04x} is out of place")]
    Flags {
        /// The flags.
        flags: u8,
    },
    /// A message, or a command, above the limit.
    #[error("a message of {bytes} bytes or more is above the limit")]
    Large {
        /// Bytes announced.
        bytes: u64,
    },
    /// Too many parts in a message, or messages in a connection.
    #[error("too many parts or messages")]
    Many,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting { at: usize },
    Flags,
    Length { flags: u8, left: u8, length: u64 },
    Body { flags: u8, left: u64 },
}

/// The guard of one direction of one connection.
#[derive(Debug, Clone)]
pub struct Guard {
    limits: Limits,
    state: State,
    ready: bool,
    parts: u32,
    message_bytes: u64,
    messages: u64,
}

impl Guard {
    /// A guard at the beginning of a connection.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        let state = State::Greeting { at: 0 };
        Self { limits, state, ready: false, parts: 0, message_bytes: 0, messages: 0 }
    }

    /// Whether greeting and READY have passed.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.ready
    }

    /// Bytes of the frame under way that are still to come: they may pass unseen, if
    /// [`Self::skip`] is told.
    #[must_use]
    pub const fn body_left(&self) -> u64 {
        match self.state {
            State::Body { left, .. } => left,
            _ => 0,
        }
    }

    /// Says that all of [`Self::body_left`] has passed unseen.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn skip(&mut self) -> Result<(), Violation> {
        match self.state {
            State::Body { flags, .. } => self.end(flags),
            _ => Ok(()),
        }
    }

    /// Looks at the next bytes, which may pass if this succeeds.
    ///
    /// # Errors
    /// [`Violation`]: close the connection; none of `bytes` may pass.
    pub fn check(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.state {
                State::Greeting { at } => {
                    if !greeting_allows(at, byte) {
                        return Err(Violation::Greeting);
                    }
                    let at = at + 1;
                    self.state =
                        if at == GREETING_BYTES { State::Flags } else { State::Greeting { at } };
                    bytes = rest;
                }
                State::Flags => {
                    self.flags(byte)?;
                    bytes = rest;
                }
                State::Length { flags, left, length } => {
                    let length = (length << 8) | u64::from(byte);
                    if left > 1 {
                        self.state = State::Length { flags, left: left - 1, length };
                    } else {
                        self.begin(flags, length)?;
                    }
                    bytes = rest;
                }
                State::Body { flags, left } => {
                    let passed = left.min(bytes.len() as u64);
                    bytes = &bytes[passed as usize..];
                    if passed == left {
                        self.end(flags)?;
                    } else {
                        self.state = State::Body { flags, left: left - passed };
                    }
                }
            }
        }
        Ok(())
    }

    fn flags(&mut self, flags: u8) -> Result<(), Violation> {
        let command = flags & COMMAND != 0;
        let known = flags & !(MORE | LONG | COMMAND) == 0 && !(command && flags & MORE != 0);
        if !known || (!command && !self.ready) {
            return Err(Violation::Flags { flags });
        }
        let left = if flags & LONG != 0 { 8 } else { 1 };
        self.state = State::Length { flags, left, length: 0 };
        Ok(())
    }

    fn begin(&mut self, flags: u8, length: u64) -> Result<(), Violation> {
        if flags & COMMAND != 0 {
            if length > COMMAND_BYTES_MAX {
                return Err(Violation::Large { bytes: length });
            }
        } else {
            self.parts += 1;
            self.message_bytes = self.message_bytes.saturating_add(length);
            if self.message_bytes > self.limits.message_bytes_max {
                return Err(Violation::Large { bytes: self.message_bytes });
            }
            if self.parts > PARTS_MAX {
                return Err(Violation::Many);
            }
        }
        if length == 0 {
            return self.end(flags);
        }
        self.state = State::Body { flags, left: length };
        Ok(())
    }

    fn end(&mut self, flags: u8) -> Result<(), Violation> {
        self.state = State::Flags;
        if flags & COMMAND != 0 {
            self.ready = true;
        } else if flags & MORE == 0 {
            (self.parts, self.message_bytes) = (0, 0);
            self.messages += 1;
            if self.limits.messages_max.is_some_and(|max| self.messages > max) {
                return Err(Violation::Many);
            }
        }
        Ok(())
    }
}

/// Whether `byte` may stand at `at` of a greeting; what it says of roles is not looked at.
fn greeting_allows(at: usize, byte: u8) -> bool {
    match at {
        0 => byte == 0xff,
        9 => byte == 0x7f,
        10 => byte >= 3,
        12..=15 => byte == b"NULL"[at - 12],
        16..=31 => byte == 0,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { message_bytes_max: 1_000, messages_max: None };

    fn greeting() -> Vec<u8> {
        let mut bytes = vec![0; GREETING_BYTES];
        (bytes[0], bytes[9], bytes[10]) = (0xff, 0x7f, 3);
        bytes[12..16].copy_from_slice(b"NULL");
        bytes
    }

    fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
        let length = body.len();
        let mut bytes = vec![flags];
        if flags & LONG != 0 {
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        } else {
            bytes.push(u8::try_from(length).unwrap());
        }
        bytes.extend_from_slice(body);
        bytes
    }

    fn handshake() -> Vec<u8> {
        [greeting(), frame(COMMAND, b"\x05READY")].concat()
    }

    fn check(bytes: &[u8]) -> Result<Guard, Violation> {
        let mut guard = Guard::new(LIMITS);
        guard.check(bytes).map(|()| guard)
    }

    #[test]
    fn a_frame_is_stopped_at_the_length_it_announces() {
        let terabyte = [vec![LONG], (1_u64 << 40).to_be_bytes().to_vec()].concat();
        let stopped = check(&[handshake(), terabyte.clone()].concat());
        assert_eq!(stopped.unwrap_err(), Violation::Large { bytes: 1 << 40 });
        // Before the handshake, too, whether it calls itself a command or not.
        let command = [vec![LONG | COMMAND], (1_u64 << 40).to_be_bytes().to_vec()].concat();
        assert!(check(&[greeting(), command].concat()).is_err());
        assert!(check(&[greeting(), terabyte].concat()).is_err());
    }

    #[test]
    fn parts_count_together() {
        let part = frame(LONG | MORE, &[7; 400]);
        let passed = check(&[handshake(), part.clone(), part.clone()].concat());
        assert!(passed.unwrap().is_ready());
        let stopped = check(&[handshake(), part.clone(), part.clone(), part].concat());
        assert_eq!(stopped.unwrap_err(), Violation::Large { bytes: 1_200 });
        let empty = frame(MORE, b"");
        assert!(check(&[handshake(), empty.repeat(8)].concat()).is_ok());
        let many = check(&[handshake(), empty.repeat(9)].concat());
        assert_eq!(many.unwrap_err(), Violation::Many);
    }

    #[test]
    fn a_stranger_is_stopped_at_its_first_byte() {
        for bytes in [b"GET / HTTP/1.1\r\n".as_slice(), &[0x16, 3, 1], &[0; 64]] {
            assert_eq!(check(&bytes[..1]).unwrap_err(), Violation::Greeting);
        }
        let mut plain = greeting();
        plain[12..17].copy_from_slice(b"PLAIN");
        assert_eq!(check(&plain).unwrap_err(), Violation::Greeting);
        assert!(!check(&greeting()).unwrap().is_ready());
    }

    #[test]
    fn messages_may_be_counted() {
        let limits = Limits { messages_max: Some(2), ..LIMITS };
        let message = frame(0, b"\x01topic");
        let mut guard = Guard::new(limits);
        guard.check(&[handshake(), message.repeat(2)].concat()).unwrap();
        assert_eq!(guard.check(&message), Err(Violation::Many));
    }

    proptest! {
        #[test]
        fn the_verdict_does_not_depend_on_the_pieces(
            tail in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(1..40_usize, 0..20),
        ) {
            let bytes = [handshake(), tail].concat();
            let whole = check(&bytes).map(|guard| guard.state);
            let (mut guard, mut rest, mut verdict) = (Guard::new(LIMITS), &bytes[..], Ok(()));
            for cut in cuts.into_iter().chain([bytes.len()]) {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                verdict = verdict.and_then(|()| guard.check(piece));
                rest = after;
            }
            prop_assert_eq!(verdict.map(|()| guard.state), whole);
        }

        #[test]
        fn the_verdict_does_not_depend_on_whether_bodies_are_seen(
            frames in prop::collection::vec((0..8_u8, 0..700_usize, 1..700_usize), 0..8),
        ) {
            let (mut seeing, mut skipping) = (check(&handshake()).unwrap(), check(&handshake()).unwrap());
            for (flags, length, seen) in frames {
                let bytes = frame(flags | LONG, &vec![7; length]);
                let verdict = seeing.check(&bytes);
                let (head, rest) = bytes.split_at(seen.min(bytes.len()));
                let skipped = skipping.check(head).and_then(|()| {
                    if skipping.body_left() == rest.len() as u64 {
                        skipping.skip()
                    } else {
                        skipping.check(rest)
                    }
                });
                prop_assert_eq!(skipped, verdict);
                prop_assert_eq!(skipping.state, seeing.state);
                if verdict.is_err() {
                    return Ok(());
                }
            }
        }
    }
}
