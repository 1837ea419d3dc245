//! Values that live elsewhere, such as a queue's `stat`, and are read off once a scrape.
//!
//! One look at the source fills all values of a group, so that they fit each other, and nothing is
//! paid between scrapes.

use std::sync::{Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntCounter, IntGauge, IntGaugeVec};

use super::{Metrics, MetricsError, Result, check_counter, check_gauge};

/// A group of values, refreshed together when they are scraped.
///
/// ```
/// # fn stat() -> (i64, u64) { (3, 40) }
/// # let registry = prometheus::Registry::new();
/// let metrics = forebay_ops::Metrics::new(&registry).with_label("queue", "log");
/// let mut scrape = metrics.scrape();
/// let entries = scrape.gauge("forebay_queue_entries", "Entries held.").unwrap();
/// let appended = scrape.total("forebay_queue_appended_total", "Entries appended.").unwrap();
/// scrape
///     .register(move || {
///         let (held, ever) = stat();
///         entries.set(held);
///         appended.set(ever);
///     })
///     .unwrap();
/// ```
pub struct Scrape {
    metrics: Metrics,
    parts: Vec<Box<dyn Collector>>,
    first: Option<&'static str>,
}

/// A count kept elsewhere, shown as a counter.
#[derive(Clone)]
pub struct Total(IntCounter);

impl Total {
    /// Shows `count`, which never goes down while the process lives.
    pub fn set(&self, count: u64) {
        // Scrapes of one group are one at a time, so nobody sees the value in between.
        self.0.reset();
        self.0.inc_by(count);
    }
}

/// An amount kept elsewhere that only grows and has a fraction, such as seconds spent.
#[derive(Clone)]
pub struct TotalFloat(Counter);

impl TotalFloat {
    /// Shows `amount`, which never goes down while the process lives.
    pub fn set(&self, amount: f64) {
        self.0.reset();
        self.0.inc_by(amount);
    }
}

impl Scrape {
    pub(super) fn new(metrics: Metrics) -> Scrape {
        Scrape { metrics, parts: Vec::new(), first: None }
    }

    /// Adds a whole number that goes up and down.
    ///
    /// # Errors
    /// The name or the help text breaks a rule.
    pub fn gauge(&mut self, name: &'static str, help: &'static str) -> Result<IntGauge> {
        check_gauge(name)?;
        let made = IntGauge::with_opts(self.metrics.opts(name, help)?);
        self.add(name, made)
    }

    /// Adds whole numbers that go up and down, by label values.
    ///
    /// # Errors
    /// The name or the help text breaks a rule.
    pub fn gauges(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[&str],
    ) -> Result<IntGaugeVec> {
        check_gauge(name)?;
        let made = IntGaugeVec::new(self.metrics.opts(name, help)?, labels);
        self.add(name, made)
    }

    /// Adds a number with a fraction, such as an age in seconds.
    ///
    /// # Errors
    /// The name or the help text breaks a rule.
    pub fn gauge_float(&mut self, name: &'static str, help: &'static str) -> Result<Gauge> {
        check_gauge(name)?;
        let made = Gauge::with_opts(self.metrics.opts(name, help)?);
        self.add(name, made)
    }

    /// Adds a count that is kept elsewhere; its name ends in `_total`.
    ///
    /// # Errors
    /// The name or the help text breaks a rule.
    pub fn total(&mut self, name: &'static str, help: &'static str) -> Result<Total> {
        check_counter(name)?;
        let made = IntCounter::with_opts(self.metrics.opts(name, help)?);
        self.add(name, made).map(Total)
    }

    /// Adds an amount that is kept elsewhere, such as seconds spent; its name ends in `_total`,
    /// after its unit.
    ///
    /// # Errors
    /// The name or the help text breaks a rule.
    pub fn total_float(&mut self, name: &'static str, help: &'static str) -> Result<TotalFloat> {
        check_counter(name)?;
        let made = Counter::with_opts(self.metrics.opts(name, help)?);
        self.add(name, made).map(TotalFloat)
    }

