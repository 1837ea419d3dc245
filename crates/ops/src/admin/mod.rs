//! The admin HTTP server of a process: `/healthz`, `/readyz`, `/metrics` and status routes.
//!
//! It runs on a thread of its own, so that it answers while the data path is busy or stuck, and
//! it answers first of all: a tier that makes its ring or recovers says so ([`AdminServer`]).
//! Reading asks for no password; it binds loopback unless the configuration says otherwise. What
//! changes something asks for a token.
//!
//! | route | answers |
//! | --- | --- |
//! | `/healthz` | 200 while the process's own loops move; 503: restart it. Never about others |
//! | `/readyz` | 200 while work should come here; 503 with the reasons otherwise |
//! | `/metrics` | the registry in the Prometheus text format |
//! | `/v1/drain` | GET the state of a drain, POST begins it, DELETE calls it off; with the token |
//! | status routes | JSON for people and tools, see [`Admin::status`] and [`Admin::question`] |

mod routes;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prometheus::Registry;
use serde_json::Value;
use tokio::sync::watch;

use crate::Shutdown;
use crate::drain::{Drain, Phase, TokenSource};
use routes::Content;

/// Between two lines of the log about one piece of work.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// Asked of systemd with each of them: a start that moves is not killed for being long.
const PROGRESS_WITHIN: Duration = Duration::from_secs(120);

type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;
type Status = Arc<dyn Fn() -> Value + Send + Sync>;
/// The parameters behind the question mark, by name.
pub type Parameters = BTreeMap<String, String>;

/// The parameter `name` as a number.
///
/// # Errors
/// It is missing, or no number: in the words of an answer.
pub fn number(parameters: &Parameters, name: &str) -> Result<u64, String> {
    let text = parameters.get(name).ok_or_else(|| format!("{name} is missing"))?;
    text.parse().map_err(|_| format!("{name} is not a number"))
}

type Question = Arc<dyn Fn(&Parameters) -> Result<Value, String> + Send + Sync>;

/// Routes that every process has.
const TAKEN: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/v1/drain"];

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
    content: Content,
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
        let mut admin = Admin { content: Content::new(registry) };
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
        self.content.readiness.push((name.into(), Box::new(check)));
    }

    /// Adds a condition of `/healthz`: only what a restart of this process would mend.
    pub fn healthy(
        &mut self,
        name: impl Into<String>,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.content.health.push((name.into(), Box::new(check)));
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
        self.take(path);
        self.content.status.insert(path, Arc::new(status));
    }

    /// Adds a route that answers a question with JSON, such as `/v1/where?device=x`; the error is
    /// what is wrong with the question.
    ///
    /// It may take long: it is asked on another thread than the server's, once at a time.
    ///
    /// # Panics
    /// As for [`Self::status`].
    pub fn question(
        &mut self,
        path: &'static str,
        answer: impl Fn(&Parameters) -> Result<Value, String> + Send + Sync + 'static,
    ) {
        self.take(path);
        self.content.questions.insert(path, Arc::new(answer));
    }

    /// Adds the routes of a drain, for whoever has the token; the process is not ready while it
    /// drains.
    pub fn drain(&mut self, drain: &Drain, token: TokenSource) {
        let seen = drain.clone();
        self.ready("drain", move || match seen.phase() {
            Phase::Serving => Ok(()),
            phase => Err(format!("draining: {}", phase.as_str())),
        });
        self.content.drain = Some((drain.clone(), token));
    }

    fn take(&self, path: &str) {
        assert!(path.starts_with('/'), "a route begins with a slash: {path}");
        let content = &self.content;
        let taken = TAKEN.contains(&path)
            || content.status.contains_key(path)
            || content.questions.contains_key(path);
        assert!(!taken, "the route is taken: {path}");
    }

    /// Binds `listen` (port 0: any) and serves on a thread of its own until the result is dropped.
    ///
    /// # Errors
    /// The address cannot be bound, or the system gave no thread.
    pub fn serve(self, listen: SocketAddr) -> Result<AdminServer, AdminError> {
        AdminServer::bind(listen, self.content)
    }
}

