//! What is measured of the storage tier: sinks by consumer and middle, last values, live readers.

use std::sync::{Arc, atomic::Ordering};

use forebay_link::SubscriberStats;
use forebay_ops::{Metrics, MetricsError};
use prometheus::Registry;

use crate::{
    feed::Source,
    lake::CareStatus,
    last::LastValues,
    live::{FollowerStatus, Hub},
    sink::{RangeBuffer, SinkStatus},
};

/// One sink of one middle.
pub(crate) struct SinkSource {
    pub(crate) sink: String,
    pub(crate) middle: String,
    pub(crate) status: Arc<SinkStatus>,
    pub(crate) buffer: Arc<RangeBuffer>,
    pub(crate) feed: Arc<dyn Source>,
    pub(crate) link: Arc<SubscriberStats>,
}

/// Registers what is measured of a sink.
///
/// # Errors
/// Another sink of this registry has the same names.
pub(crate) fn sink(registry: &Registry, source: SinkSource) -> Result<(), MetricsError> {
    let SinkSource { sink, middle, status, buffer, feed, link } = source;
    let metrics = Metrics::new(registry).with_label("sink", sink).with_label("middle", middle);
    let mut scrape = metrics.scrape();
    let lag_entries = scrape.gauge(
        "forebay_storage_sink_lag_entries",
        "Entries of the middle that are not committed by this sink.",
    )?;
    let lag_seconds = scrape.gauge_float(
        "forebay_storage_sink_lag_seconds",
        "Age of the oldest entry that this sink has read and not committed.",
    )?;
    let state = scrape.gauge(
        "forebay_storage_sink_state",
        "0 running, 1 trying again, 2 waiting for a human, 3 ended.",
    )?;
    let held_entries =
        scrape.gauge("forebay_storage_sink_held_entries", "Entries read and not stored.")?;
    let held_rows = scrape.gauge("forebay_storage_sink_held_rows", "Rows read and not stored.")?;
    let feed_bytes = scrape.gauge(
        "forebay_storage_sink_feed_buffered_bytes",
        "Bytes of the feed received and not read.",
    )?;
    let batches = scrape.total("forebay_storage_sink_batches_total", "Ranges stored.")?;
    let rows = scrape.total("forebay_storage_sink_rows_total", "Rows stored.")?;
    let unknown = scrape.total(
        "forebay_storage_sink_unknown_rows_total",
        "Rows of devices that the device registry does not list.",
    )?;
    let suspect = scrape.total(
        "forebay_storage_sink_suspect_rows_total",
        "Rows whose value is not of the type or within the bounds that the registry gives.",
    )?;
    let bytes = scrape.total("forebay_storage_sink_bytes_total", "Bytes stored, encoded.")?;
    let entries = scrape.total("forebay_storage_sink_entries_total", "Entries committed.")?;
    let retries =
        scrape.total("forebay_storage_sink_retries_total", "Tries that were not taken.")?;
    let dead = scrape.total(
        "forebay_storage_sink_dead_letters_total",
        "Rows the store refused, and entries that were none, set aside.",
    )?;
    let missed = scrape.total(
        "forebay_storage_sink_missed_total",
        "Times entries were gone from the middle before this sink had them.",
    )?;
    let missed_entries = scrape.total(
        "forebay_storage_sink_missed_entries_total",
        "Entries of these, within one epoch of the middle's queue; position markers count.",
    )?;
    let fetched = scrape.total(
        "forebay_storage_sink_fetched_entries_total",
        "Entries that came by a fetch rather than the feed.",
    )?;
    scrape.register(move || {
        let read = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
        lag_entries.set(gauge(status.lag_entries(feed.head())));
        lag_seconds.set(status.lag_seconds());
        state.set(status.state().0 as i64);
        let (entries_held, rows_held) = buffer.held();
        held_entries.set(gauge(entries_held));
        held_rows.set(gauge(rows_held as u64));
        feed_bytes.set(gauge(link.buffered_bytes.get()));
        batches.set(read(&status.batches));
        rows.set(read(&status.rows));
        unknown.set(read(&status.unknown));
        suspect.set(read(&status.suspect));
        bytes.set(read(&status.bytes));
        entries.set(read(&status.entries));
        retries.set(read(&status.retries));
        dead.set(read(&status.dead_letters));
        missed.set(read(&status.missed));
        missed_entries.set(read(&status.missed_entries));
        fetched.set(link.fetched.get());
    })
}

/// Registers what remote write leaves out.
///
/// # Errors
/// Another sink of this registry has the same name.
#[cfg(feature = "remote-write")]
pub(crate) fn remote_write(
    registry: &Registry,
    middle: &str,
    left_out: Arc<crate::remote_write::LeftOut>,
) -> Result<(), MetricsError> {
    let metrics = Metrics::new(registry).with_label("middle", middle);
    let mut scrape = metrics.scrape();
    let not_applicable = scrape.total(
        "forebay_storage_remote_write_not_applicable_rows_total",
        "Rows that hold no number: texts and opaque payloads.",
    )?;
    let merged = scrape.total(
        "forebay_storage_remote_write_merged_samples_total",
        "Samples left out for a later one of the same series, range and millisecond.",
    )?;
    scrape.register(move || {
        not_applicable.set(left_out.not_applicable.load(Ordering::Relaxed));
        merged.set(left_out.merged.load(Ordering::Relaxed));
    })
}

