//! One connection of a device to a front: handshake, hello, frames in both directions.
//!
//! It keeps nothing and repeats nothing: whoever holds it knows what was sent and what to send
//! again. That is `Device` for programs, and the simulated devices of a fleet, which compute their
//! messages anew instead of keeping them.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use forebay_model::{DeviceId, MessageId, SessionId};
use forebay_wire::device::{
    ClientFrame, CloseCode, Format, Level, PATH_PREFIX, Reconnect, ServerFrame, Token,
};
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error as SocketError, Message, Utf8Bytes,
        client::IntoClientRequest as _,
        handshake::client::Request,
        http::HeaderValue,
        protocol::{CloseFrame, WebSocketConfig},
    },
};

use crate::tls::{Stream, Tls, TlsError};

/// Acks are tens of bytes.
const READ_BUFFER_BYTES: usize = 1024;
/// A window of 64 messages of 256 bytes in one write.
const WRITE_BUFFER_BYTES: usize = 20 * 1024;
/// Beyond the write buffer there is never more than one message, because each waits for room; a
/// front that takes messages of 16 MiB must be asked for first.
const WRITE_BUFFER_BYTES_MAX: usize = WRITE_BUFFER_BYTES + (16 << 20);
/// Largest frame of a front: a reject with its reason.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// An open session on a WebSocket.
#[derive(Debug)]
pub struct Connection {
    socket: WebSocketStream<Stream>,
    format: Format,
    welcome: Welcome,
}

/// What the front said at the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// Everything up to here is safe; `None` if this front has acked nothing in the session.
    pub acked: Option<MessageId>,
    /// Messages that may be in flight.
    pub credit: u32,
    /// Bytes in the largest message the front takes.
    pub max_message: u32,
    /// Seconds of silence after which a ping is due.
    pub ping_s: u32,
    /// What an ack promises.
    pub level: Level,
}

/// Why there is no connection, or no more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The address is not `ws://host:port` or `wss://host:port`. Mend the configuration.
    #[error("{url:?} is not a WebSocket address like ws://host:port or wss://host:port")]
    Url {
        /// As given.
        url: String,
    },
    /// The front cannot be reached, or the connection broke. Connect again.
    #[error("connection failed: {0}")]
    Io(#[from] io::Error),
    /// The front answered the handshake with another status than 101.
    #[error("front refused the connection with status {status}")]
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// The front closed the connection.
    #[error("front closed the connection with {code}: {reason}")]
    Closed {
        /// The WebSocket close code.
        code: u16,
        /// Its words.
        reason: String,
    },
    /// Something else than a frame of the protocol came, or nothing where one was due.
    #[error("front does not speak the device protocol: {0}")]
    Protocol(String),
    /// The files of TLS are wrong. Mend the configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The credential has characters that no header carries. Mend the configuration.
    #[error("the token is not made of visible ASCII characters")]
    Token,
    /// Nothing came in time. Connect again.
    #[error("front did not answer in time")]
    Timeout,
}

impl ConnectionError {
    /// How long the front asks to wait before the next connection, if it does.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Closed { reason, .. } => CloseCode::retry_after(reason),
            _ => None,
        }
    }

    /// Whether another connection may fare better without anybody mending anything.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Url { .. } | Self::Token | Self::Tls(_) => false,
            Self::Io(_) | Self::Timeout | Self::Protocol(_) => true,
            Self::Refused { status } => !matches!(status, 400 | 401 | 403 | 404),
            Self::Closed { code, .. } => {
                CloseCode::from_number(*code).is_none_or(|code| code.reconnect() == Reconnect::Yes)
            }
        }
    }
}

impl From<SocketError> for ConnectionError {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Io(error) => Self::Io(error),
            SocketError::ConnectionClosed | SocketError::AlreadyClosed => {
                Self::Io(io::ErrorKind::ConnectionAborted.into())
            }
            SocketError::Http(response) => Self::Refused { status: response.status().as_u16() },
            other => Self::Protocol(other.to_string()),
        }
    }
}

impl Connection {
    /// Connects to a front (`ws://host:port`), opens the session and waits for the welcome.
    ///
    /// `next` is the lowest number that may still be sent: everything below was acknowledged.
    /// Put it under a deadline: a front that dies meanwhile may never answer.
    ///
    /// # Errors
    /// [`ConnectionError`] says whether to try again.
    pub async fn open(
        front: &str,
        device: &DeviceId,
        format: Format,
        session: SessionId,
        next: MessageId,
    ) -> Result<Self, ConnectionError> {
        let by = Approach::default();
        Self::open_by(&by, front, device, format, session, next).await
    }

