//! Ack latencies: a histogram that many devices share, and its summary.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest wait told apart from longer ones: ten minutes.
const MICROS_MAX: u64 = 600_000_000;

/// Waits of the devices of one thread, in microseconds with two significant digits.
#[derive(Debug)]
pub struct Latencies(Mutex<Histogram<u64>>);

/// A summary in microseconds; zeros where nothing was recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How many waits.
    pub count: u64,
    /// Half waited at most this long.
    pub p50_us: u64,
    /// 99 of 100 waited at most this long.
    pub p99_us: u64,
    /// 999 of 1,000 waited at most this long.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MICROS_MAX, 2).expect("constant bounds that the crate accepts")
}

impl Default for Latencies {
    fn default() -> Self {
        Self(Mutex::new(empty()))
    }
}

impl Latencies {
    /// Notes the same wait of several messages.
    pub fn record(&self, wait: Duration, count: u64) {
        let micros = u64::try_from(wait.as_micros()).unwrap_or(MICROS_MAX).clamp(1, MICROS_MAX);
        let mut histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        histogram.saturating_record_n(micros, count);
    }
}

/// One summary of several histograms.
pub fn summary<'a>(all: impl IntoIterator<Item = &'a Latencies>) -> Summary {
    summarize(&merged(all))
}

/// The waits since `before`, which becomes the present state.
pub fn summary_since<'a>(
    all: impl IntoIterator<Item = &'a Latencies>,
    before: &mut Option<Histogram<u64>>,
) -> Summary {
    let now = merged(all);
    let mut since = now.clone();
    if let Some(before) = before {
        since.subtract(&*before).expect("an earlier state of the same histograms is contained");
    }
    *before = Some(now);
    summarize(&since)
}

fn merged<'a>(all: impl IntoIterator<Item = &'a Latencies>) -> Histogram<u64> {
    let mut sum = empty();
    for one in all {
        let one = one.0.lock().unwrap_or_else(PoisonError::into_inner);
        sum.add(&*one).expect("histograms of the same bounds");
    }
    sum
}

fn summarize(histogram: &Histogram<u64>) -> Summary {
    if histogram.is_empty() {
        return Summary::default();
    }
    Summary {
        count: histogram.len(),
        p50_us: histogram.value_at_quantile(0.5),
        p99_us: histogram.value_at_quantile(0.99),
        p999_us: histogram.value_at_quantile(0.999),
        max_us: histogram.max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_spans_threads_and_an_interval_leaves_out_what_came_before() {
        let (one, two) = (Latencies::default(), Latencies::default());
        one.record(Duration::from_micros(100), 98);
        two.record(Duration::from_millis(5), 2);
        let all = summary([&one, &two]);
        assert_eq!((all.count, all.p50_us), (100, 100));
        assert!((4900..=5100).contains(&all.p99_us), "{all:?}");
        let mut before = None;
        assert_eq!(summary_since([&one, &two], &mut before).count, 100);
        two.record(Duration::from_secs(7200), 1);
        let since = summary_since([&one, &two], &mut before);
        assert_eq!(since.count, 1);
        assert!(since.p50_us >= 590_000_000);
        assert_eq!(summary_since([&one, &two], &mut before), Summary::default());
    }
}
