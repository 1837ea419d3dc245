//! What a demo shows while it runs: a block rewritten in place on a terminal, else one line a
//! second.

use std::{
    io::{IsTerminal as _, Write as _, stderr},
    time::Duration,
};

use crate::words::{micros, thousands};

/// One second of a demo.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    pub(super) elapsed: Duration,
    pub(super) connected: u64,
    pub(super) devices: u64,
    pub(super) sent_per_second: u64,
    pub(super) acked_per_second: u64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    pub(super) in_flight: u64,
    /// What waits in each queue, in words; `None` while its tier does not answer.
    pub(super) queues: Vec<(&'static str, Option<String>)>,
    pub(super) acked: u64,
    /// Messages that storage has committed; `None` while it does not answer.
    pub(super) stored: Option<u64>,
    pub(super) live_clients: u64,
    pub(super) live_per_second: u64,
    pub(super) kills: u64,
}

/// Where the samples go: stderr, so that stdout holds the result alone.
#[derive(Debug)]
pub(super) struct View {
    terminal: bool,
    lines_shown: usize,
}

impl View {
    pub(super) fn new() -> Self {
        Self { terminal: stderr().is_terminal(), lines_shown: 0 }
    }

    /// Shows a sample; a terminal that is gone is no fault of the demo.
    pub(super) fn show(&mut self, sample: &Sample) {
        let mut out = stderr().lock();
        if self.terminal {
            let block = sample.block();
            let up = if self.lines_shown > 0 {
                format!("\x1b[{}A", self.lines_shown)
            } else {
                String::new()
            };
            self.lines_shown = block.lines().count();
            let cleared = block.replace('\n', "\x1b[K\n");
            let _ = write!(out, "{up}\r{cleared}\x1b[J");
        } else {
            let _ = writeln!(out, "{}", sample.line());
        }
        let _ = out.flush();
    }

    /// Says something between samples, which later ones leave standing.
    pub(super) fn say(&mut self, words: &str) {
        self.lines_shown = 0;
        let _ = writeln!(stderr().lock(), "{words}");
    }
}

impl Sample {
    fn queues(&self) -> String {
        let one = |(name, depth): &(&str, Option<String>)| {
            format!("{name} {}", depth.as_deref().unwrap_or("down"))
        };
        self.queues.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn stored(&self) -> String {
        self.stored.map_or_else(|| "down".to_owned(), thousands)
    }

    fn line(&self) -> String {
        let mut line = format!(
            "{:>4}s  {}/{} devices  {} msg/s  ack p50 {} p99 {}  queued: {}  acked {}  stored {}  \
             live {} ({}/s)",
            self.elapsed.as_secs(),
            self.connected,
            self.devices,
            thousands(self.acked_per_second),
            micros(self.p50_us),
            micros(self.p99_us),
            self.queues(),
            thousands(self.acked),
            self.stored(),
            self.live_clients,
            thousands(self.live_per_second),
        );
        if self.kills > 0 {
            line.push_str(&format!("  kills {}", self.kills));
        }
        line
    }

    fn block(&self) -> String {
        let kills = if self.kills > 0 { format!("   kills {}", self.kills) } else { String::new() };
        format!(
            "  forebay demo   {:>4} s{kills}\n\
             \x20 devices     {:>9} of {}\n\
             \x20 sent        {:>9} messages a second, {} in flight\n\
             \x20 acked       {:>9} messages a second, p50 {}, p99 {}\n\
             \x20 queued      {}\n\
             \x20 acked       {:>13}\n\
             \x20 stored      {:>13}\n\
             \x20 live        {} clients, {} events a second\n",
            self.elapsed.as_secs(),
            thousands(self.connected),
            thousands(self.devices),
            thousands(self.sent_per_second),
            thousands(self.in_flight),
            thousands(self.acked_per_second),
            micros(self.p50_us),
            micros(self.p99_us),
            self.queues(),
            thousands(self.acked),
            self.stored(),
            self.live_clients,
            thousands(self.live_per_second),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_which_tier_does_not_answer() {
        let sample = Sample {
            queues: vec![("front", Some("1,234".to_owned())), ("middle", None)],
            stored: None,
            ..Sample::default()
        };
        let line = sample.line();
        assert!(
            line.contains("front 1,234, middle down") && line.contains("stored down"),
            "{line}"
        );
        assert!(sample.block().lines().count() == 8);
    }
}
