//! Samples into VictoriaMetrics by remote write, and the same samples by curl in its own binary form,
//! as another VictoriaMetrics exported them.

use std::process::Command;

use anyhow::{Result, ensure};
use forebay_benches::Report;
use forebay_storage::{config::RemoteWrite, remote_write::RemoteWriteSink};
use forebay_testkit::Victoria;

use super::{
    load::{ROWS, START_US, batch, registry, span_ms},
    race::{self, ROUNDS, Race},
};

const BATCHES: usize = 4;
const FLAGS: [&str; 2] = ["-retentionPeriod=100y", "-dedup.minScrapeInterval=1ms"];

pub(crate) fn measure(report: &Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let start = |name: &str| -> Result<Victoria> {
        let folder = folder.path().join(name);
        std::fs::create_dir_all(&folder)?;
        Victoria::start(&folder, &FLAGS)
    };
    let sink = |server: &Victoria| {
        let url = format!("http://{}/api/v1/write", server.address());
        let settings = RemoteWrite { enabled: true, url, ..RemoteWrite::default() };
        RemoteWriteSink::new(&settings).map_err(anyhow::Error::msg)
    };
    let (known, runtime) = (registry(), race::runtime()?);
    let rounds: Vec<Vec<_>> = (0..ROUNDS)
        .map(|round| (0..BATCHES).map(|at| batch(round * BATCHES + at, &known)).collect())
        .collect();
    let mut source = start("source")?;
    let mut files = Vec::new();
    for (round, batches) in rounds.iter().enumerate() {
        race::store(&runtime, &mut sink(&source)?, batches, 1)?;
        source.get("/internal/force_flush")?;
        let file = folder.path().join(format!("native-{round}"));
        // A reading is 2 ms older than its message.
        let first = START_US / 1000 + (round * BATCHES) as i64 * span_ms() - 2;
        let times = [first, first + BATCHES as i64 * span_ms() - 1];
        let [start, end] = times.map(|at| format!("{:.3}", at as f64 / 1e3));
        let url = format!("http://{}/api/v1/export/native", source.address());
        let mut export = Command::new("curl");
        export.args(["-s", "-S", "--fail-with-body", "-G", "--data-urlencode"]);
        export.arg("match[]={device!=\"\"}").args(["-d", &format!("start={start}")]);
        race::run(export.args(["-d", &format!("end={end}"), "-o"]).arg(&file).arg(url))?;
        ensure!(std::fs::metadata(&file)?.len() > 100_000, "nothing was exported");
        files.push(file);
    }
    source.kill()?;
    let (ours, theirs) = (start("ours")?, start("theirs")?);
    let mut sink = sink(&ours)?;
    let url = format!("http://{}/api/v1/import/native", theirs.address());
    let mut race = Race::default();
    for (batches, file) in rounds.iter().zip(&files) {
        race.round(
            BATCHES * ROWS,
            || race::store(&runtime, &mut sink, batches, 1),
            || race::curl([(url.clone(), file)]),
        )?;
    }
    let (ours, theirs) = (samples(&ours)?, samples(&theirs)?);
    let expected = (ROUNDS * BATCHES * ROWS) as u64;
    ensure!(ours == expected, "{ours} of {expected} samples by remote write");
    ensure!(theirs == expected, "{theirs} of {expected} samples by import");
    race.tell(report, "victoria", "import native", 0.35);
    Ok(())
}

/// Rows that a server says it took.
fn samples(server: &Victoria) -> Result<u64> {
    let page = server.get("/metrics")?;
    let taken = page
        .lines()
        .filter(|line| line.starts_with("vm_rows_inserted_total"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>();
    Ok(taken as u64)
}
