//! The [`Socket`] in use: tungstenite's codec over a plain or a TLS stream.
//!
//! tungstenite is used through tokio-tungstenite's re-export without its `WebSocketStream`: that
//! wrapper reads through wakers of its own, a small buffer at a time, where the sessions of a core
//! share one large one. A codec lives as long as it holds something: a message of which a part has
//! come, answers that the peer has not taken, a close that has begun.

use std::{
    io,
    rc::Rc,
    task::{Context, Poll, ready},
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
    walk::Walk,
};
use crate::config::Limits;

/// What all codecs of a core are made of.
#[derive(Clone)]
pub(crate) struct Settings(Rc<WebSocketConfig>);

impl Settings {
    pub(crate) fn of(limits: &Limits) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(limits.read_buffer.as_usize())
            .write_buffer_size(limits.write_buffer.as_usize())
            .max_write_buffer_size(limits.write_buffer_max.as_usize())
            .max_message_size(Some(limits.message.as_usize()))
            .max_frame_size(Some(limits.message.as_usize()));
        Self(Rc::new(config))
    }
}

/// tungstenite's codec and the stream below it.
pub(crate) struct TungsteniteSocket {
    /// `None` while nothing is read or sent: a codec with its buffers takes 1.5 KiB and more, and
    /// nearly all connections are idle at any moment.
    codec: Option<Box<WebSocketContext>>,
    settings: Settings,
    stream: Stream,
    /// All bytes taken have been looked at for a message.
    drained: bool,
    /// What was sent has yet to be flushed.
    unflushed: bool,
    /// A ping came that may not be answered yet.
    pinged: bool,
    /// A close has begun or the peer broke the protocol, which only this codec knows.
    ends: bool,
}

/// What the codec reads from and writes to, without waiting.
struct Stream {
    link: Link,
    read: ReadSide,
    walk: Walk,
}

impl io::Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.read.read(out)?;
        self.walk.over(&out[..count]);
        Ok(count)
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
    pub(crate) fn new(
        link: Link,
        early: Vec<u8>,
        settings: Settings,
        shared: SharedBuffer,
    ) -> Self {
        let stream = Stream { link, read: ReadSide::new(shared, early), walk: Walk::default() };
        Self {
            codec: None,
            settings,
            stream,
            drained: false,
            unflushed: false,
            pinged: false,
            ends: false,
        }
    }

    fn codec(&mut self) -> (&mut WebSocketContext, &mut Stream) {
        let codec = self.codec.get_or_insert_with(|| {
            Box::new(WebSocketContext::new(Role::Server, Some(*self.settings.0)))
        });
        (codec, &mut self.stream)
    }

    fn write(&mut self, message: Message) -> Result<(), Broken> {
        self.unflushed = true;
        let (codec, stream) = self.codec();
        match codec.write(stream, message) {
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
        ready!(self.stream.read.poll_fill(&mut self.stream.link, cx)).map_err(|_| Broken::Gone)?;
        self.drained = false;
        Poll::Ready(Ok(()))
    }

    fn next(&mut self) -> Option<Result<Incoming, Broken>> {
        if self.drained {
            return None;
        }
        let (codec, stream) = self.codec();
        let result = codec.read(stream);
        match &result {
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                self.drained = true;
                return None;
            }
            Ok(Message::Ping(_)) => (self.pinged, self.unflushed) = (true, true),
            Ok(Message::Close(_)) | Err(_) => self.ends = true,
            Ok(_) => {}
        }
        Some(match result {
            Ok(Message::Binary(payload)) => Ok(Incoming::Binary(payload)),
            Ok(Message::Text(text)) => Ok(Incoming::Text(text.into())),
            Ok(Message::Ping(_) | Message::Pong(_)) => Ok(Incoming::Control),
            Ok(Message::Close(_)) => Ok(Incoming::Close),
            // Never returned by a read.
            Ok(Message::Frame(_)) => Err(Broken::Protocol),
            Err(error) => Err(broken(&error)),
        })
    }

    fn end_turn(&mut self) {
        self.stream.read.keep_rest();
        let holds_nothing = self.drained && self.stream.walk.is_between_messages();
        if holds_nothing && !self.unflushed && !self.ends {
            self.codec = None;
        }
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
        self.write(message)
    }

    fn ping(&mut self) -> Result<(), Broken> {
        self.write(Message::Ping(Bytes::new()))
    }

    fn close(&mut self, code: u16, reason: &str) {
        self.ends = true;
        let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        let (codec, stream) = self.codec();
        // A full buffer or a dead peer: the connection ends either way, only without the reason.
        let _ = codec.close(stream, Some(frame));
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Some(codec) = &mut self.codec else { return Poll::Ready(Ok(())) };
        loop {
            match codec.flush(&mut self.stream) {
                // A pong for which the full buffer had no room goes now that it is empty.
                Ok(()) if std::mem::take(&mut self.pinged) => {}
                Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                    self.unflushed = false;
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
