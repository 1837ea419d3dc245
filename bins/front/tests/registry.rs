//! What the registry says of a device is held against its readings, and the device is told.
//!
//! Method: a real front over loopback with a registry file, which one test changes under it.

mod support;

use forebay_front::config::Validation;
use forebay_wire::device::{Format, ServerFrame};
use support::{Event, Front, PATIENCE, seqs};
use tokio_tungstenite::tungstenite::Message;

const REGISTRY: &str = "[types.pump.keys.t]\ntype = \"float\"\nmin = -40\nmax = 150\n\
                        [[devices]]\nid = \"pump-7\"\ntype = \"pump\"\n";

fn front(validation: Validation) -> (Front, std::path::PathBuf) {
    let dir = tempfile::tempdir().expect("temp dir");
    let file = dir.path().join("registry.toml");
    std::fs::write(&file, REGISTRY).expect("registry");
    let files = vec![file.clone()];
    let front = Front::in_dir(dir, |config| {
        config.registry.files = files;
        config.registry.validation = validation;
    });
    (front, file)
}

fn reading(seq: u64, value: &str) -> Message {
    Message::text(format!(
        r#"{{"seq":{seq},"readings":[{{"key":"x","value":1}},{{"key":"t","value":{value}}}]}}"#
    ))
}

#[tokio::test]
async fn readings_that_break_the_registry_are_rejected_with_code_and_reason() {
    let (front, _) = front(Validation::Enforce);
    let mut device = front.device("pump-7", Format::Json).await;
    let mut stranger = front.device("stranger", Format::Json).await;
    for (seq, value, expected) in [
        (1, "150", None),
        (2, "150.5", Some(("out_of_bounds", "value 150.5 is above 150"))),
        (3, "\"hot\"", Some(("wrong_type", "value is text, the registry says float"))),
        (4, "-40.0", None),
        (5, "-41", Some(("out_of_bounds", "value -41 is below -40"))),
    ] {
        device.raw(reading(seq, value)).await;
        if let Some((code, reason)) = expected {
            match device.next().await {
                Event::Frame(ServerFrame::Reject { seq: found, code: said, reason: why }) => {
                    assert_eq!((found.get(), &*said), (seq, code));
                    assert_eq!(why, format!("reading 1, key \"t\": {reason}"));
                }
                other => panic!("{value}: not rejected but {other:?}"),
            }
        }
        device.acked(seq).await;
        stranger.raw(reading(seq, value)).await;
        stranger.acked(seq).await;
    }
    let count = |code| front.metric("forebay_front_rejects_total", &[("code", code)]);
    assert_eq!((count("out_of_bounds"), count("wrong_type")), (2.0, 1.0));
    assert_eq!(front.metric("forebay_front_unknown_devices_total", &[]), 5.0);
    drop((device, stranger));
    let stored = front.end();
    assert_eq!(seqs(&stored, "pump-7"), [1, 4]);
    assert_eq!(seqs(&stored, "stranger"), [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn in_warn_they_are_taken_and_counted() {
    let (front, _) = front(Validation::Warn);
    let mut device = front.device("pump-7", Format::Json).await;
    for (seq, value) in [(1, "1"), (2, "151"), (3, "true")] {
        device.raw(reading(seq, value)).await;
        device.acked(seq).await;
    }
    let count = |code| front.metric("forebay_front_suspects_total", &[("code", code)]);
    assert_eq!((count("out_of_bounds"), count("wrong_type")), (1.0, 1.0));
    drop(device);
    assert_eq!(seqs(&front.end(), "pump-7"), [1, 2, 3]);
}

#[tokio::test]
async fn a_change_of_the_file_holds_for_connections_that_are_open_and_a_bad_one_changes_nothing() {
    let (front, file) = front(Validation::Enforce);
    let mut device = front.device("pump-7", Format::Json).await;
    device.raw(reading(1, "100")).await;
    device.acked(1).await;
    let taken = |front: &Front, name: &str| front.metric(name, &[("files", "front_registry")]);
    std::fs::write(&file, REGISTRY.replace("max = 150", "max = \"x\"")).expect("registry");
    wait(|| taken(&front, "forebay_reload_refused_total") >= 1.0).await;
    device.raw(reading(2, "100")).await;
    device.acked(2).await;
    std::fs::write(&file, REGISTRY.replace("max = 150", "max = 50")).expect("registry");
    wait(|| taken(&front, "forebay_reload_taken_total") >= 1.0).await;
    device.raw(reading(3, "100")).await;
    assert!(matches!(device.next().await, Event::Frame(ServerFrame::Reject { .. })));
    device.acked(3).await;
    drop(device);
    assert_eq!(seqs(&front.end(), "pump-7"), [1, 2]);
}

async fn wait(condition: impl Fn() -> bool) {
    let until = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < until, "not in time");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
