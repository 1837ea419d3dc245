//! Blocks into ClickHouse by the sink, ledger and tokens included, and the same bytes by curl, into
//! tables that are alike: rollups, codecs and syncs included.

use anyhow::{Result, ensure};
use forebay_benches::Report;
use forebay_storage::{
    clickhouse::{ClickhouseSink, Schema},
    config::Clickhouse,
    sink::Sink as _,
};
use forebay_testkit::{clickhouse::ClickHouse, http::encode_query};

use super::{
    load::{ROWS, batch, registry},
    race::{self, ROUNDS, Race},
};

const BLOCKS: usize = 4;

pub(crate) fn measure(report: &Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = ClickHouse::start(folder.path())?;
    let settings = |database: &str| Clickhouse {
        url: server.url(),
        database: database.to_owned(),
        ..Clickhouse::default()
    };
    let (ours, theirs) = (settings("ours"), settings("theirs"));
    let (known, runtime) = (registry(), race::runtime()?);
    let mut sink = ClickhouseSink::alone(&ours);
    let batches: Vec<_> = (0..BLOCKS).map(|number| batch(number, &known)).collect();
    let encode = |rows| sink.encode(rows).map(|encoded| encoded.parts[0].bytes.clone());
    let blocks: Vec<_> = batches.iter().map(encode).collect::<Result<_, _>>()?;
    let files = race::files(folder.path(), "block", blocks.iter().map(|bytes| &bytes[..]))?;
    let url = format!(
        "{}/?async_insert=0&max_insert_block_size=4194304&min_insert_block_size_rows=4194304&\
         max_insert_threads=1&query={}",
        server.url(),
        encode_query(&Schema::new(&theirs).insert())
    );
    // Makes the tables of both, and warms the server up.
    race::store(&runtime, &mut sink, &batches[..1], 1000)?;
    race::store(&runtime, &mut ClickhouseSink::alone(&theirs), &batches[..1], 1000)?;
    let mut race = Race::default();
    for round in 0..ROUNDS {
        race.round(
            BLOCKS * ROWS,
            || race::store(&runtime, &mut sink, &batches, round as u128 + 1),
            || {
                // The table forgets a block that it has: each has a name of its own.
                let token = |number| format!("{url}&insert_deduplication_token={round}-{number}");
                race::curl(files.iter().enumerate().map(|(number, file)| (token(number), file)))
            },
        )?;
    }
    for database in ["ours", "theirs"] {
        let count = server.query(&format!("SELECT count() FROM {database}.readings"))?;
        ensure!(count == ((ROUNDS * BLOCKS + 1) * ROWS).to_string(), "{database}: {count} rows");
    }
    race.tell(report, "clickhouse", "curl", 0.9);
    Ok(())
}
