//! The shared main of the thin binaries: read the configuration, start, wait, drain, end.
//!
//! Exit codes: 0 after a drain, 78 if the configuration or the command line is at fault (do not
//! restart), 1 for everything else.

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Command, FromArgMatches as _};
use prometheus::Registry;

use crate::config::{self, Settings};
use crate::drain::{self, Remains, ShutdownSettings};
use crate::{EXIT_CONFIG, EXIT_FAILED, EXIT_OK, Shutdown, logs, notify, thread};

/// What a tier's command line takes; a subcommand flattens it.
#[derive(Debug, Clone, Default, Args)]
pub struct TierArgs {
    /// Read settings from this TOML file; FOREBAY__SECTION__KEY variables override it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the settings in effect as TOML, defaults included, and end.
    #[arg(long)]
    pub print_config: bool,
}

/// Any error of a tier, for the last line of the log.
pub type TierError = Box<dyn Error + Send + Sync>;

/// The `main` of a thin binary: parses the command line, then does as [`run`].
///
/// `work` gets the configuration, a registry and the shutdown; it starts the tier, waits for the
/// shutdown, drains, and returns.
///
/// ```no_run
/// # use forebay_ops::{Faults, Shutdown, Validate};
/// #[derive(Default, serde::Serialize, serde::Deserialize)]
/// #[serde(default, deny_unknown_fields)]
/// struct Config {}
/// impl Validate for Config {
///     fn validate(&self, _: &mut Faults) {}
/// }
/// fn main() -> std::process::ExitCode {
///     forebay_ops::tier_main(
///         "forebay-front",
///         env!("CARGO_PKG_VERSION"),
///         "Devices in over WebSockets, acknowledgements out",
///         |_config: Config, _registry, shutdown: Shutdown| {
///             shutdown.wait();
///             Ok(())
///         },
///     )
/// }
/// ```
pub fn tier_main<C: Settings>(
    name: &'static str,
    version: &'static str,
    about: &'static str,
    work: impl FnOnce(C, &Registry, Shutdown) -> Result<(), TierError>,
) -> ExitCode {
    match parse(name, version, about, std::env::args_os()) {
        Ok(args) => run(name, &args, work),
        Err(code) => ExitCode::from(code),
    }
}

/// Runs a tier as this process: logs, configuration, signals, `work`, exit code.
///
/// From here on every panic of the process ends it.
pub fn run<C: Settings>(
    name: &'static str,
    args: &TierArgs,
    work: impl FnOnce(C, &Registry, Shutdown) -> Result<(), TierError>,
) -> ExitCode {
    ExitCode::from(run_to_code(name, args, work))
}

/// Says that a tier serves, waits for the shutdown, drains it by `drain`, which gets the longest
/// time that may take, and tells what is left.
///
/// # Errors
/// What `drain` said.
pub fn until_drained(
    name: &str,
    settings: &ShutdownSettings,
    shutdown: &Shutdown,
    drain: impl FnOnce(std::time::Duration) -> Result<Remains, TierError>,
) -> Result<(), TierError> {
    notify::ready();
    shutdown.wait();
    notify::stopping();
    let began = Instant::now();
    let left = drain(settings.timeout.get())?;
    drain::tell(settings.message.as_deref(), &[(name, left)], began.elapsed());
    Ok(())
}

/// Tells that a tier was asked to end before it served, which is no fault; `reason` says what it was
/// at. The work of [`run`] returns `Ok` then.
///
/// `message` is the file of the termination message, as configured.
pub fn ended_early(name: &str, message: Option<&Path>, shutdown: &Shutdown, reason: &dyn Display) {
    notify::stopping();
    let took = shutdown.since().unwrap_or_default();
    tracing::info!(tier = name, %reason, ?took, "ended before it served; the next start begins anew");
    drain::tell_early(message, took);
}

/// The arguments, or the exit code once help, version or a fault has been printed.
fn parse(
    name: &'static str,
    version: &'static str,
    about: &'static str,
    line: impl IntoIterator<Item = OsString>,
) -> Result<TierArgs, u8> {
    // In this order: the arguments bring their own description.
    TierArgs::augment_args(Command::new(name).version(version))
        .about(about)
        .try_get_matches_from(line)
        .and_then(|matches| TierArgs::from_arg_matches(&matches))
        .map_err(|error| {
            // Help and version are such errors too, for stdout.
            let _ = error.print();
            if error.use_stderr() { EXIT_CONFIG } else { EXIT_OK }
        })
}

fn run_to_code<C: Settings>(
    name: &'static str,
    args: &TierArgs,
    work: impl FnOnce(C, &Registry, Shutdown) -> Result<(), TierError>,
) -> u8 {
    if let Err(error) = logs::init(logs::Format::Auto) {
        eprintln!("{name}: {error}");
        return EXIT_CONFIG;
    }
    let config: C = match config::load(args.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{name}: {error}");
            return error.exit_code();
        }
    };
    if args.print_config {
        return print(name, &config);
    }
    thread::abort_on_panic();
    tracing::info!(
        tier = name,
        version = env!("CARGO_PKG_VERSION"),
        config =
            args.config.as_ref().map_or("defaults".into(), |path| path.to_string_lossy()).as_ref(),
        variables = config::variables().join(" "),
        pid = std::process::id(),
        "starts"
    );
    let code = ended(name, work, config);
    logs::flush();
    code
}

/// Does the work until it ends; the exit code.
fn ended<C>(
    name: &'static str,
    work: impl FnOnce(C, &Registry, Shutdown) -> Result<(), TierError>,
    config: C,
) -> u8 {
    let shutdown = match Shutdown::on_signals() {
        Ok(shutdown) => shutdown,
        Err(error) => {
            tracing::error!(tier = name, %error, "the signal handlers cannot be set");
            return EXIT_FAILED;
        }
    };
    match work(config, &Registry::new(), shutdown) {
        Ok(()) => {
            tracing::info!(tier = name, "ended");
            EXIT_OK
        }
        Err(error) => {
            tracing::error!(tier = name, error = chain(&*error), "ended by an error");
            EXIT_FAILED
        }
    }
}

fn print<C: Settings>(name: &str, config: &C) -> u8 {
    match config::to_toml(config) {
        Ok(text) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => EXIT_OK,
            Err(_) => EXIT_FAILED,
        },
        Err(error) => {
            eprintln!("{name}: {error}");
            error.exit_code()
        }
    }
}

/// An error with all its causes on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        // Many errors show their cause in their own text already.
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
