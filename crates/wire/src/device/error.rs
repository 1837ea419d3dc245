//! Why a frame is refused, and whether its number could still be read.

use std::{borrow::Cow, fmt};

use forebay_model::{Invalid, MessageId};

/// A frame that is refused: what is wrong, where, and how to answer.
///
/// With a `seq` the front answers `reject {seq, code, reason}` and the session goes on. Without one
/// the frame cannot be told from any other: close with [`super::CloseCode::BadMessage`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{place}{fault}")]
pub struct DecodeError {
    /// The number of the message, where it could be read.
    pub seq: Option<MessageId>,
    /// Which part is meant.
    pub place: Place,
    /// What is wrong with it.
    pub fault: Fault,
}

impl DecodeError {
    /// A stable, short code for `reject` and for metric labels.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.fault.code()
    }

    /// The error as a sentence of at most [`crate::limits::REASON_BYTES_MAX`] bytes.
    #[must_use]
    pub fn reason(&self) -> String {
        let mut reason = self.to_string();
        let mut end = reason.len().min(crate::limits::REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
        reason
    }
}

/// The part of a frame an error is about, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Offset in bytes from the start of the message.
    pub at: Option<usize>,
    /// Index in `readings` or in the SenML pack.
    pub index: Option<usize>,
    /// The key whose value is meant.
    pub key: Option<&'static str>,
}

impl fmt::Display for Place {
    /// `byte 17, reading 2, value: `, without the parts that are not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(at) = self.at {
            write!(f, "byte {at}")?;
            separator = ", ";
        }
        if let Some(index) = self.index {
            write!(f, "{separator}reading {index}")?;
            separator = ", ";
        }
        if let Some(key) = self.key {
            write!(f, "{separator}{key}")?;
            separator = ", ";
        }
        if separator.is_empty() { Ok(()) } else { f.write_str(": ") }
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Not well-formed CBOR or JSON, or text that is not UTF-8.
    #[error("malformed: {what}")]
    Malformed {
        /// In the decoder's words.
        what: Cow<'static, str>,
    },
    /// The message ends within the frame.
    #[error("the message ends too early")]
    Truncated,
    /// Bytes after the end of the frame.
    #[error("bytes after the end of the frame")]
    Trailing,
    /// A map has the same key twice.
    #[error("key appears twice")]
    DuplicateKey,
    /// A key that this version does not know.
    #[error("unknown key {key:?}")]
    UnknownKey {
        /// The key, cut to 64 bytes.
        key: String,
    },
    /// A key that must be there is not.
    #[error("missing {key}")]
    MissingKey {
        /// The key.
        key: &'static str,
    },
    /// Keys that exclude each other, or a frame of no known kind.
    #[error("{what}")]
    BadShape {
        /// In words.
        what: &'static str,
    },
    /// A value of another type.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// The types that are allowed.
        expected: &'static str,
        /// The type that was found.
        found: &'static str,
    },
    /// A part is out of the bounds of the data model.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

impl Fault {
    /// A stable, short code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::Truncated => "truncated",
            Self::Trailing => "trailing",
            Self::DuplicateKey => "duplicate_key",
            Self::UnknownKey { .. } => "unknown_key",
            Self::MissingKey { .. } => "missing_key",
            Self::BadShape { .. } => "bad_shape",
            Self::WrongType { .. } => "wrong_type",
            Self::Invalid(invalid) => invalid.code(),
        }
    }
}
