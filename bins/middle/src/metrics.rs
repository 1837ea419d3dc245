//! What a middle counts: `forebay_middle_*`, registered in the registry that is passed in.
//!
//! What the link and the log count themselves is read off them once a scrape. The registry may
//! outlive the tier, so it holds what it reads weakly.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use forebay_link::{Count, PublisherStats, PumpStats, ReceiverStats, ReplayStats};
use forebay_ops::{Metrics, MetricsError};
use forebay_queue::Queue;
use prometheus::{Gauge, Histogram, IntCounter, IntGauge, Registry};

use crate::{balance::Books, clock::wall_us, consumers::PREFIX, dedup::Dedup, detach::Detachable};

/// What the collector counts.
#[derive(Debug)]
pub(crate) struct Counts {
    pub entries: IntCounter,
    pub bytes: IntCounter,
    pub duplicates: IntCounter,
    pub markers: IntCounter,
    pub undecodable: IntCounter,
    pub full: IntCounter,
    pub losses: IntCounter,
    pub lost: IntCounter,
}

impl Counts {
    pub(crate) fn register(registry: &Registry) -> Result<Self, MetricsError> {
        let metrics = Metrics::new(registry);
        Ok(Self {
            entries: metrics.counter("forebay_middle_entries_total", "Entries appended.")?,
            bytes: metrics
                .counter("forebay_middle_entry_bytes_total", "Bytes of the appended entries.")?,
            duplicates: metrics.with_label("kind", "message").counter(
                "forebay_middle_duplicates_total",
                "Entries dropped because they are stored already.",
            )?,
            markers: metrics.counter(
                "forebay_middle_markers_total",
                "Position markers appended after frames that ended in a duplicate.",
            )?,
            undecodable: metrics.counter(
                "forebay_middle_undecodable_total",
                "Entries of an unknown form, appended without a look for duplicates.",
            )?,
            full: metrics.counter(
                "forebay_middle_full_total",
                "Frames pushed back because the log was full.",
            )?,
            losses: metrics.counter(
                "forebay_middle_losses_total",
                "Times a front went on above entries that this middle does not have.",
            )?,
            lost: metrics.counter(
                "forebay_middle_lost_entries_total",
                "Entries lost that way, as far as their number is known.",
            )?,
        })
    }
}

/// What the snapshot thread tells.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotMetrics {
    seconds: Histogram,
    bytes: IntGauge,
    pub failures: IntCounter,
    taken_at: Arc<Mutex<Instant>>,
}

