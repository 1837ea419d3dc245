//! The way to another tier's port: straight for plain connections, through the pump for TLS.
//!
//! ZeroMQ speaks to TCP or to a Unix socket, and knows no TLS. So for TLS the connection is made
//! here, and ZeroMQ connects to a Unix socket behind which the pump carries the bytes. It accepts
//! one connection, from this process only, and checks what comes from the other tier as it does
//! for a port.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener as StdUnixListener};
use std::time::Duration;

use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::config::ConnectConfig;
use crate::pump::carry::{Closed, carry};
use crate::pump::{ConnectTls, PumpConfig, inner_name};

/// How a ZeroMQ socket gets to its peer. Dropped, it is no way any more.
#[derive(Debug)]
pub(crate) struct Line {
    endpoint: String,
    carrying: Option<JoinHandle<()>>,
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(carrying) = &self.carrying {
            carrying.abort();
        }
    }
}

impl Line {
    /// Resolves the host anew, to one of its addresses; with TLS, connects and shakes hands too.
    pub(crate) async fn open(config: &ConnectConfig) -> Result<Self, String> {
        let Some(address) = config.endpoint.strip_prefix("tcp://") else {
            return Ok(Self { endpoint: config.endpoint.clone(), carrying: None });
        };
        let deadline = Instant::now() + config.connect_timeout;
        let address_now = resolve(address, deadline).await?;
        let Some(tls) = &config.tls else {
            return Ok(Self { endpoint: format!("tcp://{address_now}"), carrying: None });
        };
        let stream = match connect(tls, address, address_now, deadline).await {
            Ok(stream) => stream,
            Err(error) => {
                tls.failed(&config.endpoint, &error);
                return Err(error.to_string());
            }
        };
        let name = inner_name();
        let listener = listen(&name).map_err(|error| error.to_string())?;
        let (tls, endpoint) = (tls.clone(), config.endpoint.clone());
        let timeout = config.connect_timeout;
        let carrying = tokio::spawn(async move {
            if let Err(closed) = through(&tls, stream, listener, timeout).await {
                // In TLS 1.3 the other end says what it thinks of our certificate only now.
                match &closed {
                    Closed::Io(error) if error.get_ref().is_some() => tls.failed(&endpoint, error),
                    closed => tracing::debug!(endpoint, %closed, "connection closed"),
                }
            }
        });
        // A name that begins with a zero byte is one without a file.
        Ok(Self { endpoint: format!("ipc://\0{name}"), carrying: Some(carrying) })
    }

    /// Where the ZeroMQ socket connects.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

async fn resolve(address: &str, deadline: Instant) -> Result<std::net::SocketAddr, String> {
    let addresses: Vec<_> = match timeout_at(deadline, tokio::net::lookup_host(address)).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => return Err(format!("{address}: {error}")),
        Err(_) => return Err(format!("{address}: not resolved in time")),
    };
    // Any of them: a name that stands for several addresses has one at least that works.
    let any = rand::random_range(0..addresses.len().max(1));
    addresses.get(any).copied().ok_or_else(|| format!("{address}: no address"))
}

async fn connect(
    tls: &ConnectTls,
    address: &str,
    address_now: std::net::SocketAddr,
    deadline: Instant,
) -> io::Result<TlsStream<TcpStream>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    // An IPv6 address stands in brackets, which do not belong to it.
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let connecting = async {
        let stream = TcpStream::connect(address_now).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(tls.config()).connect(name, stream).await
    };
    match timeout_at(deadline, connecting).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long")),
    }
}

fn listen(name: &str) -> io::Result<UnixListener> {
    let listener = StdUnixListener::bind_addr(&UnixAddress::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Waits for the ZeroMQ socket, and carries for it.
async fn through(
    tls: &ConnectTls,
    stream: TlsStream<TcpStream>,
    listener: UnixListener,
    timeout: Duration,
) -> Result<(), Closed> {
    let deadline = Instant::now() + timeout;
    let socket = timeout_at(deadline, ours(&listener)).await.map_err(|_| Closed::Late)??;
    drop(listener);
    let (config, never) = (PumpConfig::for_dialer(), std::future::pending());
    let halves = tokio::io::split(stream);
    carry(&config, halves, socket, deadline, || tls.worked(), never).await
}

/// The first connection from this process: others on this machine can see the name too.
async fn ours(listener: &UnixListener) -> io::Result<UnixStream> {
    loop {
        let (socket, _) = listener.accept().await?;
        let process = socket.peer_cred()?.pid();
        if process.is_some_and(|process| u32::try_from(process) == Ok(std::process::id())) {
            return Ok(socket);
        }
        tracing::warn!(?process, "another process connected to a socket of ours: refused");
    }
}
