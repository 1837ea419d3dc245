//! Last values are the newest by (time, seq), whatever the order of arrival, and survive a restart.

use forebay_model::{Body, Message, Reading};
use forebay_wire::{QueueId, Seq};

use super::*;

fn message(
    device: &str,
    session: u64,
    seq: u64,
    time: Option<i64>,
    value: i64,
) -> Message<'static> {
    let at = |time_us| Timestamp::from_micros(time_us).expect("in bounds");
    Message {
        tenant: "default".into(),
        device: device.to_owned().into(),
        session: SessionId::new(session).expect("small"),
        seq: MessageId::new(seq).expect("from 1"),
        rejected_before: 0,
        received: at(1_000_000 + seq as i64),
        body: Body::Readings(vec![Reading {
            key: "t".into(),
            value: Value::Int(value),
            unit: Some("°C".into()),
            time: time.map(at),
        }]),
    }
}

fn position(counter: u64) -> Position {
    Position { queue: QueueId::new(3), seq: Seq::from_parts(1, counter) }
}

fn value(last: &LastValues, device: &str) -> Option<Value<'static>> {
    last.of_device("default", device).pop().map(|last| last.reading.value)
}

#[test]
fn any_order_of_arrival_leaves_the_same_values() {
    let messages = [
        message("a", 1, 1, Some(100), 1),
        message("a", 1, 2, Some(300), 2),
        message("a", 1, 3, Some(200), 3),
        message("a", 1, 4, Some(300), 4),
        message("a", 2, 4, Some(300), 5),
        message("b", 1, 1, None, 6),
        message("b", 1, 2, Some(5), 7),
    ];
    let mut order: Vec<usize> = (0..messages.len()).collect();
    // All rotations of all reversals of some prefix: enough to put each before each other.
    for prefix in 0..messages.len() {
        for rotation in 0..messages.len() {
            order.sort_unstable();
            order[..=prefix].reverse();
            order.rotate_left(rotation);
            let last = LastValues::new(10);
            for &place in &order {
                last.apply("m", position(1), [&messages[place]]);
            }
            assert_eq!(value(&last, "a"), Some(Value::Int(5)), "{order:?}");
            // Without a time of its own a reading counts as of its receipt.
            assert_eq!(value(&last, "b"), Some(Value::Int(6)), "{order:?}");
        }
    }
}

#[test]
fn a_snapshot_restores_values_and_positions() {
    let folder = tempfile::tempdir().expect("temp dir");
    let path = folder.path().join("storage/last.jsonl");
    let last = LastValues::new(10);
    assert_eq!(Snapshot::read(&path).expect("none is no fault"), None);
    last.apply("m", position(7), [&message("a", 1, 1, None, 1), &message("b", 1, 1, Some(9), 2)]);
    last.snapshot().write(&path).expect("written");
    let restored = LastValues::new(10);
    restore(&restored, &path).expect("restored");
    assert_eq!(restored.position("m"), Some(position(7)));
    for device in ["a", "b"] {
        assert_eq!(restored.of_device("default", device), last.of_device("default", device));
    }
    assert_eq!(restored.counts(), (2, 2, 0));
}

#[test]
fn a_device_whose_clock_was_once_in_the_future_is_heard_at_every_reading_and_over_a_restart() {
    let folder = tempfile::tempdir().expect("temp dir");
    let path = folder.path().join("last.jsonl");
    let last = LastValues::new(10);
    last.apply("m", position(1), [&message("a", 1, 1, Some(2_000_000_000_000_000), 1)]);
    assert_eq!(last.heard_us("default", "a"), Some(1_000_001));
    last.apply("m", position(2), [&message("a", 1, 500, Some(5), 2)]);
    assert_eq!(value(&last, "a"), Some(Value::Int(1)), "the newest by its own time stays");
    assert_eq!(last.heard_us("default", "a"), Some(1_000_500));
    // One that comes late does not take it back.
    last.apply("m", position(3), [&message("a", 1, 400, Some(4), 3)]);
    assert_eq!(last.heard_us("default", "a"), Some(1_000_500));
    last.apply("m", position(4), [&message("b", 1, 1, None, 2)]);

    let snapshot = last.snapshot();
    assert_eq!((snapshot.values.len(), snapshot.heard.len()), (2, 1));
    snapshot.write(&path).expect("written");
    assert_eq!(Snapshot::read(&path).expect("read"), Some(snapshot));
    let restored = LastValues::new(10);
    restore(&restored, &path).expect("restored");
    for device in ["a", "b", "c"] {
        assert_eq!(restored.heard_us("default", device), last.heard_us("default", device));
    }
    assert_eq!(restored.counts(), (2, 2, 0));
}

#[test]
fn a_snapshot_of_the_first_version_is_read() {
    let folder = tempfile::tempdir().expect("temp dir");
    let path = folder.path().join("last.jsonl");
    let last = LastValues::new(10);
    last.apply("m", position(7), [&message("a", 1, 1, None, 1), &message("b", 1, 1, None, 2)]);
    last.snapshot().write(&path).expect("written");
    let text = std::fs::read_to_string(&path).expect("there");
    let first = text.replace("\"version\":2", "\"version\":1").replace(",\"heard\":0", "");
    assert_ne!(first, text);
    std::fs::write(&path, &first).expect("written");
    assert_eq!(Snapshot::read(&path).expect("read"), Some(last.snapshot()));
    std::fs::write(&path, first.replace("\"version\":1", "\"version\":3")).expect("written");
    let refused = Snapshot::read(&path);
    assert!(matches!(refused, Err(SnapshotError::Damaged { .. })), "{refused:?}");
}

#[test]
fn a_torn_snapshot_is_refused_whole() {
    let folder = tempfile::tempdir().expect("temp dir");
    let path = folder.path().join("last.jsonl");
    let last = LastValues::new(10);
    last.apply("m", position(7), [&message("a", 1, 1, None, 1), &message("b", 1, 1, None, 2)]);
    // A late one, so that each kind of line is there.
    last.apply("m", position(8), [&message("a", 1, 2, Some(5), 3)]);
    last.snapshot().write(&path).expect("written");
    let whole = std::fs::read(&path).expect("there");
    for length in 0..whole.len() - 1 {
        std::fs::write(&path, &whole[..length]).expect("written");
        let read = Snapshot::read(&path);
        assert!(matches!(read, Err(SnapshotError::Damaged { .. })), "{length}: {read:?}");
        let fresh = LastValues::new(10);
        restore(&fresh, &path).expect("starts without it");
        assert_eq!(fresh.counts().0, 0);
    }
}

#[test]
fn series_beyond_the_limit_are_refused_and_counted() {
    let last = LastValues::new(2);
    for device in ["a", "b", "c", "d"] {
        last.apply("m", position(1), [&message(device, 1, 1, None, 1)]);
    }
    assert_eq!(last.counts(), (2, 2, 2));
    last.apply("m", position(2), [&message("b", 1, 2, None, 9)]);
    assert_eq!(value(&last, "b"), Some(Value::Int(9)));
}
