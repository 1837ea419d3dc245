//! An ack names only messages that, with all before them, have reached the level; and what is not
//! acked is named in another way.
//!
//! Method: real loopback WebSockets. For level `disk` the ring's own durable mark is read at each
//! ack; for level `middle` a middle in memory behind the real uplink holds its durability back.
//! Not shown: that the durable mark itself is true (the queue's own tests cut the power).

mod support;

use std::time::Duration;

use forebay_front::config::Level as AckLevel;
use forebay_ops::ByteSize;
use forebay_wire::device::{Format, Level, NackCode, ServerFrame};
use support::{Device, Event, Front, body, counts, data, large, middle::Middle, seqs, until};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn acks_come_after_the_welcome_and_never_before_the_entry_is_durable() {
    let front = Front::start();
    let mut device = front.device("pump", Format::Cbor).await;
    let (mut last, total) = (0, 2000);
    for burst in 0..total / 100 {
        device.data(burst * 100 + 1..=burst * 100 + 100).await;
        while last < burst * 100 + 50 {
            let Event::Frame(ServerFrame::Ack { ack, .. }) = device.next().await else {
                panic!("not an ack");
            };
            // The only device: entry n of the ring is message n.
            let durable = front.stat().durable.counter();
            assert!(ack.get() <= durable, "acked {ack}, durable {durable}");
            assert!(ack.get() > last);
            last = ack.get();
        }
    }
    while last < total {
        let Event::Frame(ServerFrame::Ack { ack, .. }) = device.next().await else {
            panic!("not an ack");
        };
        last = ack.get();
    }
    let acks = front.metric("forebay_front_acks_total", &[]);
    assert!((20.0..=2000.0).contains(&acks), "{acks} acks");
    drop(device);
    assert_eq!(seqs(&front.end(), "pump"), (1..=total).collect::<Vec<_>>());
}