impl SnapshotMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, MetricsError> {
        let metrics = Metrics::new(registry);
        Ok(Self {
            seconds: metrics.latency(
                "forebay_middle_snapshot_seconds",
                "Time to take a dedup snapshot, syncs included.",
            )?,
            bytes: metrics
                .gauge("forebay_middle_snapshot_bytes", "Size of the last dedup snapshot.")?,
            failures: metrics.counter(
                "forebay_middle_snapshot_failures_total",
                "Dedup snapshots that could not be written.",
            )?,
            taken_at: Arc::new(Mutex::new(Instant::now())),
        })
    }

    /// A snapshot of so many bytes took so long.
    pub(crate) fn taken(&self, took: Duration, bytes: u64) {
        self.seconds.observe(took.as_secs_f64());
        self.bytes.set(bytes as i64);
        *self.taken_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Time since the last snapshot, or since the start.
    pub(crate) fn age(&self) -> Duration {
        self.taken_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// What is read off at a scrape.
pub(crate) struct Sources {
    pub books: Books,
    pub receiver: Arc<ReceiverStats>,
    pub publisher: Arc<PublisherStats>,
    pub replay: Arc<ReplayStats>,
    pub snapshots: SnapshotMetrics,
}

impl Sources {
    /// Registers everything that is read off at a scrape.
    pub(crate) fn register(self, registry: &Registry) -> Result<(), MetricsError> {
        let metrics = Metrics::new(registry);
        uplink(&metrics, self.receiver)?;
        feed(&metrics, self.publisher, self.replay)?;
        queue(&metrics, self.books.log.clone())?;
        dedup(&metrics, self.books.dedup.clone(), self.snapshots)?;
        balance(&metrics, self.books)
    }
}

fn uplink(metrics: &Metrics, receiver: Arc<ReceiverStats>) -> Result<(), MetricsError> {
    let mut repeats = metrics.with_label("kind", "uplink").scrape();
    let repeated = repeats.total(
        "forebay_middle_duplicates_total",
        "Entries dropped because they are stored already.",
    )?;
    let stats = Arc::clone(&receiver);
    repeats.register(move || repeated.set(stats.repeated.get()))?;

    let mut scrape = metrics.scrape();
    let sources = scrape.gauge("forebay_middle_sources", "Fronts with an open session.")?;
    let sessions =
        scrape.total("forebay_middle_source_sessions_total", "Sessions opened by fronts.")?;
    let frames = scrape.total("forebay_middle_frames_total", "Frames of entries taken.")?;
    let gaps = scrape.total("forebay_middle_gaps_total", "Frames refused because of a gap.")?;
    let refused = scrape.total(
        "forebay_middle_refused_total",
        "Sessions refused: another partition map, version or level.",
    )?;
    let malformed =
        scrape.total("forebay_middle_malformed_total", "Uplink frames that made no sense.")?;
    scrape.register(move || {
        sources.set(receiver.sources.get() as i64);
        sessions.set(receiver.sessions.get());
        frames.set(receiver.batches.get());
        gaps.set(receiver.gaps.get());
        refused.set(receiver.refused.get());
        malformed.set(receiver.malformed.get());
    })
}

/// Registers what happens at a port, read off the pump before it; nothing for a Unix socket.
///
/// # Errors
/// It is registered already.
pub(crate) fn connections(
    registry: &Registry,
    port: &str,
    pump: Option<Arc<PumpStats>>,
) -> Result<(), MetricsError> {
    let Some(pump) = pump else { return Ok(()) };
    let metrics = Metrics::new(registry).with_label("port", port);
    for (reason, count) in [
        ("crowded", (|pump| &pump.refused) as fn(&PumpStats) -> &Count),
        ("late", |pump| &pump.late),
        ("untrusted", |pump| &pump.untrusted),
        ("violation", |pump| &pump.violations),
        ("behind", |pump| &pump.behind),
    ] {
        let mut scrape = metrics.with_label("reason", reason).scrape();
        let closed = scrape.total(
            "forebay_middle_connections_closed_total",
            "Connections closed by this end: too many, a late handshake, no good certificate, a \
             frame against the rules, too much waiting for it.",
        )?;
        let pump = Arc::clone(&pump);
        scrape.register(move || closed.set(count(&pump).get()))?;
    }
    let mut scrape = metrics.scrape();
    let open = scrape.gauge("forebay_middle_connections", "Connections open.")?;
    let accepted =
        scrape.total("forebay_middle_connections_accepted_total", "Connections accepted.")?;
    scrape.register(move || {
        open.set(pump.open.get() as i64);
        accepted.set(pump.accepted.get());
    })
}

/// Registers what consumers were left without that may be detached.
///
/// # Errors
/// It is registered already.
pub(crate) fn detached(
    registry: &Registry,
    names: &[String],
    detachable: &Arc<Detachable>,
) -> Result<(), MetricsError> {
    for name in names {
        let mut scrape = Metrics::new(registry).with_label("consumer", name).scrape();
        let detached = scrape.gauge(
            "forebay_middle_consumer_detached",
            "1 while a consumer is left behind and has not come back to what is left of the log.",
        )?;
        let entries = scrape.total(
            "forebay_middle_detached_entries_total",
            "Entries given up for a detached consumer, over restarts; position markers count.",
        )?;
        let bytes = scrape
            .total("forebay_middle_detached_bytes_total", "Bytes of the log that these took.")?;
        let (name, source) = (name.clone(), Arc::downgrade(detachable));
        scrape.register(move || {
            let Some(source) = source.upgrade() else { return };
            let standings = source.standings();
            let Some(standing) = standings.iter().find(|one| one.consumer == name) else { return };
            detached.set(i64::from(standing.detached));
            entries.set(standing.lost.entries);
            bytes.set(standing.lost.bytes);
        })?;
    }
    Ok(())
}

fn feed(
    metrics: &Metrics,
    publisher: Arc<PublisherStats>,
    replay: Arc<ReplayStats>,
) -> Result<(), MetricsError> {
    let mut scrape = metrics.scrape();
    let published = scrape.total("forebay_middle_published_entries_total", "Entries published.")?;
    let published_bytes = scrape.total(
        "forebay_middle_published_bytes_total",
        "Bytes published, whatever the number of subscribers.",
    )?;
    let fetches = scrape.total("forebay_middle_fetches_total", "Fetches answered.")?;
    let fetched = scrape.total("forebay_middle_fetched_entries_total", "Entries sent by fetch.")?;
    let fetched_bytes =
        scrape.total("forebay_middle_fetched_bytes_total", "Bytes sent by fetch.")?;
    let claims =
        scrape.total("forebay_middle_consumer_sessions_total", "Sessions granted to consumers.")?;
    let prepares =
        scrape.total("forebay_middle_prepares_total", "Ranges announced by consumers.")?;
    let commits =
        scrape.total("forebay_middle_commits_total", "Commits of consumers made durable.")?;
    let fenced = scrape.total(
        "forebay_middle_fenced_total",
        "Requests of consumer sessions that a newer one had replaced.",
    )?;
    scrape.register(move || {
        published.set(publisher.records.get());
        published_bytes.set(publisher.bytes.get());
        fetches.set(replay.fetches.get());
        fetched.set(replay.records.get());
        fetched_bytes.set(replay.bytes.get());
        claims.set(replay.sessions.get());
        prepares.set(replay.prepares.get());
        commits.set(replay.commits.get());
        fenced.set(replay.fenced.get());
    })
}

fn queue(metrics: &Metrics, log: Weak<Queue>) -> Result<(), MetricsError> {
    let mut scrape = metrics.scrape();
    let lag = scrape.gauges(
        "forebay_middle_consumer_lag_bytes",
        "Bytes of the log that a durable consumer has not committed.",
        &["consumer"],
    )?;
    let capacity = scrape.gauge("forebay_middle_queue_capacity_bytes", "Bytes of the log.")?;
    let used = scrape.gauge("forebay_middle_queue_used_bytes", "Bytes not yet reclaimed.")?;
    let unproven = scrape.gauge(
        "forebay_middle_queue_unproven_bytes",
        "Bytes of the log that are held until a dedup snapshot proves them.",
    )?;
    let oldest: Gauge = scrape.gauge_float(
        "forebay_middle_queue_oldest_age_seconds",
        "Age of the oldest entry that the slowest reader has not committed.",
    )?;
    let syncs = scrape.total("forebay_middle_queue_syncs_total", "Syncs of the log.")?;
    let sync_time = scrape.total_float(
        "forebay_middle_queue_sync_seconds_total",
        "Time spent in syncs of the log.",
    )?;
    let corrupt = scrape
        .total("forebay_middle_queue_corrupt_total", "Damaged ranges met since the start.")?;
    scrape.register(move || {
        let Some(log) = log.upgrade() else { return };
        let stat = log.stat();
        capacity.set(stat.capacity_bytes as i64);
        used.set(stat.used_bytes as i64);
        oldest.set(stat.oldest_age_us(wall_us()) as f64 / 1e6);
        syncs.set(stat.syncs_total);
        sync_time.set(stat.sync_nanos_total as f64 / 1e9);
        corrupt.set(stat.corrupt_total);
        for reader in &stat.readers {
            let pending = reader.pending_bytes as i64;
            match reader.name.strip_prefix(PREFIX) {
                Some(consumer) => lag.with_label_values(&[consumer]).set(pending),
                None => unproven.set(pending),
            }
        }
    })
}

fn balance(metrics: &Metrics, books: Books) -> Result<(), MetricsError> {
    let mut scrape = metrics.scrape();
    let held = scrape.gauges(
        "forebay_middle_held_messages",
        "Messages that a durable consumer has not committed.",
        &["consumer"],
    )?;
    let missing = scrape.gauges(
        "forebay_middle_missing_messages",
        "Messages that the log had, no gap of a detached consumer names, and a durable consumer \
         never got; not 0 is a loss, or below 0 a message too many.",
        &["consumer"],
    )?;
    let missing_rows = scrape.gauges(
        "forebay_middle_missing_rows",
        "Rows that a durable consumer made and neither stored nor set aside; not 0 is a loss, or \
         below 0 a row too many.",
        &["consumer"],
    )?;
    let rows = scrape.gauges(
        "forebay_middle_consumer_rows",
        "Rows that a durable consumer has accounted for since its beginning, over all restarts.",
        &["consumer", "fate"],
    )?;
    let uncounted = scrape.gauge(
        "forebay_middle_uncounted_consumers",
        "Durable consumers that keep no tally, or joined later and have not passed yet what was the \
         log's end at one of their commits.",
    )?;
    let mut fates = Vec::new();
    for fate in ["appended", "duplicate", "lost"] {
        let mut scrape = metrics.with_label("fate", fate).scrape();
        let total = scrape.total(
            "forebay_middle_received_messages_total",
            "Messages that fronts have sent since the log was made, over all restarts.",
        )?;
        fates.push((scrape, total));
    }
    let ledgers = books.clone();
    scrape.register(move || {
        let Some((_, standings)) = books.standings() else { return };
        let known = standings.iter().filter_map(|one| Some((&one.consumer, one.counted?)));
        let mut counted = 0;
        for (consumer, one) in known {
            counted += 1;
            let name = &[consumer.as_str()];
            held.with_label_values(name).set(one.held as i64);
            missing.with_label_values(name).set(one.missing_messages);
            missing_rows.with_label_values(name).set(one.missing_rows);
            for (fate, figure) in [
                ("stored", one.tally.stored),
                ("dead", one.tally.dead),
                ("left_out", one.tally.left_out),
            ] {
                rows.with_label_values(&[consumer, fate]).set(figure as i64);
            }
        }
        uncounted.set((standings.len() - counted) as i64);
    })?;
    for (number, (scrape, total)) in fates.into_iter().enumerate() {
        let books = ledgers.clone();
        scrape.register(move || {
            let Some(ledger) = books.ledger() else { return };
            total.set([ledger.entries, ledger.duplicates, ledger.lost][number]);
        })?;
    }
    Ok(())
}

fn dedup(
    metrics: &Metrics,
    dedup: Weak<Mutex<Dedup>>,
    snapshots: SnapshotMetrics,
) -> Result<(), MetricsError> {
    let mut scrape = metrics.scrape();
    let sessions = scrape.gauge("forebay_middle_dedup_sessions", "Device sessions known.")?;
    let bytes = scrape.gauge("forebay_middle_dedup_bytes", "Memory they take.")?;
    let queues = scrape.gauge("forebay_middle_dedup_sources", "Front queues known.")?;
    let expired = scrape.total(
        "forebay_middle_dedup_expired_total",
        "Device sessions forgotten after the retention.",
    )?;
    let evicted = scrape.total(
        "forebay_middle_dedup_evicted_total",
        "Device sessions forgotten early, because memory was used up.",
    )?;
    let holes = scrape.total(
        "forebay_middle_dedup_evicted_ranges_total",
        "Ranges forgotten of sessions with too many holes.",
    )?;
    let age = scrape.gauge_float(
        "forebay_middle_snapshot_age_seconds",
        "Time since the last dedup snapshot, or since the start.",
    )?;
    scrape.register(move || {
        age.set(snapshots.age().as_secs_f64());
        let Some(dedup) = dedup.upgrade() else { return };
        let dedup = dedup.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = dedup.table.forgotten();
        sessions.set(dedup.table.sessions() as i64);
        bytes.set(dedup.table.bytes() as i64);
        queues.set(dedup.sources.iter().len() as i64);
        expired.set(forgotten.expired_sessions);
        evicted.set(forgotten.evicted_sessions);
        holes.set(forgotten.evicted_ranges);
    })
}