    /// Registers the group. `refresh` runs on the scraping thread before the values are read: it
    /// must be short and must not wait.
    ///
    /// # Errors
    /// A name is taken; nothing of the group is registered.
    pub fn register(self, refresh: impl Fn() + Send + Sync + 'static) -> Result<()> {
        let Some(first) = self.first else { return Ok(()) };
        let group = Group { parts: self.parts, refresh: Mutex::new(Box::new(refresh)) };
        self.metrics
            .registry
            .register(Box::new(group))
            .map_err(|error| self.metrics.refused(first, &error))
    }

    fn add<M: Collector + Clone + 'static>(
        &mut self,
        name: &'static str,
        made: prometheus::Result<M>,
    ) -> Result<M> {
        let metric =
            made.map_err(|error| MetricsError::Refused { name, reason: error.to_string() })?;
        self.parts.push(Box::new(metric.clone()));
        self.first.get_or_insert(name);
        Ok(metric)
    }
}

struct Group {
    parts: Vec<Box<dyn Collector>>,
    refresh: Mutex<Box<dyn Fn() + Send + Sync>>,
}

impl Collector for Group {
    fn desc(&self) -> Vec<&Desc> {
        self.parts.iter().flat_map(|part| part.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let refresh = self.refresh.lock().unwrap_or_else(PoisonError::into_inner);
        refresh();
        self.parts.iter().flat_map(|part| part.collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use prometheus::{Registry, TextEncoder};

    use super::*;

    #[test]
    fn a_scrape_shows_the_source_as_it_is_then() {
        let registry = Registry::new();
        let source = Arc::new(AtomicU64::new(1));
        let mut scrape = Metrics::new(&registry).with_label("queue", "log").scrape();
        let entries = scrape.gauge("forebay_queue_entries", "Entries held.").unwrap();
        let age = scrape.gauge_float("forebay_queue_oldest_age_seconds", "Age.").unwrap();
        let lag = scrape.gauges("forebay_queue_lag_bytes", "Behind.", &["reader"]).unwrap();
        let appended = scrape.total("forebay_queue_appended_total", "Appended.").unwrap();
        let spent = scrape.total_float("forebay_queue_sync_seconds_total", "In syncs.").unwrap();
        let read = Arc::clone(&source);
        scrape
            .register(move || {
                let now = read.load(Ordering::Relaxed);
                entries.set(now as i64);
                age.set(now as f64 / 2.0);
                lag.with_label_values(&["a"]).set(now as i64);
                appended.set(now);
                spent.set(now as f64 / 4.0);
            })
            .unwrap();
        for value in [5, 9] {
            source.store(value, Ordering::Relaxed);
            let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
            for line in [
                format!("forebay_queue_entries{{queue=\"log\"}} {value}"),
                format!("forebay_queue_oldest_age_seconds{{queue=\"log\"}} {}", value as f64 / 2.0),
                format!("forebay_queue_lag_bytes{{queue=\"log\",reader=\"a\"}} {value}"),
                format!("forebay_queue_appended_total{{queue=\"log\"}} {value}"),
                format!("forebay_queue_sync_seconds_total{{queue=\"log\"}} {}", value as f64 / 4.0),
            ] {
                assert!(text.contains(&line), "{line} in {text}");
            }
        }
    }

    #[test]
    fn a_group_with_a_taken_name_is_refused_as_a_whole() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry);
        metrics.gauge("forebay_queue_entries", "Entries held.").unwrap();
        let mut scrape = metrics.scrape();
        scrape.gauge("forebay_queue_entries", "Entries held.").unwrap();
        scrape.gauge("forebay_queue_bytes", "Bytes held.").unwrap();
        assert!(matches!(scrape.register(|| ()), Err(MetricsError::Taken { .. })));
        assert_eq!(registry.gather().len(), 1);
    }
}
