//! A range as the newest value of each of its series: what is older in it need not be sent.
//!
//! A part is one device: the key of its hash, then field and value by turns, each a `u32` length,
//! little-endian, and that many bytes.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use hashbrown::{HashMap, hash_map::Entry};
use serde::Serialize;

use crate::{
    rows::{Cell, RowView, Rows},
    sink::{Encoded, Part},
};

/// Fields a part at most: a Lua script can take some thousand values off its stack.
const FIELDS_MAX: usize = 500;

/// A value as it stands in a field. `order` is first and of fixed width: scripts cut it out.
#[derive(Serialize)]
struct Last<'a> {
    order: &'a str,
    time: i64,
    received: i64,
    r#type: &'static str,
    value: Value<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
    session: u64,
    seq: u64,
    index: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<&'a str>,
    known: bool,
    suspect: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Value<'a> {
    Float(f64),
    Int(i64),
    Bool(bool),
    Text(&'a str),
}

/// What decides which of two values is the newer; the same as of last values in memory.
fn order(row: &RowView<'_>) -> (i64, u64, u16, u64) {
    (row.at_us(), row.seq, row.index, row.session)
}

/// The newest value of each series, and how many rows have no series.
pub(super) fn encode(rows: &Rows, prefix: &str) -> Result<(Encoded, u64), serde_json::Error> {
    let (mut not_applicable, mut replaced) = (0, 0);
    let mut newest: HashMap<(u32, u32, u32), usize> = HashMap::new();
    for row in 0..rows.len() {
        let Some(key) = rows.key(row) else {
            not_applicable += 1;
            continue;
        };
        let message = rows.message(row);
        match newest.entry((rows.tenant(message), rows.device(message), key)) {
            Entry::Vacant(place) => drop(place.insert(row)),
            Entry::Occupied(mut place) => {
                replaced += 1;
                if order(&rows.row(row)) > order(&rows.row(*place.get())) {
                    place.insert(row);
                }
            }
        }
    }
    let mut newest: Vec<_> = newest.into_iter().collect();
    newest.sort_unstable_by_key(|(series, _)| *series);
    let mut encoded = Encoded::default();
    for device in newest.chunk_by(|left, right| (left.0.0, left.0.1) == (right.0.0, right.0.1)) {
        for fields in device.chunks(FIELDS_MAX) {
            let first = rows.row(fields[0].1);
            let name = format!("{prefix}{}/{}", first.tenant, first.device);
            let mut bytes = BytesMut::new();
            put(&mut bytes, name.as_bytes());
            for (_, row) in fields {
                let row = rows.row(*row);
                put(&mut bytes, row.key.unwrap_or_default().as_bytes());
                put(&mut bytes, &value(&row)?);
            }
            encoded.parts.push(Part { name, bytes: bytes.freeze(), rows: fields.len() as u64 });
        }
    }
    encoded.left_out = not_applicable + replaced;
    Ok((encoded, not_applicable))
}

/// The texts of a part: the key of a hash, then field and value by turns.
pub(super) fn texts(part: &Bytes) -> impl Iterator<Item = Bytes> {
    let mut rest = part.clone();
    std::iter::from_fn(move || {
        let length = rest.try_get_u32_le().ok()? as usize;
        (length <= rest.len()).then(|| rest.split_to(length))
    })
}

fn put(out: &mut BytesMut, text: &[u8]) {
    out.put_u32_le(u32::try_from(text.len()).expect("a message is below 64 KiB"));
    out.put_slice(text);
}

fn value(row: &RowView<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let (at_us, seq, index, session) = order(row);
    // Fixed widths, so that texts compare as the numbers do; no time lies before 1970.
    let order = format!("{at_us:016x}{seq:014x}{index:04x}{session:014x}");
    serde_json::to_vec(&Last {
        order: &order,
        time: at_us,
        received: row.received_us,
        r#type: row.value.kind().as_str(),
        value: match row.value {
            Cell::Float(number) => Value::Float(number),
            Cell::Int(number) => Value::Int(number),
            Cell::Bool(on) => Value::Bool(on),
            Cell::Text(text) => Value::Text(text),
            Cell::Opaque { .. } => Value::Text(""),
        },
        unit: row.unit,
        session: row.session,
        seq: row.seq,
        index: row.index,
        name: row.name,
        device_type: row.device_type,
        location: row.location,
        known: row.known,
        suspect: row.suspect,
    })
}

#[cfg(test)]
mod tests {
    use forebay_model::{Body, Message, MessageId, Reading, SessionId, Timestamp};
    use forebay_wire::{QueueId, Seq};

    use super::*;

    fn rows(readings: &[(&str, u64, i64)]) -> Rows {
        let mut rows = Rows::new(QueueId::new(1));
        for (number, (device, seq, time_us)) in readings.iter().enumerate() {
            let reading = Reading {
                key: "k".into(),
                value: forebay_model::Value::Int(*seq as i64),
                unit: None,
                time: Timestamp::from_micros(*time_us).ok(),
            };
            let message = Message {
                tenant: "default".into(),
                device: (*device).to_owned().into(),
                session: SessionId::new(1).expect("small"),
                seq: MessageId::new(*seq).expect("from 1"),
                rejected_before: 0,
                received: Timestamp::from_micros(1).expect("in bounds"),
                body: Body::Readings(vec![reading]),
            };
            rows.append(Seq::from_parts(1, number as u64 + 1), &message);
        }
        rows
    }

    fn shown(rows: &Rows) -> Vec<Vec<String>> {
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("text");
        let (encoded, _) = encode(rows, "p:").expect("encoded");
        encoded.parts.iter().map(|part| texts(&part.bytes).map(text).collect()).collect()
    }

    #[test]
    fn the_newest_of_each_series_is_sent_whatever_the_order_of_arrival() {
        let shown_of = |readings: &[(&str, u64, i64)]| shown(&rows(readings));
        let a = shown_of(&[("a", 1, 10), ("a", 3, 30), ("b", 1, 5), ("a", 2, 20), ("a", 4, 30)]);
        let b = shown_of(&[("a", 4, 30), ("b", 1, 5), ("a", 1, 10)]);
        assert_eq!(a, b);
        assert_eq!(a.len(), 2);
        assert_eq!(&a[0][..2], ["p:default/a", "k"]);
        let value = "{\"order\":\"000000000000001e00000000000004000000000000000001\",\"time\":30,";
        assert!(a[0][2].starts_with(value), "{}", a[0][2]);
    }
}
