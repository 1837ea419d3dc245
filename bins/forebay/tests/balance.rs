//! `forebay check` finds what is lost, and says where: on real tiers, with faults planted in them.
//!
//! Three fronts, a middle and a storage tier take messages of a simulated fleet. Without a fault
//! the books agree, to the message, with what the devices were told; a sink that drops rows and a
//! middle that skips entries are found, each in its place. That the books outlive kills is shown by
//! `kill_storm`, power cuts by the middle's and the queue's own tests.
#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

#[path = "../src/scrape.rs"]
#[allow(dead_code)]
mod scrape;
#[path = "storm/tiers.rs"]
#[allow(dead_code)]
mod tiers;

use std::process::Command;

use serde_json::Value;
use tiers::Tiers;

/// Sends messages for a while; how many were acknowledged.
fn send(tiers: &Tiers) -> u64 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(["sim", "--devices", "40", "--rate", "4000", "--duration", "1", "--json"]);
    for front in tiers.fronts() {
        command.args(["--url", &front]);
    }
    let output = command.output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["acked"].as_u64().unwrap()
}

/// What the check says once all is on its way no more.
fn check(planted: Option<&'static str>) -> (u64, Value, Option<i32>) {
    let folder = tempfile::tempdir().unwrap();
    let tiers = Tiers::start(folder.path(), planted).unwrap();
    let acked = send(&tiers);
    assert!(acked > 1_000, "hardly any load: {acked}");
    let (balance, code) = tiers.check().unwrap();
    tiers.end().unwrap();
    (acked, balance, code)
}

fn faults(balance: &Value) -> Vec<(String, i64)> {
    let fault = |fault: &Value| {
        let place = fault["place"].as_str().unwrap().split(", ").nth(1).unwrap_or("middle");
        (place.to_owned(), fault["missing"].as_i64().unwrap())
    };
    balance["faults"].as_array().unwrap().iter().map(fault).collect()
}

#[test]
fn what_was_acknowledged_is_accounted_for_to_the_message() {
    let (acked, balance, code) = check(None);
    assert_eq!(code, Some(0), "{balance:#}");
    // A device that is not answered in time sends to another front, too.
    let duplicates = balance["duplicates"].as_u64().unwrap();
    assert_eq!(balance["accepted"], acked + duplicates, "{balance:#}");
    assert_eq!(balance["appended"], acked, "{balance:#}");
    let lake = &balance["sinks"][0];
    assert_eq!((&lake["consumer"], &lake["messages"]), (&"lake".into(), &acked.into()));
    assert_eq!((&lake["rows"], &lake["held"]), (&lake["stored"], &0.into()));
}

#[test]
fn a_sink_that_drops_rows_is_found() {
    let (_, balance, code) = check(Some("drop-row"));
    let faults = faults(&balance);
    assert_eq!(code, Some(1), "{balance:#}");
    assert!(matches!(&faults[..], [(place, 1..)] if place == "consumer lake"), "{balance:#}");
}

#[test]
fn a_middle_that_skips_entries_is_found() {
    let (acked, balance, code) = check(Some("skip-entry"));
    let faults = faults(&balance);
    assert_eq!(code, Some(1), "{balance:#}");
    assert!(matches!(&faults[..], [(place, 1..)] if place == "middle"), "{balance:#}");
    // More than that where a device was not answered in time, and sent to another front, too.
    let accepted = balance["accepted"].as_u64().unwrap();
    assert!(accepted >= acked, "a lost one was accepted all the same: {acked}, {balance:#}");
}