    /// As [`Self::open`], with a credential, by TLS, or from an address of the caller's choice.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub async fn open_by(
        by: &Approach,
        front: &str,
        device: &DeviceId,
        format: Format,
        session: SessionId,
        next: MessageId,
    ) -> Result<Self, ConnectionError> {
        let (address, mut request) = request(front, device, format)?;
        by.authorize(&mut request)?;
        let stream = by.connect(&address).await?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
            .max_message_size(Some(ANSWER_BYTES_MAX))
            .max_frame_size(Some(ANSWER_BYTES_MAX));
        let (mut socket, _) = client_async_with_config(request, stream, Some(config)).await?;
        let hello = ClientFrame::Hello { session, next_seq: next, token: None };
        socket.send(message(format, &hello)).await?;
        let welcome = loop {
            let message = incoming(socket.next().await)?;
            match decode(format, &message)? {
                None => {}
                Some(ServerFrame::Welcome {
                    acked, credit, max_message, ping_s, level, ..
                }) => {
                    break Welcome { acked, credit, max_message, ping_s, level };
                }
                Some(other) => {
                    let words = format!("expected a welcome, found {other:?}");
                    return Err(ConnectionError::Protocol(words));
                }
            }
        };
        Ok(Self { socket, format, welcome })
    }

    /// What the front said at the beginning.
    #[must_use]
    pub fn welcome(&self) -> Welcome {
        self.welcome
    }

    /// Puts a message into the write buffer; [`Self::flush`] sees that it leaves.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn feed(&mut self, frame: &ClientFrame<'_>) -> Result<(), ConnectionError> {
        Ok(self.socket.feed(message(self.format, frame)).await?)
    }

    /// Sends everything that was fed.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn flush(&mut self) -> Result<(), ConnectionError> {
        Ok(self.socket.flush().await?)
    }

    /// Sends a ping; the answer counts as a sign of life and is not told.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn ping(&mut self) -> Result<(), ConnectionError> {
        Ok(self.socket.send(Message::Ping(Vec::new().into())).await?)
    }

    /// Waits for the next frame. May be dropped and called again without losing any.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn receive(&mut self) -> Result<ServerFrame<'static>, ConnectionError> {
        loop {
            let message = incoming(self.socket.next().await)?;
            if let Some(frame) = decode(self.format, &message)? {
                return Ok(frame);
            }
        }
    }

    /// Takes the next frame if it is there already.
    ///
    /// # Errors
    /// The connection is over.
    pub fn try_receive(&mut self) -> Result<Option<ServerFrame<'static>>, ConnectionError> {
        self.receive().now_or_never().transpose()
    }

    /// Takes what the front says next; `None` for a sign of life without words.
    pub(crate) fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<ServerFrame<'static>>, ConnectionError>> {
        self.socket
            .poll_next_unpin(context)
            .map(|next| incoming(next).and_then(|message| decode(self.format, &message)))
    }

    /// Whether the write buffer takes another frame.
    pub(crate) fn poll_room(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), ConnectionError>> {
        self.socket.poll_ready_unpin(context).map_err(ConnectionError::from)
    }

    /// Puts an encoded frame into the write buffer, after [`Self::poll_room`] said so.
    pub(crate) fn put(&mut self, frame: Bytes) -> Result<(), ConnectionError> {
        let message = if self.format.is_text() {
            Message::Text(Utf8Bytes::try_from(frame).expect("JSON frames are UTF-8"))
        } else {
            Message::Binary(frame)
        };
        Ok(self.socket.start_send_unpin(message)?)
    }

    /// Puts a ping into the write buffer, after [`Self::poll_room`] said so.
    pub(crate) fn put_ping(&mut self) -> Result<(), ConnectionError> {
        Ok(self.socket.start_send_unpin(Message::Ping(Bytes::new()))?)
    }

    /// Whether everything that was put has left.
    pub(crate) fn poll_flush(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), ConnectionError>> {
        self.socket.poll_flush_unpin(context).map_err(ConnectionError::from)
    }

    /// Says goodbye; what was not acknowledged is not waited for.
    pub async fn close(mut self) {
        // The front may be gone already: then there is nobody to say it to.
        let _ = self.socket.close(None).await;
    }
}

/// How to approach a server.
#[derive(Debug, Clone, Default)]
pub struct Approach {
    /// A credential, sent as `Authorization: Bearer`.
    pub token: Option<Token<'static>>,
    /// The local address to connect from.
    pub local_address: Option<IpAddr>,
    /// TLS for `wss://`; none trusts whom the system trusts.
    pub tls: Option<Tls>,
}

impl Approach {
    pub(crate) fn authorize(&self, request: &mut Request) -> Result<(), ConnectionError> {
        if let Some(token) = &self.token {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                .map_err(|_| ConnectionError::Token)?;
            value.set_sensitive(true);
            request.headers_mut().insert("authorization", value);
        }
        Ok(())
    }

    /// Tries each address the name has, and does the handshake of TLS.
    pub(crate) async fn connect(&self, to: &Address) -> Result<Stream, ConnectionError> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in lookup_host(&to.authority).await? {
            match self.connect_to(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    if !to.tls {
                        return Ok(Stream::Left(stream));
                    }
                    let tls = match &self.tls {
                        Some(tls) => tls.clone(),
                        None => Tls::trusting(None)?,
                    };
                    return Ok(tls.connect(to.host(), stream).await?);
                }
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let Some(local) = self.local_address else { return TcpStream::connect(address).await };
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind(SocketAddr::new(local, 0))?;
        socket.connect(address).await
    }
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Whether it speaks TLS.
    pub(crate) tls: bool,
    /// `host:port`.
    pub(crate) authority: String,
}

