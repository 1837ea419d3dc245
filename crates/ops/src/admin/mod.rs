//! The admin HTTP server of a process: `/healthz`, `/readyz`, `/metrics` and status routes.
//!
//! It runs on a thread of its own, so that it answers while the data path is busy or stuck. It is
//! not authenticated and binds loopback unless the configuration says otherwise.
//!
//! | route | answers |
//! | --- | --- |
//! | `/healthz` | 200 while the process's own loops move; 503: restart it. Never about others |
//! | `/readyz` | 200 while work should come here; 503 with the reasons otherwise |
//! | `/metrics` | the registry in the Prometheus text format |
//! | status routes | JSON for people and tools, see [`Admin::status`] |

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Registry, TextEncoder};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::Shutdown;

type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;
type Status = Arc<dyn Fn() -> Value + Send + Sync>;

/// What the server answers with; build it, then [`Admin::serve`].
///
/// ```no_run
/// # let (registry, shutdown) = (prometheus::Registry::new(), forebay_ops::Shutdown::new());
/// let mut admin = forebay_ops::admin::Admin::new(&registry, &shutdown);
/// let pulse = admin.pulse("forwarder", std::time::Duration::from_secs(30));
/// admin.ready("queue", || Err("no room".into()));
/// let server = admin.serve("127.0.0.1:7401".parse().unwrap()).unwrap();
/// pulse.beat();
/// ```
pub struct Admin {
    registry: Registry,
    health: Vec<(String, Check)>,
    readiness: Vec<(String, Check)>,
    status: Vec<(&'static str, Status)>,
}

/// A loop's sign of life for `/healthz`. Clones share it.
#[derive(Clone)]
pub struct Pulse {
    start: Instant,
    beaten_ms: Arc<AtomicU64>,
}

impl Pulse {
    /// Says that the loop still moves; cheap enough for every turn.
    pub fn beat(&self) {
        let now_ms = self.start.elapsed().as_millis() as u64;
        self.beaten_ms.store(now_ms, Ordering::Relaxed);
    }

    fn silence(&self) -> Duration {
        let beaten = Duration::from_millis(self.beaten_ms.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(beaten)
    }
}

impl Admin {
    /// Answers for `registry`, and is not ready once `shutdown` drains.
    pub fn new(registry: &Registry, shutdown: &Shutdown) -> Admin {
        let mut admin = Admin {
            registry: registry.clone(),
            health: Vec::new(),
            readiness: Vec::new(),
            status: Vec::new(),
        };
        let shutdown = shutdown.clone();
        admin.ready("running", move || match shutdown.reason() {
            None => Ok(()),
            Some(reason) => Err(format!("draining after {reason}")),
        });
        admin
    }

    /// Adds a condition of `/readyz`; the error is the reason that is shown. It must not wait.
    pub fn ready(
        &mut self,
        name: impl Into<String>,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.readiness.push((name.into(), Box::new(check)));
    }

    /// Adds a condition of `/healthz`: only what a restart of this process would mend.
    pub fn healthy(
        &mut self,
        name: impl Into<String>,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.health.push((name.into(), Box::new(check)));
    }

    /// Adds a loop to `/healthz`: healthy while no two beats are more than `silence_max` apart.
    pub fn pulse(&mut self, name: impl Into<String>, silence_max: Duration) -> Pulse {
        let pulse = Pulse { start: Instant::now(), beaten_ms: Arc::default() };
        let heard = pulse.clone();
        self.healthy(name, move || {
            let silence = heard.silence();
            if silence <= silence_max {
                return Ok(());
            }
            Err(format!("has not moved for {silence:.1?}, the limit is {silence_max:?}"))
        });
        pulse
    }

    /// Adds a route, such as `/status`, that answers with JSON made at each request.
    ///
    /// # Panics
    /// If `path` does not begin with `/` or is taken.
    pub fn status(
        &mut self,
        path: &'static str,
        status: impl Fn() -> Value + Send + Sync + 'static,
    ) {
        assert!(path.starts_with('/'), "a route begins with a slash: {path}");
        let taken = ["/healthz", "/readyz", "/metrics"].contains(&path)
            || self.status.iter().any(|(other, _)| *other == path);
        assert!(!taken, "the route is taken: {path}");
        self.status.push((path, Arc::new(status)));
    }

    /// Binds `listen` (port 0: any) and serves on a thread of its own until the result is dropped.
    ///
    /// # Errors
    /// The address cannot be bound, or the system gave no thread.
    pub fn serve(self, listen: SocketAddr) -> Result<AdminServer, AdminError> {
        let failed = |error| AdminError { listen, error };
        let socket = std::net::TcpListener::bind(listen).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "the admin server is open to the outside, without a password");
        }
        let router = self.router();
        let stop = watch::Sender::new(false);
        let mut stopped = stop.subscribe();
        crate::thread::spawn_async("admin", move || async move {
            let served = async {
                let listener = tokio::net::TcpListener::from_std(socket)?;
                axum::serve(listener, router).await
            };
            tokio::select! {
                // The sender is dropped with the server, or says so.
                _ = stopped.wait_for(|stop| *stop) => {}
                Err(error) = served => tracing::error!(%address, %error, "the admin server ended"),
            }
        })
        .map_err(failed)?;
        Ok(AdminServer { address, stop })
    }

    fn router(self) -> Router {
        let registry = self.registry;
        let health = Arc::new(self.health);
        let readiness = Arc::new(self.readiness);
        let mut router = Router::new()
            .route("/healthz", get(move || async move { report(&health) }))
            .route("/readyz", get(move || async move { report(&readiness) }))
            .route("/metrics", get(move || async move { metrics(&registry) }));
        for (path, status) in self.status {
            router = router.route(path, get(move || async move { axum::Json(status()) }));
        }
        router
    }
}

fn report(checks: &[(String, Check)]) -> Response {
    let mut ok = true;
    let mut shown = serde_json::Map::new();
    for (name, check) in checks {
        let result = check();
        ok &= result.is_ok();
        shown.insert(name.clone(), json!(result.err().unwrap_or_else(|| "ok".to_owned())));
    }
    let code = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, axum::Json(json!({ "ok": ok, "checks": shown }))).into_response()
}

fn metrics(registry: &Registry) -> Response {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The running server; it ends when this is dropped.
pub struct AdminServer {
    address: SocketAddr,
    stop: watch::Sender<bool>,
}

impl AdminServer {
    /// Where it listens, with the port it got.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl fmt::Debug for AdminServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminServer").field("address", &self.address).finish()
    }
}

/// The admin server could not start.
#[derive(Debug, thiserror::Error)]
#[error("admin server on {listen}: {error}")]
pub struct AdminError {
    /// The address that was asked for.
    pub listen: SocketAddr,
    /// What the system said.
    #[source]
    pub error: io::Error,
}

#[cfg(test)]
mod tests;
