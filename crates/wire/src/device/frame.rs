//! The frames of the device protocol, whatever their encoding.

use std::{borrow::Cow, fmt};

use forebay_model::{Body, MessageId, SessionId, Timestamp};

/// What a device sends.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientFrame<'a> {
    /// Opens the session; the first frame of every connection.
    Hello {
        /// Drawn at random together with the counter that numbers the messages.
        session: SessionId,
        /// The lowest number this device may still send; everything below was acked, by any front.
        next_seq: MessageId,
        /// A credential, where none could be given in the handshake.
        token: Option<Token<'a>>,
    },
    /// One message.
    Data {
        /// Its number: one more than that of the message before it.
        seq: MessageId,
        /// What it carries; within the bounds of `forebay_model` once decoded.
        body: Body<'a>,
    },
}

/// What a front sends.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerFrame<'a> {
    /// Answers hello; data may follow.
    Welcome {
        /// Everything up to here is safe; `None` if this front has acked nothing in the session.
        acked: Option<MessageId>,
        /// Messages the device may have in flight, from 1.
        credit: u32,
        /// Bytes in the largest WebSocket message this front takes.
        max_message: u32,
        /// Seconds of silence after which the device should send a ping.
        ping_s: u32,
        /// The front's clock, for devices without one.
        time: Timestamp,
        /// What an ack promises.
        level: Level,
    },
    /// This message and all before it in the session are safe at the level of the welcome.
    Ack {
        /// The highest safe number; a raw connection counts its messages from 1.
        ack: MessageId,
        /// A new number of messages in flight, when it changes.
        credit: Option<u32>,
    },
    /// Not taken for now: go back and send again.
    Nack {
        /// The message that was not taken; nothing above it was taken either.
        nack: MessageId,
        /// Why.
        code: NackCode,
        /// Milliseconds to wait before sending again.
        retry_ms: u32,
        /// Where to go back to if not to `nack`: the first number that is missing.
        expect: Option<MessageId>,
    },
    /// Never taken: the same bytes will be refused again. The ack passes this number.
    Reject {
        /// The message.
        seq: MessageId,
        /// A stable word for programs.
        code: Cow<'a, str>,
        /// A sentence for people.
        reason: Cow<'a, str>,
    },
}

impl ServerFrame<'_> {
    /// The same frame, owning its text.
    #[must_use]
    pub fn into_owned(self) -> ServerFrame<'static> {
        match self {
            Self::Welcome { acked, credit, max_message, ping_s, time, level } => {
                ServerFrame::Welcome { acked, credit, max_message, ping_s, time, level }
            }
            Self::Ack { ack, credit } => ServerFrame::Ack { ack, credit },
            Self::Nack { nack, code, retry_ms, expect } => {
                ServerFrame::Nack { nack, code, retry_ms, expect }
            }
            Self::Reject { seq, code, reason } => ServerFrame::Reject {
                seq,
                code: Cow::Owned(code.into_owned()),
                reason: Cow::Owned(reason.into_owned()),
            },
        }
    }
}

/// What an ack promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// In the front's mapping: survives the death of the process.
    Process,
    /// On the front's medium: survives the death of the machine.
    Disk,
    /// Durable in the middle.
    Middle,
}

impl Level {
    /// All levels.
    pub const ALL: [Self; 3] = [Self::Process, Self::Disk, Self::Middle];

    /// Its word in frames and configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Disk => "disk",
            Self::Middle => "middle",
        }
    }

    /// The level of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == word)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a message is not taken for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NackCode {
    /// The front's queue is full.
    Full,
    /// More messages than the device's rate or credit allows.
    Rate,
    /// A number is missing before this one; `expect` names it.
    Gap,
    /// The front is ending or cannot write at the moment.
    Unavailable,
    /// A code of a later version: treat it as [`Self::Full`].
    Other,
}

impl NackCode {
    /// All codes a front sends.
    pub const ALL: [Self; 4] = [Self::Full, Self::Rate, Self::Gap, Self::Unavailable];

    /// Its word in frames.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Rate => "rate",
            Self::Gap => "gap",
            Self::Unavailable => "unavailable",
            Self::Other => "other",
        }
    }

    /// The code of a word; [`Self::Other`] for one of a later version.
    #[must_use]
    pub fn parse(word: &str) -> Self {
        Self::ALL.into_iter().find(|code| code.as_str() == word).unwrap_or(Self::Other)
    }
}

impl fmt::Display for NackCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A credential in a hello. Never shown: its `Debug` says only that there is one.
#[derive(Clone, PartialEq, Eq)]
pub struct Token<'a>(Cow<'a, str>);

impl<'a> Token<'a> {
    /// Wraps a credential.
    #[must_use]
    pub fn new(secret: impl Into<Cow<'a, str>>) -> Self {
        Self(secret.into())
    }

    /// The credential, to be compared and nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back_and_unknown_ones_are_told_apart() {
        for level in Level::ALL {
            assert_eq!(Level::parse(level.as_str()), Some(level));
        }
        for code in NackCode::ALL {
            assert_eq!(NackCode::parse(code.as_str()), code);
        }
        assert_eq!((Level::parse("DISK"), NackCode::parse("?")), (None, NackCode::Other));
    }

    #[test]
    fn a_token_is_not_shown() {
        let hello = ClientFrame::Hello {
            session: SessionId::new(1).expect("small"),
            next_seq: MessageId::FIRST,
            token: Some(Token::new("hunter2")),
        };
        assert!(!format!("{hello:?}").contains("hunter2"));
    }
}
