//! The demo as a newcomer runs it: the zeros, the JSON, and that a planted loss is not hidden.
#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use forebay_testkit::wait_until;

/// What every test of a demo takes, so that it runs anywhere and soon.
const ARGUMENTS: [&str; 8] =
    ["--check", "--json", "--devices", "40", "--rate", "2000", "--durability", "process"];

fn demo(dir: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.arg("demo").args(ARGUMENTS).arg("--dir").arg(dir).args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn everything_acknowledged_is_stored_and_the_json_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let output = demo(dir.path(), &["--seconds", "3"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let json = json(&output);
    for key in ["lost", "invented", "duplicated", "wrong", "inversions", "unacked", "undrained"] {
        assert_eq!(json[key], 0, "{key}: {json}");
    }
    assert_eq!(json["acked"], json["stored"]);
    assert!(json["acked"].as_u64().unwrap() > 2_000, "{json}");
    for key in ["messages_per_second", "ack_p50_us", "ack_p99_us"] {
        assert!(json[key].as_f64().unwrap() > 0.0, "{key}: {json}");
    }
    assert!(json["live_events"].as_u64().unwrap() > 0, "{json}");
    // The same folder again: what the first run stored is not this run's.
    let output = demo(dir.path(), &["--seconds", "1"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(self::json(&output)["foreign_rows"].as_u64().unwrap() > 2_000, "{output:?}");
}

#[test]
fn a_file_that_is_gone_ends_with_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = demo(dir.path(), &["--seconds", "7"]).spawn().unwrap();
    let mut found = None;
    wait_until("the first file of the lake", Duration::from_secs(40), || {
        found = first_file(&dir.path().join("storage/lake"));
        found.is_some() || child.try_wait().unwrap().is_some()
    });
    let Some(found) = found else {
        panic!("the demo ended without a file: {:?}", child.wait_with_output().unwrap());
    };
    std::fs::remove_file(found).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let json = json(&output);
    assert!(json["lost"].as_u64().unwrap() > 0, "{json}");
    assert_eq!((json["invented"].as_u64(), json["duplicated"].as_u64()), (Some(0), Some(0)));
    assert_eq!(json["ok"], false);
}

#[test]
fn a_lake_that_drops_rows_ends_with_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = demo(dir.path(), &["--seconds", "2"]);
    let output = demo.env("FOREBAY_PLANTED_FAULT", "drop-row").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let json = json(&output);
    assert!(json["lost"].as_u64().unwrap() > 0, "{json}");
    assert_eq!((json["invented"].as_u64(), json["duplicated"].as_u64()), (Some(0), Some(0)));
}

#[test]
fn chaos_ends_with_the_same_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let output = demo(dir.path(), &["--seconds", "8", "--chaos", "--seed", "7"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let json = json(&output);
    assert!(json["kills"].as_u64().unwrap() >= 3, "{json}");
    assert_eq!((json["lost"].as_u64(), json["duplicated"].as_u64()), (Some(0), Some(0)));
    assert_eq!(json["acked"], json["stored"]);
}

#[test]
fn a_folder_of_series_is_replayed_and_a_bad_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("bad.csv"), "timestamp,value\nyesterday,1\n").unwrap();
    let data = data.to_str().unwrap();
    let output = demo(dir.path(), &["--seconds", "1", "--data", data]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("bad line 2: not a time"), "{stderr}");
}

fn first_file(folder: &Path) -> Option<PathBuf> {
    for entry in std::fs::read_dir(folder).ok()? {
        let path = entry.ok()?.path();
        let hidden = path.file_name()?.to_string_lossy().starts_with('.');
        if path.is_dir() {
            if let Some(found) = first_file(&path) {
                return Some(found);
            }
        } else if !hidden && path.extension().is_some_and(|extension| extension == "parquet") {
            return Some(path);
        }
    }
    None
}
