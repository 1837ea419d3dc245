//! Lines that repeat are left out, and how many were is said.
//!
//! A store that is away, a device that sends rubbish a thousand times a second: the first lines
//! tell all, the others hide what else is wrong and fill the disk. Of each place in the code that
//! logs, the first [`BURST`] lines within [`WINDOW`] are written; then one line tells how many more
//! there were. Nothing at `debug` or below is left out: whoever asks for that wants all of it.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Filter};

/// Lines of one place that are written within a window.
pub(super) const BURST: u64 = 20;
/// How long lines are counted together.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// What says how many were left out is itself never left out.
const TARGET: &str = "forebay_ops::logs::repeats";
/// Characters of a repeated line that are shown again.
const MESSAGE_CHARS_MAX: usize = 120;

/// What was seen of each place within its window.
#[derive(Debug, Default)]
pub(super) struct Repeats(Mutex<HashMap<Identifier, Seen>>);

#[derive(Debug)]
struct Seen {
    since: Instant,
    count: u64,
    metadata: &'static Metadata<'static>,
    message: String,
}

impl Repeats {
    /// Whether the line is to be written.
    fn admits(&self, event: &Event<'_>, now: Instant) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || metadata.target() == TARGET {
            return true;
        }
        let mut places = self.lock();
        let seen = places.entry(metadata.callsite()).or_insert_with(|| {
            let mut message = Message(String::new());
            event.record(&mut message);
            Seen { since: now, count: 0, metadata, message: message.0 }
        });
        seen.count += 1;
        seen.count <= BURST
    }

    /// Says how many lines were left out in the windows that have ended by `now`; with `all`, also
    /// in those that have not.
    pub(super) fn tell(&self, now: Instant, all: bool) {
        let ended = |seen: &Seen| all || now.saturating_duration_since(seen.since) >= WINDOW;
        let ended: Vec<Seen> =
            self.lock().extract_if(|_, seen| ended(seen)).map(|(_, seen)| seen).collect();
        // Without the lock: what is written here comes by here again.
        for Seen { count, metadata, message, .. } in ended {
            let Some(left_out) = count.checked_sub(BURST).filter(|left_out| *left_out > 0) else {
                continue;
            };
            tracing::warn!(
                target: TARGET,
                count = left_out, within = ?WINDOW, like = message, level = %metadata.level(),
                place = metadata.target(),
                "lines that repeat were left out"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a line says, without its fields.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}").chars().take(MESSAGE_CHARS_MAX).collect();
        }
    }
}

/// Of a layer: [`Repeats`] shared with whoever tells.
#[derive(Debug, Clone)]
pub(super) struct Repeated(pub(super) std::sync::Arc<Repeats>);

impl<S: Subscriber> Filter<S> for Repeated {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.0.admits(event, Instant::now())
    }
}
