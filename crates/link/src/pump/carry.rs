//! One connection through the pump, both ways.

use std::collections::VecDeque;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream, tcp, unix};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::pump::guard::{Guard, Violation};
use crate::pump::{PumpConfig, PumpStats};

/// Read at once; a batch is about as long.
const CHUNK_BYTES: usize = 64 * 1024;
/// Read at once before the handshake is done.
const HANDSHAKE_CHUNK_BYTES: usize = 1_024;

/// Why a connection was closed by the pump.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    #[error("the handshake took too long")]
    Late,
    #[error("{bytes} bytes waited for it")]
    Behind { bytes: usize },
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
            Self::Violation(_) => stats.violations.add(1),
            Self::Io(_) => {}
        }
    }
}

/// Carries bytes both ways until either end closes.
pub(super) async fn carry(
    config: &PumpConfig,
    peer: TcpStream,
    socket: UnixStream,
    handshake: OwnedSemaphorePermit,
) -> Result<(), Closed> {
    let (from_peer, to_peer) = peer.into_split();
    let (from_socket, to_socket) = socket.into_split();
    tokio::select! {
        done = inward(config, from_peer, to_socket, handshake) => done,
        done = outward(config, from_socket, to_peer) => done,
    }
}

/// From the peer to the socket: checked, and no faster than the socket takes it.
async fn inward(
    config: &PumpConfig,
    mut from: tcp::OwnedReadHalf,
    mut to: unix::OwnedWriteHalf,
    handshake: OwnedSemaphorePermit,
) -> Result<(), Closed> {
    let deadline = Instant::now() + config.handshake_timeout;
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
    drop(handshake);
    chunk.resize(CHUNK_BYTES, 0);
    loop {
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return Ok(());
        }
        guard.check(&chunk[..read])?;
        to.write_all(&chunk[..read]).await?;
    }
}

/// From the socket to the peer: taken at once, whatever the peer does, up to the backlog.
async fn outward(
    config: &PumpConfig,
    mut from: unix::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
) -> Result<(), Closed> {
    let mut backlog: VecDeque<Bytes> = VecDeque::new();
    let mut waiting = 0;
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
                    match to.try_write(&chunk) {
                        Ok(written) => chunk.advance(written),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error.into()),
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
            written = to.write(front), if waiting > 0 => {
                let written = written?;
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
