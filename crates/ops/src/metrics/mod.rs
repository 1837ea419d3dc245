//! Metrics over a registry that is passed in: names checked, children resolved once at start.
//!
//! Names are literals, start with `forebay_`, are in base units with the unit last, and counters
//! end in `_total`; the `tidy` test compares them with docs/metrics.md. No device id is ever a
//! label: a label is for what is configured, such as a queue or a sink.

mod scrape;

use std::collections::HashMap;

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry,
};

pub use scrape::{Scrape, Total, TotalFloat};

/// What every metric of ours begins with.
pub const PREFIX: &str = "forebay_";

/// Words in a name that say it is not in base units.
const NOT_BASE: [&str; 8] =
    ["milliseconds", "microseconds", "nanoseconds", "ms", "us", "ns", "kilobytes", "percent"];

/// Buckets in seconds for append, ack and sync: 10 µs, doubled 17 times up to 1.3 s.
///
/// The crate's own buckets start at 5 ms, above nearly all that happens here.
pub fn latency_buckets() -> Vec<f64> {
    (0..18).map(|power| 10e-6 * f64::from(1u32 << power)).collect()
}

/// Buckets for counts such as entries in a batch: 1, doubled 16 times up to 65,536.
pub fn count_buckets() -> Vec<f64> {
    (0..17).map(|power| f64::from(1u32 << power)).collect()
}

/// Why a metric could not be registered: always a mistake in the program, found at start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// Another metric of this process has the same name and the same labels.
    #[error("metric {name} {labels:?} is registered already")]
    Taken {
        /// The name.
        name: &'static str,
        /// The labels that all its values carry.
        labels: Vec<(String, String)>,
    },
    /// The name breaks a rule of this module.
    #[error("metric name {name} {rule}")]
    Name {
        /// The name.
        name: &'static str,
        /// The rule, as the end of a sentence.
        rule: &'static str,
    },
    /// The registry refused it for another reason, such as help texts that differ.
    #[error("metric {name}: {reason}")]
    Refused {
        /// The name.
        name: &'static str,
        /// What the registry said.
        reason: String,
    },
}

/// A result of registering.
pub type Result<T> = std::result::Result<T, MetricsError>;

/// Registers metrics, each with the labels gathered so far.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    labels: HashMap<String, String>,
}

impl Metrics {
    /// Registers into `registry`, without labels.
    pub fn new(registry: &Registry) -> Metrics {
        Metrics { registry: registry.clone(), labels: HashMap::new() }
    }

    /// The same registry; what is registered through the result also carries `label="value"`.
    ///
    /// So that two queues of one process can have the same metrics.
    #[must_use]
    pub fn with_label(&self, label: &str, value: impl Into<String>) -> Metrics {
        let mut labels = self.labels.clone();
        labels.insert(label.to_owned(), value.into());
        Metrics { registry: self.registry.clone(), labels }
    }

    /// The registry itself.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A counter of events; its name ends in `_total`.
    ///
    /// # Errors
    /// As [`MetricsError`] says; all of them are mistakes in the program.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Result<IntCounter> {
        check_counter(name)?;
        self.register(name, IntCounter::with_opts(self.opts(name, help)?))
    }

    /// Counters by label values, such as a reject reason; resolve the children once at start.
    ///
    /// # Errors
    /// As for [`Metrics::counter`].
    pub fn counters(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[&str],
    ) -> Result<IntCounterVec> {
        check_counter(name)?;
        self.register(name, IntCounterVec::new(self.opts(name, help)?, labels))
    }

    /// A whole number that goes up and down.
    ///
    /// # Errors
    /// As for [`Metrics::counter`].
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Result<IntGauge> {
        check_gauge(name)?;
        self.register(name, IntGauge::with_opts(self.opts(name, help)?))
    }

    /// A number with a fraction that goes up and down, such as seconds.
    ///
    /// # Errors
    /// As for [`Metrics::counter`].
    pub fn gauge_float(&self, name: &'static str, help: &'static str) -> Result<Gauge> {
        check_gauge(name)?;
        self.register(name, Gauge::with_opts(self.opts(name, help)?))
    }

    /// A histogram over `buckets`; its name ends in its unit. Observe per batch in hot loops.
    ///
    /// # Errors
    /// As for [`Metrics::counter`].
    pub fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        buckets: Vec<f64>,
    ) -> Result<Histogram> {
        self.register(name, Histogram::with_opts(self.histogram_opts(name, help, buckets)?))
    }

    /// Histograms over `buckets` by label values; resolve the children once at start.
    ///
    /// # Errors
    /// As for [`Metrics::counter`].
    pub fn histograms(
        &self,
        name: &'static str,
        help: &'static str,
        buckets: Vec<f64>,
        labels: &[&str],
    ) -> Result<HistogramVec> {
        self.register(name, HistogramVec::new(self.histogram_opts(name, help, buckets)?, labels))
    }

    /// A histogram of seconds over [`latency_buckets`]; its name ends in `_seconds`.
    ///
    /// # Errors
    /// As for [`Metrics::counter`].
    pub fn latency(&self, name: &'static str, help: &'static str) -> Result<Histogram> {
        if !name.ends_with("_seconds") {
            return Err(MetricsError::Name { name, rule: "must end in _seconds, being a latency" });
        }
        self.histogram(name, help, latency_buckets())
    }

    /// Starts a group of values that are read off something else when they are scraped.
    pub fn scrape(&self) -> Scrape {
        Scrape::new(self.clone())
    }

    fn histogram_opts(
        &self,
        name: &'static str,
        help: &'static str,
        buckets: Vec<f64>,
    ) -> Result<HistogramOpts> {
        check_gauge(name)?;
        Ok(HistogramOpts { common_opts: self.opts(name, help)?, buckets })
    }

    fn opts(&self, name: &'static str, help: &'static str) -> Result<Opts> {
        check_name(name)?;
        if help.is_empty() {
            return Err(MetricsError::Name { name, rule: "needs a help text" });
        }
        Ok(Opts::new(name, help).const_labels(self.labels.clone()))
    }

    fn register<M: Collector + Clone + 'static>(
        &self,
        name: &'static str,
        made: prometheus::Result<M>,
    ) -> Result<M> {
        let metric = made.map_err(|error| self.refused(name, &error))?;
        self.registry
            .register(Box::new(metric.clone()))
            .map_err(|error| self.refused(name, &error))?;
        Ok(metric)
    }

    fn refused(&self, name: &'static str, error: &prometheus::Error) -> MetricsError {
        match error {
            prometheus::Error::AlreadyReg => {
                let mut labels: Vec<_> = self.labels.clone().into_iter().collect();
                labels.sort();
                MetricsError::Taken { name, labels }
            }
            other => MetricsError::Refused { name, reason: other.to_string() },
        }
    }
}

