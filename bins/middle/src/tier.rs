//! The life of a middle: open, recover, serve, drain.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use forebay_link::{
    FeedPublisher, OnFailure, PublisherConfig, ReceiverConfig, ReplayConfig, ReplayServer,
    UplinkReceiver,
};
use forebay_ops::{
    Metrics, Shutdown,
    admin::{Admin, AdminServer},
    drain::{self, Drain, Remains, TokenSource},
    fatal,
    reload::ReloadError,
    tier::{TierError, ended_early, until_drained},
};
use forebay_queue::{Making, Options, Queue, ReaderStat, Seq as LogSeq};
use forebay_wire::{feed::STORED_PREFIX_BYTES, frame, partition::map_hash};
use prometheus::Registry;

use crate::{
    accounts::Accounts,
    balance::Books,
    clock::Clock,
    collector::Collector,
    config::{Config, Durability},
    consumers::{PREFIX, ReplayLog},
    dedup::Dedup,
    detach::{Detachable, Detacher, PassError},
    feed::LogView,
    gaps::Gaps,
    metrics::{self, Counts, SnapshotMetrics, Sources},
    place,
    recover::{RecoverError, Recovered, recover},
    snapshotter::{Bell, Pace, Snapshotter},
    tls::bind,
};

/// Directory of the log within the middle's.
const LOG_DIR: &str = "log";
/// How long a link's thread may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a middle could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The log cannot be opened or made, or has failed.
    #[error("the log in {dir}: {error}")]
    Queue {
        /// Its directory.
        dir: PathBuf,
        /// What is wrong.
        error: forebay_queue::Error,
    },
    /// What is stored cannot be known.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// What consumers have accounted for cannot be read or kept.
    #[error("the consumers' tallies in {dir}: {error}")]
    Accounts {
        /// Their directory.
        dir: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A port cannot be bound, or there is no thread for it.
    #[error(transparent)]
    Link(#[from] forebay_link::Error),
    /// What consumers were left without cannot be read.
    #[error("reading the gaps of detached consumers: {0}")]
    Gaps(std::io::Error),
    /// The certificates of a port cannot be read or used.
    #[error(transparent)]
    Tls(#[from] ReloadError),
    /// The admin port cannot be bound.
    #[error(transparent)]
    Admin(#[from] forebay_ops::admin::AdminError),
    /// A metric is registered already: another middle uses this registry.
    #[error(transparent)]
    Metrics(#[from] forebay_ops::MetricsError),
    /// The system gave no thread.
    #[error("starting a thread: {0}")]
    Thread(std::io::Error),
}

impl StartError {
    /// Whether it is no fault: the shutdown began while the log was being made.
    #[must_use]
    pub fn is_called_off(&self) -> bool {
        matches!(self, Self::Queue { error: forebay_queue::Error::CalledOff { .. }, .. })
    }
}

/// Where a middle listens, with the ports it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Endpoint for fronts.
    pub uplink: String,
    /// Endpoint of the feed.
    pub feed: String,
    /// Endpoint for fetches and cursors.
    pub fetch: String,
    /// The admin port.
    pub admin: SocketAddr,
}

/// What a drain left behind; all of it is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Drained {
    /// Bytes of the log that each durable consumer has not committed, where there are any.
    pub consumers_behind: Vec<(String, u64)>,
}

impl Drained {
    /// The same in the words of all tiers: what the slowest consumer has not committed.
    #[must_use]
    pub fn remains(&self) -> Remains {
        let behind = self.consumers_behind.iter().map(|(_, bytes)| *bytes);
        Remains { bytes: behind.max().unwrap_or(0), ..Remains::default() }
    }
}

/// A middle as a drain sees it: fronts get no more credit, consumers read what there is.
struct Leaving {
    log: Weak<Queue>,
    closed: Arc<AtomicBool>,
}

impl drain::Tier for Leaving {
    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    fn open(&self) {
        self.closed.store(false, Ordering::Relaxed);
    }

    fn remains(&self) -> Remains {
        let Some(log) = self.log.upgrade() else { return Remains::default() };
        let consumers_behind = consumers_behind(&log, log.appended());
        Drained { consumers_behind }.remains()
    }
}

/// Runs a middle as this process until the shutdown, and drains it.
///
/// # Errors
/// It did not start, or its log could not be closed.
pub fn run(config: Config, registry: &Registry, shutdown: Shutdown) -> Result<(), TierError> {
    let settings = config.shutdown.clone();
    let running = match start(config, registry, shutdown.clone()) {
        Err(error) if error.is_called_off() => {
            ended_early("middle", settings.message.as_deref(), &shutdown, &error);
            return Ok(());
        }
        started => started?,
    };
    until_drained("middle", &settings, &shutdown, |timeout| {
        let drained = running.drain(timeout)?;
        for (consumer, bytes) in &drained.consumers_behind {
            tracing::warn!(consumer, bytes, "a consumer has not caught up; the log keeps it");
        }
        Ok(drained.remains())
    })
}

/// A running middle.
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    log: Arc<Queue>,
    dedup: Arc<Mutex<Dedup>>,
    receiver: UplinkReceiver,
    publisher: FeedPublisher,
    replay: ReplayServer,
    detacher: Detacher,
    snapshotter: Snapshotter,
    admin: AdminServer,
    drain: Drain,
    shutdown: Shutdown,
}

/// Starts a middle: opens its log, finds out what is stored, and listens.
///
/// Returns once it serves. Its threads end the process if the log fails. A shutdown that begins
/// while the log is being made calls that off: [`StartError::is_called_off`].
///
/// # Errors
/// [`StartError`]: nothing listens.
pub fn start(
    config: Config,
    registry: &Registry,
    shutdown: Shutdown,
) -> Result<Running, StartError> {
    // First, for it is what a human gets wrong: nothing is opened yet.
    let links = Links::new(&config, &Metrics::new(registry))?;
    // First of all: making a log takes a while, and whoever watches wants to know.
    let server = AdminServer::starting(config.admin.address, registry, &shutdown)?;
    let drain = Drain::new("middle", &config.shutdown, &shutdown);
    let counts = Arc::new(Counts::register(registry)?);
    let snapshot_metrics = SnapshotMetrics::register(registry)?;
    let log = open_log(&config, &server, &shutdown)?;
    server.busy("finding out what is stored");
    let failed = |error| StartError::Queue { dir: config.queue.dir.clone(), error };
    let Recovered { dedup, snapshots, reader, running, complete } =
        recover(&config.queue.dir, &log, config.dedup.memory_max.as_usize())?;
    let dedup = Arc::new(Mutex::new(dedup));
    let dir = config.queue.dir.clone();
    let unaccounted = |error| StartError::Accounts { dir: dir.clone(), error };
    let accounts = Arc::new(Mutex::new(Accounts::open(&dir).map_err(unaccounted)?));
    let (shared, known) = (Arc::clone(&accounts), Arc::clone(&dedup));
    let gaps = Gaps::open(&config.queue.dir).map_err(StartError::Gaps)?;
    let gaps = Arc::new(Mutex::new(gaps));
    let given_up = Arc::clone(&gaps);
    let consumers = ReplayLog::open(&log, &config.consumers, shared, known, given_up);
    let consumers = consumers.map_err(failed)?;
    consumers.settle().map_err(unaccounted)?;
    let names = &config.consumers.detach;
    let shared = Arc::clone(&accounts);
    let detachable = Detachable::open(&log, names, consumers.readers(), shared, gaps);
    let detachable = Arc::new(detachable.map_err(|error| match error {
        PassError::Accounts(error) => unaccounted(error),
        PassError::Log(error) => failed(error),
    })?);
    let clock = Arc::new(Clock::new(running));
    let bell = Arc::new(Bell::default());
    let closed = Arc::new(AtomicBool::new(false));
    let collector = Collector::new(
        log.clone(),
        Arc::clone(&dedup),
        Arc::clone(&clock),
        counts,
        Arc::clone(&bell),
        Arc::clone(&closed),
    );
    // What is read comes before what writes it: nothing is published that nobody could fetch.
    let replay = ReplayServer::start(links.replay, consumers, ends("fetch"))?;
    let view = LogView::new(&log, log.durable());
    let publisher = FeedPublisher::start(links.publisher, view, ends("feed"))?;
    let receiver = UplinkReceiver::start(links.receiver, collector, ends("uplink"))?;

    let detacher = Detacher::start(Arc::clone(&detachable)).map_err(StartError::Thread)?;
    metrics::detached(registry, names, &detachable)?;
    // Last, for it is the one thread that an error below would leave behind.
    let snapshotter = Snapshotter::start(
        snapshots,
        log.clone(),
        reader,
        Arc::clone(&dedup),
        clock,
        bell,
        pace(&config),
        snapshot_metrics.clone(),
    )
    .map_err(StartError::Thread)?;
    let log = Arc::new(log);
    let books = Books {
        log: Arc::downgrade(&log),
        dedup: Arc::downgrade(&dedup),
        accounts: Arc::downgrade(&accounts),
        detachable: Arc::downgrade(&detachable),
    };
    let sources = Sources {
        books: books.clone(),
        receiver: receiver.stats(),
        publisher: publisher.stats(),
        replay: replay.stats(),
        snapshots: snapshot_metrics,
    };
    sources.register(registry)?;
    for (port, pump) in
        [("uplink", receiver.pump()), ("feed", publisher.pump()), ("fetch", replay.pump())]
    {
        metrics::connections(registry, port, pump)?;
    }
    let mut admin = admin(registry, &shutdown, books, complete);
    admin.drain(&drain, TokenSource::new(config.admin.token_file.as_deref()));
    server.answer(admin);
    drain.attach(Arc::new(Leaving { log: Arc::downgrade(&log), closed }));
    let addresses = Addresses {
        uplink: receiver.endpoint().to_owned(),
        feed: publisher.endpoint().to_owned(),
        fetch: replay.endpoint().to_owned(),
        admin: server.address(),
    };
    tracing::info!(
        uplink = addresses.uplink, feed = addresses.feed, fetch = addresses.fetch,
        admin = %addresses.admin, queue = %log.id(), "middle serves"
    );
    Ok(Running {
        addresses,
        log,
        dedup,
        receiver,
        publisher,
        replay,
        detacher,
        snapshotter,
        admin: server,
        drain,
        shutdown,
    })
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Bytes of the log in use.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.log.stat().used_bytes
    }

    /// Device sessions of which it knows what is stored, and the memory that takes, in bytes.
    #[must_use]
    pub fn sessions(&self) -> (usize, usize) {
        let dedup = self.dedup.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (dedup.table.sessions(), dedup.table.bytes())
    }

    /// Blocks until the shutdown begins.
    pub fn join(&self) {
        self.shutdown.wait();
    }

    /// Takes no more entries, lets the consumers catch up until `deadline` has passed, takes a last
    /// snapshot and closes the log. Blocks.
    ///
    /// # Errors
    /// The log could not be closed: recovery decides at the next start. Nothing acked is lost.
    pub fn drain(self, deadline: Duration) -> Result<Drained, forebay_queue::Error> {
        let _ = self.drain.end(deadline);
        self.drain.detach();
        stopped("uplink", self.receiver.stop(STOP_TIMEOUT));
        let end = self.log.appended();
        stopped("feed", self.publisher.stop(STOP_TIMEOUT));
        stopped("fetch", self.replay.stop(STOP_TIMEOUT));
        drop(self.detacher);
        drop(self.snapshotter);
        drop(self.admin);
        let drained = Drained { consumers_behind: consumers_behind(&self.log, end) };
        let log = Queue::clone(&self.log);
        drop(self.log);
        log.close()?;
        Ok(drained)
    }
}

