//! Settings of the Parquet lake.

use std::path::PathBuf;

use forebay_ops::{ByteSize, Duration, Faults, Validate};
use serde::{Deserialize, Serialize};

use super::{BUFFER_MIN, Flush, NAME, is_name};

/// The Parquet lake.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lake {
    /// Whether there is one; without it this is a live-only process.
    pub enabled: bool,
    /// Its folder.
    pub dir: PathBuf,
    /// Where all sinks, of the lake and of other stores, keep what they can never store.
    pub dead_letters: PathBuf,
    /// Its consumer at each middle.
    pub consumer: String,
    /// When a range is closed.
    pub flush: Flush,
    /// Bytes of the feed held unread at most; what comes beyond is fetched later.
    pub buffer: ByteSize,
    /// Hours that are over become one sorted file for each middle.
    pub compaction: Compaction,
    /// What becomes of old rows.
    pub retention: LakeRetention,
}

impl Default for Lake {
    fn default() -> Self {
        Self {
            enabled: true,
            dir: "forebay-data/storage/lake".into(),
            dead_letters: "forebay-data/storage/dead-letters".into(),
            consumer: "lake".to_owned(),
            flush: Flush::default(),
            // 40 ms at 370,000 messages of 256 B a second, on top of the range that is filled while
            // another is written.
            buffer: ByteSize::mib(4),
            compaction: Compaction::default(),
            retention: LakeRetention::default(),
        }
    }
}

/// Hours that are over become one sorted file for each middle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compaction {
    /// Whether they do.
    pub enabled: bool,
    /// How long after its end, and after its last file, an hour is taken to be over.
    pub after: Duration,
    /// How often is looked for hours to compact or to drop.
    pub look_every: Duration,
}

impl Default for Compaction {
    fn default() -> Self {
        Self {
            enabled: true,
            // Fronts and middles deliver within seconds, or after an outage: then an hour is done
            // again, once, when what was late has come.
            after: Duration::from_secs(15 * 60),
            look_every: Duration::from_secs(60),
        }
    }
}

/// What becomes of old rows, an hour at a time. Counted from when they were received.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LakeRetention {
    /// Hours that ended longer ago are dropped; `0s` is never.
    pub drop_after: Duration,
    /// The oldest hours are dropped while all files together are larger; `0B` is never. The latest
    /// hour always stays.
    pub bytes_max: ByteSize,
}

impl Validate for Lake {
    fn validate(&self, faults: &mut Faults) {
        faults.check(is_name(&self.consumer), "consumer", NAME);
        faults.check(self.buffer >= BUFFER_MIN, "buffer", "must be at least 256KiB");
        faults.within("flush", |faults| self.flush.validate(faults));
        let often = self.compaction.look_every.as_millis() >= 10;
        faults.check(often, "compaction.look_every", "must be at least 10ms");
    }
}
