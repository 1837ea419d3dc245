//! How a Forebay process is run: configuration, logs, metrics, admin HTTP, shutdown and threads.
//!
//! Everything here is about the process, nothing about device data, so this crate imports nothing
//! of ours. Metrics and configuration are passed in, never static: three tiers run in one process.
//!
//! | for | use |
//! | --- | --- |
//! | a thin binary | [`tier_main`], or [`tier::run`] under a subcommand |
//! | a configuration struct | [`config::Validate`], [`ByteSize`], [`Duration`] |
//! | metrics | [`Metrics`] over the registry that was passed in |
//! | files that change while it runs | [`reload::Watched`] |
//! | TLS of ports, links and stores | [`tls::TlsServer`], [`tls::TlsClient`], [`tls::StoreTls`] |
//! | `/healthz /readyz /metrics` | [`admin::Admin`] |
//! | the end of a tier, scale-in | [`drain::Drain`], [`Shutdown`] |
//! | systemd, if it started us | [`notify`] |
//! | what must not go on | [`fatal`], [`thread::spawn`] |
//! | a folder whose files must last | [`make_folder`] |

#![forbid(unsafe_code)]

pub mod admin;
mod byte_size;
pub mod config;
pub mod drain;
mod duration;
mod fatal;
mod folder;
pub mod logs;
pub mod metrics;
pub mod notify;
pub mod reload;
mod shutdown;
pub mod thread;
pub mod tier;
pub mod tls;

pub use byte_size::{ByteSize, ByteSizeError};
pub use config::{ConfigError, Faults, Validate};
pub use duration::{Duration, DurationError};
pub use fatal::fatal;
pub use folder::make_folder;
pub use metrics::{Metrics, MetricsError};
pub use shutdown::Shutdown;
pub use tier::tier_main;

/// The process ended as it was asked to.
pub const EXIT_OK: u8 = 0;
/// The process could not start or had to end; the log says why.
pub const EXIT_FAILED: u8 = 1;
/// The configuration or the command line is at fault (`EX_CONFIG` of sysexits.h): do not restart.
pub const EXIT_CONFIG: u8 = 78;
