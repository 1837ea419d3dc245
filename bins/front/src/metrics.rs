//! What a front counts: `forebay_front_*`.
//!
//! Counters are added to once a batch. The histograms have a local copy on each core, which the
//! core's sweep hands over: a shared one would be touched by every core for every ack.

use std::{sync::Arc, time::Duration};

use forebay_ops::metrics::{Metrics, MetricsError, count_buckets};
use forebay_queue::Seq;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, Registry, local::LocalHistogram};

use crate::{forwarder::Forwarder, front::Front};

/// The metrics that all cores share.
pub(crate) struct FrontMetrics {
    /// Connections past their handshake.
    pub connections: IntGauge,
    /// Handshakes by outcome.
    pub handshakes: IntCounterVec,
    /// Messages appended.
    pub messages: IntCounter,
    /// Bytes of those messages as they were received.
    pub bytes: IntCounter,
    /// Messages that were appended before in the same session.
    pub duplicates: IntCounter,
    /// Acks sent.
    pub acks: IntCounter,
    /// Nacks sent, by code.
    pub nacks: IntCounterVec,
    /// Messages rejected, by code.
    pub rejects: IntCounterVec,
    /// Connections closed by the front, by close code.
    pub closes: IntCounterVec,
    /// Connections that ended without a close frame of ours.
    pub gone: IntCounter,
    /// Times a socket was not read because there was no room.
    pub pauses: IntCounter,
    append: Histogram,
    ack: Histogram,
    batch: Histogram,
}

impl FrontMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// Another front of this process uses the same registry.
    pub(crate) fn new(registry: &Registry) -> Result<Self, MetricsError> {
        let metrics = Metrics::new(registry);
        Ok(Self {
            connections: metrics
                .gauge("forebay_front_connections", "Device connections past their handshake.")?,
            handshakes: metrics.counters(
                "forebay_front_handshakes_total",
                "Handshakes by outcome: opened, gone, or why they were refused.",
                &["outcome"],
            )?,
            messages: metrics
                .counter("forebay_front_messages_total", "Messages of devices appended.")?,
            bytes: metrics.counter(
                "forebay_front_message_bytes_total",
                "Bytes of the appended messages as received.",
            )?,
            duplicates: metrics.counter(
                "forebay_front_duplicates_total",
                "Messages that this connection had appended or acked before.",
            )?,
            acks: metrics.counter(
                "forebay_front_acks_total",
                "Acks sent, each for all messages up to it.",
            )?,
            nacks: metrics.counters(
                "forebay_front_nacks_total",
                "Nacks sent: messages not taken for now.",
                &["code"],
            )?,
            rejects: metrics.counters(
                "forebay_front_rejects_total",
                "Messages refused for good.",
                &["code"],
            )?,
            closes: metrics.counters(
                "forebay_front_closes_total",
                "Connections closed by the front.",
                &["code"],
            )?,
            gone: metrics.counter(
                "forebay_front_gone_total",
                "Connections that ended without a close of the front.",
            )?,
            pauses: metrics.counter(
                "forebay_front_read_pauses_total",
                "Times a socket was not read because its ring was full.",
            )?,
            append: metrics.latency(
                "forebay_front_append_seconds",
                "Time to append the messages of one read of a socket.",
            )?,
            ack: metrics.latency(
                "forebay_front_ack_seconds",
                "Time from the append to the ack's level being reached.",
            )?,
            batch: metrics.histogram(
                "forebay_front_batch_messages",
                "Messages appended at once.",
                count_buckets(),
            )?,
        })
    }

    /// A handshake ended with `outcome`.
    pub(crate) fn handshake(&self, outcome: &str) {
        self.handshakes.with_label_values(&[outcome]).inc();
    }
}

/// The histograms of one core.
pub(crate) struct Local {
    append: LocalHistogram,
    ack: LocalHistogram,
    batch: LocalHistogram,
}

impl Local {
    pub(crate) fn new(metrics: &FrontMetrics) -> Self {
        Self {
            append: metrics.append.local(),
            ack: metrics.ack.local(),
            batch: metrics.batch.local(),
        }
    }

