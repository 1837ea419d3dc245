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
use forebay_benches::Report;

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

fn main() -> Result<()> {
    forebay_ops::logs::init_with(forebay_ops::logs::Format::Text, "error")?;
    let mut report = Report { json: false };
    let mut names = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            // Cargo says what it runs.
            "--bench" => {}
            "--json" => report.json = true,
            name => {
                anyhow::ensure!(PARTS.iter().any(|(part, _)| *part == name), "no part {name}");
                names.push(argument);
            }
        }
    }
    for (name, measure) in PARTS {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            measure(&report)?;
        }
    }
    Ok(())
}