/// Consumers that have not committed up to `end`, and by how many bytes.
///
/// Before the first append of this epoch, `end` is a number that no entry has: then the bytes say
/// that nobody is behind.
fn consumers_behind(log: &Queue, end: LogSeq) -> Vec<(String, u64)> {
    let is_behind = |reader: &ReaderStat| reader.committed < end && reader.pending_bytes > 0;
    let readers = log.readers().into_iter().filter(is_behind);
    let names = readers.filter_map(|reader| {
        Some((reader.name.strip_prefix(PREFIX)?.to_owned(), reader.pending_bytes))
    });
    names.collect()
}

fn open_log(
    config: &Config,
    admin: &AdminServer,
    shutdown: &Shutdown,
) -> Result<Queue, StartError> {
    let dir = config.queue.dir.join(LOG_DIR);
    let deed = if dir.join("ring").exists() { "opening" } else { "making" };
    admin.busy(format!("{deed} the log, {}", config.queue.capacity));
    let options = Options {
        capacity_bytes: config.queue.capacity.get(),
        entry_bytes_max: (frame::BODY_BYTES_MAX + STORED_PREFIX_BYTES) as u32,
        durability: match config.queue.durability {
            Durability::Process => forebay_queue::Durability::Process,
            Durability::Disk => forebay_queue::Durability::Disk,
        },
        any_filesystem: config.queue.any_filesystem,
        ..Options::default()
    };
    let watch = |making: Making| {
        admin.progress(making.made_bytes, making.total_bytes);
        shutdown.goes_on()
    };
    let log = Queue::open_or_create_with(&dir, &options, watch)
        .map_err(|error| StartError::Queue { dir: dir.clone(), error })?;
    let recovery = log.recovery();
    tracing::info!(
        queue = %log.id(), path = %dir.display(), entries = recovery.entries,
        torn_tail = recovery.torn_tail, corrupt = recovery.corrupt_ranges, "log open"
    );
    if recovery.corrupt_ranges > 0 {
        tracing::error!(
            entries = recovery.entries_lost,
            bytes = recovery.corrupt_bytes,
            "the log was damaged below its durable mark: entries are lost"
        );
    }
    Ok(log)
}

