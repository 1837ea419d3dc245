//! The life of a storage tier: open the lake, restore last values, follow the middles, serve, drain.

use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use forebay_access::Gate;
use forebay_link::SubscriberConfig;
use forebay_ops::{
    Metrics, Shutdown,
    admin::{Admin, AdminServer},
    drain::{self, Drain, Remains, TokenSource},
    make_folder, thread,
    tier::{TierError, until_drained},
    tls::TlsServer,
};
use prometheus::Registry;
use tokio::sync::Semaphore;

use crate::{
    config::{self, Config, Exposure},
    feed::Middle,
    feed_link::FeedLink,
    http::{Access, App, Limits, Server, Status, TierPoll},
    lake::Caretaker,
    last::{Keeper, LastValues, restore},
    live::{BufferLimits, Follower, FollowerConfig, Hub, LiveFeed},
    metrics,
    read::LakeFiles,
    registry::{Current, Follows, follow},
    silent,
    sink::{Hold, RangeBuffer, SinkStatus, SinkTask},
    sinks::{self, Sinks},
};

/// How long live readers may take to be told that this process ends, and how often that is looked
/// at.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(1);
const GOODBYE_LOOK: Duration = Duration::from_millis(5);
/// Longest pause between two live readers that are sent away.
const GOODBYE_PAUSE_MAX: Duration = Duration::from_millis(10);

