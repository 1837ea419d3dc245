//! The canonical entry reads back whatever is in it, its head is right without the body, and bytes
//! that are not an entry are refused with their place. Damage below the queue's checksum should
//! never get here; what does is an alarm, not a panic.

use forebay_model::{Body, Message, MessageId, Reading, SessionId, Timestamp, Value};
use forebay_wire::entry::{EntryError, decode, encode, head};
use proptest::prelude::*;

fn message(body: Body<'static>) -> Message<'static> {
    Message {
        tenant: "default".into(),
        device: "pump-7".into(),
        session: SessionId::new(1 << 52).expect("in bounds"),
        seq: MessageId::new(300).expect("in bounds"),
        rejected_before: 4,
        received: Timestamp::from_micros(1_700_000_000_000_000).expect("in bounds"),
        body,
    }
}

fn readings(count: usize) -> Body<'static> {
    let reading = |index: usize| Reading {
        key: format!("key{index}").into(),
        value: match index % 4 {
            0 => Value::Float(index as f64 / 3.0),
            1 => Value::Int(-(index as i64)),
            2 => Value::Bool(index % 8 == 2),
            _ => Value::Text("x".repeat(index % 40).into()),
        },
        unit: index.is_multiple_of(3).then(|| "Cel".into()),
        time: (index % 5 < 2).then(|| Timestamp::from_micros(index as i64).expect("in bounds")),
    };
    Body::Readings((0..count).map(reading).collect())
}

fn written(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(message, &mut out);
    out
}

#[test]
fn every_cut_of_an_entry_is_refused_and_its_head_needs_no_body() {
    let message = message(readings(60));
    let entry = written(&message);
    assert_eq!(decode(&entry).as_ref(), Ok(&message));
    let whole = head(&entry).expect("an entry");
    let mut heads = 0;
    for end in 0..entry.len() {
        assert!(decode(&entry[..end]).is_err(), "cut at {end}");
        heads += usize::from(head(&entry[..end]) == Ok(whole));
    }
    assert!(heads > entry.len() / 2, "the head was readable in {heads} cuts only");
    let mut longer = entry.clone();
    longer.push(0);
    assert_eq!(decode(&longer), Err(EntryError::Malformed { at: entry.len() }));
}

#[test]
fn a_later_version_is_named_and_not_guessed_at() {
    let mut entry = written(&message(readings(1)));
    entry[1] = 2;
    assert_eq!(head(&entry), Err(EntryError::Version { version: 2 }));
    assert_eq!(decode(&entry), Err(EntryError::Version { version: 2 }));
}

#[test]
fn entries_out_of_bounds_are_refused() {
    let nan = Reading { key: "t".into(), value: Value::Float(f64::NAN), unit: None, time: None };
    for bad in [
        message(Body::Readings(vec![nan])),
        message(Body::Readings(vec![])),
        Message { device: "pump/7".into(), ..message(readings(1)) },
        Message { tenant: "".into(), ..message(readings(1)) },
    ] {
        assert!(matches!(decode(&written(&bad)), Err(EntryError::Invalid(_))), "{bad:?}");
    }
}

#[test]
fn an_announced_length_is_not_believed() {
    let mut entry = written(&message(readings(1)));
    let body = entry.iter().rposition(|byte| *byte == 0x81).expect("an array of one reading");
    entry.truncate(body);
    entry.extend_from_slice(&[0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(decode(&entry), Err(EntryError::Malformed { at: body }));
}

proptest! {
    #[test]
    fn entries_read_back(
        count in 1..200_usize,
        session in 0..=9_007_199_254_740_991_u64,
        seq in 1..=9_007_199_254_740_991_u64,
        rejected_before in any::<u32>(),
        received in 0..Timestamp::END_US,
        device in "[a-zA-Z0-9][a-zA-Z0-9_.:-]{0,127}",
        payload in any::<Vec<u8>>(),
    ) {
        for body in [
            readings(count),
            Body::Opaque { content_type: "a/b".into(), payload: payload.clone().into() },
        ] {
            let message = Message {
                device: device.clone().into(),
                session: SessionId::new(session).expect("in bounds"),
                seq: MessageId::new(seq).expect("in bounds"),
                rejected_before,
                received: Timestamp::from_micros(received).expect("in bounds"),
                ..message(body)
            };
            let entry = written(&message);
            prop_assert_eq!(&decode(&entry).expect("an entry"), &message);
            prop_assert_eq!(head(&entry).expect("an entry").rejected_before, rejected_before);
        }
    }

    #[test]
    fn damaged_entries_never_panic(
        count in 1..40_usize,
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut entry = written(&message(readings(count)));
        for (place, byte) in damage {
            let at = place.index(entry.len());
            entry[at] = byte;
        }
        let _ = head(&entry);
        let _ = decode(&entry);
    }
}
