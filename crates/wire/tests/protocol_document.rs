//! docs/protocol.md says what the code does: every vector in it is decoded and must give the value
//! written here, and that value is encoded and must give the vector, byte for byte. A vector without
//! a value here, or a value without a vector, fails.
//!
//! Not shown: that another implementation reads the document the same way; the Python and
//! JavaScript devices in `examples` are for that.

use std::collections::BTreeSet;

use forebay_model::{Body, Message, MessageId, Reading, SessionId, Timestamp, Value};
use forebay_wire::{
    QueueId, Seq,
    device::{ClientFrame, Format, Level, NackCode, ServerFrame, Token},
    entry, live,
};

mod vectors;

use vectors::{Vector, to_hex, vectors};

fn id(number: u64) -> MessageId {
    MessageId::new(number).expect("in bounds")
}

fn session(number: u64) -> SessionId {
    SessionId::new(number).expect("in bounds")
}

fn time(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).expect("in bounds")
}

const RECEIVED_US: i64 = 1_700_000_000_000_000;

fn reading(key: &'static str, value: Value<'static>) -> Reading<'static> {
    Reading { key: key.into(), value, unit: None, time: None }
}

/// One reading of each type, with and without unit and time.
fn readings() -> Body<'static> {
    Body::Readings(vec![
        Reading {
            unit: Some("Cel".into()),
            time: Some(time(RECEIVED_US - 250_000)),
            ..reading("temperature", Value::Float(21.5))
        },
        Reading { unit: Some("1/min".into()), ..reading("speed", Value::Int(-1500)) },
        Reading { time: Some(time(RECEIVED_US)), ..reading("running", Value::Bool(true)) },
        reading("mode", Value::Text("économie".into())),
    ])
}

fn opaque() -> Body<'static> {
    Body::Opaque {
        content_type: "application/octet-stream".into(),
        payload: vec![0x00, 0xff, 0x10, 0x20].into(),
    }
}

fn client_frames() -> Vec<(&'static str, ClientFrame<'static>)> {
    let hello =
        |token| ClientFrame::Hello { session: session(4_611_686_018_427), next_seq: id(17), token };
    vec![
        ("hello", hello(None)),
        ("hello-token", hello(Some(Token::new("k7.opensesame")))),
        ("data", ClientFrame::Data { seq: id(17), body: readings() }),
        ("opaque", ClientFrame::Data { seq: id(18), body: opaque() }),
    ]
}

/// Packs of SenML: read, never written.
fn senml_frames() -> Vec<(&'static str, ClientFrame<'static>)> {
    let at = |micros| Some(time(micros));
    let volt = |value, micros| Reading {
        unit: Some("V".into()),
        time: at(micros),
        ..reading("urn:dev:ow:10e2073a01080063:voltage", Value::Float(value))
    };
    let resolved = Body::Readings(vec![
        volt(120.1, 1_320_067_464_000_000),
        Reading {
            unit: Some("A".into()),
            time: at(1_320_067_463_000_000),
            ..reading("urn:dev:ow:10e2073a01080063:current", Value::Int(2))
        },
    ]);
    let mixed = Body::Readings(vec![
        Reading {
            unit: Some("W".into()),
            time: at(RECEIVED_US - 5_000_000),
            ..reading("meter/power", Value::Int(104))
        },
        Reading {
            unit: Some("W.s".into()),
            time: at(RECEIVED_US - 5_000_000),
            ..reading("meter/power.sum", Value::Float(7.5))
        },
        Reading { unit: Some("W".into()), ..reading("meter/open", Value::Bool(false)) },
        Reading { unit: Some("W".into()), ..reading("meter/label", Value::Text("nr 7".into())) },
        Reading { unit: Some("W".into()), ..reading("meter/raw", Value::Text("AP8Q".into())) },
    ]);
    vec![
        ("senml", ClientFrame::Data { seq: id(19), body: resolved }),
        ("senml-mixed", ClientFrame::Data { seq: id(20), body: mixed }),
    ]
}