fn pace(config: &Config) -> Pace {
    let seconds = |span: forebay_ops::Duration| u32::try_from(span.as_secs()).unwrap_or(u32::MAX);
    Pace {
        every: config.dedup.snapshot_every.into(),
        retention: seconds(config.dedup.retention),
        source_retention: seconds(config.dedup.source_retention),
    }
}

/// How the three ports are set up.
struct Links {
    receiver: ReceiverConfig,
    publisher: PublisherConfig,
    replay: ReplayConfig,
}

impl Links {
    fn new(config: &Config, metrics: &Metrics) -> Result<Self, ReloadError> {
        let Config { uplink, feed, fetch, .. } = config;
        let names = uplink.partitions.iter().map(String::as_str);
        let (listen, public) = (uplink.listen.as_str(), uplink.allow_public);
        let receiver = ReceiverConfig {
            bind: bind("uplink", listen, public, &uplink.tls, metrics)?,
            partitions: map_hash(names, &uplink.partition),
            window_bytes: uplink.window.as_usize(),
            ..ReceiverConfig::new("collector", listen)
        };
        let publisher = PublisherConfig {
            bind: bind("feed", &feed.listen, feed.allow_public, &feed.tls, metrics)?,
            head_every: feed.head_every.into(),
            ..PublisherConfig::new("publisher", feed.listen.as_str())
        };
        let replay = ReplayConfig {
            bind: bind("fetch", &fetch.listen, fetch.allow_public, &fetch.tls, metrics)?,
            credit_bytes_max: fetch.credit_max.as_usize(),
            ..ReplayConfig::new("replay", fetch.listen.as_str())
        };
        Ok(Self { receiver, publisher, replay })
    }
}

