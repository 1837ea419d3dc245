//! `forebay queue ...` on real queues: live, orphaned and damaged.
#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::Path,
    process::{Command, Output},
};

use forebay_model::{Body, Message, MessageId, Reading, SessionId, TenantId, Timestamp, Value};
use forebay_queue::{Durability, Options, Queue, Seq};

const ENTRIES: u64 = 200;

fn options() -> Options {
    Options {
        capacity_bytes: 1 << 18,
        durability: Durability::Process,
        any_filesystem: true,
        ..Options::default()
    }
}

/// A front's queue with messages 1 to 200 of one device, 50 of them committed by the uplink.
fn front_queue(dir: &Path) -> Queue {
    let queue = Queue::create(dir, &options()).unwrap();
    let mut reader = queue.reader("uplink").unwrap();
    let mut fiftieth = Seq::NONE;
    for number in 1..=ENTRIES {
        let message = Message {
            tenant: TenantId::single().as_str().to_owned().into(),
            device: "pump-7".into(),
            session: SessionId::new(42).unwrap(),
            seq: MessageId::new(number).unwrap(),
            rejected_before: 0,
            received: Timestamp::from_micros(1_000_000).unwrap(),
            body: Body::Readings(vec![Reading {
                key: "temperature".into(),
                value: Value::Float(number as f64),
                unit: None,
                time: None,
            }]),
        };
        let mut payload = Vec::new();
        forebay_wire::entry::encode(&message, &mut payload);
        let seq = queue.append(number, &payload).unwrap();
        if number == 50 {
            fiftieth = seq;
        }
    }
    // Read before it is committed, as a forwarder does.
    while reader.cursor() < fiftieth {
        assert!(!reader.peek(1000, 1 << 20).unwrap().is_empty());
        reader.commit_durable(fiftieth, None).unwrap();
    }
    drop(reader);
    queue
}

fn forebay(arguments: &[&str], dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.arg("queue").arg(arguments[0]).arg(dir).args(&arguments[1..]);
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn a_queue_is_shown_live_and_orphaned() {
    let dir = tempfile::tempdir().unwrap();
    let queue = front_queue(&dir.path().join("uplink-0"));
    // A directory with only one queue in it will do.
    let live = json(&forebay(&["stat", "--json"], dir.path()));
    assert_eq!(live["live"], true);
    queue.close().unwrap();
    let orphaned = json(&forebay(&["stat", "--json"], dir.path()));
    assert_eq!(orphaned["live"], false);
    assert_eq!(orphaned["readers"][0]["name"], "uplink");
    assert_eq!(orphaned["readers"][0]["pending_entries"], ENTRIES - 50);
    assert!(stdout(&forebay(&["stat"], dir.path())).contains("150 entries"));
    assert_eq!(forebay(&["verify"], dir.path()).status.code(), Some(0));
}

#[test]
fn entries_are_decoded_tailed_and_exported() {
    let dir = tempfile::tempdir().unwrap();
    front_queue(dir.path()).close().unwrap();
    let dump = forebay(&["dump", "--json", "--reader", "uplink"], dir.path());
    let lines: Vec<serde_json::Value> =
        stdout(&dump).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len() as u64, ENTRIES - 50);
    assert_eq!(lines[0]["seq"], 51);
    assert_eq!(lines[0]["readings"][0]["value"], 51.0);
    let tail = stdout(&forebay(&["tail", "-n", "2"], dir.path()));
    assert_eq!(tail.lines().count(), 2);
    assert!(tail.ends_with("pump-7 session 42 #200 temperature=200\n"), "{tail}");
    let out = dir.path().join("all.jsonl");
    let export = forebay(&["export", "--out", out.to_str().unwrap()], dir.path());
    assert_eq!(export.status.code(), Some(0), "{export:?}");
    assert!(fs::read_to_string(&out).unwrap().lines().count() as u64 >= ENTRIES - 50);
    let again = forebay(&["export", "--out", out.to_str().unwrap()], dir.path());
    assert_eq!(again.status.code(), Some(1), "an existing file is not overwritten");
}

#[test]
fn draining_takes_each_entry_once_and_never_from_a_running_tier() {
    let dir = tempfile::tempdir().unwrap();
    let queue = front_queue(dir.path());
    let locked = forebay(&["drain", "--reader", "uplink"], dir.path());
    assert_eq!(locked.status.code(), Some(75), "{locked:?}");
    assert!(stdout(&locked).is_empty());
    assert_eq!(forebay(&["repair"], dir.path()).status.code(), Some(75));
    queue.close().unwrap();
    let unknown = forebay(&["drain", "--reader", "uplnk"], dir.path());
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("uplink"), "{unknown:?}");
    let count = stdout(&forebay(&["drain", "--reader", "uplink", "--dry-run"], dir.path()));
    assert_eq!(count, "150\n");
    let drained = stdout(&forebay(&["drain", "--reader", "uplink"], dir.path()));
    assert_eq!(drained.lines().count() as u64, ENTRIES - 50);
    let rest = stdout(&forebay(&["drain", "--reader", "uplink"], dir.path()));
    assert_eq!(rest, "");
}

#[test]
fn a_flipped_bit_is_found_and_repaired_at_the_cost_of_one_entry() {
    let dir = tempfile::tempdir().unwrap();
    front_queue(dir.path()).close().unwrap();
    let count = || stdout(&forebay(&["dump"], dir.path())).lines().count();
    let before = count();
    let ring = dir.path().join("ring");
    let bytes = fs::read(&ring).unwrap();
    // The name of the key in one of the newer entries, which nobody has committed.
    let places: Vec<usize> = bytes
        .windows(11)
        .enumerate()
        .filter(|(_, w)| w == b"temperature")
        .map(|(i, _)| i)
        .collect();
    let place = places[places.len() - 20];
    let file = fs::OpenOptions::new().write(true).open(&ring).unwrap();
    file.write_all_at(&[bytes[place] ^ 1], place as u64).unwrap();
    drop(file);
    let verdict = forebay(&["verify", "--json"], dir.path());
    assert_eq!(verdict.status.code(), Some(65), "{verdict:?}");
    let verdict = json(&verdict);
    assert_eq!(verdict["clean"], false);
    assert_eq!(verdict["damaged"].as_array().unwrap().len(), 1);
    let repaired = forebay(&["repair", "--json"], dir.path());
    assert_eq!(repaired.status.code(), Some(0), "{repaired:?}");
    let repaired = json(&repaired);
    assert_eq!(repaired["after"]["clean"], true);
    let copy = repaired["copy"].as_str().unwrap();
    assert_eq!(fs::read(copy).unwrap().len(), bytes.len());
    assert_eq!(forebay(&["verify"], dir.path()).status.code(), Some(0));
    assert_eq!(count(), before - 1);
}

#[test]
fn what_is_not_a_queue_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let none = forebay(&["stat"], dir.path());
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no queue"), "{none:?}");
    fs::write(dir.path().join("ring"), "something else").unwrap();
    assert_eq!(forebay(&["verify"], dir.path()).status.code(), Some(1));
}
