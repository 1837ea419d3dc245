//! What a device says in each mode is what the ring holds, in one canonical form.
//!
//! Method: real loopback WebSockets by tokio-tungstenite; the ring is reread after the front has
//! ended. Not shown: the bytes of each encoding (the vectors of `forebay-wire` fix them).

mod support;

use forebay_model::{Body, Reading, Timestamp, Value};
use forebay_wire::device::{Format, Level, ServerFrame};
use support::{Event, Front, data, seqs};
use tokio_tungstenite::tungstenite::Message;

/// One reading of each type, with and without unit and time.
fn every_kind() -> Body<'static> {
    let time = Some(Timestamp::from_micros(1_700_000_000_000_000).expect("valid"));
    let reading = |key: &'static str, value, unit: Option<&'static str>, time| Reading {
        key: key.into(),
        value,
        unit: unit.map(Into::into),
        time,
    };
    Body::Readings(vec![
        reading("temperature", Value::Float(21.5), Some("Cel"), time),
        reading("count", Value::Int(-7), None, None),
        reading("open", Value::Bool(true), None, time),
        reading("état", Value::Text("läuft".into()), Some("1"), None),
    ])
}

async fn framed_modes_keep_all(format: Format) {
    let front = Front::start();
    let mut device = front.device("pump-7", format).await;
    let opaque =
        Body::Opaque { content_type: "application/x-y".into(), payload: vec![0, 255].into() };
    device.send(&data(1, every_kind())).await;
    device.send(&data(2, opaque.clone())).await;
    device.acked(2).await;
    drop(device);
    let stored = front.end();
    assert_eq!(stored.len(), 2);
    assert_eq!((stored[0].device.as_str(), stored[0].session, stored[0].seq), ("pump-7", 1, 1));
    assert_eq!((&stored[0].body, &stored[1].body), (&every_kind(), &opaque));
}

#[tokio::test]
async fn cbor_messages_are_kept_with_all_their_parts() {
    framed_modes_keep_all(Format::Cbor).await;
}

#[tokio::test]
async fn json_messages_are_kept_with_all_their_parts() {
    framed_modes_keep_all(Format::Json).await;
}

#[tokio::test]
async fn senml_packs_become_readings() {
    let front = Front::start();
    let mut device = front.device("weather", Format::Json).await;
    let pack = r#"{"seq":1,"senml":[{"bn":"roof:","bu":"Cel","n":"t1","v":20.5},
        {"n":"t2","v":21},{"n":"on","vb":true,"u":"/"},{"n":"note","vs":"dry"}]}"#;
    device.raw(Message::text(pack)).await;
    device.acked(1).await;
    drop(device);
    let stored = front.end();
    let Body::Readings(readings) = &stored[0].body else { panic!("{stored:?}") };
    let keys: Vec<&str> = readings.iter().map(|reading| &*reading.key).collect();
    assert_eq!(keys, ["roof:t1", "roof:t2", "roof:on", "roof:note"]);
    assert_eq!(readings[0].unit.as_deref(), Some("Cel"));
    assert_eq!(readings[3].value, Value::Text("dry".into()));
}

#[tokio::test]
async fn raw_connections_are_answered_by_counting_acks() {
    let front = Front::start();
    let mut device = front.connect("esp32", None).await;
    device.raw(Message::text("t=21.5")).await;
    device.acked(1).await;
    device.raw(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(
        device.socket_text().await,
        r#"{"ack":2}"#,
        "the answer is JSON that a shell script can read"
    );
    let mut again = front.connect("esp32", None).await;
    again.raw(Message::text("t=21.6")).await;
    again.acked(1).await;
    drop((device, again));
    let stored = front.end();
    assert_eq!(seqs(&stored, "esp32"), [1, 2, 1]);
    assert_ne!(stored[0].session, stored[2].session, "each raw connection is a session of its own");
    let text = Body::Opaque {
        content_type: "text/plain;charset=utf-8".into(),
        payload: b"t=21.5".to_vec().into(),
    };
    let binary = Body::Opaque {
        content_type: "application/octet-stream".into(),
        payload: vec![1, 2, 3].into(),
    };
    assert_eq!((&stored[0].body, &stored[1].body), (&text, &binary));
}

#[tokio::test]
async fn a_welcome_tells_the_device_what_holds() {
    let front = Front::with(|config| config.ack.credit = 17);
    let mut device = front.connect("pump", Some(Format::Json)).await;
    device.raw(Message::text(r#"{"session":9,"next_seq":5}"#)).await;
    let Event::Frame(ServerFrame::Welcome { acked, credit, max_message, ping_s, time, level }) =
        device.next().await
    else {
        panic!("no welcome");
    };
    assert_eq!((acked, credit, max_message, ping_s), (None, 17, 65_536, 30));
    assert_eq!(level, Level::Disk);
    assert!((Timestamp::now().micros() - time.micros()).abs() < 60_000_000);
}
