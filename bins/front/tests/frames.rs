//! The WebSocket layer as RFC 6455 demands it: fragments, control frames, closes, and any cut.
//!
//! Method: hand-made frames over a plain TCP socket. Not shown: the whole of RFC 6455, which the
//! Autobahn suite covers on demand.

mod support;

use forebay_wire::device::Format;
use support::{
    Front, body, data,
    plain::{self, BINARY, CLOSE, CONTINUATION, PING, PONG, Plain, TEXT, frame},
    seqs,
};

const HELLO: &[u8] = br#"{"session":1,"next_seq":1}"#;

fn message(seq: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    data(seq, body(seq)).encode(Format::Json, &mut bytes);
    bytes
}

/// Reads text frames until one has `part` in it.
async fn reads(plain: &mut Plain, part: &str) {
    loop {
        let (opcode, payload) = plain.read_frame().await;
        let text = String::from_utf8_lossy(&payload).into_owned();
        assert_eq!(opcode, TEXT, "{text}");
        if text.contains(part) {
            return;
        }
    }
}

#[tokio::test]
async fn a_session_survives_a_cut_at_every_byte() {
    let front = Front::start();
    let mut bytes = frame(true, TEXT, HELLO);
    bytes.extend(frame(false, TEXT, &message(1)[..9]));
    bytes.extend(frame(true, PING, b"?"));
    bytes.extend(frame(true, CONTINUATION, &message(1)[9..]));
    bytes.extend(frame(true, TEXT, &message(2)));
    for cut in 1..bytes.len() {
        let device = format!("cut-{cut}");
        let mut plain = Plain::open(&front, &device, "forebay.v1.json").await;
        plain.write(&bytes[..cut]).await;
        tokio::task::yield_now().await;
        plain.write(&bytes[cut..]).await;
        let mut text = String::new();
        while !text.contains(r#"{"ack":2}"#) {
            let (opcode, payload) = plain.read_frame().await;
            assert!([TEXT, PONG].contains(&opcode), "{opcode}");
            text.push_str(&String::from_utf8_lossy(&payload));
        }
        assert!(text.contains("welcome") || text.contains("acked"), "{text}");
    }
    let stored = front.end();
    for cut in 1..bytes.len() {
        assert_eq!(seqs(&stored, &format!("cut-{cut}")), [1, 2], "cut at {cut}");
    }
}

#[tokio::test]
async fn a_session_survives_being_sent_byte_by_byte() {
    let front = Front::start();
    let mut plain = Plain::connect(&front).await;
    let mut bytes = plain::request("drip", "forebay.v1.json").into_bytes();
    bytes.extend(frame(true, TEXT, HELLO));
    bytes.extend(frame(true, TEXT, &message(1)));
    for byte in bytes {
        plain.write(&[byte]).await;
    }
    assert!(plain.read_head().await.starts_with("HTTP/1.1 101 "));
    reads(&mut plain, r#"{"ack":1}"#).await;
}

#[tokio::test]
async fn what_follows_the_request_in_one_segment_is_not_lost() {
    let front = Front::start();
    let mut plain = Plain::connect(&front).await;
    let mut bytes = plain::request("eager", "forebay.v1.json").into_bytes();
    bytes.extend(frame(true, TEXT, HELLO));
    for seq in 1..=100 {
        bytes.extend(frame(true, TEXT, &message(seq)));
    }
    plain.write(&bytes).await;
    assert!(plain.read_head().await.starts_with("HTTP/1.1 101 "));
    reads(&mut plain, r#"{"ack":100}"#).await;
}

#[tokio::test]
async fn one_byte_fragments_make_one_message() {
    let front = Front::start();
    let mut plain = Plain::open(&front, "crumbs", "").await;
    let text = "temperature=21.5 Grad";
    let (last, first) = text.as_bytes().split_last().expect("some");
    for (number, byte) in first.iter().enumerate() {
        let opcode = if number == 0 { TEXT } else { CONTINUATION };
        plain.write(&frame(false, opcode, &[*byte])).await;
    }
    plain.write(&frame(true, CONTINUATION, &[*last])).await;
    reads(&mut plain, r#"{"ack":1}"#).await;
    let stored = front.end();
    let forebay_model::Body::Opaque { payload, .. } = &stored[0].body else { panic!("{stored:?}") };
    assert_eq!(payload.as_ref(), text.as_bytes());
}

#[tokio::test]
async fn pings_are_answered_with_their_payload() {
    let front = Front::start();
    let mut plain = Plain::open(&front, "ping", "").await;
    for payload in [&b""[..], b"abc", &[9; 125]] {
        plain.write(&frame(true, PING, payload)).await;
        assert_eq!(plain.read_frame().await, (PONG, payload.to_vec()));
    }
    // A pong nobody asked for is passed over.
    plain.write(&frame(true, PONG, b"hello")).await;
    plain.write(&frame(true, BINARY, b"x")).await;
    reads(&mut plain, r#"{"ack":1}"#).await;
}

#[tokio::test]
async fn breaches_of_the_protocol_are_closed_with_1002() {
    let front = Front::start();
    let unmasked = vec![0x82, 1, b'x'];
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("not masked", unmasked),
        ("reserved bit", {
            let mut bytes = frame(true, BINARY, b"x");
            bytes[0] |= 0x40;
            bytes
        }),
        ("unknown data opcode", frame(true, 3, b"x")),
        ("unknown control opcode", frame(true, 11, b"x")),
        ("fragmented ping", frame(false, PING, b"x")),
        ("long ping", frame(true, PING, &[0; 126])),
        ("continuation of nothing", frame(true, CONTINUATION, b"x")),
        (
            "a message within a message",
            [frame(false, TEXT, b"a"), frame(true, TEXT, b"b")].concat(),
        ),
        ("close of one byte", frame(true, CLOSE, b"x")),
    ];
    for (what, bytes) in cases {
        let mut plain = Plain::open(&front, "bad", "").await;
        plain.write(&bytes).await;
        assert_eq!(plain.close_code().await, 1002, "{what}");
        assert!(plain.read_to_end().await.is_empty(), "{what}: the close is the last");
    }
}

#[tokio::test]
async fn a_close_is_answered_and_what_came_before_it_is_kept() {
    let front = Front::start();
    let mut plain = Plain::open(&front, "polite", "").await;
    let mut bytes = frame(true, TEXT, b"last words");
    bytes.extend(frame(true, CLOSE, &[0x03, 0xe8]));
    plain.write(&bytes).await;
    assert_eq!(plain.close_code().await, 1000);
    assert!(plain.read_to_end().await.is_empty());
    drop(plain);
    assert_eq!(seqs(&front.end(), "polite"), [1]);
}

#[tokio::test]
async fn a_device_that_vanishes_in_the_middle_of_a_frame_leaves_what_was_whole() {
    let front = Front::start();
    let mut plain = Plain::open(&front, "gone", "").await;
    plain.write(&frame(true, BINARY, b"whole")).await;
    reads(&mut plain, r#"{"ack":1}"#).await;
    let half = frame(true, BINARY, b"half of it");
    plain.write(&half[..half.len() - 3]).await;
    drop(plain);
    support::until("the end of the session", || front.running.connections() == 0).await;
    assert_eq!(seqs(&front.end(), "gone"), [1]);
}
