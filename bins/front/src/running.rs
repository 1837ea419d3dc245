//! Starting a front, and ending it.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use forebay_access::Gate;
use forebay_link::{ConnectTls, Level as LinkLevel, SenderConfig};
use forebay_ops::{
    Faults, Metrics, Shutdown, Validate as _,
    admin::{self, Admin, AdminServer},
    drain::{Drain, Remains, TokenSource},
    thread,
    tier::{TierError, ended_early, until_drained},
    tls::TlsServer,
};
use forebay_queue::Making;
use forebay_wire::partition;
use prometheus::Registry;
use tokio::sync::{mpsc, watch};

use crate::{
    ForwarderError,
    acceptor::{self, Door},
    addresses::AddressCounts,
    config::{Config, Durability, Level},
    core,
    devices::Devices,
    forwarder::Forwarder,
    front::{Connections, Front, Leaving, Phase},
    metrics::{self, FrontMetrics},
    place,
    registry::Edge,
    rings::Ring,
    tenancy::Policy,
    tenants::Tenants,
    uplink_tls,
};

/// Connections that wait for a core while all its handshakes are taken.
const ARRIVALS_MAX: usize = 16;

/// How long what follows a frame to the middle that was not full waits for company. Far below what
/// the middle and storage take; nobody waits for it unless acks do.
const FORWARD_REST: Duration = Duration::from_millis(1);

/// Longest time a forwarder gets to end its thread.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);

/// Why a front did not start. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration contradicts itself; all its faults.
    #[error("{0}")]
    Config(Faults),
    /// A ring could not be opened.
    #[error("ring of partition {partition}: {source}")]
    Ring {
        /// Which partition.
        partition: String,
        /// What the queue said.
        source: forebay_queue::Error,
    },
    /// A forwarder could not be started.
    #[error("forwarder of partition {partition}: {source}")]
    Forwarder {
        /// Which partition.
        partition: String,
        /// What it said.
        source: ForwarderError,
    },
    /// The WebSocket port could not be bound.
    #[error("listening on {address}: {source}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Certificates, or the device registry, cannot be read or used.
    #[error(transparent)]
    Watched(#[from] forebay_ops::reload::ReloadError),
    /// The admin server could not be started.
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
    /// A file of credentials is missing or wrong.
    #[error(transparent)]
    Credentials(#[from] forebay_access::GateError),
    /// Another front of this process uses the same registry.
    #[error(transparent)]
    Metrics(#[from] forebay_ops::MetricsError),
    /// The system gave no thread.
    #[error("starting a thread: {0}")]
    Thread(#[source] io::Error),
}

impl StartError {
    /// Whether it is no fault: the shutdown began while a ring was being made.
    #[must_use]
    pub fn is_called_off(&self) -> bool {
        matches!(self, Self::Ring { source: forebay_queue::Error::CalledOff { .. }, .. })
    }
}

/// Where a front listens, with the ports it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// WebSockets of devices.
    pub ingest: SocketAddr,
    /// Health, readiness and metrics.
    pub admin: SocketAddr,
}

/// What a drain left behind; all of it is in the rings and is sent after the next start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Connections that had not ended.
    pub connections: usize,
    /// Entries that the middle has not acked.
    pub entries: u64,
    /// Bytes they take in the rings.
    pub bytes: u64,
}

impl Drained {
    /// Whether nothing was left behind.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        *self == Self::default()
    }

    /// The same in the words of all tiers.
    #[must_use]
    pub fn remains(&self) -> Remains {
        let Self { connections, entries, bytes } = *self;
        Remains { connections: connections as u64, entries, bytes }
    }
}

/// A running front.
pub struct Running {
    addresses: Addresses,
    front: Arc<Front>,
    threads: Vec<JoinHandle<()>>,
    forwarders: Vec<Forwarder>,
    admin: AdminServer,
    drain: Drain,
    shutdown: Shutdown,
}

