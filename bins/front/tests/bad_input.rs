//! Whatever a device sends, it gets a clear answer, and the good device beside it notices nothing.
//!
//! Method: each case sends its bytes over a real loopback socket, checks the answer, and then sees
//! messages of a neighbour acked on the same front, which runs one core so that they share it.
//! Not shown: floods and many hostile sockets at once, and what they do to latency.

mod support;

use std::time::Duration;

use forebay_wire::device::{Format, ServerFrame};
use support::{
    Event, Front, Neighbour, PATIENCE, body, data, large,
    plain::{self, Plain},
    seqs,
};
use tokio_tungstenite::tungstenite::Message;

fn one_core() -> Front {
    Front::with(|config| config.listen.cores = Some(1))
}

/// Sends `message` as the third of a JSON session and expects it to be rejected with `code`.
async fn is_rejected(message: &str, code: &str) {
    let front = one_core();
    let mut neighbour = Neighbour::new(&front).await;
    let mut device = front.device("bad", Format::Json).await;
    device.data([1, 2]).await;
    device.acked_at_last(2).await;
    device.raw(Message::text(message)).await;
    match device.next().await {
        Event::Frame(ServerFrame::Reject { seq, code: found, reason }) => {
            assert_eq!((seq.get(), &*found), (3, code), "{message}: {reason}");
            assert!(!reason.is_empty() && reason.len() <= 256, "{reason}");
        }
        other => panic!("{message}: not rejected but {other:?}"),
    }
    device.acked(3).await;
    // The connection goes on.
    device.data([4]).await;
    device.acked(4).await;
    neighbour.is_well().await;
    drop((device, neighbour));
    assert_eq!(seqs(&front.end(), "bad"), [1, 2, 4], "{message}");
}

/// Sends `message` after two good ones and expects a close with `code`; the good ones are kept.
async fn is_closed(format: Format, message: Message, code: u16) {
    let front = one_core();
    let mut neighbour = Neighbour::new(&front).await;
    let mut device = front.device("bad", format).await;
    device.data([1, 2]).await;
    device.acked_at_last(2).await;
    device.raw(message).await;
    assert_eq!(device.closed().await, code);
    neighbour.is_well().await;
    assert_eq!(front.metric("forebay_front_closes_total", &[("code", &code.to_string())]), 1.0);
    drop((device, neighbour));
    assert_eq!(seqs(&front.end(), "bad"), [1, 2]);
}