fn server_frames() -> Vec<(&'static str, ServerFrame<'static>)> {
    let welcome = |acked| ServerFrame::Welcome {
        acked,
        credit: 256,
        max_message: 65_536,
        ping_s: 30,
        time: time(RECEIVED_US),
        level: Level::Disk,
    };
    vec![
        ("welcome", welcome(Some(id(16)))),
        ("welcome-new", welcome(None)),
        ("ack", ServerFrame::Ack { ack: id(18), credit: None }),
        ("ack-credit", ServerFrame::Ack { ack: id(300), credit: Some(32) }),
        (
            "nack",
            ServerFrame::Nack { nack: id(19), code: NackCode::Full, retry_ms: 500, expect: None },
        ),
        (
            "gap",
            ServerFrame::Nack {
                nack: id(23),
                code: NackCode::Gap,
                retry_ms: 0,
                expect: Some(id(21)),
            },
        ),
        (
            "reject",
            ServerFrame::Reject {
                seq: id(20),
                code: "not_finite".into(),
                reason: "byte 12, reading 0: value is not a finite number".into(),
            },
        ),
    ]
}

fn entries() -> Vec<(&'static str, Message<'static>)> {
    let message = |body| Message {
        tenant: "default".into(),
        device: "pump-7".into(),
        session: session(4_611_686_018_427),
        seq: id(17),
        rejected_before: 2,
        received: time(RECEIVED_US),
        body,
    };
    vec![("readings", message(readings())), ("opaque", message(opaque()))]
}

fn position(counter: u64) -> live::Position {
    live::Position { queue: QueueId::new(0xf0_0d), seq: Seq::from_parts(3, counter) }
}

fn live_client_frames() -> Vec<(&'static str, live::ClientFrame)> {
    let some = live::Subscription {
        devices: vec!["pump-7".into(), "pump-8".into()],
        prefix: Some("fan-".into()),
        keys: vec!["temperature".into()],
        mode: live::Mode::Latest,
        from: vec![position(41)],
        snapshot: true,
        ..live::Subscription::default()
    };
    vec![
        ("subscribe", live::ClientFrame::Subscribe(some)),
        ("subscribe-all", live::ClientFrame::Subscribe(live::Subscription::default())),
    ]
}

fn live_server_frames() -> Vec<(&'static str, live::ServerFrame<'static>)> {
    let temperature = live::LiveReading {
        index: 0,
        key: "temperature".into(),
        value: Value::Float(21.0),
        unit: Some("Cel".into()),
        suspect: false,
        time: Some(time(RECEIVED_US - 250_000)),
    };
    let running = live::LiveReading {
        index: 2,
        key: "running".into(),
        value: Value::Bool(true),
        unit: None,
        suspect: true,
        time: None,
    };
    let event = |readings, opaque| {
        live::ServerFrame::Event(live::Event {
            at: position(42),
            tenant: "default".into(),
            device: "pump-7".into(),
            name: None,
            device_type: Some("pump".into()),
            location: Some("hall 2".into()),
            known: Some(true),
            session: session(4_611_686_018_427),
            seq: id(17),
            received: time(RECEIVED_US),
            readings,
            opaque,
        })
    };
    let value = live::LastValue {
        tenant: "default".into(),
        device: "pump-7".into(),
        session: session(4_611_686_018_427),
        seq: id(17),
        received: time(RECEIVED_US),
        name: None,
        device_type: Some("pump".into()),
        location: Some("hall 2".into()),
        known: Some(true),
        reading: temperature.clone(),
    };
    let payload = live::Opaque {
        content_type: "application/octet-stream".into(),
        payload: vec![0, 255].into(),
    };
    vec![
        (
            "subscribed",
            live::ServerFrame::Subscribed(live::Subscribed {
                mode: live::Mode::Latest,
                from: vec![position(41)],
            }),
        ),
        (
            "snapshot",
            live::ServerFrame::Snapshot(live::Snapshot {
                values: vec![value],
                at: vec![position(41)],
                done: true,
            }),
        ),
        ("event", event(vec![temperature, running], None)),
        ("event-opaque", event(vec![], Some(payload))),
        (
            "missed",
            live::ServerFrame::Missed(live::Missed {
                count: Some(120),
                from: Some(position(43)),
                to: Some(position(162)),
            }),
        ),
        ("missed-unknown", live::ServerFrame::Missed(live::Missed::default())),
        (
            "error",
            live::ServerFrame::Error {
                code: "bad_subscription".into(),
                reason: "unknown field `device`".into(),
            },
        ),
    ]
}

/// The block of a vector; without one, the message holds the block to write.
fn hex<'v>(name: &str, vector: &'v Vector, written: &[u8]) -> &'v [u8] {
    let block = vector.hex.as_deref().unwrap_or_default();
    assert_eq!(to_hex(block), to_hex(written), "hex block of {name}");
    block
}

