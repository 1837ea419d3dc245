//! How a demo ends: the table, the JSON object, the exit code.

use std::fmt;

use forebay_fleet::{checker::Verdict, latency::Summary};
use serde::Serialize;

use crate::words::{micros, thousands};

/// Everything a demo has found out.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Outcome {
    #[serde(flatten)]
    pub(super) verdict: Verdict,
    /// Messages sent whose ack never came.
    pub(super) unacked: u64,
    /// Messages that a tier still held when its deadline passed.
    pub(super) undrained: u64,
    /// Acknowledged messages a second while the fleet was sending.
    pub(super) messages_per_second: f64,
    pub(super) ack_p50_us: u64,
    pub(super) ack_p99_us: u64,
    #[serde(rename = "ack_p999_us")]
    pub(super) ack_p999_us: u64,
    pub(super) seconds: f64,
    pub(super) devices: u32,
    pub(super) resent: u64,
    pub(super) reconnects: u64,
    pub(super) kills: u64,
    pub(super) durability: &'static str,
    pub(super) live_events: u64,
    /// Events that the feed told a client were left out.
    pub(super) live_missed: u64,
    /// How often it said that events are no longer held, so that nobody can count them.
    pub(super) live_uncounted: u64,
    /// Events that a live client was shown a second time.
    pub(super) live_repeated: u64,
    /// Events that a live client saw and that are not stored.
    pub(super) live_unstored: u64,
    pub(super) files: u64,
    pub(super) reread_seconds: f64,
    pub(super) seed: u64,
    /// Why the drain is incomplete, in words.
    pub(super) faults: Vec<String>,
    /// Whether all of it is as promised.
    pub(super) ok: bool,
}

impl Outcome {
    /// Fills in the latencies.
    pub(super) fn set_latency(&mut self, summary: Summary) {
        self.ack_p50_us = summary.p50_us;
        self.ack_p99_us = summary.p99_us;
        self.ack_p999_us = summary.p999_us;
    }

    /// Whether every acknowledged message is stored exactly once, and nothing is left on the way.
    pub(super) fn is_clean(&self) -> bool {
        // Nothing acknowledged proves nothing.
        self.verdict.acked > 0
            && self.verdict.is_clean()
            && self.verdict.acked == self.verdict.stored
            && self.unacked == 0
            && self.undrained == 0
            && self.live_unstored == 0
            && self.live_repeated == 0
            && self.faults.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = &self.verdict;
        let rows = [
            ("acknowledged", verdict.acked),
            ("stored", verdict.stored),
            ("lost", verdict.lost),
            ("invented", verdict.invented),
            ("duplicated", verdict.duplicated),
            ("wrong value", verdict.wrong),
            ("out of order", verdict.inversions),
        ];
        writeln!(f)?;
        for (name, number) in rows {
            writeln!(f, "  {name:<14}{:>16}", thousands(number))?;
        }
        for (name, number) in [
            ("never acknowledged", self.unacked),
            ("undrained", self.undrained),
            ("shown, unstored", self.live_unstored),
            ("shown again", self.live_repeated),
        ] {
            if number > 0 {
                writeln!(f, "  {name:<14}{:>16}", thousands(number))?;
            }
        }
        writeln!(f)?;
        writeln!(
            f,
            "  {} messages a second over {:.1} s; ack p50 {}, p99 {}, p99.9 {}; durability {}",
            thousands(self.messages_per_second as u64),
            self.seconds,
            micros(self.ack_p50_us),
            micros(self.ack_p99_us),
            micros(self.ack_p999_us),
            self.durability,
        )?;
        if self.kills > 0 {
            writeln!(
                f,
                "  {} kills (seed {}), {} reconnects, {} messages sent again",
                self.kills,
                self.seed,
                thousands(self.reconnects),
                thousands(self.resent),
            )?;
        }
        writeln!(
            f,
            "  reread {} rows from {} Parquet files in {:.1} s; {} live events",
            thousands(verdict.rows),
            thousands(self.files),
            self.reread_seconds,
            thousands(self.live_events),
        )?;
        for finding in verdict.findings.iter().chain(&self.faults) {
            writeln!(f, "  {finding}")?;
        }
        if self.is_clean() {
            write!(f, "  OK: every acknowledged message is stored, exactly once, as it was sent.")
        } else {
            write!(f, "  FAILED: see the findings above.")
        }
    }
}