#[tokio::test]
async fn many_devices_are_each_acked_for_their_own_messages() {
    let front = Front::start();
    let mut devices = Vec::new();
    for number in 0..20 {
        devices.push(front.device(&format!("d{number}"), Format::Cbor).await);
    }
    for round in 0..20 {
        for device in &mut devices {
            device.data(round * 5 + 1..=round * 5 + 5).await;
        }
        for device in &mut devices {
            let mut last = 0;
            while last < round * 5 + 5 {
                let Event::Frame(ServerFrame::Ack { ack, .. }) = device.next().await else {
                    panic!("not an ack");
                };
                last = ack.get();
            }
        }
    }
    drop(devices);
    let stored = front.end();
    for number in 0..20 {
        assert_eq!(seqs(&stored, &format!("d{number}")), (1..=100).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn level_process_acks_what_is_in_the_mapping() {
    let front = Front::with(|config| config.ack.level = AckLevel::Process);
    let mut device = front.connect("pump", Some(Format::Cbor)).await;
    assert_eq!(device.hello(1, 1).await, (None, Level::Process));
    device.data(1..=500).await;
    device.acked(500).await;
    drop(device);
    assert_eq!(front.end().len(), 500);
}

#[tokio::test]
async fn level_middle_waits_until_the_middle_has_it_durable() {
    let dir = tempfile::tempdir().expect("a directory");
    let endpoint = format!("ipc://{}", dir.path().join("middle").display());
    let middle = Middle::start(&endpoint, true);
    let front = Front::with(|config| {
        config.ack.level = AckLevel::Middle;
        config.uplink.middle.clone_from(&endpoint);
    });
    let mut device = front.connect("pump", Some(Format::Cbor)).await;
    assert_eq!(device.hello(1, 1).await, (None, Level::Middle));
    device.data(1..=100).await;
    until("the entries' arrival in the middle", || middle.appended() == 100).await;
    assert!(device.is_quiet().await, "acked before the middle had it durable");
    middle.release();
    device.acked(100).await;
    device.data(101..=200).await;
    device.acked(200).await;
    drop(device);
    let drained = front.running.drain(Duration::from_secs(10));
    assert!(drained.is_complete(), "{drained:?}");
    assert_eq!(middle.seqs().len(), 200);
    middle.stop();
}

#[tokio::test]
async fn a_gap_is_named_and_nothing_beyond_it_is_kept() {
    let front = Front::start();
    let mut device = front.device("pump", Format::Json).await;
    device.data([1, 2, 5, 6, 7]).await;
    let (mut nacks, mut acked) = (Vec::new(), 0);
    while nacks.is_empty() || acked < 2 {
        match device.next().await {
            Event::Frame(ServerFrame::Nack { nack, code, expect, .. }) => {
                nacks.push((nack.get(), code, expect.map(|seq| seq.get())));
            }
            Event::Frame(ServerFrame::Ack { ack, .. }) => acked = ack.get(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(nacks, [(5, NackCode::Gap, Some(3))], "one nack, however many messages follow");
    device.data(3..=7).await;
    device.acked(7).await;
    drop(device);
    assert_eq!(seqs(&front.end(), "pump"), [1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn a_duplicate_is_acked_again_and_kept_once() {
    let front = Front::start();
    let mut device = front.device("pump", Format::Cbor).await;
    device.data(1..=3).await;
    device.acked(3).await;
    device.data([2]).await;
    device.acked(3).await;
    device.data([1, 2, 3, 4]).await;
    device.acked_at_last(4).await;
    assert_eq!(front.metric("forebay_front_duplicates_total", &[]), 4.0);
    drop(device);
    assert_eq!(seqs(&front.end(), "pump"), [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_rejected_message_is_passed_by_the_ack_and_named_by_the_next_entry() {
    let front = Front::start();
    let mut device = front.device("pump", Format::Json).await;
    device.data([1]).await;
    device.acked(1).await;
    device.raw(Message::text(r#"{"seq":2,"readings":[{"key":"t","value":[]}]}"#)).await;
    device.raw(Message::text(r#"{"seq":3,"readings":[]}"#)).await;
    let mut rejected = Vec::new();
    let mut acked = 0;
    while acked < 3 || rejected.len() < 2 {
        match device.next().await {
            Event::Frame(ServerFrame::Reject { seq, code, reason }) => {
                assert!(!reason.is_empty());
                rejected.push((seq.get(), code.into_owned()));
            }
            Event::Frame(ServerFrame::Ack { ack, .. }) => acked = ack.get(),
            other => panic!("{other:?}"),
        }
    }
    let expected = [(2, "wrong_type".to_owned()), (3, "no_readings".to_owned())];
    assert_eq!(rejected, expected);
    device.data([4, 5]).await;
    device.acked(5).await;
    drop(device);
    let stored = front.end();
    let named: Vec<_> = stored.iter().map(|entry| (entry.seq, entry.rejected_before)).collect();
    assert_eq!(named, [(1, 0), (4, 2), (5, 0)]);
}

#[tokio::test]
async fn a_pack_that_grows_beyond_an_entry_is_rejected_by_name() {
    let front = Front::with(|config| config.queue.entry_max = ByteSize::kib(66));
    let mut device = front.device("pump", Format::Json).await;
    let base = "b".repeat(100);
    let records = (0..1000).map(|n| format!(r#"{{"n":"{n}","v":1}}"#)).collect::<Vec<_>>();
    let pack =
        format!(r#"{{"seq":1,"senml":[{{"bn":"{base}","n":"x","v":1}},{}]}}"#, records.join(","));
    device.raw(Message::text(pack)).await;
    let Event::Frame(ServerFrame::Reject { seq, code, .. }) = device.next().await else {
        panic!("not rejected");
    };
    assert_eq!((seq.get(), &*code), (1, "too_large"));
    device.data([2]).await;
    device.acked_at_last(2).await;
    device.send(&data(3, large(48_000))).await;
    device.acked(3).await;
}

#[tokio::test]
async fn a_second_connection_replaces_the_first_and_continues_its_session() {
    let front = Front::start();
    let mut first = front.device("pump", Format::Cbor).await;
    first.data(1..=10).await;
    first.acked(10).await;
    let mut second = front.connect("pump", Some(Format::Cbor)).await;
    // The device missed the ack; the front knows better.
    assert_eq!(second.hello(1, 4).await.0, Some(10));
    assert_eq!(first.closed().await, 4409);
    second.data(4..=12).await;
    second.acked_at_last(12).await;
    // Another session of the same device begins anew.
    let mut third = front.connect("pump", Some(Format::Cbor)).await;
    assert_eq!(third.hello(2, 1).await.0, None);
    third.data([1]).await;
    third.acked(1).await;
    drop((second, third));
    let stored = front.end();
    let ids = counts(stored.iter().map(|entry| (entry.session, entry.seq)));
    let expected = counts((1..=12).map(|seq| (1, seq)).chain([(2, 1)]));
    assert_eq!(ids, expected, "kept once each");
}

#[tokio::test]
async fn a_device_that_reconnects_at_once_and_often_loses_nothing() {
    let front = Front::start();
    let mut next = 1;
    for _ in 0..30 {
        let mut device = front.connect("pump", Some(Format::Cbor)).await;
        let (acked, _) = device.hello(1, next).await;
        next = acked.map_or(next, |acked| acked + 1);
        device.data(next..next + 20).await;
        // Gone in the middle of it, whatever was acked.
        if let Event::Frame(ServerFrame::Ack { ack, .. }) = device.next().await {
            next = ack.get() + 1;
        }
    }
    let mut device: Device = front.connect("pump", Some(Format::Cbor)).await;
    let (acked, _) = device.hello(1, next).await;
    next = acked.map_or(next, |acked| acked + 1);
    device.data(next..next + 1).await;
    device.acked_at_last(next).await;
    drop(device);
    let stored = front.end();
    let kept = counts(seqs(&stored, "pump"));
    assert!((1..=next).all(|seq| kept.contains_key(&seq)), "a hole in {kept:?}");
    assert!(stored.iter().all(|entry| entry.body == body(entry.seq)));
}
