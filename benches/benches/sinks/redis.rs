//! Last values into Redis by the sink, which lets only newer ones in, and plain `HSET`s of values as
//! long by redis-benchmark, pipelined.
//!
//! Two loads: ranges as they come, in which a series has many rows of which the last counts; and
//! ranges in which every row is another series, where nothing can be left out.

use anyhow::{Result, ensure};
use forebay_benches::Report;
use forebay_storage::{config, redis::RedisSink};
use forebay_testkit::Redis;

use super::{
    load::{DEVICES, READINGS, ROWS, batch_of, registry},
    race::{self, ROUNDS, Race},
};

/// Commands a round trip, as many as the sink's.
const PIPELINE: &str = "256";
/// A value as the sink writes it, about.
const VALUE_BYTES: usize = 230;

pub(crate) fn measure(report: &Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Redis::start(folder.path(), &[])?;
    let (known, runtime) = (registry(), race::runtime()?);
    let mut sink = RedisSink::new(&config::Redis {
        enabled: true,
        url: server.url(),
        ..config::Redis::default()
    });
    let port = server.port().to_string();
    let value = "v".repeat(VALUE_BYTES);
    for (name, devices) in [("redis", DEVICES), ("redis, all distinct", ROWS / READINGS)] {
        // A row each: nothing in the loader knows that a later one makes it superfluous.
        let mut loader = server.program("redis-benchmark")?;
        loader.args(["-h", "127.0.0.1", "-p", &port, "-q", "-c", "1", "-P", PIPELINE]);
        loader.args(["-n", &(ROWS / READINGS).to_string(), "-r", &devices.to_string()]);
        loader.args(["HSET", "theirs:default/device-__rand_int__", "temperature", &value]);
        loader.args(["count", &value]);
        let mut race = Race::default();
        for round in 0..ROUNDS {
            // Newer in each round: all of it is taken.
            let rows = [batch_of(round, &known, devices)];
            race.round(
                ROWS,
                || race::store(&runtime, &mut sink, &rows, 1),
                || race::run(&mut loader).map(drop),
            )?;
        }
        race.tell(report, name, "redis-benchmark", 0.9);
        let mut cli = server.program("redis-cli")?;
        let keys = race::run(
            cli.args(["-p", &port, "EVAL"])
                .args(["return #redis.call('KEYS', 'forebay:last:*')", "0"]),
        )?;
        ensure!(keys.trim() == devices.to_string(), "{} devices have last values", keys.trim());
    }
    Ok(())
}
