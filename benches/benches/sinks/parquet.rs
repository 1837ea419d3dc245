//! Ranges into the lake by its sink, a synced file each, and the same rows out of a table in memory by
//! DuckDB's `COPY TO`, one file with the same compression, not synced.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use forebay_benches::Report;
use forebay_storage::lake::LakeSink;
use forebay_testkit::python;

use super::{
    load::{ROWS, batch, registry},
    race::{self, ROUNDS, Race},
};

const BATCHES: usize = 10;

/// Reads what we wrote, then writes a file at each line that comes.
const LOADER: &str = r#"
import sys, duckdb
connection = duckdb.connect()
# A bar would stand among the lines that are waited for.
connection.execute("SET enable_progress_bar = false")
connection.execute(f"CREATE TABLE rows AS SELECT * FROM read_parquet('{sys.argv[1]}/**/*.parquet')")
print(connection.execute("SELECT count(*) FROM rows").fetchone()[0], flush=True)
for number, _ in enumerate(sys.stdin):
    connection.execute(
        f"COPY rows TO '{sys.argv[2]}/{number}.parquet' "
        "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)")
    print("written", flush=True)
"#;

/// DuckDB in a process of its own.
struct Duck {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Duck {
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "DuckDB has ended: {:?}", self.child.wait()?);
        Ok(line.trim().to_owned())
    }

    fn copy(&mut self) -> Result<()> {
        writeln!(self.input, "copy")?;
        let line = self.line()?;
        ensure!(line == "written", "DuckDB says {line:?}");
        Ok(())
    }
}

impl Drop for Duck {
    fn drop(&mut self) {
        // It is ours, and holds nothing that is worth an orderly end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn measure(report: &Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (known, runtime) = (registry(), race::runtime()?);
    let batches: Vec<_> = (0..BATCHES).map(|number| batch(number, &known)).collect();
    let lake = |name: &str| LakeSink::open(&folder.path().join(name));
    race::store(&runtime, &mut lake("source")?, &batches, 1)?;
    let mut python = python::venv(&["duckdb==2.0.0"])?.command();
    python.args(["-c", LOADER]).arg(folder.path().join("source")).arg(folder.path());
    let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let input = child.stdin.take().context("its stdin is piped")?;
    let output = BufReader::new(child.stdout.take().context("its stdout is piped")?);
    let mut duck = Duck { child, input, output };
    let read = duck.line()?;
    ensure!(read == (BATCHES * ROWS).to_string(), "DuckDB read {read} rows");
    let mut race = Race::default();
    for round in 0..ROUNDS {
        let mut sink = lake(&format!("lake-{round}"))?;
        race.round(
            BATCHES * ROWS,
            || race::store(&runtime, &mut sink, &batches, 1),
            || duck.copy(),
        )?;
    }
    race.tell(report, "parquet", "DuckDB COPY TO", 0.9);
    Ok(())
}
