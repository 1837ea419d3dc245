//! What a session needs of a WebSocket, so that the codec behind it can be replaced.
//!
//! Reading has two steps, because that is what makes it cheap: [`Socket::poll_fill`] takes what the
//! kernel has, at most one shared buffer of the core, with one system call; [`Socket::next`] then
//! yields the whole messages in it without touching the kernel. Writing is buffered until
//! [`Socket::poll_flush`]. The implementation in use is [`tungstenite`].
//!
//! Not here: the HTTP handshake (`handshake`) and what the messages mean (`session`).

pub(crate) mod buffer;
#[cfg(feature = "echo")]
pub(crate) mod echo;
pub(crate) mod link;
pub(crate) mod tungstenite;
mod walk;

use std::task::{Context, Poll};

use bytes::Bytes;

pub(crate) use self::tungstenite::Settings;

/// One message or event of the peer.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A text message; the codec has checked that it is UTF-8.
    Text(Bytes),
    /// A binary message.
    Binary(Bytes),
    /// A ping (the codec answers it with the next flush) or a pong: the peer lives.
    Control,
    /// The peer closes; the codec answers with the next flush.
    Close,
}

/// Why a socket is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The peer is gone: end of stream, reset, or it does not take what we send.
    Gone,
    /// The peer broke RFC 6455; say so with close code 1002.
    Protocol,
    /// A text message is not UTF-8; say so with close code 1007.
    NotUtf8,
    /// A frame or message is above the limit; say so with close code 1009.
    TooBig,
}

/// A WebSocket after its handshake, used by one task.
pub(crate) trait Socket {
    /// Takes the bytes that have arrived, up to one core buffer; ready means [`Self::next`] has
    /// news. Call it only when `next` has returned `None`.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>;

    /// The next message among the bytes taken; `None` when they hold no further whole one.
    fn next(&mut self) -> Option<Result<Incoming, Broken>>;

    /// Moves bytes taken but not yet used out of the core's buffer, which the next session is
    /// about to fill, and gives back memory that an idle connection does not need. Call it at the
    /// end of every poll.
    fn end_turn(&mut self);

    /// Puts a message into the write buffer.
    ///
    /// # Errors
    /// [`Broken::Gone`] when the peer has let the write buffer fill to its cap.
    fn send(&mut self, text: bool, payload: Bytes) -> Result<(), Broken>;

    /// Puts a ping into the write buffer.
    ///
    /// # Errors
    /// As [`Self::send`].
    fn ping(&mut self) -> Result<(), Broken>;

    /// Puts a close frame into the write buffer, the last thing sent.
    fn close(&mut self, code: u16, reason: &str);

    /// Writes the buffer out. Pending means the peer is slow; the task is woken when it takes more.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>;

    /// Ends our half of the stream once all is flushed.
    fn shut_write(&mut self);

    /// Reads and forgets what still comes, so that closing does not reset the connection under
    /// the close frame. Ready at the end of the stream.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}
