//! When the rows of a store become a range.

use forebay_ops::{ByteSize, Duration, Faults, Validate};
use serde::{Deserialize, Serialize};

use super::POSITIVE;

/// A range's rows are numbered by 32 bits and sorted in memory.
const ROWS_MAX: usize = 1 << 22;

/// When a range is closed: at the first of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Flush {
    /// Rows.
    pub rows: usize,
    /// Bytes the rows take in memory; two ranges are held, one being filled, one being written.
    pub held: ByteSize,
    /// Bytes its entries take in the middle's ring: a quarter of the ring.
    pub outstanding: ByteSize,
    /// Time since its first entry.
    pub age: Duration,
}

impl Default for Flush {
    fn default() -> Self {
        Self {
            // 9 MB of rows; a file of some hundred KiB to 3 MiB.
            rows: 131_072,
            // Texts and payloads count too: with two ranges and an encoded one the tier stays below
            // 60 MB of private memory at full rate.
            held: ByteSize::mib(8),
            // A quarter of the middle's default ring of 256 MiB.
            outstanding: ByteSize::mib(64),
            // 360 files an hour at least while data comes; queries see younger rows in memory.
            age: Duration::from_secs(10),
        }
    }
}

impl Validate for Flush {
    fn validate(&self, faults: &mut Faults) {
        let Self { rows, held, outstanding, age } = self;
        faults.check((1..=ROWS_MAX).contains(rows), "rows", "must be from 1 to 4194304");
        let bounded = (1 << 16..=1 << 30).contains(&held.get());
        faults.check(bounded, "held", "must be from 64KiB to 1GiB");
        faults.check(outstanding.get() > 0, "outstanding", POSITIVE);
        faults.check(!age.is_zero(), "age", POSITIVE);
    }
}
