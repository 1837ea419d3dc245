//! Blocks into PostgreSQL by the sink, each with its cursor in one transaction, and the same bytes by
//! psql's `\copy`, into tables that are alike: a day's partition with both indexes.

use anyhow::{Result, ensure};
use forebay_benches::Report;
use forebay_storage::{config, postgres::PostgresSink, sink::Sink as _};
use forebay_testkit::postgres::Postgres;

use super::{
    load::{ROWS, batch, registry},
    race::{self, ROUNDS, Race},
};

const BLOCKS: usize = 2;

pub(crate) fn measure(report: &Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Postgres::start(folder.path(), &[])?;
    let settings = |schema: &str| config::Postgres {
        enabled: true,
        url: server.url(),
        schema: schema.to_owned(),
        ..config::Postgres::default()
    };
    let (known, runtime) = (registry(), race::runtime()?);
    let mut sink = PostgresSink::new(&settings("ours"));
    let batches: Vec<_> = (0..BLOCKS).map(|number| batch(number, &known)).collect();
    let encode = |rows| sink.encode(rows).map(|encoded| encoded.parts[0].bytes.clone());
    let blocks: Vec<_> = batches.iter().map(encode).collect::<Result<_, _>>()?;
    let files = race::files(folder.path(), "block", blocks.iter().map(|bytes| &bytes[..]))?;
    // Makes the tables of both, and warms the server up.
    race::store(&runtime, &mut sink, &batches[..1], 1000)?;
    race::store(&runtime, &mut PostgresSink::new(&settings("theirs")), &batches[..1], 1000)?;
    let ask = |sql: &str| -> Result<String> {
        let mut psql = server.client("psql")?;
        let said =
            race::run(psql.args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-c", sql]))?;
        Ok(said.trim().to_owned())
    };
    // The partition itself, as the sink does; its columns in the order of the blocks.
    let partition = ask("SELECT inhrelid::regclass FROM pg_inherits
                         WHERE inhparent = 'theirs.readings'::regclass")?;
    let columns = forebay_storage::postgres::COLUMNS.join(", ");
    let mut copy = server.client("psql")?;
    copy.args(["-X", "-q", "-v", "ON_ERROR_STOP=1"]);
    for file in &files {
        let from = format!("FROM '{}' WITH (FORMAT binary)", file.display());
        copy.args(["-c", &format!("\\copy {partition} ({columns}) {from}")]);
    }
    let mut race = Race::default();
    for round in 0..ROUNDS {
        race.round(
            BLOCKS * ROWS,
            || race::store(&runtime, &mut sink, &batches, round as u128 + 1),
            || race::run(&mut copy).map(drop),
        )?;
    }
    for schema in ["ours", "theirs"] {
        let count = ask(&format!("SELECT count(*) FROM {schema}.readings"))?;
        ensure!(count == ((ROUNDS * BLOCKS + 1) * ROWS).to_string(), "{schema}: {count} rows");
    }
    race.tell(report, "postgres", "psql \\copy", 0.9);
    Ok(())
}