impl Address {
    /// The name that its certificate must have.
    fn host(&self) -> &str {
        let host = self.authority.rsplit_once(':').map_or(&*self.authority, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The address of a page below it.
    pub(crate) fn url(&self, path: &str) -> String {
        // The scheme only fills the request's form; TLS is done below it.
        format!("ws://{}{path}", self.authority)
    }
}

/// Reads an address like `ws://host:port` or `wss://host:port`.
pub(crate) fn address(url: &str) -> Option<Address> {
    let (tls, rest) = match url.strip_prefix("wss://") {
        Some(rest) => (true, rest),
        None => (false, url.strip_prefix("ws://")?),
    };
    let authority = rest.trim_end_matches('/');
    if authority.is_empty() || authority.contains(['/', '@', '?', '#']) {
        return None;
    }
    let with_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let port = if tls { 443 } else { 80 };
    let authority = if with_port { authority.to_owned() } else { format!("{authority}:{port}") };
    Some(Address { tls, authority })
}

/// The handshake's request, and where to connect for it.
fn request(
    front: &str,
    device: &DeviceId,
    format: Format,
) -> Result<(Address, Request), ConnectionError> {
    let bad = || ConnectionError::Url { url: front.to_owned() };
    let address = address(front).ok_or_else(bad)?;
    let mut request =
        address.url(&format!("{PATH_PREFIX}{device}")).into_client_request().map_err(|_| bad())?;
    request
        .headers_mut()
        .insert("sec-websocket-protocol", HeaderValue::from_static(format.subprotocol()));
    Ok((address, request))
}

fn message(format: Format, frame: &ClientFrame<'_>) -> Message {
    let mut bytes = Vec::with_capacity(512);
    frame.encode(format, &mut bytes);
    if format.is_text() {
        Message::text(String::from_utf8(bytes).expect("JSON frames are UTF-8"))
    } else {
        Message::binary(bytes)
    }
}

/// The next message of the socket, or why there is none.
pub(crate) fn incoming(
    next: Option<Result<Message, SocketError>>,
) -> Result<Message, ConnectionError> {
    match next {
        Some(Ok(Message::Close(frame))) => Err(closed(frame)),
        Some(Ok(message)) => Ok(message),
        Some(Err(error)) => Err(error.into()),
        None => Err(ConnectionError::Io(io::ErrorKind::ConnectionAborted.into())),
    }
}

fn closed(frame: Option<CloseFrame>) -> ConnectionError {
    match frame {
        Some(frame) => ConnectionError::Closed {
            code: frame.code.into(),
            reason: frame.reason.as_str().to_owned(),
        },
        None => ConnectionError::Closed { code: 1005, reason: String::new() },
    }
}

/// The frame in a message; pings and pongs hold none.
fn decode(
    format: Format,
    message: &Message,
) -> Result<Option<ServerFrame<'static>>, ConnectionError> {
    let bytes: &[u8] = match message {
        Message::Text(text) => text.as_bytes(),
        Message::Binary(bytes) => bytes,
        _ => return Ok(None),
    };
    match ServerFrame::decode(format, bytes) {
        Ok(frame) => Ok(Some(frame.into_owned())),
        Err(error) => Err(ConnectionError::Protocol(error.reason())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_websocket_addresses_are_taken() {
        let device = DeviceId::new("pump-7").expect("a valid id");
        let (address, asked) = request("ws://[::1]:7400/", &device, Format::Json).expect("good");
        assert_eq!(
            (address.tls, &*address.authority, address.host()),
            (false, "[::1]:7400", "::1")
        );
        let (address, _) = request("wss://a.example", &device, Format::Json).expect("good");
        assert_eq!(
            (address.tls, &*address.authority, address.host()),
            (true, "a.example:443", "a.example")
        );
        assert_eq!(asked.uri().path(), "/v1/ingest/pump-7");
        assert_eq!(asked.headers()["sec-websocket-protocol"], "forebay.v1.json");
        for bad in ["http://x", "ws://", "x:1", "ws://a/b", "ws://u@h"] {
            assert!(request(bad, &device, Format::Cbor).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_close_tells_whether_and_when_to_come_back() {
        let drain = ConnectionError::Closed { code: 1012, reason: "retry_ms=250".to_owned() };
        assert!(drain.is_temporary());
        assert_eq!(drain.retry_after(), Some(Duration::from_millis(250)));
        let bad = ConnectionError::Closed { code: 4400, reason: String::new() };
        assert!(!bad.is_temporary());
        assert!(!ConnectionError::Refused { status: 403 }.is_temporary());
        assert!(ConnectionError::Refused { status: 503 }.is_temporary());
    }
}
