//! Dead letters are listed and shown without a change, and what cannot be sent again stays.
//!
//! Method: the real command over a folder filled as a sink fills it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, process::Command};

use forebay_storage::{
    rows::{Cell, RowView},
    sink::{DeadLetters, Letter, Token},
};
use forebay_wire::{QueueId, Seq};

fn dlq(dir: &Path, words: &[&str]) -> (String, bool) {
    let config = dir.join("storage.toml");
    std::fs::write(&config, format!("[lake]\ndead_letters = {:?}\n", dir.join("dead"))).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .arg("dlq")
        .args(words)
        .arg("--config")
        .arg(config)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.success())
}

#[test]
fn letters_are_listed_and_shown_and_stay_when_they_cannot_be_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (text, well) = dlq(dir.path(), &["list"]);
    assert!(well && text.contains("0 dead letters"), "{text}");
    let letters = DeadLetters::new(&dir.path().join("dead"), "lake");
    letters.keep_entry(QueueId::new(7), Seq::from_parts(1, 5), b"\xff").unwrap();
    let token = Token::whole(QueueId::new(7), Seq::from_parts(1, 1), Seq::from_parts(1, 9));
    let row = RowView {
        tenant: "default",
        device: "pump-7",
        session: 1,
        seq: 2,
        index: 0,
        key: Some("t"),
        value: Cell::Float(1.5),
        unit: None,
        time_us: None,
        received_us: 1_700_000_000_000_000,
        entry: Seq::from_parts(1, 2),
        name: None,
        device_type: None,
        location: None,
        known: false,
        suspect: false,
    };
    letters.keep_row(&Letter::new("lake", "year 9999\u{1b}", &token, 3, &row)).unwrap();
    let (text, well) = dlq(dir.path(), &["list"]);
    assert!(well && text.contains("2 dead letters") && text.contains("row pump-7"), "{text}");
    assert!(!text.contains('\u{1b}'), "a reason cannot move the cursor");
    let (text, _) = dlq(dir.path(), &["list", "--json"]);
    let names: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|letter| letter["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names.len(), 2);
    for name in &names {
        let (text, well) = dlq(dir.path(), &["show", name]);
        assert!(well && serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
    }
    assert!(!dlq(dir.path(), &["show", "nothing"]).1);
    let (text, well) = dlq(dir.path(), &["replay"]);
    assert!(!well && text.contains("refuses no row"), "{text}");
    assert!(dlq(dir.path(), &["list"]).0.contains("2 dead letters"));
}
