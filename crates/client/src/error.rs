//! Why a device or a live reader cannot go on. What mends itself is not here: lost connections are
//! made again, messages that were not acked are sent again.

use std::{sync::Arc, time::Duration};

use forebay_model::Invalid;

use crate::ConnectionError;

/// An error of [`crate::Device`] or [`crate::Live`].
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A part of the message is out of bounds. Mend it; it got no number.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The message is larger than the front takes. Split it; it got no number.
    #[error("message has {bytes} bytes, the front takes {bytes_max}")]
    TooLarge {
        /// Its length as a frame.
        bytes: usize,
        /// The front's limit.
        bytes_max: usize,
    },
    /// The front closed for good, or the address is wrong. Somebody must mend the cause.
    #[error("connection refused for good: {0}")]
    Refused(Arc<ConnectionError>),
    /// No session within the time given. The last failure says why.
    #[error("no session within {waited:?}, last failure: {last}")]
    Unreachable {
        /// As given in the options.
        waited: Duration,
        /// In words.
        last: String,
    },
    /// The front has acked numbers that this device has not given yet: its counter was set back
    /// while its session was kept. Draw a new session, or messages would be taken for duplicates.
    #[error("front has acked {acked} in this session, but {next_seq} is next: draw a new session")]
    SessionReused {
        /// As the front says.
        acked: u64,
        /// The device's counter.
        next_seq: u64,
    },
    /// The spool on disk failed.
    #[error("spool: {0}")]
    Spool(#[from] forebay_queue::Error),
    /// The live server refused the subscription.
    #[error("subscription refused with {code}: {reason}")]
    Subscription {
        /// A stable word.
        code: String,
        /// A sentence.
        reason: String,
    },
    /// The device or the reader was closed.
    #[error("closed")]
    Closed,
}
