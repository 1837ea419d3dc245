//! Rows in the binary form of COPY, one part for each day in which they were received.
//!
//! A part's name is its day and its last row (`20261122:<entry>:<index>`, hexadecimal): how far the
//! cursor may move once the part is in. Each tuple begins with entry and index, so that rows at or
//! below a cursor can be left out of a part later. Specified in PostgreSQL's manual, "COPY", "Binary
//! Format"; a test reads all back through a real server.

use std::collections::BTreeMap;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::{
    rows::{Cell, RowView, Rows},
    sink::{Encoded, Part},
};

/// The columns, in the order in which a tuple holds them. The first two are `bigint` and `int`.
pub const COLUMNS: [&str; 22] = [
    "entry",
    "index",
    "tenant",
    "device",
    "key",
    "time",
    "timed",
    "received",
    "type",
    "value",
    "value_int",
    "value_text",
    "unit",
    "session",
    "seq",
    "name",
    "device_type",
    "location",
    "known",
    "suspect",
    "content_type",
    "payload",
];

const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: i16 = -1;
const DAY_US: i64 = 86_400_000_000;
/// 2000-01-01, from which PostgreSQL counts, in microseconds since 1970.
const EPOCH_US: i64 = 946_684_800_000_000;
/// Of a usual row.
const ROW_BYTES: usize = 256;

/// The place of a row: entries of the queue come in order, and rows in an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Entry in the middle's queue. As a signed number it stays in order for 8 million epochs.
    pub(super) entry: i64,
    pub(super) index: i32,
}

/// Encodes all rows.
pub(super) fn encode(rows: &Rows) -> Encoded {
    let mut days: BTreeMap<i64, Day> = BTreeMap::new();
    for row in rows.iter() {
        let day = days.entry(row.received_us.div_euclid(DAY_US)).or_insert_with(|| {
            let mut bytes = BytesMut::with_capacity(HEADER.len() + rows.len() * ROW_BYTES);
            bytes.put_slice(HEADER);
            Day { bytes, rows: 0, last: Place { entry: 0, index: 0 } }
        });
        day.last = place(&row);
        day.rows += 1;
        put(&mut day.bytes, &row);
    }
    let parts = days.into_iter().map(|(number, mut day)| {
        day.bytes.put_i16(TRAILER);
        let Place { entry, index } = day.last;
        let name = format!("{}:{entry:016x}:{index:04x}", date(number));
        Part { name, bytes: day.bytes.freeze(), rows: day.rows }
    });
    Encoded { parts: parts.collect(), left_out: 0 }
}

/// Day and last row of a part.
pub(super) fn split(name: &str) -> Option<(&str, Place)> {
    let mut fields = name.split(':');
    let day = fields.next()?;
    let entry = u64::from_str_radix(fields.next()?, 16).ok()?.cast_signed();
    let index = i32::from_str_radix(fields.next()?, 16).ok()?;
    Some((day, Place { entry, index }))
}

/// The first row of a part that has one.
pub(super) fn first(part: &[u8]) -> Option<Place> {
    place_at(part.strip_prefix(HEADER)?)
}

/// The place in a tuple's first two columns.
fn place_at(tuple: &[u8]) -> Option<Place> {
    let entry = i64::from_be_bytes(*tuple.get(6..)?.first_chunk()?);
    let index = i32::from_be_bytes(*tuple.get(18..)?.first_chunk()?);
    Some(Place { entry, index })
}

/// A part without the rows up to and including `cursor`.
///
/// Returns `None` if the part is none of ours.
pub(super) fn after(part: &Bytes, cursor: Place) -> Option<Bytes> {
    let mut left = BytesMut::from(HEADER);
    let mut rest = part.strip_prefix(HEADER)?;
    while i16::from_be_bytes(*rest.first_chunk()?) != TRAILER {
        let mut end = size_of::<i16>();
        for _ in 0..COLUMNS.len() {
            let length = i32::from_be_bytes(*rest.get(end..)?.first_chunk()?);
            // A null has no bytes and the length -1.
            end += size_of::<i32>() + usize::try_from(length).unwrap_or(0);
        }
        let (tuple, others) = rest.split_at_checked(end)?;
        if place_at(tuple)? > cursor {
            left.put_slice(tuple);
        }
        rest = others;
    }
    left.put_i16(TRAILER);
    Some(left.freeze())
}

struct Day {
    bytes: BytesMut,
    rows: u64,
    last: Place,
}

fn place(row: &RowView<'_>) -> Place {
    Place { entry: row.entry.get().cast_signed(), index: i32::from(row.index) }
}

