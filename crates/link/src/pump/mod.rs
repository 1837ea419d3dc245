//! The pump: every connection from outside to a ROUTER or PUB of ours passes it.
//!
//! It hands the bytes to the ZeroMQ socket over a Unix socket and does what the socket library
//! does not: lengths are checked before they are believed ([`guard`]), a handshake must be done in
//! time and only so many may be pending, and a peer that lets too much wait for it is closed. That
//! bounds what a stopped or slow subscriber can cost the publisher: the pump takes whatever the
//! publisher sends, up to the backlog, and the library's own queues stay empty.
//!
//! Not here: TLS.

mod carry;
pub mod guard;

use std::net::TcpListener as StdTcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener as StdUnixListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::adapter::{Count, Stop, Thread, block_on};
use crate::error::Error;
use crate::pump::guard::Limits;

/// How much a peer may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PumpConfig {
    /// What it may send.
    pub limits: Limits,
    /// How long its handshake may take.
    pub handshake_timeout: Duration,
    /// Handshakes pending at most; a connection beyond is closed at once.
    pub handshakes_max: usize,
    /// Connections at most, handshakes included.
    pub connections_max: usize,
    /// Bytes that may wait for it; beyond, it is closed, and fetches later what it missed.
    pub backlog_bytes_max: usize,
}

impl PumpConfig {
    /// The defaults in front of a ROUTER, whose peers send frames.
    #[must_use]
    pub const fn for_router() -> Self {
        let frame = forebay_wire::frame::HEADER_BYTES + forebay_wire::frame::BODY_BYTES_MAX;
        Self {
            limits: Limits { message_bytes_max: frame as u64, messages_max: None },
            handshake_timeout: Duration::from_secs(5),
            handshakes_max: 256,
            connections_max: 4_096,
            backlog_bytes_max: 64 * 1024 * 1024,
        }
    }

    /// The defaults in front of a PUB, whose peers only subscribe: the library keeps every
    /// subscription it is sent.
    #[must_use]
    pub const fn for_publisher() -> Self {
        let limits = Limits { message_bytes_max: 256, messages_max: Some(64) };
        Self { limits, ..Self::for_router() }
    }
}

/// What the pump has done so far.
#[derive(Debug, Default)]
pub struct PumpStats {
    /// Connections accepted.
    pub accepted: Count,
    /// Connections closed at once: too many, or too many handshakes pending.
    pub refused: Count,
    /// Connections open now.
    pub open: Count,
    /// Closed for what they sent.
    pub violations: Count,
    /// Closed because their handshake took too long.
    pub late: Count,
    /// Closed because too much waited for them.
    pub behind: Count,
}

/// A running pump.
#[derive(Debug)]
pub(crate) struct Pump {
    thread: Thread,
    stats: Arc<PumpStats>,
}

/// A Unix socket without a file, for the socket library to listen on.
pub(crate) fn inner_listener() -> std::io::Result<(StdUnixListener, UnixAddress)> {
    let name = format!("forebay-pump-{:016x}{:016x}", rand::random::<u64>(), rand::random::<u64>());
    let address = UnixAddress::from_abstract_name(name)?;
    Ok((StdUnixListener::bind_addr(&address)?, address))
}

impl Pump {
    /// Starts the thread: what connects to `outer` is carried to `inner`.
    pub(crate) fn start(
        name: &str,
        config: PumpConfig,
        outer: StdTcpListener,
        inner: UnixAddress,
    ) -> Result<Self, Error> {
        let stats = Arc::new(PumpStats::default());
        let (shared, thread) = (Arc::clone(&stats), name.to_owned());
        // A pump that cannot go on accepts nobody; whoever needs it sees its peers go silent.
        let thread = Thread::spawn(name, Box::new(|_| {}), move |stop| {
            block_on(&thread, accept(config, outer, inner, stop, shared, &thread))
        })?;
        Ok(Self { thread, stats })
    }

    pub(crate) fn stats(&self) -> Arc<PumpStats> {
        Arc::clone(&self.stats)
    }

    pub(crate) fn stop(&self, deadline: Duration) -> Result<(), Error> {
        self.thread.stop(deadline)
    }
}

async fn accept(
    config: PumpConfig,
    outer: StdTcpListener,
    inner: UnixAddress,
    mut stop: Stop,
    stats: Arc<PumpStats>,
    thread: &str,
) -> Result<(), Error> {
    let failed = |source| Error::Thread { thread: thread.to_owned(), source };
    outer.set_nonblocking(true).map_err(failed)?;
    let outer = TcpListener::from_std(outer).map_err(failed)?;
    let handshakes = Arc::new(Semaphore::new(config.handshakes_max));
    let connections = Arc::new(Semaphore::new(config.connections_max));
    loop {
        let accepted = tokio::select! {
            () = stop.set() => return Ok(()),
            accepted = outer.accept() => accepted,
        };
        let (peer, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the peer is gone already: the next one may fare better.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let permits = (
            Arc::clone(&connections).try_acquire_owned(),
            Arc::clone(&handshakes).try_acquire_owned(),
        );
        let (Ok(connection), Ok(handshake)) = permits else {
            stats.refused.add(1);
            continue;
        };
        stats.accepted.add(1);
        let open = config.connections_max - connections.available_permits();
        stats.open.set(open as u64);
        let (inner, stats, all) = (inner.clone(), Arc::clone(&stats), Arc::clone(&connections));
        tokio::spawn(async move {
            if let Err(closed) = serve(&config, peer, &inner, handshake).await {
                tracing::debug!(%address, %closed, "connection closed");
                closed.count(&stats);
            }
            drop(connection);
            stats.open.set((config.connections_max - all.available_permits()) as u64);
        });
    }
}

async fn serve(
    config: &PumpConfig,
    peer: TcpStream,
    inner: &UnixAddress,
    handshake: tokio::sync::OwnedSemaphorePermit,
) -> Result<(), carry::Closed> {
    let socket = std::os::unix::net::UnixStream::connect_addr(inner)?;
    socket.set_nonblocking(true)?;
    let socket = tokio::net::UnixStream::from_std(socket)?;
    peer.set_nodelay(true)?;
    carry::carry(config, peer, socket, handshake).await
}
