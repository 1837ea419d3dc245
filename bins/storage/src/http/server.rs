//! The thread that serves the port: connections within a bound, each with a deadline for its head.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use forebay_ops::{
    thread,
    tls::{Reason, TlsServer},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore, sync::watch};
use tokio_rustls::TlsAcceptor;

use super::{App, Limits, router};

/// Threads for queries and readers that are brought back, beyond the one that serves.
const BLOCKING_THREADS_MAX: usize = 16;
/// Pause after an accept that failed, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of the head of a request.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The running server; it ends when this is dropped.
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Binds `listen` (port 0: any) and serves on a thread of its own.
    ///
    /// # Errors
    /// The address cannot be bound, or the system gave no thread.
    pub fn start(
        listen: SocketAddr,
        app: Arc<App>,
        limits: Limits,
        tls: Option<TlsServer>,
    ) -> io::Result<Self> {
        let socket = std::net::TcpListener::bind(listen)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        if !address.ip().is_loopback() && app.access.anonymous {
            tracing::warn!(
                %address, "anonymous mode beyond loopback: whoever reaches the port for readers reads all"
            );
        }
        if !address.ip().is_loopback() && app.access.takes_tokens && tls.is_none() {
            tracing::warn!(
                %address, "credentials cross the network in the clear unless a proxy before this port speaks TLS"
            );
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("http-query")
            .build()?;
        let stop = watch::Sender::new(false);
        let mut stopped = stop.subscribe();
        let thread = thread::spawn("http", move || {
            runtime.block_on(async move {
                tokio::select! {
                    // The sender is dropped with the server, or says so.
                    _ = stopped.wait_for(|stop| *stop) => {}
                    error = accept(socket, app, limits, tls) => {
                        tracing::error!(%address, error = ?error.err(), "the port for readers has ended");
                    }
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where it listens, with the port it got.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

async fn accept(
    socket: std::net::TcpListener,
    app: Arc<App>,
    limits: Limits,
    tls: Option<TlsServer>,
) -> io::Result<std::convert::Infallible> {
    let listener = TcpListener::from_std(socket)?;
    let connections = Arc::new(Semaphore::new(limits.connections_max));
    let service = TowerToHyperService::new(router(app));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(HEAD_BYTES_MAX);
    loop {
        let permit = connections.clone().acquire_owned().await.map_err(io::Error::other)?;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Events are small and wanted at once.
        let _ = stream.set_nodelay(true);
        let (http, service, tls) = (http.clone(), service.clone(), tls.clone());
        tokio::spawn(async move {
            let _permit = permit;
            // A connection that ends badly is its client's affair.
            let Some(tls) = tls else {
                let connection = http.serve_connection(TokioIo::new(stream), service);
                let _ = connection.with_upgrades().await;
                return;
            };
            let accepting = TlsAcceptor::from(tls.config()).accept(stream);
            match tokio::time::timeout(limits.header_timeout, accepting).await {
                Ok(Ok(stream)) => {
                    let connection = http.serve_connection(TokioIo::new(stream), service);
                    let _ = connection.with_upgrades().await;
                }
                Ok(Err(error)) => tls.refusals().count(Reason::of_io(&error)),
                Err(_) => tls.refusals().count(Reason::Late),
            }
        });
    }
}
