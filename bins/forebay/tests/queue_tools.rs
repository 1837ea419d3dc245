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
use rand::{RngExt as _, SeedableRng as _};

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

/// Byte flips at random places of the records, through the command: what `verify` says, and what a
/// `repair` keeps, compared with every entry that was there.
#[test]
fn random_byte_flips_are_found_and_every_intact_record_is_kept() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = rand::rngs::SmallRng::seed_from_u64(seed);
    for round in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        front_queue(dir.path()).close().unwrap();
        let before = dump(dir.path());
        let ring = dir.path().join("ring");
        let bytes = fs::read(&ring).unwrap();
        // Where each payload lies: what is flipped there costs just that record.
        let places: Vec<usize> = bytes
            .windows(11)
            .enumerate()
            .filter(|(_, window)| window == b"temperature")
            .map(|(place, _)| place)
            .collect();
        assert_eq!(places.len() as u64, ENTRIES);
        // The first fifty are committed, and their space is free.
        let places = &places[50..];
        let mut hit = std::collections::BTreeSet::new();
        for _ in 0..=round {
            hit.insert(random.random_range(0..places.len()));
        }
        let file = fs::OpenOptions::new().write(true).open(&ring).unwrap();
        for &record in &hit {
            let place = places[record] + random.random_range(0..11);
            file.write_all_at(&[bytes[place] ^ random.random_range(1..=255)], place as u64)
                .unwrap();
        }
        drop(file);
        let verdict = forebay(&["verify", "--json"], dir.path());
        let kept = before.iter().enumerate().filter(|(at, _)| !hit.contains(at));
        let kept: Vec<&String> = kept.map(|(_, line)| line).collect();
        assert_eq!(verdict.status.code(), Some(65), "round {round}: {verdict:?}");
        assert_eq!(json(&verdict)["entries"], kept.len(), "round {round}");
        let listed = forebay(&["ls", "--json"], dir.path());
        assert_eq!((listed.status.code(), &json(&listed)["state"]), (Some(65), &"damaged".into()));
        let repaired = forebay(&["repair", "--json"], dir.path());
        assert_eq!(repaired.status.code(), Some(0), "round {round}: {repaired:?}");
        let copy = json(&repaired)["copy"].as_str().unwrap().to_owned();
        let copied = fs::read(copy).unwrap();
        let differing = bytes.iter().zip(&copied).filter(|(was, is)| was != is).count();
        assert_eq!(differing, hit.len(), "the copy is the file as it was damaged");
        assert_eq!(dump(dir.path()).iter().collect::<Vec<_>>(), kept, "round {round}");
        assert_eq!(forebay(&["verify"], dir.path()).status.code(), Some(0));
    }
}

fn dump(dir: &Path) -> Vec<String> {
    stdout(&forebay(&["dump"], dir)).lines().map(str::to_owned).collect()
}

#[test]
fn all_queues_below_a_directory_are_listed_with_their_owner() {
    let dir = tempfile::tempdir().unwrap();
    let live = front_queue(&dir.path().join("front-0/uplink-0"));
    front_queue(&dir.path().join("front-1/uplink-0")).close().unwrap();
    fs::create_dir_all(dir.path().join("front-2/uplink-0")).unwrap();
    fs::write(dir.path().join("front-2/uplink-0/ring"), "something else").unwrap();
    let listed = forebay(&["ls", "--json"], dir.path());
    assert_eq!(listed.status.code(), Some(65), "one is not usable: {listed:?}");
    let rows: Vec<serde_json::Value> =
        stdout(&listed).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 3);
    assert_eq!((&rows[0]["owner"], &rows[0]["state"]), (&"live".into(), &"clean".into()));
    assert_eq!(rows[1]["owner"], "orphaned");
    assert_eq!(rows[1]["pending_entries"], ENTRIES - 50);
    assert!(rows[1]["oldest_pending_seconds"].as_u64().unwrap() > 1_000_000_000);
    assert_eq!(rows[2]["state"], "unusable");
    drop(live);
    assert!(stdout(&forebay(&["ls"], dir.path())).contains("front-1/uplink-0  orphaned clean"));
}

/// A middle of this process for a ring to be handed to.
fn middle(dir: &Path, uplink: &str) -> forebay_middle::Running {
    let mut config = forebay_middle::Config::default();
    config.uplink.listen = uplink.to_owned();
    config.feed.listen = format!("ipc://{}", dir.join("feed").display());
    config.fetch.listen = format!("ipc://{}", dir.join("fetch").display());
    config.admin.address = ([127, 0, 0, 1], 0).into();
    config.queue.dir = dir.join("middle");
    config.queue.capacity = forebay_ops::ByteSize::mib(4);
    config.queue.any_filesystem = true;
    let (registry, shutdown) = (prometheus::Registry::new(), forebay_ops::Shutdown::new());
    forebay_middle::start(config, &registry, shutdown).unwrap()
}

#[test]
fn an_orphaned_ring_is_handed_to_a_middle_and_committed_on_its_acks_alone() {
    let dir = tempfile::tempdir().unwrap();
    let port = forebay_testkit::Port::free().unwrap();
    let to = format!("tcp://127.0.0.1:{}", port.number());
    let ring = dir.path().join("uplink-0");
    let queue = front_queue(&ring);
    drop(queue.reader("forwarder").unwrap());
    let drain = |time: &str| forebay(&["drain", "--to", &to, "--timeout", time, "--json"], &ring);
    assert_eq!(drain("1s").status.code(), Some(75), "a running front keeps its ring");
    queue.close().unwrap();
    let late = drain("500ms");
    assert_eq!(late.status.code(), Some(75), "nobody is there: {late:?}");
    assert!(json(&late)["bytes_left"].as_u64().unwrap() > 0, "nothing was acked");
    let running = middle(dir.path(), &to);
    let done = drain("60s");
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert_eq!(json(&done)["entries"], ENTRIES - 50);
    let again = drain("60s");
    assert_eq!((again.status.code(), &json(&again)["entries"]), (Some(0), &0.into()));
    let used = running.used_bytes();
    assert!(used > 0);
    // Its log has each message once.
    let _ = running.drain(std::time::Duration::ZERO).unwrap();
    let log = forebay(&["dump", "--json"], &dir.path().join("middle"));
    let seqs = stdout(&log).lines().filter(|line| line.contains("\"seq\":")).count();
    assert_eq!(seqs as u64, ENTRIES - 50, "{}", stdout(&log));
}
