//! Rows into stores: what encoding costs, how fast each store takes them from us, and how fast from
//! its own best loader in the same run.
//!
//! `cargo bench -p forebay-benches --features peers --bench sinks [-- --json] [NAME ...]`, where a
//! name is one of `encode`, `tier`, `clickhouse`, `postgres`, `redis`, `victoria`, `parquet`; all
//! without one, and without the feature only `encode`. Every figure is the median of several rounds;
//! in each, ours and the loader's have their turn. Ours encodes and sends, as a sink's thread does;
//! a loader has its bytes ready, and `sent` leaves our encoding out, too. The stores are real servers of
//! testkit's, on loopback, on the same processors as the bench.
//!
//! What it cannot show: a network, a store on a machine of its own, and a table that is large.

use anyhow::Result;
use clap::Parser;
use forebay_benches::{Report, options::Shown};

#[cfg(feature = "peers")]
#[path = "sinks/clickhouse.rs"]
mod clickhouse;
#[path = "sinks/encode.rs"]
mod encode;
#[path = "sinks/load.rs"]
mod load;
#[cfg(feature = "peers")]
#[path = "sinks/parquet.rs"]
mod parquet;
#[cfg(feature = "peers")]
#[path = "sinks/postgres.rs"]
mod postgres;
#[cfg(feature = "peers")]
#[path = "sinks/race.rs"]
mod race;
#[cfg(feature = "peers")]
#[path = "sinks/redis.rs"]
mod redis;
#[cfg(feature = "peers")]
#[path = "sinks/tier.rs"]
mod tier;
#[cfg(feature = "peers")]
#[path = "sinks/victoria.rs"]
mod victoria;

/// A part of the bench.
type Part = fn(&Report) -> Result<()>;

/// A store has a file here, and a line.
const PARTS: &[(&str, Part)] = &[
    ("encode", encode::measure),
    #[cfg(feature = "peers")]
    ("tier", tier::measure),
    #[cfg(feature = "peers")]
    ("clickhouse", clickhouse::measure),
    #[cfg(feature = "peers")]
    ("postgres", postgres::measure),
    #[cfg(feature = "peers")]
    ("redis", redis::measure),
    #[cfg(feature = "peers")]
    ("victoria", victoria::measure),
    #[cfg(feature = "peers")]
    ("parquet", parquet::measure),
];

/// Measures rows into each store beside the store's own best loader.
#[derive(Parser)]
struct Options {
    /// What is measured [default: all].
    parts: Vec<String>,
    #[command(flatten)]
    shown: Shown,
}

fn main() -> Result<()> {
    forebay_ops::logs::init_with(forebay_ops::logs::Format::Text, "error")?;
    let options = Options::parse();
    let (names, report) = (&options.parts, options.shown.report());
    if let Some(name) = names.iter().find(|name| PARTS.iter().all(|(part, _)| part != name)) {
        anyhow::bail!("no part {name}");
    }
    for (name, measure) in PARTS {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            measure(&report)?;
        }
    }
    Ok(())
}