fn check_name(name: &'static str) -> Result<()> {
    if !name.starts_with(PREFIX) {
        return Err(MetricsError::Name { name, rule: "must start with forebay_" });
    }
    // Base units only, so that no query has to know which of ours are not.
    if name.split('_').any(|word| NOT_BASE.contains(&word)) {
        return Err(MetricsError::Name { name, rule: "must be in base units: seconds, bytes" });
    }
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !name.chars().all(plain) {
        return Err(MetricsError::Name { name, rule: "must be lower-case words joined by _" });
    }
    Ok(())
}

fn check_counter(name: &'static str) -> Result<()> {
    if !name.ends_with("_total") {
        return Err(MetricsError::Name { name, rule: "must end in _total, being a counter" });
    }
    Ok(())
}

fn check_gauge(name: &'static str) -> Result<()> {
    if name.ends_with("_total") {
        return Err(MetricsError::Name { name, rule: "ends in _total, which is for counters" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_buckets_start_at_ten_microseconds_and_double_to_above_a_second() {
        let buckets = latency_buckets();
        assert_eq!(buckets.len(), 18);
        assert!((buckets[0] - 10e-6).abs() < 1e-12);
        assert!(buckets.windows(2).all(|pair| (pair[1] / pair[0] - 2.0).abs() < 1e-9));
        assert!(buckets[17] > 1.0 && buckets[17] < 2.0);
    }

    #[test]
    fn two_queues_share_a_name_and_differ_by_label() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry);
        for queue in ["uplink-0", "uplink-1"] {
            let labelled = metrics.with_label("queue", queue);
            labelled.gauge("forebay_queue_entries", "Entries held.").unwrap().set(7);
        }
        let families = registry.gather();
        assert_eq!(families.len(), 1);
        assert_eq!(families[0].get_metric().len(), 2);
    }

    #[test]
    fn a_name_taken_twice_is_refused_by_name_and_label() {
        let metrics = Metrics::new(&Registry::new()).with_label("queue", "log");
        metrics.counter("forebay_acks_total", "Acks sent.").unwrap();
        let error = metrics.counter("forebay_acks_total", "Acks sent.").unwrap_err().to_string();
        assert_eq!(error, r#"metric forebay_acks_total [("queue", "log")] is registered already"#);
    }

    #[test]
    fn names_that_break_a_rule_are_refused_with_the_rule() {
        let metrics = Metrics::new(&Registry::new());
        for (result, rule) in [
            (metrics.counter("forebay_acks", "x").err(), "must end in _total"),
            (metrics.counter("acks_total", "x").err(), "must start with forebay_"),
            (metrics.counter("forebay_Acks_total", "x").err(), "must be lower-case words"),
            (metrics.gauge("forebay_age_ms", "x").err(), "must be in base units"),
            (metrics.counter("forebay_acks_total", "").err(), "needs a help text"),
            (metrics.gauge("forebay_acks_total", "x").err(), "is for counters"),
            (metrics.latency("forebay_ack", "x").err(), "must end in _seconds"),
        ] {
            let message = result.expect("the name is refused").to_string();
            assert!(message.contains(rule), "{message}");
        }
    }
}
