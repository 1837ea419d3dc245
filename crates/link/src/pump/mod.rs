//! The pump: every connection from outside to a ROUTER or PUB of ours passes it.
//!
//! It hands the bytes to the ZeroMQ socket over a Unix socket and does what the socket library
//! does not: lengths are checked before they are believed ([`guard`]), a handshake must be done in
//! time and only so many may be pending, and a peer that lets too much wait for it is closed. That
//! bounds what a stopped or slow subscriber can cost the publisher: the pump takes whatever the
//! publisher sends, up to the backlog, and what the library's own queues hold is what the publisher
//! lets them (`feed_publisher`). Bodies of large frames do not even come by: they are spliced
//! (`conduit`). What the socket sends is copied: a splice of the feed took 1.6 times the CPU.
//!
//! With TLS ([`AcceptTls`]), a peer must have shown a good certificate before a byte of it goes any
//! further, and must go once the certificate is good no longer. The dialing end of TLS is here too
//! (`dial`): ZeroMQ connects to a Unix socket, and what it sends leaves encrypted.
//!
//! **Architecture invariant**: nothing here knows files; the certificates come by closures.

mod carry;
mod conduit;
pub(crate) mod dial;
pub mod guard;
mod pending;
mod tls;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener as StdUnixListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::server::TlsStream;

use crate::adapter::{Count, Thread, block_on};
use crate::error::Error;
use crate::pump::carry::{Closed, carry};
use crate::pump::guard::Limits;
use crate::pump::pending::{Handshake, Handshakes};
pub use crate::pump::tls::{AcceptTls, ConnectTls};

/// How long a peer that was refused may take to read why.
const FAREWELL_TIME_MAX: Duration = Duration::from_millis(500);

/// What may lie between the pump and the socket on the way in: some frames, so that neither waits
/// for the other at each. On the way out it is the system's default, for the library offers no way
/// to set it.
const INNER_BUFFER_BYTES: usize = 1024 * 1024;

/// How much a peer may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PumpConfig {
    /// What it may send.
    pub limits: Limits,
    /// How long its handshake may take, that of TLS included.
    pub handshake_timeout: Duration,
    /// Handshakes pending at most; beyond, the oldest is closed.
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
            backlog_bytes_max: 16 * 1024 * 1024,
        }
    }

    /// The defaults in front of a PUB, whose peers only subscribe: the library keeps every
    /// subscription it is sent.
    #[must_use]
    pub const fn for_publisher() -> Self {
        let limits = Limits { message_bytes_max: 256, messages_max: Some(64) };
        Self { limits, ..Self::for_router() }
    }

    /// The defaults for what comes back over a connection that was dialed: frames, behind a topic
    /// where it is a feed.
    pub(crate) const fn for_dialer() -> Self {
        let router = Self::for_router();
        let message_bytes_max = router.limits.message_bytes_max + 256;
        Self { limits: Limits { message_bytes_max, messages_max: None }, ..router }
    }
}

/// What the pump has done so far.
#[derive(Debug, Default)]
pub struct PumpStats {
    /// Connections accepted.
    pub accepted: Count,
    /// Connections closed because there were too many, or too many handshakes pending.
    pub refused: Count,
    /// Connections open now.
    pub open: Count,
    /// Closed for what they sent.
    pub violations: Count,
    /// Closed because their handshake took too long.
    pub late: Count,
    /// Closed for want of a good certificate, at the handshake or later.
    pub untrusted: Count,
    /// Closed because too much waited for them.
    pub behind: Count,
}

/// A pump.
#[derive(Debug)]
pub(crate) struct Pump {
    thread: Option<Thread>,
    stats: Arc<PumpStats>,
}

/// A pump that is still to be started, on the runtime of the socket behind it.
#[derive(Debug)]
pub(crate) struct Accepting {
    port: Port,
    outer: StdTcpListener,
}

impl Accepting {
    /// Lets peers in for as long as the runtime lives that this is called within.
    pub(crate) fn start(self) -> io::Result<()> {
        let outer = listen(self.outer)?;
        tokio::spawn(accept(self.port, outer, std::future::pending()));
        Ok(())
    }
}

/// A Unix socket without a file, for the socket library to listen on.
pub(crate) fn inner_listener() -> io::Result<(StdUnixListener, UnixAddress)> {
    let address = UnixAddress::from_abstract_name(inner_name())?;
    Ok((StdUnixListener::bind_addr(&address)?, address))
}

/// A name that nobody can have taken before.
fn inner_name() -> String {
    format!("forebay-pump-{:016x}{:016x}", rand::random::<u64>(), rand::random::<u64>())
}

impl Pump {
    /// What connects to `outer` is carried to `inner`.
    ///
    /// With TLS, that begins now and is done by a thread of its own: shaking hands and decrypting
    /// must not hold up the socket's. Without, it is up to the socket's runtime to begin: waking
    /// another thread for each frame costs more than all else that is done with it.
    pub(crate) fn new(
        name: &str,
        config: PumpConfig,
        tls: Option<AcceptTls>,
        outer: StdTcpListener,
        inner: UnixAddress,
    ) -> Result<(Self, Option<Accepting>), Error> {
        let stats = Arc::new(PumpStats::default());
        let own_thread = tls.is_some();
        let port = Port { config, tls, inner, stats: Arc::clone(&stats) };
        if !own_thread {
            return Ok((Self { thread: None, stats }, Some(Accepting { port, outer })));
        }
        let thread = name.to_owned();
        // A pump that cannot go on accepts nobody; whoever needs it sees its peers go silent.
        let thread = Thread::spawn(name, Box::new(|_| {}), move |mut stop| {
            block_on(&thread, async {
                let failed = |source| Error::Thread { thread: thread.clone(), source };
                accept(port, listen(outer).map_err(failed)?, stop.set()).await;
                Ok(())
            })
        })?;
        Ok((Self { thread: Some(thread), stats }, None))
    }