/// A log that fails ends the process: nothing may be acked any more, and recovery decides.
fn ends(link: &'static str) -> OnFailure {
    Box::new(move |error| fatal(format_args!("the middle's {link} ended: {error}")))
}

fn stopped(link: &str, result: Result<(), forebay_link::Error>) {
    if let Err(error) = result {
        tracing::warn!(link, %error, "a link did not end in time, it is left behind");
    }
}

fn admin(registry: &Registry, shutdown: &Shutdown, books: Books, complete: bool) -> Admin {
    let mut admin = Admin::new(registry, shutdown);
    let weak = books.log.clone();
    admin.ready("queue", move || {
        let Some(log) = weak.upgrade() else { return Err("the log is closed".to_owned()) };
        let stat = log.stat();
        // The collector refuses at fifteen sixteenths: fronts then keep their entries.
        let limit = stat.capacity_bytes - stat.capacity_bytes / 16;
        if stat.used_bytes < limit {
            return Ok(());
        }
        Err(format!("no room: {} of {} bytes used", stat.used_bytes, stat.capacity_bytes))
    });
    for path in ["/status", "/v1/status"] {
        let (log, detachable) = (books.log.clone(), books.detachable.clone());
        admin.status(path, move || {
            let both = log.upgrade().zip(detachable.upgrade());
            both.map(|(log, detachable)| place::status(&log, &detachable, complete)).into()
        });
    }
    let (log, dedup) = (books.log.clone(), books.dedup.clone());
    admin.question("/v1/where", move |parameters| {
        let ended = "the middle has ended";
        let (log, dedup) = (log.upgrade().ok_or(ended)?, dedup.upgrade().ok_or(ended)?);
        place::locate(&log, &dedup, parameters)
    });
    admin.status("/v1/balance", move || books.report().into());
    admin
}
