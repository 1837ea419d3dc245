//! Minimum, maximum, average and count of a series, interval by interval.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Columns, Filter, LakeFiles, ReadError, Tail, visit};

/// One interval that holds at least one number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bucket {
    /// Its start, a multiple of the interval since the epoch; microseconds.
    pub time: i64,
    /// How many numbers.
    pub count: u64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
    /// Their mean.
    pub avg: f64,
}

/// An answer of [`trend`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trend {
    /// Length of an interval in microseconds.
    pub interval: i64,
    /// The intervals that hold numbers, oldest first.
    pub buckets: Vec<Bucket>,
}

struct Sum {
    count: u64,
    min: f64,
    max: f64,
    /// Running mean rather than a sum: readings near the largest float must not overflow it.
    mean: f64,
}

/// Adds up the numbers that the filter wants, in intervals of `interval_us`.
///
/// Floats, integers and booleans (0 and 1) count; text and opaque payloads do not. Memory is one
/// entry an interval: bound the filter's range before.
///
/// # Errors
/// [`ReadError`]: a file of the lake cannot be read; there is no partial answer.
///
/// # Panics
/// If the interval is not positive.
pub fn trend(
    files: &LakeFiles,
    tail: &dyn Tail,
    filter: &Filter,
    interval_us: i64,
) -> Result<Trend, ReadError> {
    assert!(interval_us > 0, "an interval has a length, not {interval_us}");
    let mut sums: BTreeMap<i64, Sum> = BTreeMap::new();
    visit(files, tail, filter, Columns::Numbers, &mut |row| {
        let Some(number) = row.value.as_number() else { return };
        let start = row.at_us().div_euclid(interval_us) * interval_us;
        let sum =
            sums.entry(start).or_insert(Sum { count: 0, min: number, max: number, mean: 0.0 });
        sum.count += 1;
        sum.min = sum.min.min(number);
        sum.max = sum.max.max(number);
        let count = sum.count as f64;
        sum.mean = sum.mean * ((count - 1.0) / count) + number / count;
    })?;
    let buckets = sums
        .into_iter()
        .map(|(time, Sum { count, min, max, mean })| Bucket { time, count, min, max, avg: mean })
        .collect();
    Ok(Trend { interval: interval_us, buckets })
}
