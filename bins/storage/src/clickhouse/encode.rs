//! Rows to the bytes of RowBinary, in the order of [`super::schema::COLUMNS`].
//!
//! What repeats is encoded once a batch: each device with all that describes it, each word. A row
//! is then a few copies. The bytes depend on the rows alone.

use bytes::Bytes;

use crate::rows::{Cell, Interner, Kind, Rows};

/// A row without its strings, and some room for them: 86 bytes are fixed.
const ROW_BYTES: usize = 144;

/// All rows as one block.
#[must_use]
pub fn encode(rows: &Rows) -> Bytes {
    let mut out = Vec::with_capacity(rows.len() * ROW_BYTES);
    let (keys, labels) = (Words::new(rows.keys()), Words::new(rows.labels()));
    let mut devices = Devices::new(rows.devices().len());
    let mut current = usize::MAX;
    let mut head = 0..0;
    for row in 0..rows.len() {
        let message = rows.message(row);
        if message == current {
            out.extend_from_within(head.clone());
        } else {
            let start = out.len();
            devices.encode(rows, message, &mut out);
            let (session, seq) = rows.identity(message);
            let mut numbers = [0; 24];
            numbers[..8].copy_from_slice(&rows.received_us(message).to_le_bytes());
            numbers[8..16].copy_from_slice(&session.to_le_bytes());
            numbers[16..].copy_from_slice(&seq.to_le_bytes());
            out.extend_from_slice(&numbers);
            (current, head) = (message, start..out.len());
        }
        let time_us = rows.time_us(row);
        let mut numbers = [0; 12];
        numbers[..2].copy_from_slice(&rows.index(row).to_le_bytes());
        numbers[2] = u8::from(rows.is_suspect(row));
        numbers[3] = u8::from(time_us.is_some());
        let time_us = time_us.unwrap_or_else(|| rows.received_us(message));
        numbers[4..].copy_from_slice(&time_us.to_le_bytes());
        out.extend_from_slice(&numbers);
        out.extend_from_slice(keys.get(rows.key(row)));
        value(rows, row, &labels, &mut out);
    }
    Bytes::from(out)
}

/// `unit, kind, float, int, bool, text, content_type, payload`. A column that is null is a 1.
fn value(rows: &Rows, row: usize, labels: &Words, out: &mut Vec<u8>) {
    let label = labels.get(rows.label(row));
    let cell = rows.cell(row);
    if let Cell::Opaque { payload, .. } = cell {
        out.extend_from_slice(&[0, Kind::Opaque as u8, 1, 1, 1, 1]);
        out.extend_from_slice(label);
        return text(payload, out);
    }
    out.extend_from_slice(label);
    match cell {
        Cell::Float(number) => {
            let mut bytes = [Kind::Float as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0];
            bytes[2..10].copy_from_slice(&number.to_le_bytes());
            out.extend_from_slice(&bytes);
        }
        Cell::Int(number) => {
            let mut bytes = [Kind::Int as u8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0];
            bytes[3..11].copy_from_slice(&number.to_le_bytes());
            out.extend_from_slice(&bytes);
        }
        Cell::Bool(on) => {
            out.extend_from_slice(&[Kind::Bool as u8, 1, 1, 0, u8::from(on), 1, 0, 0]);
        }
        Cell::Text(words) => {
            out.extend_from_slice(&[Kind::Text as u8, 1, 1, 1, 0]);
            text(words.as_bytes(), out);
            out.extend_from_slice(&[0, 0]);
        }
        Cell::Opaque { .. } => {}
    }
}

/// A string: its length in seven bits a byte, least first, then its bytes.
fn text(bytes: &[u8], out: &mut Vec<u8>) {
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}

/// A dictionary as encoded strings.
struct Words {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Words {
    fn new(words: &Interner) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(words.len()));
        for word in words.iter() {
            text(word.as_bytes(), &mut bytes);
            ends.push(bytes.len());
        }
        Self { bytes, ends }
    }

    /// The word of a code; the empty string where there is none.
    fn get(&self, code: Option<u32>) -> &[u8] {
        let Some(code) = code else { return &[0] };
        let start = if code == 0 { 0 } else { self.ends[code as usize - 1] };
        &self.bytes[start..self.ends[code as usize]]
    }
}

/// `tenant, device, name, type, location, known` of each device, encoded when it is first met.
struct Devices {
    bytes: Vec<u8>,
    /// By the device's code: of which tenant, and where.
    places: Vec<Option<(u32, std::ops::Range<usize>)>>,
}

impl Devices {
    fn new(devices: usize) -> Self {
        Self { bytes: Vec::new(), places: vec![None; devices] }
    }

    fn encode(&mut self, rows: &Rows, message: usize, out: &mut Vec<u8>) {
        let (tenant, device) = (rows.tenant(message), rows.device(message));
        let place = &mut self.places[device as usize];
        let range = match place {
            Some((of, range)) if *of == tenant => range.clone(),
            _ => {
                let start = self.bytes.len();
                let name = rows.name(message).map_or("", |code| rows.names().get(code));
                let kind =
                    rows.device_type(message).map_or("", |code| rows.device_types().get(code));
                let location = rows.location(message).map_or("", |code| rows.locations().get(code));
                for word in
                    [rows.tenants().get(tenant), rows.devices().get(device), name, kind, location]
                {
                    text(word.as_bytes(), &mut self.bytes);
                }
                self.bytes.push(u8::from(rows.is_known(message)));
                let range = start..self.bytes.len();
                *place = Some((tenant, range.clone()));
                range
            }
        };
        out.extend_from_slice(&self.bytes[range]);
    }
}