/// Registers what Redis is not sent.
///
/// # Errors
/// Another sink of this registry has the same name.
#[cfg(feature = "redis")]
pub(crate) fn redis(
    registry: &Registry,
    middle: &str,
    not_applicable: Arc<std::sync::atomic::AtomicU64>,
) -> Result<(), MetricsError> {
    let metrics = Metrics::new(registry).with_label("middle", middle);
    let mut scrape = metrics.scrape();
    let rows = scrape.total(
        "forebay_storage_redis_not_applicable_rows_total",
        "Rows that have no key, and so no last value: opaque payloads.",
    )?;
    scrape.register(move || rows.set(not_applicable.load(Ordering::Relaxed)))
}

/// Registers what is measured of the live feed of one middle.
///
/// # Errors
/// Another follower of this registry has the same names.
pub(crate) fn follower(
    registry: &Registry,
    middle: &str,
    status: Arc<FollowerStatus>,
) -> Result<(), MetricsError> {
    let metrics = Metrics::new(registry).with_label("middle", middle);
    let mut scrape = metrics.scrape();
    let lag = scrape.gauge(
        "forebay_storage_live_lag_entries",
        "Entries of the middle that live readers have not been shown.",
    )?;
    let entries =
        scrape.total("forebay_storage_live_entries_total", "Entries taken up by the live feed.")?;
    scrape.register(move || {
        let (reached, head) = status.reached();
        let behind = if reached >= head {
            0
        } else if reached.epoch() == head.epoch() {
            head.counter() - reached.counter()
        } else {
            head.counter()
        };
        lag.set(gauge(behind));
        entries.set(status.entries.load(Ordering::Relaxed));
    })
}

/// Registers what is measured of live readers and last values.
///
/// # Errors
/// Another storage tier uses this registry.
pub(crate) fn live(
    registry: &Registry,
    hub: &Arc<Hub>,
    last: &Arc<LastValues>,
) -> Result<(), MetricsError> {
    let mut scrape = Metrics::new(registry).scrape();
    let clients = scrape.gauge("forebay_storage_live_clients", "Live readers now.")?;
    let missed = scrape.total(
        "forebay_storage_live_drops_total",
        "Events that fell out of the buffer of a slow live reader, which was told.",
    )?;
    let devices = scrape.gauge("forebay_storage_last_devices", "Devices with last values.")?;
    let series = scrape.gauge("forebay_storage_last_series", "Last values held.")?;
    let refused = scrape.total(
        "forebay_storage_last_refused_total",
        "Readings of series beyond the limit of last values.",
    )?;
    let (hub, last) = (hub.clone(), last.clone());
    scrape.register(move || {
        clients.set(gauge(hub.clients() as u64));
        missed.set(hub.counts().1);
        let (devices_now, series_now, refused_ever) = last.counts();
        devices.set(gauge(devices_now as u64));
        series.set(gauge(series_now as u64));
        refused.set(refused_ever);
    })
}

/// Registers what is measured of the lake.
///
/// # Errors
/// Another storage tier uses this registry.
pub(crate) fn lake(registry: &Registry, status: Arc<CareStatus>) -> Result<(), MetricsError> {
    let mut scrape = Metrics::new(registry).scrape();
    let hours = scrape.gauge("forebay_storage_lake_hours", "Hours of the lake that hold files.")?;
    let waiting = scrape.gauge(
        "forebay_storage_lake_waiting_hours",
        "Hours of the lake that are over and not compacted.",
    )?;
    let bytes = scrape.gauge("forebay_storage_lake_bytes", "Bytes of all files of the lake.")?;
    let holds = scrape.gauge(
        "forebay_storage_lake_caretaker",
        "1 if this process compacts and drops hours of the lake, 0 if another one does.",
    )?;
    let compacted = scrape.total(
        "forebay_storage_lake_compacted_hours_total",
        "Hours whose files were replaced by one sorted file for each middle.",
    )?;
    let merged = scrape
        .total("forebay_storage_lake_compacted_files_total", "Files that these hours had.")?;
    let failures = scrape.total(
        "forebay_storage_lake_care_failures_total",
        "Hours of the lake that could not be compacted or dropped; they stay as they are.",
    )?;
    let dropped = scrape.total(
        "forebay_storage_lake_dropped_hours_total",
        "Hours dropped because they were too old, or the lake too large.",
    )?;
    let dropped_bytes =
        scrape.total("forebay_storage_lake_dropped_bytes_total", "Bytes of these hours.")?;
    scrape.register(move || {
        let read = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
        hours.set(gauge(read(&status.hours)));
        waiting.set(gauge(read(&status.waiting)));
        bytes.set(gauge(read(&status.bytes)));
        holds.set(gauge(read(&status.holds)));
        compacted.set(read(&status.compacted));
        merged.set(read(&status.merged_files));
        failures.set(read(&status.failures));
        dropped.set(read(&status.dropped));
        dropped_bytes.set(read(&status.dropped_bytes));
    })
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