fn put(out: &mut BytesMut, row: &RowView<'_>) {
    let Place { entry, index } = place(row);
    out.put_i16(COLUMNS.len() as i16);
    number(out, entry);
    out.put_i32(4);
    out.put_i32(index);
    text(out, Some(row.tenant));
    text(out, Some(row.device));
    text(out, row.key);
    number(out, row.at_us() - EPOCH_US);
    flag(out, row.time_us.is_some());
    number(out, row.received_us - EPOCH_US);
    text(out, Some(row.value.kind().as_str()));
    match row.value.as_number() {
        Some(value) => number(out, value.to_bits().cast_signed()),
        None => null(out),
    }
    match row.value {
        Cell::Int(value) => number(out, value),
        _ => null(out),
    }
    // The one text that PostgreSQL cannot hold has a NUL in it; its bytes go where payloads do.
    let (content_type, payload) = match row.value {
        Cell::Opaque { content_type, payload } => (Some(content_type), Some(payload)),
        Cell::Text(value) if value.contains('\0') => {
            (Some("text/plain;charset=utf-8"), Some(value.as_bytes()))
        }
        _ => (None, None),
    };
    match row.value {
        Cell::Text(value) if payload.is_none() => bytes(out, Some(value.as_bytes())),
        _ => null(out),
    }
    text(out, row.unit);
    number(out, row.session.cast_signed());
    number(out, row.seq.cast_signed());
    text(out, row.name);
    text(out, row.device_type);
    text(out, row.location);
    flag(out, row.known);
    flag(out, row.suspect);
    text(out, content_type);
    bytes(out, payload);
}

fn number(out: &mut BytesMut, number: i64) {
    out.put_i32(8);
    out.put_i64(number);
}

fn flag(out: &mut BytesMut, on: bool) {
    out.put_i32(1);
    out.put_u8(u8::from(on));
}

fn null(out: &mut BytesMut) {
    out.put_i32(-1);
}

/// A name or a label; without a NUL, which no device may send and PostgreSQL cannot hold.
fn text(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) if text.contains('\0') => {
            bytes(out, Some(text.replace('\0', "\u{fffd}").as_bytes()));
        }
        text => bytes(out, text.map(str::as_bytes)),
    }
}

fn bytes(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            out.put_i32(i32::try_from(bytes.len()).expect("a message is below 64 KiB"));
            out.put_slice(bytes);
        }
        None => null(out),
    }
}

/// A day since 1970 as `YYYYMMDD`.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
pub(super) fn date(day: i64) -> String {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}")
}

#[cfg(test)]
mod tests {
    use forebay_model::{Body, Message, MessageId, Reading, SessionId, Timestamp, Value};
    use forebay_wire::{QueueId, Seq};

    use super::*;

    fn rows(entries: std::ops::RangeInclusive<u64>) -> Rows {
        let mut rows = Rows::new(QueueId::new(1));
        for entry in entries {
            let reading = |value| Reading { key: "k".into(), value, unit: None, time: None };
            let message = Message {
                tenant: "default".into(),
                device: "d".into(),
                session: SessionId::new(1).expect("small"),
                seq: MessageId::new(entry).expect("from 1"),
                rejected_before: 0,
                received: Timestamp::from_micros(EPOCH_US + entry as i64).expect("in bounds"),
                body: Body::Readings(vec![
                    reading(Value::Int(7)),
                    reading(Value::Text(format!("text {entry}").into())),
                ]),
            };
            rows.append(Seq::from_parts(1, entry), &message);
        }
        rows
    }

    #[test]
    fn days_are_named_by_their_date() {
        for (day, name) in [(0, "19700101"), (11_016, "20000229"), (20_779, "20261122")] {
            assert_eq!(date(day), name);
        }
    }

    #[test]
    fn rows_up_to_a_cursor_are_left_out() {
        let part = |entries| encode(&rows(entries)).parts.remove(0);
        let all = part(1..=9);
        let (day, last) = split(&all.name).expect("a part of ours");
        assert_eq!((day, last.index), ("20000101", 1));
        let at = |entry, index| {
            let entry = Seq::from_parts(1, entry).get().cast_signed();
            after(&all.bytes, Place { entry, index }).expect("a part of ours")
        };
        assert_eq!(at(0, 0), all.bytes);
        assert_eq!(at(4, 1), part(5..=9).bytes);
        assert_eq!(at(9, 1), part(1..=9).bytes[..HEADER.len()].to_vec().tap(TRAILER));
        let half = at(8, 0);
        assert!(half.len() > part(9..=9).bytes.len() && half.len() < part(8..=9).bytes.len());
        assert!(after(&Bytes::from_static(b"PGCOPY"), last).is_none());
        assert!(after(&all.bytes.slice(..all.bytes.len() - 3), last).is_none());
    }

    trait Tap {
        fn tap(self, trailer: i16) -> Vec<u8>;
    }

    impl Tap for Vec<u8> {
        fn tap(mut self, trailer: i16) -> Vec<u8> {
            self.extend(trailer.to_be_bytes());
            self
        }
    }
}
