//! Logs on stderr: text on a terminal, one JSON object a line otherwise.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

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
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error here only says that somebody was first.
    let _ = if json {
        let subscriber = lines.json().flatten_event(true).with_current_span(false).finish();
        tracing::subscriber::set_global_default(subscriber)
    } else {
        let subscriber = lines.with_ansi(std::io::stderr().is_terminal()).finish();
        tracing::subscriber::set_global_default(subscriber)
    };
    Ok(())
}

fn filter_of(variable: &'static str, filter: &str) -> Result<EnvFilter, LogsError> {
    EnvFilter::try_new(filter).map_err(|error| LogsError {
        variable,
        filter: filter.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_filter_is_refused_with_its_variable() {
        let error = filter_of("FOREBAY_LOG", "forebay=loudest").unwrap_err().to_string();
        assert!(error.starts_with("FOREBAY_LOG=`forebay=loudest` is not a log filter"), "{error}");
        assert!(filter_of("FOREBAY_LOG", "info,forebay_link=debug").is_ok());
    }
}
