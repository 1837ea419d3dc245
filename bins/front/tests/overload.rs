//! Too much is pushed back in order: slowed reads, then a nack, then a close; never a silent drop.
//!
//! Method: a small ring without a middle fills up; then a middle comes and empties it. Not shown:
//! fairness between devices at a full ring.

mod support;

use std::{collections::BTreeSet, time::Duration};

use forebay_front::config::Level as AckLevel;
use forebay_ops::{ByteSize, Duration as Span};
use forebay_wire::device::{Format, NackCode, ServerFrame};
use support::{Device, Event, Front, PATIENCE, data, large, middle::Middle, plain, until};
use tokio_tungstenite::tungstenite::Message;

/// A front whose ring of 1 MiB takes some sixty messages of 16 KB.
fn small_ring(read_pause: Duration) -> Front {
    Front::with(|config| {
        config.queue.capacity = ByteSize::mib(1);
        config.limits.read_pause = read_pause.into();
        config.ack.level = AckLevel::Process;
    })
}

/// Sends messages of 16 KB until the front nacks; returns the acked number and the nack.
async fn fill(device: &mut Device) -> (u64, u64, u32) {
    let (mut next, mut acked) = (1, 0);
    loop {
        device.send(&data(next, large(16_000))).await;
        next += 1;
        match device.next().await {
            Event::Frame(ServerFrame::Ack { ack, .. }) => acked = ack.get(),
            Event::Frame(ServerFrame::Nack { nack, code: NackCode::Full, retry_ms, .. }) => {
                return (acked, nack.get(), retry_ms);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_full_queue_pushes_back_and_loses_nothing() {
    let front = small_ring(Duration::from_millis(300));
    let endpoint = front.config.uplink.middle.clone();
    let mut device = front.device("pump", Format::Cbor).await;
    let (acked, nack, retry_ms) = fill(&mut device).await;
    assert_eq!(nack, acked + 1, "the nack names the first message that was not taken");
    assert!(acked > 30 && retry_ms > 0);
    assert!(front.stat().full_total > 0);
    // Messages on their way when the nack was sent are passed over, not taken out of order.
    device.send(&data(nack + 1, large(16_000))).await;
    device.send(&data(nack + 2, large(16_000))).await;
    // New devices are told to come back.
    assert!(refused_with(&front, 503).await);
    // The middle comes, the ring empties, and the device goes back as it was told.
    let middle = Middle::start(&endpoint, false);
    until("room in the ring", || front.stat().used_bytes < 300_000).await;
    for seq in nack..nack + 10 {
        device.send(&data(seq, large(16_000))).await;
    }
    device.acked_at_last(nack + 9).await;
    front.device("late", Format::Cbor).await;
    let Front { running, dir: _dir, .. } = front;
    let drained = running.drain(Duration::from_secs(10));
    assert!(drained.is_complete(), "{drained:?}");
    let seqs: Vec<u64> = middle.seqs().into_iter().map(|(_, seq)| seq).collect();
    assert_eq!(seqs, (1..nack + 10).collect::<Vec<_>>(), "all, once each, in order");
    middle.stop();
}

#[tokio::test]
async fn a_short_lack_of_room_only_slows_the_device_down() {
    let front = small_ring(PATIENCE);
    let endpoint = front.config.uplink.middle.clone();
    let mut device = front.device("pump", Format::Cbor).await;
    let total = 200;
    // Far more than the ring takes: the socket is not read once it is full.
    let sending = async {
        for seq in 1..=total {
            device.send(&data(seq, large(16_000))).await;
        }
        device
    };
    let relief = async {
        until("a full ring", || front.stat().full_total > 0).await;
        Middle::start(&endpoint, false)
    };
    let (mut device, middle) = tokio::join!(sending, relief);
    device.acked(total).await;
    assert!(front.metric("forebay_front_read_pauses_total", &[]) >= 1.0);
    assert_eq!(front.metric("forebay_front_nacks_total", &[]), 0.0);
    drop(device);
    let Front { running, dir: _dir, .. } = front;
    assert!(running.drain(Duration::from_secs(10)).is_complete());
    assert_eq!(middle.seqs().len() as u64, total);
    middle.stop();
}

#[tokio::test]
async fn a_ring_that_stays_full_closes_with_1013() {
    let front = small_ring(Duration::from_millis(250));
    let mut raw = front.connect("raw", None).await;
    let mut device = front.device("pump", Format::Cbor).await;
    let (_, nack, _) = fill(&mut device).await;
    let mut nacks = 1;
    loop {
        device.send(&data(nack, large(16_000))).await;
        match device.next().await {
            Event::Frame(ServerFrame::Nack { nack: again, .. }) => assert_eq!(again.get(), nack),
            Event::Close(code, reason) => {
                assert_eq!(code, 1013);
                assert!(reason.starts_with("retry_ms="), "{reason}");
                break;
            }
            other => panic!("{other:?}"),
        }
        nacks += 1;
    }
    assert_eq!(nacks, 3);
    // A raw device has no numbers to go back to.
    let mut sent = 0;
    loop {
        raw.raw(Message::binary(vec![1; 60_000])).await;
        sent += 1;
        match raw.next().await {
            Event::Frame(ServerFrame::Ack { .. }) if sent < 20 => {}
            Event::Close(code, _) => break assert_eq!(code, 1013),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_device_beyond_its_credit_is_slowed_and_then_nacked() {
    let dir = tempfile::tempdir().expect("a directory");
    let endpoint = format!("ipc://{}", dir.path().join("middle").display());
    let middle = Middle::start(&endpoint, true);
    let front = Front::with(|config| {
        config.ack.level = AckLevel::Middle;
        config.ack.credit = 10;
        config.limits.read_pause = Span::from_millis(300);
        config.uplink.middle.clone_from(&endpoint);
    });
    let mut greedy = front.device("greedy", Format::Cbor).await;
    let mut modest = front.device("modest", Format::Cbor).await;
    modest.data(1..=10).await;
    // The first read may go beyond the credit; then no more is taken.
    greedy.data(1..=11).await;
    until("the first messages", || middle.appended() == 21).await;
    greedy.data(12..=20).await;
    let Event::Frame(ServerFrame::Nack { nack, code, retry_ms, .. }) = greedy.next().await else {
        panic!("not nacked");
    };
    assert_eq!((nack.get(), code), (12, NackCode::Rate));
    assert!(retry_ms > 0);
    // Who kept to its credit is still heard: its pings are answered.
    modest.raw(Message::Ping(vec![1].into())).await;
    let pong = tokio::time::timeout(PATIENCE, futures_util::StreamExt::next(&mut modest.socket));
    assert!(matches!(pong.await, Ok(Some(Ok(Message::Pong(_))))));
    middle.release();
    modest.acked(10).await;
    greedy.acked(11).await;
    greedy.data(12..=20).await;
    greedy.acked_at_last(20).await;
    drop((greedy, modest));
    front.running.stop();
    let unique: BTreeSet<_> = middle.seqs().into_iter().collect();
    assert_eq!(unique.len(), 30);
    middle.stop();
}

#[tokio::test]
async fn a_device_above_its_rate_is_nacked_and_told_when_to_go_on() {
    let front = Front::with(|config| {
        config.rate.messages_per_second = 100;
        config.rate.burst = 20;
    });
    let mut device = front.device("fast", Format::Cbor).await;
    device.data(1..=30).await;
    let (mut acked, mut nacked) = (0, None);
    while acked < 20 || nacked.is_none() {
        match device.next().await {
            Event::Frame(ServerFrame::Ack { ack, .. }) => acked = ack.get(),
            Event::Frame(ServerFrame::Nack { nack, code, retry_ms, .. }) => {
                assert_eq!(code, NackCode::Rate);
                nacked = Some((nack.get(), retry_ms));
            }
            other => panic!("{other:?}"),
        }
    }
    let (nack, retry_ms) = nacked.expect("seen");
    assert!((20..=25).contains(&acked) && nack == acked + 1 && retry_ms <= 110, "{nack}");
    tokio::time::sleep(Duration::from_millis(retry_ms.into())).await;
    device.data(nack..nack + 5).await;
    device.acked_at_last(nack + 4).await;
    // A raw device cannot go back: it is closed with 4429.
    let mut raw = front.connect("raw", None).await;
    for _ in 0..40 {
        let message = Message::text("x");
        if futures_util::SinkExt::send(&mut raw.socket, message).await.is_err() {
            break;
        }
    }
    assert_eq!(raw.closed().await, 4429);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_answered_503() {
    let front = Front::with(|config| config.limits.connections = 2);
    let first = front.device("one", Format::Cbor).await;
    let _second = front.device("two", Format::Cbor).await;
    assert!(refused_with(&front, 503).await);
    drop(first);
    until("a free place", || front.running.connections() == 1).await;
    front.device("three", Format::Cbor).await;
}

/// Whether a new device is refused with this status.
async fn refused_with(front: &Front, status: u16) -> bool {
    let mut plain = plain::Plain::connect(front).await;
    plain.write(plain::request("new", "forebay.v1.cbor").as_bytes()).await;
    let answer = String::from_utf8(plain.read_to_end().await).expect("text");
    answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains("Retry-After: ")
}