/// The running server; it ends when this is dropped.
///
/// A tier starts it first, before what may take long, and tells what it is doing:
///
/// ```no_run
/// # let (registry, shutdown) = (prometheus::Registry::new(), forebay_ops::Shutdown::new());
/// # use forebay_ops::admin::{Admin, AdminServer};
/// let listen = "127.0.0.1:7401".parse().unwrap();
/// let server = AdminServer::starting(listen, &registry, &shutdown).unwrap();
/// server.busy("making the ring of partition 0");
/// // ... open what is to be opened ...
/// server.answer(Admin::new(&registry, &shutdown));
/// ```
pub struct AdminServer {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    shared: Arc<RwLock<Arc<Content>>>,
    busy: Arc<Mutex<Option<Busy>>>,
    thread: Option<JoinHandle<()>>,
}

/// What a start is busy with.
struct Busy {
    what: String,
    since: Instant,
    percent: Option<u64>,
    /// When the log was last told.
    told: Instant,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.percent.map_or(Ok(()), |percent| write!(f, ": {percent} %"))
    }
}

impl AdminServer {
    /// Serves before the tier does: healthy, and not ready because it is starting.
    ///
    /// # Errors
    /// The address cannot be bound, or the system gave no thread.
    pub fn starting(
        listen: SocketAddr,
        registry: &Registry,
        shutdown: &Shutdown,
    ) -> Result<AdminServer, AdminError> {
        let mut admin = Admin::new(registry, shutdown);
        let busy: Arc<Mutex<Option<Busy>>> = Arc::default();
        let shown = Arc::clone(&busy);
        admin.ready("started", move || {
            Err(match &*shown.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(busy) => format!("{busy}, for {:.1?} by now", busy.since.elapsed()),
                None => "starting".to_owned(),
            })
        });
        let mut server = admin.serve(listen)?;
        server.busy = busy;
        Ok(server)
    }

    /// Says what the start is busy with, in `/readyz`, in the log and to systemd.
    pub fn busy(&self, what: impl Into<String>) {
        let what = what.into();
        tracing::info!("{what}");
        crate::notify::status(&what);
        let now = Instant::now();
        let busy = Busy { what, since: now, percent: None, told: now };
        *self.busy.lock().unwrap_or_else(PoisonError::into_inner) = Some(busy);
    }

    /// Says how much of what the start is [`busy`](Self::busy) with is done: in `/readyz` and to
    /// systemd each percent, in the log every ten seconds. As long as this is called, systemd waits
    /// beyond its TimeoutStartSec.
    pub fn progress(&self, done: u64, total: u64) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(busy) = &mut *busy else { return };
        let percent = Some((u128::from(done) * 100 / u128::from(total.max(1))) as u64);
        if busy.percent != percent {
            busy.percent = percent;
            crate::notify::status(&busy.to_string());
        }
        if busy.told.elapsed() >= PROGRESS_EVERY {
            busy.told = Instant::now();
            crate::notify::extend(PROGRESS_WITHIN);
            tracing::info!("{busy}");
        }
    }

    /// Answers with `admin` from now on.
    pub fn answer(&self, admin: Admin) {
        *self.shared.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(admin.content);
    }

    fn bind(listen: SocketAddr, content: Content) -> Result<AdminServer, AdminError> {
        let failed = |error| AdminError { listen, error };
        let socket = std::net::TcpListener::bind(listen).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "the admin server is open to the outside, without a password");
        }
        let shared = Arc::new(RwLock::new(Arc::new(content)));
        let router = routes::router(Arc::clone(&shared));
        let stop = watch::Sender::new(false);
        let mut stopped = stop.subscribe();
        let thread = crate::thread::spawn_async("admin", move || async move {
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
        Ok(AdminServer { address, stop, shared, busy: Arc::default(), thread: Some(thread) })
    }

    /// Where it listens, with the port it got.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        // The port is free on return; a question that is being answered is waited for.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
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
