//! Logs on stderr: text on a terminal, one JSON object a line otherwise.
//!
//! Lines that repeat are left out and counted (`repeats`); what devices send cannot forge or hide
//! a line (`escape`).

mod escape;
mod repeats;
#[cfg(test)]
mod tests;

use std::{
    io::IsTerminal as _,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, fmt::MakeWriter, layer::SubscriberExt as _,
};

use escape::JsonLines;
use repeats::{Repeated, Repeats};

/// How often it is looked whether lines were left out.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Those of this process, once it has logs.
static REPEATS: OnceLock<Arc<Repeats>> = OnceLock::new();

/// The variables that hold a filter such as `info,forebay_link=debug`; the first one set counts.
pub const FILTER_VARIABLES: [&str; 2] = ["FOREBAY_LOG", "RUST_LOG"];

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Text for people.
    Text,
    /// One JSON object a line for machines.
    Json,
}

/// The filter in the environment cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{variable}=`{filter}` is not a log filter: {reason}")]
pub struct LogsError {
    /// The variable it came from.
    pub variable: &'static str,
    /// Its value.
    pub filter: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Sends this process's logs to stderr at level `info`, or as the environment says.
///
/// A second call changes nothing, so that tiers in one process need not agree on who is first.
///
/// # Errors
/// The filter in the environment is wrong; nothing was set up.
pub fn init(format: Format) -> Result<(), LogsError> {
    init_with(format, "info")
}

/// As [`init`], with another filter where the environment names none: for programs whose own
/// output matters more than what their tiers have to say.
///
/// # Errors
/// As for [`init`].
pub fn init_with(format: Format, unless_set: &str) -> Result<(), LogsError> {
    let set = FILTER_VARIABLES.iter().find_map(|name| {
        std::env::var(name).ok().filter(|value| !value.is_empty()).map(|v| (*name, v))
    });
    let filter = match set {
        None => EnvFilter::new(unless_set),
        Some((variable, filter)) => filter_of(variable, &filter)?,
    };
    let json = match format {
        Format::Auto => !std::io::stderr().is_terminal(),
        Format::Text => false,
        Format::Json => true,
    };
    let repeats = Arc::<Repeats>::default();
    let colours = !json && std::io::stderr().is_terminal();
    let lines = lines(filter, json, colours, std::io::stderr, &repeats);
    // An error here only says that somebody was first.
    if tracing::subscriber::set_global_default(lines).is_ok() {
        let _ = REPEATS.set(Arc::clone(&repeats));
        let telling = move || {
            loop {
                std::thread::park_timeout(TELL_EVERY);
                repeats.tell(Instant::now(), false);
            }
        };
        // Without this thread repeats are told at the end.
        let _ = crate::thread::spawn("log-repeats", telling);
    }
    Ok(())
}

/// Says how many repeated lines were left out until now: before the process ends.
pub fn flush() {
    if let Some(repeats) = REPEATS.get() {
        repeats.tell(Instant::now(), true);
    }
}

/// What writes lines to `writer`.
fn lines<W>(
    filter: EnvFilter,
    json: bool,
    colours: bool,
    writer: W,
    repeats: &Arc<Repeats>,
) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let registry = Registry::default().with(filter);
    let repeated = Repeated(Arc::clone(repeats));
    let lines = tracing_subscriber::fmt::layer();
    if json {
        let lines = lines.with_writer(JsonLines(writer));
        let lines = lines.json().flatten_event(true).with_current_span(false);
        Box::new(registry.with(lines.with_filter(repeated)))
    } else {
        let lines = lines.with_writer(writer).with_ansi(colours).fmt_fields(escape::fields());
        Box::new(registry.with(lines.with_filter(repeated)))
    }
}

fn filter_of(variable: &'static str, filter: &str) -> Result<EnvFilter, LogsError> {
    EnvFilter::try_new(filter).map_err(|error| LogsError {
        variable,
        filter: filter.to_owned(),
        reason: error.to_string(),
    })
}