    pub(crate) fn stats(&self) -> Arc<PumpStats> {
        Arc::clone(&self.stats)
    }

    pub(crate) fn stop(&self, deadline: Duration) -> Result<(), Error> {
        self.thread.as_ref().map_or(Ok(()), |thread| thread.stop(deadline))
    }
}

/// What all connections of a pump share.
#[derive(Debug, Clone)]
struct Port {
    config: PumpConfig,
    tls: Option<AcceptTls>,
    inner: UnixAddress,
    stats: Arc<PumpStats>,
}

fn listen(outer: StdTcpListener) -> io::Result<TcpListener> {
    outer.set_nonblocking(true)?;
    TcpListener::from_std(outer)
}

/// Lets peers in until it is told to stop.
async fn accept(port: Port, outer: TcpListener, stop: impl Future<Output = ()>) {
    let handshakes = Handshakes::default();
    let PumpConfig { connections_max, handshakes_max, .. } = port.config;
    let connections = Arc::new(Semaphore::new(connections_max));
    let stats = Arc::clone(&port.stats);
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => return,
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
        let Ok(connection) = Arc::clone(&connections).try_acquire_owned() else {
            stats.refused.add(1);
            continue;
        };
        stats.accepted.add(1);
        let open = Open { stats: Arc::clone(&stats), connection: Some(connection) };
        stats.open.set((connections_max - connections.available_permits()) as u64);
        let (port, handshake) = (port.clone(), handshakes.begin());
        let number = handshake.number();
        let task = tokio::spawn(async move {
            let _open = open;
            if let Err(closed) = port.serve(peer, address, handshake).await {
                tracing::debug!(%address, %closed, "connection closed");
                closed.count(&port.stats);
            }
        });
        // The task does not run before this loop waits: the runtime has one thread.
        if handshakes.started(number, task.abort_handle(), handshakes_max) {
            stats.refused.add(1);
        }
    }
}

/// A connection counts as open until this is dropped, however its task ends.
#[derive(Debug)]
struct Open {
    stats: Arc<PumpStats>,
    connection: Option<OwnedSemaphorePermit>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connection = None;
        self.stats.open.set(self.stats.open.get().saturating_sub(1));
    }
}

impl Port {
    async fn serve(
        &self,
        peer: TcpStream,
        address: SocketAddr,
        handshake: Handshake,
    ) -> Result<(), Closed> {
        let deadline = Instant::now() + self.config.handshake_timeout;
        peer.set_nodelay(true)?;
        let ready = || drop(handshake);
        let Some(tls) = &self.tls else {
            let never = std::future::pending();
            return carry(&self.config, peer.into_split(), self.socket()?, deadline, ready, never)
                .await;
        };
        let refused = |error: io::Error| {
            tls.failed(address, &error);
            Closed::Untrusted(error)
        };
        let stream = handshake_tls(tls, peer, deadline).await.map_err(refused)?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        let distrust = distrust(tls, &chain);
        // Only now: nothing of a stranger gets as far as the socket library.
        let socket = self.socket()?;
        let halves = tokio::io::split(stream);
        let carried = carry(&self.config, halves, socket, deadline, ready, distrust).await;
        if let Err(Closed::Untrusted(error)) = &carried {
            tls.failed(address, error);
        }
        carried
    }

    /// A connection to the ZeroMQ socket behind.
    fn socket(&self) -> io::Result<UnixStream> {
        let socket = std::os::unix::net::UnixStream::connect_addr(&self.inner)?;
        socket.set_nonblocking(true)?;
        // The system may allow less.
        socket2::SockRef::from(&socket).set_send_buffer_size(INNER_BUFFER_BYTES)?;
        UnixStream::from_std(socket)
    }
}

async fn handshake_tls(
    tls: &AcceptTls,
    peer: TcpStream,
    deadline: Instant,
) -> io::Result<TlsStream<TcpStream>> {
    let accepting = TlsAcceptor::from(tls.config()).accept(peer).into_fallible();
    match tokio::time::timeout_at(deadline, accepting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err((error, mut peer))) => {
            // The peer has the reason on its way: a reset, for bytes left unread, would eat it.
            let farewell = async {
                peer.shutdown().await?;
                let mut rest = [0; 1_024];
                while peer.read(&mut rest).await? > 0 {}
                io::Result::Ok(())
            };
            let _said = tokio::time::timeout(FAREWELL_TIME_MAX, farewell).await;
            Err(error)
        }
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long")),
    }
}

/// Resolves once whoever showed this chain would not be let in any more.
async fn distrust(tls: &AcceptTls, chain: &[CertificateDer<'_>]) -> io::Error {
    loop {
        tokio::time::sleep(tls.recheck_every()).await;
        if let Err(error) = tls.recheck(chain) {
            return error;
        }
    }
}
