//! Rows of a batch to the bytes of each store, by one thread, in rows a second of its CPU time.

use anyhow::Result;
use forebay_benches::{Goal, Report};
use forebay_storage::{
    clickhouse::ClickhouseSink, config, lake::LakeSink, postgres::PostgresSink, redis::RedisSink,
    remote_write::RemoteWriteSink, sink::Sink,
};

use super::load::{ROWS, batch, registry, thread_cpu};

const ROUNDS: usize = 11;
const TIMES: usize = 5;

pub(crate) fn measure(report: &Report) -> Result<()> {
    let rows = batch(0, &registry());
    let tell = |store: &str, sink: &mut dyn Sink, goal: Goal| -> Result<()> {
        let mut rates = Vec::new();
        for _ in 0..ROUNDS {
            let before = thread_cpu();
            for _ in 0..TIMES {
                let encoded = std::hint::black_box(sink.encode(&rows)?);
                assert!(!encoded.parts.is_empty());
            }
            rates.push((TIMES * ROWS) as f64 / (thread_cpu() - before) / 1e6);
        }
        report.add_rounds(&format!("encode: {store}"), &rates, "M rows/s/core", goal);
        Ok(())
    };
    let folder = tempfile::tempdir()?;
    let remote_write = RemoteWriteSink::new(&config::RemoteWrite::default());
    let mut remote_write = remote_write.map_err(anyhow::Error::msg)?;
    let mut clickhouse = ClickhouseSink::alone(&config::Clickhouse::default());
    tell("clickhouse", &mut clickhouse, Goal::AtLeast(10.0))?;
    tell("postgres", &mut PostgresSink::new(&config::Postgres::default()), Goal::None)?;
    tell("remote write", &mut remote_write, Goal::None)?;
    tell("redis", &mut RedisSink::new(&config::Redis::default()), Goal::None)?;
    tell("parquet", &mut LakeSink::open(folder.path())?, Goal::None)
}
