//! Any Parquet tool reads the lake: here pyarrow, as a dataset partitioned by day and hour.
//!
//! Method: what was sent is compared with what Python finds, row by row, as JSON.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, Instant};

use common::{
    DEADLINE, Log,
    rows::{OwnedCell, all_rows, messages},
};
use forebay_ops::Shutdown;
use forebay_storage::{
    lake::LakeSink,
    registry::Current,
    sink::{Limits, SinkTask, SinkTaskConfig},
};
use serde_json::{Value, json};

const READ: &str = r#"
import json, sys
import pyarrow.dataset as ds
lake = ds.dataset(sys.argv[1], format="parquet", partitioning="hive")
names = {field.name: str(field.type) for field in lake.schema}
print(json.dumps(names, sort_keys=True))
table = lake.to_table()
times = table.column("time_us").cast("int64").to_pylist()
received = table.column("received_us").cast("int64").to_pylist()
for row, time, received in zip(table.to_pylist(), times, received):
    value = [row[name] for name in ("value_float", "value_int", "value_bool", "value_text")]
    payload = row["payload"]
    print(json.dumps([
        row["tenant"], row["device"], row["session"], row["seq"], row["index"], row["key"],
        row["type"], value, row["unit"], time, received, row["content_type"],
        None if payload is None else list(payload), row["queue"], row["dt"], row["hour"],
    ]))
"#;

#[test]
fn pyarrow_reads_every_row_of_the_lake() {
    let venv = forebay_testkit::python::venv(&["pyarrow==22.0.0"]);
    let Some(venv) = forebay_testkit::or_skip(venv) else { return };
    let dir = tempfile::tempdir().unwrap();
    let lake = dir.path().join("lake");
    let log = Log::new(0xabc);
    let sent = messages(31, 2000);
    log.append_all(&sent);
    let config = SinkTaskConfig {
        name: "lake".to_owned(),
        limits: Limits {
            rows: 700,
            held_bytes: 1 << 20,
            outstanding_bytes: 1 << 20,
            age: Duration::from_secs(3600),
        },
        registry: Current::default(),
        dead_letters: dir.path().join("dead"),
        stored: Box::new(|_| {}),
    };
    let sink = LakeSink::open(&lake).unwrap();
    let task = SinkTask::start(config, log.consumer("lake"), sink, Shutdown::new()).unwrap();
    assert_eq!(task.drain(Instant::now() + DEADLINE), 0);
    // A write that never ended is nothing to any tool.
    std::fs::write(lake.join("dt=2026-11-22/hour=13/.torn.parquet.0.tmp"), b"PAR1").unwrap();

    let output = venv.command().args(["-c", READ]).arg(&lake).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines();
    let names: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    for (column, kind) in [
        ("tenant", "string"),
        ("time_us", "timestamp[us, tz=UTC]"),
        ("value_float", "double"),
        ("session", "int64"),
        ("entry", "uint64"),
    ] {
        assert_eq!(names[column], kind, "{names}");
    }
    let mut found: Vec<String> = lines.map(str::to_owned).collect();
    let mut expected: Vec<String> = all_rows(&sent).iter().map(|row| shown(row, 0xabc)).collect();
    let normal = |line: &String| serde_json::from_str::<Value>(line).unwrap().to_string();
    found = found.iter().map(normal).collect();
    expected = expected.iter().map(normal).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
}

/// A row as the Python above shows it.
fn shown(row: &common::rows::OwnedRow, queue: u128) -> String {
    let mut value = [Value::Null, Value::Null, Value::Null, Value::Null];
    let (mut content_type, mut bytes) = (Value::Null, Value::Null);
    let kind = match &row.value {
        OwnedCell::Float(number) => {
            value[0] = json!(number);
            "float"
        }
        OwnedCell::Int(number) => {
            value[1] = json!(number);
            "int"
        }
        OwnedCell::Bool(on) => {
            value[2] = json!(on);
            "bool"
        }
        OwnedCell::Text(text) => {
            value[3] = json!(text);
            "text"
        }
        OwnedCell::Opaque(kind, payload) => {
            (content_type, bytes) = (json!(kind), json!(payload));
            "opaque"
        }
    };
    let hour = forebay_storage::lake::Hour::of(row.received_us).to_string();
    let (dt, hour) = hour.split_once('/').unwrap();
    let hour: u32 = hour.trim_start_matches("hour=").parse().unwrap();
    json!([
        row.tenant,
        row.device,
        row.session,
        row.seq,
        row.index,
        row.key,
        kind,
        value,
        row.unit,
        row.time_us,
        row.received_us,
        content_type,
        bytes,
        format!("{queue:032x}"),
        dt.trim_start_matches("dt="),
        hour,
    ])
    .to_string()
}
