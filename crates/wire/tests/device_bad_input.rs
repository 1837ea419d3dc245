//! Every mistake a device can make in a frame has a clear answer: the right code, a place, and the
//! number of the message wherever it can be read. The table is the plan; properties then throw
//! arbitrary and damaged bytes at the decoders, which must neither panic nor take much memory.
//!
//! Not shown: what the front does with the answer (its own tests).

use forebay_model::{Body, MessageId, Reading, Timestamp, Value};
use forebay_wire::{
    device::{ClientFrame, DecodeError, Format, ServerFrame},
    entry, live,
};
use proptest::prelude::*;

fn received() -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000).expect("in bounds")
}

fn decode(format: Format, message: &[u8]) -> Result<ClientFrame<'_>, DecodeError> {
    ClientFrame::decode(format, message, received())
}

#[track_caller]
fn refused(format: Format, message: &[u8], seq: Option<u64>, code: &str, words: &str) {
    let shown = String::from_utf8_lossy(message);
    let error = decode(format, message).expect_err(&shown);
    let found = (error.seq.map(MessageId::get), error.code());
    assert_eq!(found, (seq, code), "{shown}: {error}");
    assert!(error.reason().contains(words), "{shown}: {error}");
}

#[test]
fn json_mistakes_are_named_with_their_place() {
    let absurd =
        format!(r#"{{"seq":7,"readings":[{{"key":"t","value":1,"time":{}}}]}}"#, Timestamp::END_US);
    for (message, seq, code, words) in [
        // Not JSON.
        (r#""#, None, "truncated", "byte 0"),
        (r#"hello"#, None, "malformed", "byte 0: malformed: not a value"),
        (r#"[]"#, None, "wrong_type", "expected a map, found an array"),
        (r#"{}"#, None, "missing_key", "session"),
        (r#"{"seq":7}"#, Some(7), "missing_key", "readings"),
        (r#"{"seq":7,"readings":[{"key":"t","val"#, Some(7), "truncated", "reading 0"),
        (r#"{"seq":7,"readings":[{"key":"t","value":1}]} {"#, Some(7), "trailing", "byte 45"),
        (r#"{"seq":7,"readings":[{"key":"t","value":1},]}"#, Some(7), "malformed", "reading 1"),
        (r#"{"seq":7,"readings":[{"key":"t","value":1,}]}"#, Some(7), "malformed", "quotes"),
        (r#"{"seq":7,"readings":[{"key":"t","value":NaN}]}"#, Some(7), "malformed", "not a value"),
        (r#"{"seq":7,"readings":[{"key":"t","value":.5}]}"#, Some(7), "malformed", "value"),
        (r#"{"seq":7,"readings":[{"key":"t","value":01}]}"#, Some(7), "malformed", "comma"),
        (r#"{"seq":7,"readings":[{"key":"t","value":1.}]}"#, Some(7), "malformed", "digit"),
        (r#"{"seq":7,"readings":[{"key":"t","value":-}]}"#, Some(7), "malformed", "digit"),
        (r#"{"seq":7,"readings":[{"key":"\ud800","value":1}]}"#, Some(7), "malformed", "surrogate"),
        (r#"{"seq":7,"readings":[{"key":"\q","value":1}]}"#, Some(7), "malformed", "escape"),
        (
            "{\"seq\":7,\"readings\":[{\"key\":\"a\nb\",\"value\":1}]}",
            Some(7),
            "malformed",
            "control",
        ),
        // Keys.
        (r#"{"seq":7,"readings":[{"key":"t","vlaue":1}]}"#, Some(7), "unknown_key", "\"vlaue\""),
        (r#"{"seq":7,"reading":[]}"#, Some(7), "unknown_key", "byte 9"),
        (r#"{"seq":7,"seq":8,"readings":[]}"#, None, "duplicate_key", "seq: key appears twice"),
        (
            r#"{"seq":7,"readings":[{"key":"t","value":1,"value":2}]}"#,
            Some(7),
            "duplicate_key",
            "byte 42, reading 0, value",
        ),
        (r#"{"seq":7,"readings":[{"value":1}]}"#, Some(7), "missing_key", "missing key"),
        (r#"{"seq":7,"readings":[{"key":"t"}]}"#, Some(7), "missing_key", "missing value"),
        (r#"{"seq":7,"payload":""}"#, Some(7), "missing_key", "content_type"),
        (r#"{"seq":7,"content_type":"a/b"}"#, Some(7), "missing_key", "payload"),
        (
            r#"{"seq":7,"senml":[{"n":"a","v":1}],"content_type":"a/b","payload":""}"#,
            Some(7),
            "bad_shape",
            "more than one of readings",
        ),
        (r#"{"seq":7,"session":1,"next_seq":1}"#, Some(7), "bad_shape", "hello and of data"),
        (r#"{"session":1}"#, None, "missing_key", "next_seq"),
        (r#"{"readings":[{"key":"t","value":1}]}"#, None, "missing_key", "missing seq"),
        // Types.
        (r#"{"seq":"7","readings":[]}"#, None, "wrong_type", "seq: expected an integer"),
        (r#"{"seq":7.0,"readings":[]}"#, None, "wrong_type", "found a float"),
        (r#"{"seq":-7,"readings":[]}"#, None, "wrong_type", "negative"),
        (r#"{"seq":7,"readings":{}}"#, Some(7), "wrong_type", "readings: expected an array"),
        (r#"{"seq":7,"readings":[1]}"#, Some(7), "wrong_type", "reading 0"),
        (
            r#"{"seq":7,"readings":[{"key":1,"value":1}]}"#,
            Some(7),
            "wrong_type",
            "key: expected a text",
        ),
        (r#"{"readings":[{"key":"t","value":null}],"seq":7}"#, Some(7), "wrong_type", "found null"),
        (r#"{"seq":7,"readings":[{"key":"t","value":[1]}]}"#, Some(7), "wrong_type", "an array"),
        (r#"{"seq":7,"readings":[{"key":"t","value":1,"unit":5}]}"#, Some(7), "wrong_type", "unit"),
        (
            r#"{"seq":7,"readings":[{"key":"t","value":1,"time":1.5}]}"#,
            Some(7),
            "wrong_type",
            "micro",
        ),
        (r#"{"seq":7,"content_type":"a/b","payload":"*"}"#, Some(7), "malformed", "base64"),
        // Bounds.
        (r#"{"seq":0,"readings":[]}"#, None, "bad_number", "seq"),
        (r#"{"session":9007199254740992,"next_seq":1}"#, None, "bad_number", "session"),
        (r#"{"seq":7,"readings":[]}"#, Some(7), "no_readings", "no readings"),
        (r#"{"seq":7,"readings":[{"key":"","value":1}]}"#, Some(7), "empty", "key is empty"),
        (r#"{"seq":7,"readings":[{"key":"\u001b","value":1}]}"#, Some(7), "bad_character", "key"),
        (r#"{"seq":7,"readings":[{"key":"t","value":1e400}]}"#, Some(7), "not_finite", "finite"),
        (
            r#"{"seq":7,"readings":[{"key":"t","value":1,"time":-1}]}"#,
            Some(7),
            "bad_time",
            "time -1",
        ),
        (&absurd, Some(7), "bad_time", "2200"),
        (r#"{"seq":7,"content_type":"","payload":""}"#, Some(7), "empty", "content type"),
        // SenML.
        (r#"{"seq":7,"senml":[]}"#, Some(7), "no_readings", "no readings"),
        (r#"{"seq":7,"senml":[{"v":1}]}"#, Some(7), "bad_shape", "no name"),
        (r#"{"seq":7,"senml":[{"n":"a"}]}"#, Some(7), "bad_shape", "neither"),
        (r#"{"seq":7,"senml":[{"n":"a","v":1,"vb":true}]}"#, Some(7), "bad_shape", "more than one"),
        (r#"{"seq":7,"senml":[{"n":"a","v":1,"x_":1}]}"#, Some(7), "unknown_key", "x_"),
        (r#"{"seq":7,"senml":[{"bver":11,"n":"a","v":1}]}"#, Some(7), "bad_shape", "above 10"),
        (r#"{"seq":7,"senml":[{"n":"a","v":1,"t":1e300}]}"#, Some(7), "bad_time", "reading 0"),
        (r#"{"seq":7,"senml":[{"n":"a","v":1e308,"bv":1e308}]}"#, Some(7), "not_finite", "finite"),
        (
            r#"{"seq":7,"senml":[{"n":"a","vb":1}]}"#,
            Some(7),
            "wrong_type",
            "vb: expected a boolean",
        ),
    ] {
        refused(Format::Json, message.as_bytes(), seq, code, words);
    }
    refused(Format::Json, b"{\"seq\":7,\"\xff\":1}", Some(7), "malformed", "UTF-8");
    refused(Format::Json, b"{\"\xff\":1,\"seq\":7}", None, "malformed", "byte 2");
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("hexadecimal") as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

#[test]
fn cbor_mistakes_are_named_with_their_place() {
    // a2 63 "seq" 07 ..: a data frame of two pairs, number 7.
    let seq = "a2 63736571 07 ";
    let readings = format!("{seq} 6872656164696e6773 ");
    let key_value = format!("{readings} 81 a2 636b6579 6174 6576616c7565 ");
    for (message, number, code, words) in [
        ("", None, "truncated", "byte 0"),
        ("80", None, "wrong_type", "expected a map, found an array"),
        ("ff", None, "wrong_type", "a break"),
        ("bf", None, "truncated", "byte 1"),
        ("bb ffffffffffffffff", None, "truncated", "byte 9"),
        ("a1 f5 01", None, "wrong_type", "expected a key, found a boolean"),
        ("a1 05 01", None, "unknown_key", "\"5\""),
        (seq, Some(7), "truncated", "byte 6"),
        // Announced lengths that no message could have: nothing is allocated for them.
        (&format!("{readings} 9b 7fffffffffffffff"), Some(7), "truncated", "reading 0"),
        (&format!("{seq} 677061796c6f6164 5b 7fffffffffffffff"), Some(7), "truncated", "payload"),
        (&format!("{readings} 81 a1 7b ffffffffffffffff"), Some(7), "truncated", "reading 0"),
        (&format!("{readings} 81 bb 7fffffffffffffff"), Some(7), "truncated", "reading 0"),
        (&format!("{readings} 80"), Some(7), "no_readings", "no readings"),
        (&format!("{readings} 9f ff"), Some(7), "no_readings", "no readings"),
        (&format!("{key_value} 01 00"), Some(7), "trailing", "bytes after"),
        (&format!("{key_value} f6"), Some(7), "wrong_type", "found null"),
        (&format!("{key_value} f7"), Some(7), "wrong_type", "found undefined"),
        (&format!("{key_value} f0"), Some(7), "wrong_type", "a simple value"),
        (&format!("{key_value} 4101"), Some(7), "wrong_type", "found bytes"),
        (&format!("{key_value} 81 01"), Some(7), "wrong_type", "found an array"),
        (&format!("{key_value} c0 01"), Some(7), "wrong_type", "found a tag"),
        (&format!("{key_value} c4 81 01"), Some(7), "wrong_type", "decimal fraction"),
        (&format!("{key_value} c4 82 1b 7fffffffffffffff 01"), Some(7), "not_finite", "finite"),
        (&format!("{key_value} f97e00"), Some(7), "not_finite", "reading 0"),
        (&format!("{key_value} fa7f800000"), Some(7), "not_finite", "finite"),
        (&format!("{key_value} fb7ff8000000000000"), Some(7), "not_finite", "finite"),
        (&format!("{key_value} 62fffe"), Some(7), "malformed", "UTF-8"),
        (&format!("{key_value} 7f 61ff ff"), Some(7), "malformed", "value"),
        (&format!("{key_value} 1c"), Some(7), "malformed", "value"),
        (&format!("{key_value} 6561"), Some(7), "truncated", "value"),
        (&format!("{key_value} fb00"), Some(7), "truncated", "value"),
        (
            &format!("{seq} 6573656e6d6c 81 a2 00 6161 02 6131"),
            Some(7),
            "wrong_type",
            "v: expected",
        ),
        (&format!("{seq} 6573656e6d6c 81 a1 62785f 01"), Some(7), "unknown_key", "x_"),
    ] {
        refused(Format::Cbor, &from_hex(message), number, code, words);
    }
}

#[test]
fn parts_that_are_passed_over_may_not_be_nested_deep() {
    let deep = |depth: usize| {
        let arrays = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"seq":7,"senml":[{{"x":{}{},"n":"a","v":1}}]}}"#, arrays.0, arrays.1)
    };
    assert!(decode(Format::Json, deep(16).as_bytes()).is_ok());
    refused(Format::Json, deep(17).as_bytes(), Some(7), "malformed", "too deep");
    refused(Format::Json, deep(30_000).as_bytes(), Some(7), "malformed", "too deep");
    let mut arrays = from_hex("a2 6573656e6d6c 81 a1 6178");
    arrays.extend(std::iter::repeat_n(0x81, 60_000));
    refused(Format::Cbor, &arrays, None, "malformed", "too deep");
    let mut tags = from_hex("a2 63736571 07 6573656e6d6c 81 a1 6178");
    tags.extend(std::iter::repeat_n(0xc1, 60_000));
    refused(Format::Cbor, &tags, Some(7), "truncated", "senml");
}

#[test]
fn other_forms_of_a_good_frame_are_read() {
    let ClientFrame::Data { body: expected, .. } =
        decode(Format::Json, br#"{"seq":7,"readings":[{"key":"temp","value":1.5}]}"#)
            .expect("good")
    else {
        panic!("not data");
    };
    // Indefinite lengths, a text in chunks, a half float, another order of keys.
    let message =
        "bf 6872656164696e6773 9f bf 6576616c7565 f93e00 636b6579 7f 627465 626d70 ff ff ff
                   63736571 1807 ff";
    let message = from_hex(message);
    let frame = decode(Format::Cbor, &message).expect("good");
    assert_eq!(frame, ClientFrame::Data { seq: MessageId::new(7).expect("small"), body: expected });

    let value = |message: &str| match decode(Format::Json, message.as_bytes()).expect("good") {
        ClientFrame::Data { body: Body::Readings(readings), .. } => {
            readings[0].clone().into_owned()
        }
        other => panic!("{other:?}"),
    };
    let reading = value(
        " {\t\"seq\" : 7 ,\r\n\"readings\" : [ { \"key\":\"\\u00e9\\ud83d\\ude00\\/\",
          \"value\":9223372036854775808, \"unit\":null, \"time\":null } ] } ",
    );
    assert_eq!((&*reading.key, reading.value), ("é😀/", Value::Float(9_223_372_036_854_775_808.0)));
    for (number, expected) in [
        ("-0", Value::Int(0)),
        ("9223372036854775807", Value::Int(i64::MAX)),
        ("-9223372036854775808", Value::Int(i64::MIN)),
        ("1.0", Value::Float(1.0)),
        ("1E2", Value::Float(100.0)),
        ("-0.0", Value::Float(-0.0)),
    ] {
        let message = format!(r#"{{"seq":7,"readings":[{{"key":"t","value":{number}}}]}}"#);
        assert_eq!(value(&message).value, expected, "{number}");
    }
}

#[test]
fn more_readings_than_allowed_are_refused_before_they_are_kept() {
    let readings = vec![r#"{"key":"t","value":1}"#; 4097].join(",");
    let message = format!(r#"{{"seq":7,"readings":[{readings}]}}"#);
    refused(Format::Json, message.as_bytes(), Some(7), "too_many_readings", "4096");
    let records = vec![r#"{"n":"t","v":1}"#; 4097].join(",");
    let message = format!(r#"{{"seq":7,"senml":[{records}]}}"#);
    refused(Format::Json, message.as_bytes(), Some(7), "too_many_readings", "reading 4096");
}

#[test]
fn a_reason_is_cut_and_stays_text() {
    let message = format!(r#"{{"seq":7,"{}":1}}"#, "é".repeat(1000));
    let error = decode(Format::Json, message.as_bytes()).expect_err("unknown key");
    assert!(error.reason().len() <= 256, "{error}");
}

#[test]
fn a_device_passes_over_what_a_later_front_says() {
    let frame = ServerFrame::decode(Format::Json, br#"{"ack":3,"mood":{"a":[1,null]}}"#);
    let ack = ServerFrame::Ack { ack: MessageId::new(3).expect("small"), credit: None };
    assert_eq!(frame, Ok(ack));
    for message in ["{}", r#"{"ack":0}"#, r#"{"ack":1,"nack":2}"#, r#"{"nack":1,"code":"full"}"#] {
        assert!(ServerFrame::decode(Format::Json, message.as_bytes()).is_err(), "{message}");
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,12}", "\\PC{1,20}", "[\"\\\\/é😀 ]{1,6}"]
}

fn reading() -> impl Strategy<Value = Reading<'static>> {
    let value = prop_oneof![
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::Float),
        any::<bool>().prop_map(Value::Bool),
        any::<String>().prop_map(|text| Value::Text(text.into())),
    ];
    let unit = proptest::option::of("[a-zA-Z/%]{1,8}");
    let time = proptest::option::of(0..Timestamp::END_US);
    (text(), value, unit, time).prop_map(|(key, value, unit, time)| Reading {
        key: key.into(),
        value,
        unit: unit.map(Into::into),
        time: time.map(|time| Timestamp::from_micros(time).expect("in bounds")),
    })
}

fn body() -> impl Strategy<Value = Body<'static>> {
    prop_oneof![
        proptest::collection::vec(reading(), 1..12).prop_map(Body::Readings),
        ("[a-z]{1,9}/[a-z]{1,9}", any::<Vec<u8>>()).prop_map(|(content_type, payload)| {
            Body::Opaque { content_type: content_type.into(), payload: payload.into() }
        }),
    ]
}

/// Runs every decoder over the same bytes; only their return counts.
fn run_all(bytes: &[u8]) {
    for format in Format::ALL {
        let _ = decode(format, bytes).map(|frame| format!("{frame:?}"));
        let _ = ServerFrame::decode(format, bytes);
    }
    let _ = entry::head(bytes);
    let _ = entry::decode(bytes);
    let text = String::from_utf8_lossy(bytes);
    let _ = live::ClientFrame::decode(&text);
    let _ = live::ServerFrame::decode(&text);
}

proptest! {
    #[test]
    fn data_reads_back_in_both_encodings(seq in 1..=9_007_199_254_740_991_u64, body in body()) {
        let frame = ClientFrame::Data { seq: MessageId::new(seq).expect("in bounds"), body };
        for format in Format::ALL {
            let mut out = Vec::new();
            frame.encode(format, &mut out);
            prop_assert_eq!(&decode(format, &out).expect("own frame"), &frame);
            if format == Format::Json {
                let tree: Result<serde_json::Value, _> = serde_json::from_slice(&out);
                prop_assert!(tree.is_ok(), "another reader refuses {}", String::from_utf8_lossy(&out));
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        run_all(&bytes);
    }

    #[test]
    fn damaged_frames_never_panic(
        body in body(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<proptest::sample::Index>(),
    ) {
        let frame = ClientFrame::Data { seq: MessageId::FIRST, body };
        for format in Format::ALL {
            let mut out = Vec::new();
            frame.encode(format, &mut out);
            for (place, byte) in &damage {
                let at = place.index(out.len());
                out[at] = *byte;
            }
            run_all(&out);
            run_all(&out[..cut.index(out.len())]);
        }
    }

    #[test]
    fn json_is_refused_exactly_where_another_reader_refuses_it(
        pieces in proptest::collection::vec(
            proptest::sample::select(vec![
                "{", "}", "[", "]", ":", ",", "\"", "\\", "\"a\"", "\\n", "\\u00e9", "\\ud83d\\ude00",
                "0", "-", "1", ".", "e", "E+", "5", "true", "false", "null", " ", "\n", "é", "tru",
            ]),
            0..12,
        ),
    ) {
        // As the value of a label that SenML passes over, so that only syntax matters.
        let text = pieces.concat();
        let message = format!(r#"{{"seq":7,"senml":[{{"n":"a","v":1,"x":{text}}}]}}"#);
        let other: Result<serde_json::Value, _> = serde_json::from_str(&message);
        let own = decode(Format::Json, message.as_bytes());
        let syntax = |code| matches!(code, "malformed" | "truncated" | "trailing");
        match (&own, &other) {
            (Err(error), Ok(_)) => prop_assert!(!syntax(error.code()), "{message}: {error}"),
            (Ok(_), Err(error)) => {
                // A number of any size is well-formed to us.
                prop_assert!(error.to_string().contains("out of range"), "{message}: {error}");
            }
            _ => {}
        }
    }
}