/// Starts a front and returns once devices can connect.
///
/// Metrics go to `registry`, one front a registry. The readiness of the admin server follows
/// `shutdown`; ending the front is the caller's, by [`Running::drain`]. A shutdown that begins while
/// a ring is being made calls that off: [`StartError::is_called_off`].
///
/// A ring that fails later ends the process: what it holds is decided by the next start.
///
/// # Errors
/// [`StartError`]: nothing is left running.
pub fn start(
    config: Config,
    registry: &Registry,
    shutdown: &Shutdown,
) -> Result<Running, StartError> {
    let mut faults = Faults::default();
    config.validate(&mut faults);
    if !faults.is_empty() {
        return Err(StartError::Config(faults));
    }
    warn(&config);
    // First of all: making a ring takes a while, and whoever watches wants to know.
    let admin = AdminServer::starting(config.admin.address, registry, shutdown)?;
    let drain = Drain::new("front", &config.shutdown, shutdown);
    let listener = acceptor::bind(&config.listen)
        .and_then(|listener| Ok((listener.local_addr()?, listener)))
        .map_err(|source| StartError::Listen { address: config.listen.address, source })?;
    let (ingest, listener) = listener;
    let policy = policy(&config, registry)?;
    let rings = open_rings(&config, &admin, shutdown)?;
    let front = Arc::new(Front {
        devices: Devices::new(),
        tenants: Tenants::new(&config, rings.len()),
        addresses: AddressCounts::new(config.limits.connections_per_address),
        pending: Connections::default(),
        policy,
        edge: Edge::open(&config.registry, &Metrics::new(registry))?,
        metrics: FrontMetrics::new(registry)?,
        connections: Connections::default(),
        phase: watch::Sender::new(Phase::Running),
        started: Instant::now(),
        rings,
        config,
    });
    front.tenants.expect(front.policy.gate.tenants());
    metrics::register_rings(registry, &front)?;
    let tls = uplink_tls::connect(&front.config.uplink.tls, &Metrics::new(registry))?;
    let forwarders = start_forwarders(&front, tls.as_ref())?;
    metrics::register_forwarders(registry, &front, &forwarders)?;
    admin.answer(answers(&front, registry, shutdown, &drain));
    drain.attach(Arc::new(Leaving(Arc::clone(&front))));
    let addresses = Addresses { ingest, admin: admin.address() };
    let shutdown = shutdown.clone();
    let mut running =
        Running { addresses, front, threads: Vec::new(), forwarders, admin, drain, shutdown };
    // From here on an error ends what runs, as `running` is dropped.
    running.start_threads(listener).map_err(StartError::Thread)?;
    let middles = front_middles(&running.front.config);
    tracing::info!(
        %ingest, middles, admin = %addresses.admin, level = ?running.front.config.ack.level,
        partitions = running.front.rings.len(), "front ready"
    );
    Ok(running)
}

/// The middles that this front sends to, for its first lines.
fn front_middles(config: &Config) -> String {
    let middles = config.uplink.middles().into_iter();
    middles.map(|(name, address)| format!("{name}={address}")).collect::<Vec<_>>().join(" ")
}

/// Runs a front as this process until the shutdown, and drains it.
///
/// # Errors
/// It did not start.
pub fn run(config: Config, registry: &Registry, shutdown: &Shutdown) -> Result<(), TierError> {
    let settings = config.shutdown.clone();
    let running = match start(config, registry, shutdown) {
        Err(error) if error.is_called_off() => {
            ended_early("front", settings.message.as_deref(), shutdown, &error);
            return Ok(());
        }
        started => started?,
    };
    until_drained("front", &settings, shutdown, |timeout| Ok(running.drain(timeout).remains()))
}

/// Says what a human should know of a configuration that holds nevertheless.
fn warn(config: &Config) {
    let address = config.listen.address;
    if config.anonymous() && !address.ip().is_loopback() {
        tracing::warn!(
            %address, "anonymous mode beyond loopback: whoever reaches the port writes as any device"
        );
    }
    if config.has_credentials() && !config.tls.is_on() && !address.ip().is_loopback() {
        tracing::warn!(
            %address, "credentials cross the network in the clear unless a proxy before this port speaks TLS"
        );
    }
    if config.durability() == Durability::Process {
        tracing::warn!(
            level = ?config.ack.level,
            "the rings survive the process but not the machine: durability is process"
        );
    }
}

fn policy(config: &Config, registry: &Registry) -> Result<Policy, StartError> {
    let metrics = Metrics::new(registry);
    let tls = config.tls.is_on().then(|| TlsServer::open("front", &config.tls, &metrics));
    Ok(Policy {
        anonymous: config.anonymous(),
        first_message: config.handshake.first_message,
        takes_tokens: config.auth.has_sources(),
        gate: Gate::open(&config.auth, "front", &metrics)?,
        tls: tls.transpose()?,
    })
}

fn open_rings(
    config: &Config,
    admin: &AdminServer,
    shutdown: &Shutdown,
) -> Result<Vec<Ring>, StartError> {
    let open = |(name, _): (String, String)| {
        let deed = if Ring::exists(&name, config) { "opening" } else { "making" };
        admin.busy(format!("{deed} the ring of partition {name}, {}", config.queue.capacity));
        let watch = |making: Making| {
            admin.progress(making.made_bytes, making.total_bytes);
            shutdown.goes_on()
        };
        Ring::open(&name, config, watch)
            .map_err(|source| StartError::Ring { partition: name, source })
    };
    config.uplink.middles().into_iter().map(open).collect()
}

