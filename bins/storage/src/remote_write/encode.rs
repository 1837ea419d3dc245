//! Rows as requests of Prometheus remote write 1.0: protobuf, compressed by snappy's block format.
//!
//! The messages are `WriteRequest { repeated TimeSeries timeseries = 1 }`, `TimeSeries { repeated
//! Label labels = 1; repeated Sample samples = 2 }`, `Label { string name = 1; string value = 2 }`,
//! `Sample { double value = 1; int64 timestamp = 2 }`. They are written field by field, with the
//! functions that `prost` derives its own code from, straight from the columns: structs of strings
//! in between cost four times as much.

use bytes::{BufMut, BytesMut};
use hashbrown::HashMap;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use crate::{
    rows::{NONE, Rows},
    sink::{Encoded, Part},
};

/// `value`, its key, and the key of `timestamp`.
const SAMPLE_FIXED_BYTES: usize = 1 + 8 + 1;

/// What a range left out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) not_applicable: u64,
    pub(super) merged: u64,
}

/// Encodes ranges; keeps its memory from one to the next.
pub(super) struct Encoder {
    prefix: String,
    samples_max: usize,
    compress: snap::raw::Encoder,
    series: HashMap<[u32; 4], u32>,
    samples: Vec<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    series: u32,
    time_ms: i64,
    value: f64,
    row: u32,
}

impl Encoder {
    pub(super) fn new(prefix: &str, samples_max: usize) -> Self {
        Self {
            prefix: prefix.to_owned(),
            samples_max,
            compress: snap::raw::Encoder::new(),
            series: HashMap::new(),
            samples: Vec::new(),
        }
    }

    /// The requests that carry a range's numbers, each series in order of time.
    pub(super) fn encode(&mut self, rows: &Rows) -> Result<(Encoded, Counts), snap::Error> {
        let mut counts = Counts::default();
        self.series.clear();
        self.samples.clear();
        for row in 0..rows.len() {
            let (Some(key), Some(value)) = (rows.key(row), rows.cell(row).as_number()) else {
                counts.not_applicable += 1;
                continue;
            };
            let message = rows.message(row);
            let label = rows.label(row).unwrap_or(NONE);
            let name = [rows.tenant(message), rows.device(message), key, label];
            let next = self.series.len() as u32;
            let series = *self.series.entry(name).or_insert(next);
            let time_us = rows.time_us(row).unwrap_or_else(|| rows.received_us(message));
            let time_ms = time_us.div_euclid(1000);
            self.samples.push(Sample { series, time_ms, value, row: row as u32 });
        }
        // By row within a millisecond: what came last is what stays.
        self.samples.sort_unstable_by_key(|sample| (sample.series, sample.time_ms, sample.row));
        let before = self.samples.len();
        self.samples.dedup_by(|later, earlier| {
            let same = (later.series, later.time_ms) == (earlier.series, earlier.time_ms);
            if same {
                *earlier = *later;
            }
            same
        });
        counts.merged = (before - self.samples.len()) as u64;
        let mut encoded = Encoded::default();
        let mut plain = BytesMut::new();
        let mut labels = BytesMut::new();
        for request in self.samples.chunks(self.samples_max) {
            plain.clear();
            for series in request.chunk_by(|left, right| left.series == right.series) {
                labels.clear();
                put_labels(&mut labels, rows, &self.prefix, series[0].row as usize);
                put_series(&mut plain, &labels, series);
            }
            let bytes = self.compress.compress_vec(&plain)?;
            encoded.parts.push(Part {
                name: encoded.parts.len().to_string(),
                bytes: bytes.into(),
                rows: request.len() as u64,
            });
        }
        encoded.left_out = counts.not_applicable + counts.merged;
        Ok((encoded, counts))
    }
}

fn put_series(out: &mut BytesMut, labels: &[u8], samples: &[Sample]) {
    let sample_bytes =
        |sample: &Sample| SAMPLE_FIXED_BYTES + encoded_len_varint(sample.time_ms.cast_unsigned());
    // A sample is below 128 bytes: one byte for its length, one for its key.
    let samples_bytes: usize = samples.iter().map(|sample| 2 + sample_bytes(sample)).sum();
    encode_key(1, WireType::LengthDelimited, out);
    encode_varint((labels.len() + samples_bytes) as u64, out);
    out.put_slice(labels);
    for sample in samples {
        encode_key(2, WireType::LengthDelimited, out);
        encode_varint(sample_bytes(sample) as u64, out);
        encode_key(1, WireType::SixtyFourBit, out);
        out.put_f64_le(sample.value);
        encode_key(2, WireType::Varint, out);
        encode_varint(sample.time_ms.cast_unsigned(), out);
    }
}

/// The labels of a row, in the order of their names, as receivers demand; none is empty.
fn put_labels(out: &mut BytesMut, rows: &Rows, prefix: &str, row: usize) {
    let view = rows.row(row);
    let key = view.key.unwrap_or_default();
    let metric = metric_name(prefix, key);
    let labels = [
        ("__name__", Some(metric.as_str())),
        ("device", Some(view.device)),
        ("key", Some(key)),
        ("location", view.location),
        ("tenant", Some(view.tenant)),
        ("type", view.device_type),
        ("unit", view.unit),
    ];
    for (name, value) in labels {
        let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
        let field = |text: &str| 1 + encoded_len_varint(text.len() as u64) + text.len();
        encode_key(1, WireType::LengthDelimited, out);
        encode_varint((field(name) + field(value)) as u64, out);
        for (tag, text) in [(1, name), (2, value)] {
            encode_key(tag, WireType::LengthDelimited, out);
            encode_varint(text.len() as u64, out);
            out.put_slice(text.as_bytes());
        }
    }
}

