//! One connection through the pump, both ways.

use std::collections::VecDeque;
use std::future::Future;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};
use tokio::time::Instant;

use crate::pump::conduit::Conduit;
use crate::pump::guard::{Guard, Violation};
use crate::pump::{PumpConfig, PumpStats};

/// Read at once; a batch is about as long.
const CHUNK_BYTES: usize = 64 * 1024;
/// Read at once before the handshake is done.
const HANDSHAKE_CHUNK_BYTES: usize = 1_024;

/// As long as the head of a frame can be, and some of its body.
const HEAD_BYTES: usize = 64;
/// Left of a frame at least to be spliced: it costs three calls, whatever its length.
const SPLICED_BYTES_MIN: u64 = 16 * 1024;

/// Why a connection was closed by the pump.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    #[error("the handshake took too long")]
    Late,
    #[error("{bytes} bytes waited for it")]
    Behind { bytes: usize },
    #[error("TLS: {0}")]
    Untrusted(io::Error),
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Closed {
    pub(super) fn count(&self, stats: &PumpStats) {
        match self {
            Self::Late => stats.late.add(1),
            Self::Behind { .. } => stats.behind.add(1),
            Self::Untrusted(_) => stats.untrusted.add(1),
            Self::Violation(_) => stats.violations.add(1),
            Self::Io(_) => {}
        }
    }
}

/// The end of a connection that bytes of a peer come from.
pub(super) trait Incoming: AsyncRead + Unpin {
    /// The socket, if its bytes are what the peer sent: those of TLS must be decrypted first.
    fn plain(&self) -> Option<&TcpStream>;
}

impl Incoming for tcp::OwnedReadHalf {
    fn plain(&self) -> Option<&TcpStream> {
        Some(self.as_ref())
    }
}

impl<T: AsyncRead + Unpin> Incoming for ReadHalf<T> {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

/// Carries bytes both ways until either end closes. Greeting and READY must have come by
/// `deadline`; then `ready` is called.
pub(super) async fn carry(
    config: &PumpConfig,
    (from_peer, to_peer): (impl Incoming, impl AsyncWrite + Unpin),
    socket: UnixStream,
    deadline: Instant,
    ready: impl FnOnce(),
    distrust: impl Future<Output = io::Error>,
) -> Result<(), Closed> {
    let (from_socket, to_socket) = socket.into_split();
    tokio::select! {
        done = inward(config, from_peer, to_socket, deadline, ready) => done,
        done = outward(config, from_socket, to_peer) => done,
        error = distrust => Err(Closed::Untrusted(error)),
    }
}

/// From the peer to the socket: checked, and no faster than the socket takes it.
async fn inward(
    config: &PumpConfig,
    mut from: impl Incoming,
    mut to: unix::OwnedWriteHalf,
    deadline: Instant,
    ready: impl FnOnce(),
) -> Result<(), Closed> {
    let mut guard = Guard::new(config.limits);
    let mut chunk = vec![0; HANDSHAKE_CHUNK_BYTES];
    while !guard.is_ready() {
        let read = tokio::time::timeout_at(deadline, from.read(&mut chunk));
        let read = read.await.map_err(|_| Closed::Late)??;
        if read == 0 {
            return Ok(());
        }
        guard.check(&chunk[..read])?;
        to.write_all(&chunk[..read]).await?;
    }
    ready();
    chunk.resize(CHUNK_BYTES, 0);
    let mut conduit: Option<Conduit> = None;
    loop {
        // Whoever sends a large frame sends another: its head is looked at where it lies, so that
        // the whole of it can be spliced.
        if let (Some(from), Some(conduit)) = (from.plain(), &conduit) {
            let seen = from.peek(&mut chunk[..HEAD_BYTES]).await?;
            let mut ahead = guard.clone();
            ahead.check(&chunk[..seen])?;
            if ahead.body_left() >= SPLICED_BYTES_MIN {
                if !conduit.carry(from, to.as_ref(), seen as u64 + ahead.body_left()).await? {
                    return Ok(());
                }
                ahead.skip()?;
                guard = ahead;
                continue;
            }
        }
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return Ok(());
        }
        guard.check(&chunk[..read])?;
        to.write_all(&chunk[..read]).await?;
        let is_large = guard.body_left() >= SPLICED_BYTES_MIN;
        if conduit.is_none() && is_large && from.plain().is_some() {
            // Without one, as where descriptors have run out, bytes are copied as before.
            conduit = Conduit::new().ok();
        }
    }
}

/// From the socket to the peer: taken at once, whatever the peer does, up to the backlog.
async fn outward(
    config: &PumpConfig,
    mut from: unix::OwnedReadHalf,
    mut to: impl AsyncWrite + Unpin,
) -> Result<(), Closed> {
    let mut backlog: VecDeque<Bytes> = VecDeque::new();
    let mut waiting = 0;
    // Whether TLS holds bytes that it has taken.
    let mut held = false;
    let mut chunk = BytesMut::new();
    loop {
        if waiting == 0 {
            // Nothing waits: one buffer, used again and again.
            chunk.clear();
        }
        if chunk.capacity() - chunk.len() < CHUNK_BYTES / 4 {
            // Not for every read: small ones that have to wait must share a buffer.
            chunk.reserve(CHUNK_BYTES);
        }
        let front = backlog.front().map_or(&[][..], |bytes| bytes);
        tokio::select! {
            read = from.read_buf(&mut chunk) => {
                let read = read?;
                if read == 0 {
                    return Ok(());
                }
                if waiting == 0 {
                    // Most of the time the peer takes all of it at once.
                    if let Some(written) = to.write(&chunk).now_or_never() {
                        chunk.advance(written?);
                        held = !matches!(to.flush().now_or_never(), Some(Ok(())));
                    }
                }
                waiting += chunk.len();
                if !chunk.is_empty() {
                    backlog.push_back(chunk.split().freeze());
                }
                if waiting > config.backlog_bytes_max {
                    return Err(Closed::Behind { bytes: waiting });
                }
            }
            written = write_or_flush(&mut to, front), if waiting > 0 || held => {
                let written = written?;
                held = waiting > 0;
                waiting -= written;
                if let Some(front) = backlog.front_mut() {
                    front.advance(written);
                    if front.is_empty() {
                        backlog.pop_front();
                    }
                }
            }
        }
    }
}

/// Writes some of `bytes`, or sees to it that what was written leaves.
async fn write_or_flush(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return to.flush().await.map(|()| 0);
    }
    match to.write(bytes).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}