fn start_forwarders(front: &Front, tls: Option<&ConnectTls>) -> Result<Vec<Forwarder>, StartError> {
    let middles = front.config.uplink.middles();
    let level = match front.config.required_of_middle() {
        Durability::Process => LinkLevel::Process,
        Durability::Disk => LinkLevel::Disk,
    };
    let rest = match front.config.ack.level {
        Level::Middle => Duration::ZERO,
        Level::Process | Level::Disk => FORWARD_REST,
    };
    let start = |((name, endpoint), ring): (&(String, String), &Ring)| {
        let names = middles.iter().map(|(name, _)| name.as_str());
        let mut config = SenderConfig {
            level,
            partitions: partition::map_hash(names, name),
            ..SenderConfig::new(format!("front-up-{name}"), endpoint.clone())
        };
        config.connect.tls = tls.cloned();
        let on_failure = Box::new(|error| {
            forebay_ops::fatal(format_args!("the forwarder failed: {error}"));
        });
        Forwarder::start(config, &ring.queue, Arc::clone(&ring.acked), rest, on_failure)
            .map_err(|source| StartError::Forwarder { partition: name.clone(), source })
    };
    middles.iter().zip(&front.rings).map(start).collect()
}

/// What the admin server answers once the front serves.
fn answers(front: &Arc<Front>, registry: &Registry, shutdown: &Shutdown, drain: &Drain) -> Admin {
    let mut admin = Admin::new(registry, shutdown);
    admin.drain(drain, TokenSource::new(front.config.admin.token_file.as_deref()));
    for (number, ring) in front.rings.iter().enumerate() {
        let front = Arc::downgrade(front);
        // Whether the middle is there does not matter: its absence is what the ring is for.
        admin.ready(format!("queue {}", ring.name), move || match front.upgrade() {
            Some(front) if front.rings[number].has_room() => Ok(()),
            Some(_) => Err("the ring is full".to_owned()),
            None => Err("ended".to_owned()),
        });
    }
    let shown = Arc::downgrade(front);
    admin.status("/v1/status", move || shown.upgrade().map(|front| place::status(&front)).into());
    let asked = Arc::downgrade(front);
    admin.question("/v1/where", move |parameters| {
        let front = asked.upgrade().ok_or("the front has ended")?;
        place::locate(&front, parameters)
    });
    admin
}

impl Running {
    fn start_threads(&mut self, listener: std::net::TcpListener) -> io::Result<()> {
        let cores = match self.front.config.listen.cores {
            Some(cores) => usize::from(cores),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let mut doors = Vec::with_capacity(cores);
        for number in 0..cores {
            let (arrivals, arriving) = mpsc::channel(ARRIVALS_MAX);
            doors.push(Door { arrivals, load: Arc::default() });
            let (front, phase) = (Arc::clone(&self.front), self.front.phase.subscribe());
            let work = move || core::run(front, arriving, phase);
            self.threads.push(thread::spawn_async(format!("front-{number}"), work)?);
        }
        let (front, phase) = (Arc::clone(&self.front), self.front.phase.subscribe());
        let work = move || acceptor::run(front, listener, doors, phase);
        self.threads.push(thread::spawn_async("front-accept", work)?);
        Ok(())
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The state of each ring at this moment, by the name of its partition.
    #[must_use]
    pub fn queues(&self) -> Vec<(String, forebay_queue::Stat)> {
        self.front.rings.iter().map(|ring| (ring.name.clone(), ring.queue.stat())).collect()
    }

    /// Connections at this moment, those in a handshake included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.front.connections.count()
    }

    /// Ends the front with as little left behind as `deadline` allows.
    ///
    /// It is not ready at once, settles, refuses new devices, closes the connections one after
    /// another with 1012, and then waits until the middle has acked what the rings hold.
    #[must_use = "what was left behind belongs into the log"]
    pub fn drain(mut self, deadline: Duration) -> Drained {
        let Remains { connections, entries, bytes } = self.drain.end(deadline);
        let connections = usize::try_from(connections).unwrap_or(usize::MAX);
        let drained = Drained { connections, entries, bytes };
        self.end();
        tracing::info!(
            connections = drained.connections,
            entries = drained.entries,
            bytes = drained.bytes,
            "front drained; what is left is sent after the next start"
        );
        drained
    }

    /// Blocks until the shutdown begins.
    pub fn join(&self) {
        self.shutdown.wait();
    }

    /// Ends the front at once: connections drop, the rings keep what the middle has not acked.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.front.phase.send_replace(Phase::Stopped);
        self.drain.detach();
        for thread in self.threads.drain(..) {
            // A panic has ended the process already.
            let _ = thread.join();
        }
        for forwarder in self.forwarders.drain(..) {
            if let Err(error) = forwarder.stop(STOP_TIME_MAX) {
                tracing::warn!(%error, "a forwarder did not end in time");
            }
        }
        for ring in &self.front.rings {
            if let Err(error) = ring.queue.clone().close() {
                tracing::error!(partition = ring.name, %error, "the ring did not close well");
            }
        }
        tracing::debug!(admin = %self.admin.address(), "front ended");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
