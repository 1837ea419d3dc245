//! The [`Socket`] in use: tungstenite's codec over a plain or a TLS stream.
//!
//! tungstenite is used through tokio-tungstenite's re-export without its `WebSocketStream`: that
//! wrapper reads through wakers of its own, a small buffer at a time, where the sessions of a core
//! share one large one.

use std::{
    io,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio_tungstenite::tungstenite::{
    Error, Message, Utf8Bytes,
    error::ProtocolError,
    protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext},
};

use super::{
    Broken, Incoming, Socket,
    buffer::{ReadSide, SharedBuffer},
    link::Link,
};
use crate::config::Limits;

/// tungstenite's codec and the stream below it.
pub(crate) struct TungsteniteSocket {
    codec: WebSocketContext,
    stream: Stream,
}

/// What the codec reads from and writes to, without waiting.
struct Stream {
    link: Link,
    read: ReadSide,
}

impl io::Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.read.read(out)
    }
}

impl io::Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.link.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.link.try_flush()
    }
}

impl TungsteniteSocket {
    /// A socket whose handshake is done; `early` is what the peer sent behind its request.
    pub(crate) fn new(link: Link, early: Vec<u8>, limits: &Limits, shared: SharedBuffer) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(limits.read_buffer.as_usize())
            .write_buffer_size(limits.write_buffer.as_usize())
            .max_write_buffer_size(limits.write_buffer_max.as_usize())
            .max_message_size(Some(limits.message.as_usize()))
            .max_frame_size(Some(limits.message.as_usize()));
        let codec = if early.is_empty() {
            WebSocketContext::new(Role::Server, Some(config))
        } else {
            WebSocketContext::from_partially_read(early, Role::Server, Some(config))
        };
        Self { codec, stream: Stream { link, read: ReadSide::new(shared) } }
    }

    fn sent(result: Result<(), Error>) -> Result<(), Broken> {
        match result {
            Ok(()) => Ok(()),
            // Taken into the buffer; the flush waits for the peer.
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Broken::Gone),
        }
    }
}

/// What an error of the codec says about the peer.
fn broken(error: &Error) -> Broken {
    match error {
        Error::Capacity(_) => Broken::TooBig,
        Error::Utf8(_) => Broken::NotUtf8,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Broken::Gone,
        Error::Protocol(_) => Broken::Protocol,
        _ => Broken::Gone,
    }
}

impl Socket for TungsteniteSocket {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.stream.read.poll_fill(&mut self.stream.link, cx).map_err(|_| Broken::Gone)
    }

    fn next(&mut self) -> Option<Result<Incoming, Broken>> {
        match self.codec.read(&mut self.stream) {
            Ok(Message::Binary(payload)) => Some(Ok(Incoming::Binary(payload))),
            Ok(Message::Text(text)) => Some(Ok(Incoming::Text(text.into()))),
            Ok(Message::Ping(_) | Message::Pong(_)) => Some(Ok(Incoming::Control)),
            Ok(Message::Close(_)) => Some(Ok(Incoming::Close)),
            // Never returned by a read.
            Ok(Message::Frame(_)) => Some(Err(Broken::Protocol)),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(Err(broken(&error))),
        }
    }

    fn keep_rest(&mut self) {
        self.stream.read.keep_rest();
    }

    fn send(&mut self, text: bool, payload: Bytes) -> Result<(), Broken> {
        let message = if text {
            match Utf8Bytes::try_from(payload) {
                Ok(text) => Message::Text(text),
                Err(_) => return Err(Broken::Gone),
            }
        } else {
            Message::Binary(payload)
        };
        Self::sent(self.codec.write(&mut self.stream, message))
    }

    fn ping(&mut self) -> Result<(), Broken> {
        Self::sent(self.codec.write(&mut self.stream, Message::Ping(Bytes::new())))
    }

    fn close(&mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        // A full buffer or a dead peer: the connection ends either way, only without the reason.
        let _ = self.codec.close(&mut self.stream, Some(frame));
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            match self.codec.flush(&mut self.stream) {
                Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                    return Poll::Ready(Ok(()));
                }
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    match self.stream.link.poll_write_ready(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Gone)),
                    }
                }
                Err(_) => return Poll::Ready(Err(Broken::Gone)),
            }
        }
    }

    fn shut_write(&mut self) {
        self.stream.link.shut_write();
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.link.poll_discard(cx)
    }
}