#[tokio::test]
async fn wrong_types_are_rejected() {
    is_rejected(r#"{"seq":3,"readings":[{"key":"t","value":{}}]}"#, "wrong_type").await;
    is_rejected(r#"{"seq":3,"readings":{"key":"t"}}"#, "wrong_type").await;
}

#[tokio::test]
async fn values_that_are_not_numbers_are_rejected() {
    is_rejected(r#"{"seq":3,"readings":[{"key":"t","value":NaN}]}"#, "malformed").await;
    is_rejected(r#"{"seq":3,"readings":[{"key":"t","value":1e999}]}"#, "not_finite").await;
}

#[tokio::test]
async fn nan_in_cbor_is_rejected() {
    let front = one_core();
    let mut neighbour = Neighbour::new(&front).await;
    let mut device = front.device("bad", Format::Cbor).await;
    // {"seq": 1, "readings": [{"key": "t", "value": NaN}]}
    let mut bytes = b"\xa2\x63seq\x01\x68readings\x81\xa2\x63key\x61t\x65value".to_vec();
    bytes.extend([0xfb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0]);
    device.raw(Message::binary(bytes)).await;
    let Event::Frame(ServerFrame::Reject { seq, code, .. }) = device.next().await else {
        panic!("not rejected");
    };
    assert_eq!((seq.get(), &*code), (1, "not_finite"));
    device.acked(1).await;
    neighbour.is_well().await;
}

#[tokio::test]
async fn absurd_times_are_rejected() {
    for time in ["-1", "9223372036854775807", "7258118400000000"] {
        let message = format!(r#"{{"seq":3,"readings":[{{"key":"t","value":1,"time":{time}}}]}}"#);
        is_rejected(&message, "bad_time").await;
    }
}

#[tokio::test]
async fn messages_without_their_parts_are_rejected() {
    is_rejected(r#"{"seq":3}"#, "missing_key").await;
    is_rejected(r#"{"seq":3,"readings":[]}"#, "no_readings").await;
    is_rejected(r#"{"seq":3,"readings":[{"value":1}]}"#, "missing_key").await;
    is_rejected(r#"{"seq":3,"reading":[{"key":"t","value":1}]}"#, "unknown_key").await;
}

#[tokio::test]
async fn truncated_messages_are_rejected_if_their_number_is_there() {
    is_rejected(r#"{"seq":3,"readings":[{"key":"t","va"#, "truncated").await;
}

#[tokio::test]
async fn truncated_messages_without_a_number_close_the_connection() {
    is_closed(Format::Json, Message::text(r#"{"readings":[{"key""#), 4400).await;
    is_closed(Format::Cbor, Message::binary(b"\xa2\x63se".to_vec()), 4400).await;
    is_closed(Format::Cbor, Message::binary(Vec::new()), 4400).await;
}

#[tokio::test]
async fn a_text_in_cbor_and_a_binary_in_json_close_the_connection() {
    is_closed(Format::Cbor, Message::text(r#"{"seq":3}"#), 4406).await;
    is_closed(Format::Json, Message::binary(vec![1]), 4406).await;
}

#[tokio::test]
async fn frames_out_of_turn_close_the_connection() {
    is_closed(Format::Json, Message::text(r#"{"session":1,"next_seq":1}"#), 4400).await;
    let front = one_core();
    let mut neighbour = Neighbour::new(&front).await;
    let mut device = front.connect("bad", Some(Format::Cbor)).await;
    device.send(&data(1, body(1))).await;
    assert_eq!(device.closed().await, 4400);
    neighbour.is_well().await;
    drop((device, neighbour));
    assert_eq!(seqs(&front.end(), "bad"), [0_u64; 0]);
}

#[tokio::test]
async fn oversized_messages_close_the_connection_with_1009() {
    let front = one_core();
    let mut neighbour = Neighbour::new(&front).await;
    let mut device = front.device("bad", Format::Cbor).await;
    device.send(&data(1, large(65_000))).await;
    device.acked(1).await;
    device.send(&data(2, large(70_000))).await;
    assert_eq!(device.closed().await, 1009);
    // A frame that only announces too much is refused before its bytes come.
    let mut plain = Plain::open(&front, "bad", "forebay.v1.cbor").await;
    plain.write(&[0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]).await;
    assert_eq!(plain.close_code().await, 1009);
    // So is a message that grows too large by fragments.
    let mut plain = Plain::open(&front, "bad", "forebay.v1.cbor").await;
    plain.write(&plain::frame(false, plain::BINARY, &[0; 40_000])).await;
    plain.write(&plain::frame(true, plain::CONTINUATION, &[0; 40_000])).await;
    assert_eq!(plain.close_code().await, 1009);
    neighbour.is_well().await;
}

#[tokio::test]
async fn text_that_is_not_utf8_closes_the_connection_with_1007() {
    let front = one_core();
    let mut neighbour = Neighbour::new(&front).await;
    let mut plain = Plain::open(&front, "bad", "forebay.v1.json").await;
    plain.write(&plain::frame(true, plain::TEXT, b"{\"seq\":\xff\xfe}")).await;
    assert_eq!(plain.close_code().await, 1007);
    // Also if the broken character is cut by fragments.
    let mut plain = Plain::open(&front, "bad", "").await;
    plain.write(&plain::frame(false, plain::TEXT, b"caf\xc3")).await;
    plain.write(&plain::frame(true, plain::CONTINUATION, b"\x28")).await;
    assert_eq!(plain.close_code().await, 1007);
    neighbour.is_well().await;
}

#[tokio::test]
async fn text_in_cbor_that_is_not_utf8_is_rejected() {
    let front = one_core();
    let mut neighbour = Neighbour::new(&front).await;
    let mut device = front.device("bad", Format::Cbor).await;
    // {"seq": 1, "readings": [{"key": "\xff", "value": 1}]}
    let bytes = b"\xa2\x63seq\x01\x68readings\x81\xa2\x63key\x61\xff\x65value\x01";
    device.raw(Message::binary(bytes.to_vec())).await;
    let Event::Frame(ServerFrame::Reject { seq, .. }) = device.next().await else {
        panic!("not rejected");
    };
    assert_eq!(seq.get(), 1);
    neighbour.is_well().await;
}

#[tokio::test]
async fn duplicated_and_out_of_order_messages_are_kept_once_in_order() {
    let front = one_core();
    let mut neighbour = Neighbour::new(&front).await;
    let mut device = front.device("bad", Format::Cbor).await;
    device.data([1, 1, 3, 2, 2, 3, 1, 5, 4]).await;
    // 3 came before 2, so it is nacked; the device goes back as the protocol says.
    let mut nacked = 0;
    let mut acked = 0;
    while acked < 3 || nacked < 2 {
        match device.next().await {
            Event::Frame(ServerFrame::Nack { .. }) => nacked += 1,
            Event::Frame(ServerFrame::Ack { ack, .. }) => acked = ack.get(),
            other => panic!("{other:?}"),
        }
    }
    device.data([4, 5]).await;
    device.acked_at_last(5).await;
    neighbour.is_well().await;
    drop((device, neighbour));
    assert_eq!(seqs(&front.end(), "bad"), [1, 2, 3, 4, 5]);
}

/// Sends a request and returns status line and body of the answer.
async fn answer(front: &Front, request: &[u8]) -> (u16, String) {
    let mut plain = Plain::connect(front).await;
    plain.write(request).await;
    let answer = String::from_utf8(plain.read_to_end().await).expect("text");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    (status.unwrap_or_else(|| panic!("no status in {answer}")), body.to_owned())
}

#[tokio::test]
async fn requests_that_cannot_be_served_are_answered_with_a_reason() {
    let front = one_core();
    let mut neighbour = Neighbour::new(&front).await;
    let open = |device: &str| plain::request(device, "forebay.v1.cbor");
    let cases: Vec<(String, u16, &str)> = vec![
        (open("a%2Fb"), 400, "bad_device"),
        (open("a/b"), 400, "bad_device"),
        (open("a%20b"), 400, "bad_device"),
        (open("a%00b"), 400, "bad_device"),
        (open("%ff"), 400, "bad_device"),
        (open(".."), 400, "bad_device"),
        (open(""), 400, "bad_device"),
        (open(&"x".repeat(200)), 400, "bad_device"),
        (plain::request("a", "forebay.v2.cbor"), 400, "bad_subprotocol"),
        (plain::request("a", "mqtt, graphql-ws"), 400, "bad_subprotocol"),
        (open("a").replace("/v1/ingest/", "/v1/live/"), 404, "not_found"),
        (open("a").replace("GET", "POST"), 405, "bad_method"),
        (open("a").replace("Upgrade: websocket\r\n", ""), 426, "upgrade_required"),
        (open("a").replace("Version: 13", "Version: 12"), 426, "upgrade_required"),
        (open("a").replace("==", ""), 400, "bad_request"),
        ("\r\n\r\n".to_owned(), 400, "bad_request"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), 400, "bad_request"),
    ];
    for (request, status, code) in cases {
        let (found, body) = answer(&front, request.as_bytes()).await;
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((found, body["error"].as_str()), (status, Some(code)), "{request}");
        assert!(body["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
    }
    neighbour.is_well().await;
    assert_eq!(front.metric("forebay_front_handshakes_total", &[("outcome", "bad_device")]), 8.0);
}

#[tokio::test]
async fn a_header_without_end_is_refused_at_its_limit() {
    let front = one_core();
    let mut neighbour = Neighbour::new(&front).await;
    let request = format!("GET /v1/ingest/a HTTP/1.1\r\nX: {}", "x".repeat(9000));
    assert_eq!(answer(&front, request.as_bytes()).await.0, 431);
    let request = format!("GET /v1/ingest/a HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(9000));
    assert_eq!(answer(&front, request.as_bytes()).await.0, 431);
    neighbour.is_well().await;
}

#[tokio::test]
async fn a_slow_loris_is_answered_408_at_the_deadline() {
    let front = Front::with(|config| {
        config.listen.cores = Some(1);
        config.handshake.deadline = forebay_ops::Duration::from_millis(400);
    });
    let mut neighbour = Neighbour::new(&front).await;
    let (mut silent, mut slow) = (Plain::connect(&front).await, Plain::connect(&front).await);
    for byte in b"GET /v1/in" {
        slow.write(&[*byte]).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for plain in [&mut silent, &mut slow] {
        let answer = String::from_utf8(plain.read_to_end().await).expect("text");
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    neighbour.is_well().await;
}

#[tokio::test]
async fn silent_sockets_beyond_the_cap_give_way_to_devices() {
    let front = Front::with(|config| {
        config.listen.cores = Some(1);
        config.handshake.in_flight_max = 8;
        config.handshake.deadline = forebay_ops::Duration::from_secs(60);
        config.handshake.crowded_deadline = forebay_ops::Duration::from_millis(20);
    });
    let mut neighbour = Neighbour::new(&front).await;
    let mut silent = Vec::new();
    for _ in 0..60 {
        silent.push(Plain::connect(&front).await);
    }
    // Sixty wait for a minute; eight at a time, each gives way after 20 ms.
    let mut device = front.device("good", Format::Cbor).await;
    device.data([1]).await;
    device.acked(1).await;
    neighbour.is_well().await;
    assert!(front.metric("forebay_front_handshakes_total", &[("outcome", "crowded_out")]) >= 50.0);
}

#[tokio::test]
async fn a_device_that_never_says_hello_is_closed_with_4408() {
    let front = Front::with(|config| {
        config.listen.cores = Some(1);
        config.limits.hello = forebay_ops::Duration::from_millis(300);
    });
    let mut neighbour = Neighbour::new(&front).await;
    let mut device = front.connect("mute", Some(Format::Cbor)).await;
    assert_eq!(device.closed().await, 4408);
    neighbour.is_well().await;
}

#[tokio::test]
async fn a_silent_device_is_pinged_and_then_closed() {
    let front = Front::with(|config| {
        config.listen.cores = Some(1);
        config.limits.ping = forebay_ops::Duration::from_millis(600);
    });
    let mut plain = Plain::open(&front, "mute", "").await;
    let (opcode, _) = plain.read_frame().await;
    assert_eq!(opcode, plain::PING);
    // One that answers its pings stays.
    plain.write(&plain::frame(true, plain::PONG, b"")).await;
    assert_eq!(plain.read_frame().await.0, plain::PING);
    assert_eq!(plain.close_code().await, 1008);
    assert!(plain.ended(PATIENCE).await);
}

#[tokio::test]
async fn a_device_that_does_not_read_is_dropped_and_nobody_else_waits() {
    let front = Front::with(|config| {
        config.listen.cores = Some(1);
        config.limits.write_stall = forebay_ops::Duration::from_millis(500);
    });
    let mut neighbour = Neighbour::new(&front).await;
    let mut plain = Plain::open(&front, "deaf", "").await;
    // Every message is answered, and no answer is ever read: the front stops reading in turn.
    let message = plain::frame(true, plain::PING, &[7; 125]);
    let flood = message.repeat(2000);
    let flooded = tokio::time::timeout(PATIENCE, async {
        while tokio::io::AsyncWriteExt::write_all(&mut plain.stream, &flood).await.is_ok() {}
    });
    flooded.await.expect("the front gives up");
    neighbour.is_well().await;
    assert_eq!(front.metric("forebay_front_connections", &[]), 1.0);
}