    /// `messages` were appended at once in `took`.
    pub(crate) fn append(&self, messages: usize, took: Duration) {
        self.append.observe(took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        self.batch.observe(messages as f64);
    }

    /// Messages reached the ack's level `took` after their append.
    pub(crate) fn ack(&self, took: Duration) {
        self.ack.observe(took.as_secs_f64());
    }

    /// Adds what this core saw to what is scraped.
    pub(crate) fn flush(&self) {
        self.append.flush();
        self.ack.flush();
        self.batch.flush();
    }
}

/// Registers the gauges of all rings, read off them at each scrape.
///
/// The registry may outlive the front and does not keep its rings open.
///
/// # Errors
/// As [`FrontMetrics::new`].
pub(crate) fn register_rings(registry: &Registry, front: &Arc<Front>) -> Result<(), MetricsError> {
    (0..front.rings.len()).try_for_each(|number| register_ring(registry, front, number))
}

fn register_ring(
    registry: &Registry,
    front: &Arc<Front>,
    number: usize,
) -> Result<(), MetricsError> {
    let ring = &front.rings[number];
    let metrics = Metrics::new(registry).with_label("partition", ring.name.clone());
    let mut scrape = metrics.scrape();
    let entries = scrape.gauge(
        "forebay_front_queue_entries",
        "Entries appended and not yet durable in the middle.",
    )?;
    let pending = scrape
        .gauge("forebay_front_queue_pending_bytes", "Bytes not yet durable in the middle.")?;
    let used = scrape.gauge("forebay_front_queue_used_bytes", "Bytes not yet reclaimed.")?;
    let capacity = scrape.gauge("forebay_front_queue_capacity_bytes", "Bytes of the ring.")?;
    let oldest = scrape.gauge_float(
        "forebay_front_queue_oldest_age_seconds",
        "Age of the oldest entry that is not yet durable in the middle.",
    )?;
    let full = scrape
        .total("forebay_front_queue_full_total", "Appends refused because of a full ring.")?;
    let syncs = scrape.total("forebay_front_queue_syncs_total", "Syncs of the ring.")?;
    let sync_time = scrape.total_float(
        "forebay_front_queue_sync_seconds_total",
        "Time spent in syncs of the ring.",
    )?;
    let corrupt = scrape.total(
        "forebay_front_queue_corrupt_total",
        "Damaged ranges met in the ring since the start.",
    )?;
    let recovered = ring.queue.recovery().entries;
    let front = Arc::downgrade(front);
    scrape.register(move || {
        let Some(front) = front.upgrade() else { return };
        let stat = front.rings[number].queue.stat();
        let committed = stat.readers.iter().map(|reader| reader.committed).min();
        let left = if stat.pending_bytes == 0 {
            0
        } else {
            entries_left(stat.appended, committed.unwrap_or(Seq::NONE), recovered)
        };
        entries.set(signed(left));
        pending.set(signed(stat.pending_bytes));
        used.set(signed(stat.used_bytes));
        capacity.set(signed(stat.capacity_bytes));
        let now_us = u64::try_from(forebay_model::Timestamp::now().micros()).unwrap_or(0);
        oldest.set(Duration::from_micros(stat.oldest_age_us(now_us)).as_secs_f64());
        full.set(stat.full_total);
        syncs.set(stat.syncs_total);
        sync_time.set(stat.sync_nanos_total as f64 / 1e9);
        corrupt.set(stat.corrupt_total);
    })
}

/// Registers the state of the forwarders, read off them at each scrape.
///
/// # Errors
/// As [`FrontMetrics::new`].
pub(crate) fn register_forwarders(
    registry: &Registry,
    front: &Front,
    forwarders: &[Forwarder],
) -> Result<(), MetricsError> {
    for (ring, forwarder) in front.rings.iter().zip(forwarders) {
        let metrics = Metrics::new(registry).with_label("partition", ring.name.clone());
        let mut scrape = metrics.scrape();
        let connected = scrape.gauge(
            "forebay_front_uplink_connected",
            "1 while the middle has welcomed this front.",
        )?;
        let refused = scrape.gauge(
            "forebay_front_uplink_refused",
            "1 if the middle refuses this front for a reason that a human must mend.",
        )?;
        let in_flight = scrape
            .gauge("forebay_front_uplink_in_flight_bytes", "Bytes sent and not yet acked.")?;
        let credit = scrape
            .gauge("forebay_front_uplink_credit_bytes", "Bytes that the middle still allows.")?;
        let connects =
            scrape.total("forebay_front_uplink_connects_total", "Connections attempted.")?;
        let entries = scrape
            .total("forebay_front_uplink_entries_total", "Entries sent, replays included.")?;
        let replays = scrape.total("forebay_front_uplink_replays_total", "Entries sent again.")?;
        let state = forwarder.watch();
        scrape.register(move || {
            let state = state();
            connected.set(i64::from(state.connected));
            refused.set(i64::from(state.refused));
            in_flight.set(signed(state.in_flight_bytes));
            credit.set(signed(state.credit_bytes));
            connects.set(state.connects_total);
            entries.set(state.entries_total);
            replays.set(state.replays_total);
        })?;
    }
    Ok(())
}

/// Entries above `committed`; if that lies in an earlier epoch, the recovered ones count in full
/// until the reader has come past them.
pub(crate) fn entries_left(appended: Seq, committed: Seq, recovered: u64) -> u64 {
    if appended.epoch() == committed.epoch() {
        appended.counter().saturating_sub(committed.counter())
    } else {
        appended.counter() + recovered
    }
}

/// A number for a gauge, which takes signed ones.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