fn json<'v>(name: &str, vector: &'v Vector, written: &[u8]) -> &'v str {
    let block = vector.json.as_deref().unwrap_or_default();
    assert_eq!(block, String::from_utf8_lossy(written), "json block of {name}");
    block
}

/// Every name of the document under `prefix` is one of `names`, and the other way round.
fn same_names<'n>(prefix: &str, names: impl IntoIterator<Item = &'n str>) {
    let written: BTreeSet<String> = vectors(prefix).into_keys().collect();
    let tested: BTreeSet<String> = names.into_iter().map(str::to_owned).collect();
    assert_eq!(written, tested, "vectors {prefix}* of the document and of this test");
}

#[test]
fn device_frames_are_as_the_document_says() {
    let blocks = vectors("device.");
    let written = |encode: &dyn Fn(Format, &mut Vec<u8>)| {
        Format::ALL.map(|format| {
            let mut out = Vec::new();
            encode(format, &mut out);
            out
        })
    };
    let received = time(RECEIVED_US);
    let none = Vector::default();
    for (name, frame) in client_frames() {
        let [cbor_out, json_out] = written(&|format, out| frame.encode(format, out));
        let vector = blocks.get(name).unwrap_or(&none);
        let cbor = hex(name, vector, &cbor_out);
        let json = json(name, vector, &json_out);
        assert_eq!(ClientFrame::decode(Format::Cbor, cbor, received).as_ref(), Ok(&frame));
        assert_eq!(ClientFrame::decode(Format::Json, json.as_bytes(), received), Ok(frame));
    }
    for (name, frame) in server_frames() {
        let [cbor_out, json_out] = written(&|format, out| frame.encode(format, out));
        let vector = blocks.get(name).unwrap_or(&none);
        let cbor = hex(name, vector, &cbor_out);
        let json = json(name, vector, &json_out);
        assert_eq!(ServerFrame::decode(Format::Cbor, cbor).as_ref(), Ok(&frame));
        assert_eq!(ServerFrame::decode(Format::Json, json.as_bytes()), Ok(frame));
    }
    for (name, frame) in senml_frames() {
        let vector = blocks.get(name).unwrap_or(&none);
        if let Some(cbor) = &vector.hex {
            assert_eq!(ClientFrame::decode(Format::Cbor, cbor, received).as_ref(), Ok(&frame));
        }
        let json = vector.json.as_deref().expect("each pack is shown in JSON");
        assert_eq!(ClientFrame::decode(Format::Json, json.as_bytes(), received), Ok(frame));
    }
    let names = client_frames().into_iter().map(|(name, _)| name);
    let names = names.chain(server_frames().into_iter().map(|(name, _)| name));
    same_names("device.", names.chain(senml_frames().into_iter().map(|(name, _)| name)));
}

#[test]
fn entries_are_as_the_document_says() {
    let blocks = vectors("entry.");
    let none = Vector::default();
    for (name, message) in entries() {
        let mut out = Vec::new();
        entry::encode(&message, &mut out);
        let bytes = hex(name, blocks.get(name).unwrap_or(&none), &out);
        assert_eq!(entry::decode(bytes).as_ref(), Ok(&message));
        let head = entry::head(bytes).expect("an entry");
        assert_eq!((head.tenant, head.device), ("default", "pump-7"));
        assert_eq!((head.session, head.seq), (message.session, message.seq));
        assert_eq!((head.rejected_before, head.received), (2, message.received));
    }
    same_names("entry.", entries().into_iter().map(|(name, _)| name));
}

#[test]
fn live_frames_are_as_the_document_says() {
    let blocks = vectors("live.");
    let none = Vector::default();
    for (name, frame) in live_client_frames() {
        let vector = blocks.get(name).unwrap_or(&none);
        let json = json(name, vector, frame.encode().as_bytes());
        assert_eq!(live::ClientFrame::decode(json), Ok(frame));
    }
    for (name, frame) in live_server_frames() {
        let mut out = Vec::new();
        frame.encode(&mut out);
        let vector = blocks.get(name).unwrap_or(&none);
        let json = json(name, vector, &out);
        assert_eq!(live::ServerFrame::decode(json), Ok(frame));
    }
    let names = live_client_frames().into_iter().map(|(name, _)| name);
    same_names("live.", names.chain(live_server_frames().into_iter().map(|(name, _)| name)));
}