/// The name of a key's metric: what Prometheus does not allow becomes `_`; the label `key` tells
/// apart what becomes the same.
fn metric_name(prefix: &str, key: &str) -> String {
    let mut name = String::with_capacity(prefix.len() + key.len() + 1);
    name.push_str(prefix);
    if prefix.is_empty() && key.starts_with(|first: char| first.is_ascii_digit()) {
        name.push('_');
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    name.extend(key.chars().map(|c| if plain(c) { c } else { '_' }));
    name
}

#[cfg(test)]
mod tests {
    use forebay_model::{Body, Message, MessageId, Reading, SessionId, Timestamp, Value};
    use forebay_wire::{QueueId, Seq};

    use super::*;

    /// Labels and samples, as they come out of a request again.
    type Series = (Vec<(String, String)>, Vec<(f64, i64)>);

    fn fields(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        use prost::encoding::{decode_key, decode_varint};
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let (tag, kind) = decode_key(&mut bytes).expect("a key");
            let length = match kind {
                WireType::LengthDelimited => decode_varint(&mut bytes).expect("a length") as usize,
                WireType::SixtyFourBit => 8,
                WireType::Varint => {
                    let number = decode_varint(&mut bytes).expect("a number");
                    found.push((tag, number.to_le_bytes().to_vec()));
                    continue;
                }
                other => panic!("no field of ours is {other:?}"),
            };
            let (field, rest) = bytes.split_at(length);
            found.push((tag, field.to_vec()));
            bytes = rest;
        }
        found
    }

    fn read(compressed: &[u8]) -> Vec<Series> {
        let plain = snap::raw::Decoder::new().decompress_vec(compressed).expect("snappy");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let series = fields(&plain).into_iter().map(|(tag, series)| {
            assert_eq!(tag, 1);
            let (mut labels, mut samples) = (Vec::new(), Vec::new());
            for (tag, field) in fields(&series) {
                let parts = fields(&field);
                assert_eq!(parts.iter().map(|part| part.0).collect::<Vec<_>>(), [1, 2]);
                if tag == 1 {
                    labels.push((text(&parts[0].1), text(&parts[1].1)));
                } else {
                    let number = |at: usize| parts[at].1[..].try_into().expect("8 bytes");
                    samples.push((f64::from_le_bytes(number(0)), i64::from_le_bytes(number(1))));
                }
            }
            (labels, samples)
        });
        series.collect()
    }

    fn rows(readings: &[(&str, Value<'static>, i64)]) -> Rows {
        let mut rows = Rows::new(QueueId::new(1));
        for (number, (key, value, time_ms)) in readings.iter().enumerate() {
            let reading = Reading {
                key: (*key).to_owned().into(),
                value: value.clone(),
                unit: Some("°C".into()),
                time: Timestamp::from_micros(time_ms * 1000 + 999).ok(),
            };
            let message = Message {
                tenant: "default".into(),
                device: "d".into(),
                session: SessionId::new(1).expect("small"),
                seq: MessageId::new(number as u64 + 1).expect("from 1"),
                rejected_before: 0,
                received: Timestamp::from_micros(1).expect("in bounds"),
                body: Body::Readings(vec![reading]),
            };
            rows.append(Seq::from_parts(1, number as u64 + 1), &message);
        }
        rows
    }

    #[test]
    fn a_range_reads_back_as_series_in_order_of_time() {
        let rows = rows(&[
            ("t.in", Value::Float(1.5), 2000),
            ("open", Value::Bool(true), 1000),
            ("t.in", Value::Float(0.5), 1000),
            ("state", Value::Text("on".into()), 1000),
            ("t.in", Value::Int(-3), 2000),
            ("9th", Value::Int(9), 3000),
        ]);
        let (encoded, counts) = Encoder::new("", 3).encode(&rows).expect("encoded");
        assert_eq!(counts, Counts { not_applicable: 1, merged: 1 });
        let read: Vec<_> = encoded.parts.iter().flat_map(|part| read(&part.bytes)).collect();
        let labels = |name: &str, key: &str| {
            [
                ("__name__", name),
                ("device", "d"),
                ("key", key),
                ("tenant", "default"),
                ("unit", "°C"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
        };
        let expected = [
            (labels("t_in", "t.in"), vec![(0.5, 1000), (-3.0, 2000)]),
            (labels("open", "open"), vec![(1.0, 1000)]),
            (labels("_9th", "9th"), vec![(9.0, 3000)]),
        ];
        assert_eq!(read, expected);
        assert_eq!(encoded.parts.iter().map(|part| part.rows).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(encoded, Encoder::new("", 3).encode(&rows).expect("encoded").0);
    }

    #[test]
    fn a_series_that_does_not_fit_a_request_goes_on_in_the_next() {
        let readings: Vec<_> = (0..5).map(|n| ("k", Value::Int(n), n)).collect();
        let (encoded, _) = Encoder::new("iot_", 2).encode(&rows(&readings)).expect("encoded");
        let lengths: Vec<_> = encoded.parts.iter().map(|part| part.rows).collect();
        assert_eq!(lengths, [2, 2, 1]);
        assert_eq!(read(&encoded.parts[2].bytes)[0].0[0].1, "iot_k");
    }
}