/// Why a storage tier could not start. Nothing of it goes on running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The lake's folder cannot be made or listed.
    #[error("the lake in {dir}: {error}")]
    Lake {
        /// Its folder.
        dir: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The snapshot of last values is there and cannot be read.
    #[error(transparent)]
    Snapshot(#[from] crate::last::SnapshotError),
    /// A store's address is malformed.
    #[error("{key}: {reason}")]
    Store {
        /// The setting.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A middle's address is malformed, or there is no thread for it.
    #[error(transparent)]
    Link(#[from] forebay_link::Error),
    /// The port for readers cannot be bound.
    #[error("listening on {address}: {error}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// Certificates, or the device registry, cannot be read or used.
    #[error(transparent)]
    Watched(#[from] forebay_ops::reload::ReloadError),
    /// A file of credentials is missing or wrong.
    #[error(transparent)]
    Credentials(#[from] forebay_access::GateError),
    /// The admin port cannot be bound.
    #[error(transparent)]
    Admin(#[from] forebay_ops::admin::AdminError),
    /// A metric is registered already: another storage tier uses this registry.
    #[error(transparent)]
    Metrics(#[from] forebay_ops::MetricsError),
    /// The system gave no thread.
    #[error("starting a thread: {0}")]
    Thread(io::Error),
}

/// Where a storage tier listens, with the ports it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// REST, live feed and web page.
    pub http: SocketAddr,
    /// Health, readiness and metrics.
    pub admin: SocketAddr,
}

/// What a drain left behind; all of it is still at the middle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drained {
    /// By sink and middle: entries that were read and not stored, or acked by the store and held
    /// back, where there are any.
    pub unstored: Vec<(String, u64)>,
}

impl Drained {
    /// Whether nothing was left behind.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.unstored.is_empty()
    }

    /// The same in the words of all tiers.
    #[must_use]
    pub fn remains(&self) -> Remains {
        let entries = self.unstored.iter().map(|(_, entries)| entries).sum();
        Remains { entries, ..Remains::default() }
    }
}

/// A storage tier as a drain sees it: live readers are sent away, sinks store what they have read.
struct Leaving {
    sinks: Vec<(Arc<Hold>, Arc<RangeBuffer>, Arc<SinkStatus>)>,
    hub: Option<Arc<Hub>>,
}

impl drain::Tier for Leaving {
    fn close(&self) {
        for (hold, ..) in &self.sinks {
            hold.set();
        }
        if let Some(hub) = self.hub.clone() {
            let count = u32::try_from(hub.clients()).unwrap_or(u32::MAX).max(1);
            let pause = GOODBYE_PAUSE_MAX.min(GOODBYE_TIME_MAX / count);
            let closing = hub.clone();
            if let Err(error) = thread::spawn("live-close", move || closing.close_paced(pause)) {
                tracing::warn!(%error, "live readers are sent away at once");
                hub.close();
            }
        }
    }

    fn open(&self) {
        for (hold, ..) in &self.sinks {
            hold.release();
        }
        if let Some(hub) = &self.hub {
            hub.open();
        }
    }

    fn remains(&self) -> Remains {
        let connections = self.hub.as_ref().map_or(0, |hub| hub.clients()) as u64;
        // Before all was read there is at least one more, if it were only the next to come.
        let left = self.sinks.iter().map(|(hold, buffer, status)| {
            buffer.held().0 + status.held() + u64::from(!hold.is_reached())
        });
        Remains { connections, entries: left.sum(), bytes: 0 }
    }
}

/// Runs a storage tier as this process until the shutdown, and drains it.
///
/// # Errors
/// It did not start.
pub fn run(config: Config, registry: &Registry, shutdown: Shutdown) -> Result<(), TierError> {
    let settings = config.shutdown.clone();
    let running = start(config, registry, shutdown.clone())?;
    until_drained("storage", &settings, &shutdown, |time| Ok(running.drain(time).remains()))
}

/// A running storage tier.
pub struct Running {
    addresses: Addresses,
    sinks: Vec<(String, SinkTask)>,
    followers: Vec<Follower>,
    hub: Option<Arc<Hub>>,
    keeper: Option<Keeper>,
    caretaker: Option<Caretaker>,
    /// Follows the registry while it is held.
    _registry: Option<Follows>,
    /// Readers that may still come, and how many that was at the start.
    clients: (Arc<Semaphore>, usize),
    http: Server,
    admin: AdminServer,
    drain: Drain,
    shutdown: Shutdown,
    ending: Shutdown,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Starts a storage tier: follows the middles, which need not be there yet, and serves readers.
///
/// # Errors
/// [`StartError`]: nothing listens, and what was started is about to end.
pub fn start(
    config: Config,
    registry: &Registry,
    shutdown: Shutdown,
) -> Result<Running, StartError> {
    let ending = Shutdown::new();
    let started = start_all(config, registry, shutdown, ending.clone());
    if started.is_err() {
        ending.begin("storage did not start");
    }
    started
}

/// Says what a human should know of a configuration that holds nevertheless.
fn warn(config: &Config) {
    for exposure in config.exposures() {
        match exposure {
            Exposure::Password { section, host } => tracing::warn!(
                section,
                host,
                "a password crosses the network in the clear: the store is not spoken to over TLS"
            ),
            Exposure::Anybody { section } => tracing::warn!(
                section,
                "anybody who is reached may answer as the store: tls.mode is require"
            ),
        }
    }
}

fn start_all(
    config: Config,
    registry: &Registry,
    shutdown: Shutdown,
    ending: Shutdown,
) -> Result<Running, StartError> {
    // First of all: whoever watches wants to know what a long start is busy with.
    let server = AdminServer::starting(config.admin.address, registry, &shutdown)?;
    let drain = Drain::new("storage", &config.shutdown, &shutdown);
    let mut admin = Admin::new(registry, &shutdown);
    admin.drain(&drain, TokenSource::new(config.admin.token_file.as_deref()));
    warn(&config);
    server.busy("looking at the lake");
    let link = FeedLink::open(&config.feed, &Metrics::new(registry))?;
    let lake = open_lake(&config)?;
    let known = Current::default();
    let watched = follow(&config.registry, &known, &Metrics::new(registry))?;
    let mut context = sinks::Context {
        config: &config,
        metrics: registry,
        link: &link,
        known: &known,
        shutdown: &shutdown,
        admin: &mut admin,
    };
    let Sinks { tasks: sinks, tails } = sinks::start(&mut context, lake.as_ref())?;
    let caretaker = lake.as_ref().map(|files| care(&config, files, registry)).transpose()?;
    let middles: Vec<Middle> =
        config.middles.iter().map(|middle| live_middle(&config, &link, middle)).collect();
    let mut followers = Vec::new();
    let mut keeper = None;
    let mut hub = None;
    if config.live.enabled {
        let last = Arc::new(LastValues::new(config.last.series_max));
        restore(&last, &config.last.snapshot)?;
        let limits = BufferLimits {
            events: config.live.client_events,
            bytes: config.live.client_bytes.as_usize(),
        };
        let made = Hub::new(last.clone(), limits, known.clone());
        metrics::live(registry, &made, &last)?;
        if watched.is_some() {
            let after = config.registry.silent_after.into();
            silent::register(&Metrics::new(registry), known.clone(), last.clone(), after)?;
        }
        for middle in &middles {
            let follower = FollowerConfig { middle: middle.clone(), lake: lake.clone() };
            let follower = Follower::start(follower, made.clone(), ending.clone());
            let follower = follower.map_err(StartError::Thread)?;
            let status = follower.status();
            metrics::follower(registry, &middle.name, status.clone())?;
            admin.ready(format!("live of {}", middle.name), move || {
                if status.is_ended() { Err("it has ended".to_owned()) } else { Ok(()) }
            });
            followers.push(follower);
        }
        let every = config.last.snapshot_every.into();
        let kept = Keeper::start(last, config.last.snapshot.clone(), every);
        keeper = Some(kept.map_err(StartError::Thread)?);
        hub = Some(made);
    }
    let metrics = Metrics::new(registry);
    let access = Access {
        gate: Gate::open(&config.auth, "storage", &metrics)?,
        takes_tokens: config.auth.has_sources(),
        anonymous: config.anonymous(),
        token_in_query: config.auth.token_in_query,
    };
    let tls = &config.http.tls;
    let tls = tls.is_on().then(|| TlsServer::open("http", tls, &metrics)).transpose()?;
    let clients = Arc::new(Semaphore::new(config.live.clients_max));
    let app = App {
        lake,
        tails,
        last: hub.as_ref().map(|hub: &Arc<Hub>| hub.last().clone()),
        registry: known,
        live: hub.clone().map(|hub| LiveFeed {
            hub,
            middles,
            resumes: Arc::new(Semaphore::new(config.live.resumes_max)),
        }),
        clients: clients.clone(),
        queries: Arc::new(Semaphore::new(config.http.queries_max)),
        status: Status::new(registry, tier_polls(&config.http)),
        access,
    };
    let limits = Limits {
        connections_max: config.http.connections_max,
        header_timeout: config.http.header_timeout.into(),
    };
    let address = config.http.address;
    let http = Server::start(address, Arc::new(app), limits, tls)
        .map_err(|error| StartError::Listen { address, error })?;
    server.answer(admin);
    let leaving = Leaving {
        sinks: sinks.iter().map(|(_, task)| (task.hold(), task.buffer(), task.status())).collect(),
        hub: hub.clone(),
    };
    drain.attach(Arc::new(leaving));
    let addresses = Addresses { http: http.address(), admin: server.address() };
    let middle = |middle: &config::Middle| format!("{}={}", middle.name, middle.feed);
    let middles = config.middles.iter().map(middle).collect::<Vec<_>>().join(" ");
    tracing::info!(http = %addresses.http, admin = %addresses.admin, middles, "storage serves");
    let clients = (clients, config.live.clients_max);
    Ok(Running {
        addresses,
        sinks,
        followers,
        hub,
        keeper,
        caretaker,
        _registry: watched,
        clients,
        http,
        admin: server,
        drain,
        shutdown,
        ending,
    })
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// How its sinks stand, by sink and middle.
    pub fn sinks(&self) -> impl Iterator<Item = (&str, Arc<SinkStatus>)> {
        self.sinks.iter().map(|(name, task)| (name.as_str(), task.status()))
    }

    /// Live readers now.
    #[must_use]
    pub fn live_clients(&self) -> usize {
        self.hub.as_ref().map_or(0, |hub| hub.clients())
    }

    /// Blocks until the shutdown begins.
    pub fn join(&self) {
        self.shutdown.wait();
    }

    /// Reads what the middles have by now, stores and commits it, sends live readers away, and
    /// ends; what is not stored by the deadline stays at the middles. Blocks.
    pub fn drain(self, deadline: Duration) -> Drained {
        let until = Instant::now() + deadline;
        // At once: a merge can wait, and sinks need the disk until the deadline.
        if let Some(caretaker) = &self.caretaker {
            caretaker.begin_stop();
        }
        let _ = self.drain.end(deadline);
        self.drain.detach();
        for (_, task) in &self.sinks {
            task.begin_drain();
        }
        let mut unstored = Vec::new();
        for (name, task) in self.sinks {
            let left = task.drain(until);
            if left > 0 {
                tracing::warn!(
                    sink = name,
                    entries = left,
                    "not all is stored; the middle keeps it"
                );
                unstored.push((name, left));
            }
        }
        if let Some(caretaker) = self.caretaker {
            caretaker.stop();
        }
        self.ending.begin("drain of the live feed");
        for follower in self.followers {
            follower.join();
        }
        if let Some(hub) = &self.hub {
            hub.close();
            // Each is told why it is sent away; one that does not listen is not waited for.
            let (clients, clients_max) = &self.clients;
            let until = Instant::now() + GOODBYE_TIME_MAX;
            while clients.available_permits() < *clients_max && Instant::now() < until {
                std::thread::sleep(GOODBYE_LOOK);
            }
        }
        if let Some(keeper) = self.keeper {
            keeper.stop();
        }
        drop(self.http);
        drop(self.admin);
        Drained { unstored }
    }
}

fn open_lake(config: &Config) -> Result<Option<Arc<LakeFiles>>, StartError> {
    if !config.lake.enabled {
        return Ok(None);
    }
    let dir = &config.lake.dir;
    let failed = |error| StartError::Lake { dir: dir.clone(), error };
    make_folder(dir).map_err(failed)?;
    let files = LakeFiles::open(dir).map_err(|error| failed(io::Error::other(error)))?;
    Ok(Some(Arc::new(files)))
}

/// Starts what keeps the lake tidy, after the sinks: they sweep what they left themselves.
fn care(
    config: &Config,
    files: &Arc<LakeFiles>,
    registry: &Registry,
) -> Result<Caretaker, StartError> {
    let config::Lake { compaction, retention, .. } = config.lake.clone();
    let caretaker = Caretaker::start(files.clone(), compaction, retention);
    let caretaker = caretaker.map_err(StartError::Thread)?;
    metrics::lake(registry, caretaker.status())?;
    Ok(caretaker)
}

fn live_middle(config: &Config, link: &FeedLink, middle: &config::Middle) -> Middle {
    let link = SubscriberConfig {
        buffer_bytes: config.live.buffer.as_usize(),
        ..link.subscriber("live".to_owned(), middle)
    };
    Middle::new(&middle.name, link)
}

fn tier_polls(http: &config::Http) -> Vec<TierPoll> {
    let polls = http.tiers.iter();
    polls.map(|(name, admin)| TierPoll { name: name.clone(), admin: admin.clone() }).collect()
}
