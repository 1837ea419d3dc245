//! What the tiers say about themselves, for the view and for the end of a drain.

use std::time::Duration;

use super::tiers::{Admins, NAMES};
use crate::{
    scrape::{self, Page},
    words::{bytes, thousands},
};

/// How often a drain looks at the gauges.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The last look at the figures of each tier.
#[derive(Debug)]
pub(super) struct Gauges {
    admins: Admins,
    pages: [Option<Page>; 3],
    /// Messages stored, over restarts of the storage tier: those of its earlier lives, and the
    /// figure of the present one.
    stored: (u64, u64),
}

impl Gauges {
    pub(super) fn new(admins: Admins) -> Self {
        Self { admins, pages: [None, None, None], stored: (0, 0) }
    }

    /// Asks every tier.
    pub(super) fn look(&mut self) {
        self.pages = self.admins.map(scrape::metrics);
        if let Some(now) = self.sum(2, "forebay_storage_sink_entries_total") {
            if now < self.stored.1 {
                self.stored.0 += self.stored.1;
            }
            self.stored.1 = now;
        }
    }

    /// What waits in each queue.
    pub(super) fn queues(&self) -> Vec<(&'static str, Option<String>)> {
        let front = self.front().map(thousands);
        let middle = self.middle().map(bytes);
        vec![(NAMES[0], front), (NAMES[1], middle)]
    }

    /// Entries in the front and bytes in the middle that are not stored yet; `None` while one of
    /// them does not answer.
    pub(super) fn left(&self) -> Option<u64> {
        Some(self.front()? + self.middle()?)
    }

    /// Messages stored, as the storage tier counts them.
    pub(super) fn stored(&self) -> Option<u64> {
        self.pages[2].as_ref().map(|_| self.stored.0 + self.stored.1)
    }

    fn front(&self) -> Option<u64> {
        self.sum(0, "forebay_front_queue_entries")
    }

    fn middle(&self) -> Option<u64> {
        self.sum(1, "forebay_middle_consumer_lag_bytes")
    }

    fn sum(&self, tier: usize, name: &str) -> Option<u64> {
        self.pages[tier].as_ref()?.sum(name, &[]).map(|number| number as u64)
    }
}
