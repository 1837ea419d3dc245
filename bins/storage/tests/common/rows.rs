//! Messages of every kind from a seed, and rows that own what they hold.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::path::Path;

use forebay_model::{Body, Message, MessageId, Reading, SessionId, Timestamp, Value};
use forebay_storage::{
    read::{Filter, scan_lake},
    rows::{Cell, RowView},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// 2026-11-22T13:59:00Z: a minute before an hour begins.
pub const START_US: i64 = 1_795_355_940_000_000;

/// A row with everything that identifies and describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnedRow {
    pub device: String,
    pub session: u64,
    pub seq: u64,
    pub index: u16,
    pub tenant: String,
    pub key: Option<String>,
    pub value: OwnedCell,
    pub unit: Option<String>,
    pub time_us: Option<i64>,
    pub received_us: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum OwnedCell {
    Float(f64),
    Int(i64),
    Bool(bool),
    Text(String),
    Opaque(String, Vec<u8>),
}

impl OwnedRow {
    pub fn of(row: &RowView<'_>) -> Self {
        Self {
            device: row.device.to_owned(),
            session: row.session,
            seq: row.seq,
            index: row.index,
            tenant: row.tenant.to_owned(),
            key: row.key.map(str::to_owned),
            value: match row.value {
                Cell::Float(number) => OwnedCell::Float(number),
                Cell::Int(number) => OwnedCell::Int(number),
                Cell::Bool(on) => OwnedCell::Bool(on),
                Cell::Text(text) => OwnedCell::Text(text.to_owned()),
                Cell::Opaque { content_type, payload } => {
                    OwnedCell::Opaque(content_type.to_owned(), payload.to_vec())
                }
            },
            unit: row.unit.map(str::to_owned),
            time_us: row.time_us,
            received_us: row.received_us,
        }
    }

    pub fn identity(&self) -> (String, String, u64, u64, u16) {
        (self.tenant.clone(), self.device.clone(), self.session, self.seq, self.index)
    }

    pub fn at_us(&self) -> i64 {
        self.time_us.unwrap_or(self.received_us)
    }
}

/// The rows a message makes.
pub fn rows_of(message: &Message<'_>) -> Vec<OwnedRow> {
    let base = OwnedRow {
        device: message.device.to_string(),
        session: message.session.get(),
        seq: message.seq.get(),
        index: 0,
        tenant: message.tenant.to_string(),
        key: None,
        value: OwnedCell::Bool(false),
        unit: None,
        time_us: None,
        received_us: message.received.micros(),
    };
    match &message.body {
        Body::Opaque { content_type, payload } => {
            let value = OwnedCell::Opaque(content_type.to_string(), payload.to_vec());
            vec![OwnedRow { value, ..base }]
        }
        Body::Readings(readings) => readings
            .iter()
            .enumerate()
            .map(|(index, reading)| OwnedRow {
                index: index as u16,
                key: Some(reading.key.to_string()),
                value: match &reading.value {
                    Value::Float(number) => OwnedCell::Float(*number),
                    Value::Int(number) => OwnedCell::Int(*number),
                    Value::Bool(on) => OwnedCell::Bool(*on),
                    Value::Text(text) => OwnedCell::Text(text.to_string()),
                },
                unit: reading.unit.as_deref().map(str::to_owned),
                time_us: reading.time.map(Timestamp::micros),
                ..base.clone()
            })
            .collect(),
    }
}

/// All rows of messages, by identity.
pub fn all_rows<'a>(messages: impl IntoIterator<Item = &'a Message<'a>>) -> Vec<OwnedRow> {
    let mut rows: Vec<_> = messages.into_iter().flat_map(rows_of).collect();
    rows.sort_by_key(OwnedRow::identity);
    rows
}

/// All rows of a lake, by identity.
pub fn lake_rows(lake: &Path) -> Vec<OwnedRow> {
    let mut rows = Vec::new();
    scan_lake(lake, &Filter::default(), &mut |row| rows.push(OwnedRow::of(&row))).expect("a lake");
    rows.sort_by_key(OwnedRow::identity);
    rows
}

/// Messages of some devices over two hours, of every kind of value, some late and some without a
/// time.
pub fn messages(seed: u64, count: usize) -> Vec<Message<'static>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut seqs = [0_u64; 8];
    (0..count)
        .map(|number| {
            let device = random.random_range(0..seqs.len());
            seqs[device] += 1;
            let received = START_US + (number as i64 * 7_200_000_000) / count.max(1) as i64;
            let body = if random.random_ratio(1, 20) {
                let payload: Vec<u8> =
                    (0..random.random_range(0..64)).map(|_| random.random()).collect();
                Body::Opaque { content_type: "application/x-test".into(), payload: payload.into() }
            } else {
                let readings = random.random_range(1..=4);
                Body::Readings((0..readings).map(|_| reading(&mut random, received)).collect())
            };
            Message {
                tenant: if device % 4 == 3 { "other" } else { "default" }.into(),
                device: format!("device-{device}").into(),
                session: SessionId::new(device as u64 * 1000 + 1).expect("small"),
                seq: MessageId::new(seqs[device]).expect("from 1"),
                rejected_before: 0,
                received: Timestamp::from_micros(received).expect("in bounds"),
                body,
            }
        })
        .collect()
}

fn reading(random: &mut StdRng, received: i64) -> Reading<'static> {
    let key = ["temperature", "pressure", "open", "state", "über"][random.random_range(0..5)];
    let value = match random.random_range(0..4) {
        0 => Value::Float((random.random::<f64>() * 1e4).round() / 100.0),
        1 => Value::Int(random.random_range(-1_000_000..1_000_000)),
        2 => Value::Bool(random.random()),
        _ => Value::Text(format!("text {}", random.random_range(0..50)).into()),
    };
    let unit = random.random_ratio(1, 2).then(|| "°C".into());
    let late = random.random_range(-5_000_000..86_400_000_000_i64 / 4);
    let time = random.random_ratio(3, 4).then(|| Timestamp::from_micros(received - late).ok());
    Reading { key: key.into(), value, unit, time: time.flatten() }
}

/// A message of one float reading.
pub fn simple(device: &str, seq: u64, value: f64) -> Message<'static> {
    let time = Timestamp::from_micros(START_US + seq as i64 * 1_000_000).ok();
    Message {
        tenant: "default".into(),
        device: device.to_owned().into(),
        session: SessionId::new(1).expect("small"),
        seq: MessageId::new(seq).expect("from 1"),
        rejected_before: 0,
        received: Timestamp::from_micros(START_US + seq as i64 * 1_000_000 + 7).expect("in bounds"),
        body: Body::Readings(vec![Reading {
            key: "value".into(),
            value: Value::Float(value),
            unit: None,
            time,
        }]),
    }
}

/// The same messages, received some hours ago by the clock of this machine.
pub fn hours_ago(messages: Vec<Message<'static>>, hours: i64) -> Vec<Message<'static>> {
    const HOUR_US: i64 = 3_600_000_000;
    let now = Timestamp::now().micros();
    // A minute before an hour begins, as they were.
    let start = (now - hours * HOUR_US).div_euclid(HOUR_US) * HOUR_US - 60_000_000;
    let shifted = |mut message: Message<'static>| {
        let received = message.received.micros() - START_US + start;
        message.received = Timestamp::from_micros(received).expect("in bounds");
        message
    };
    messages.into_iter().map(shifted).collect()
}

/// The files of a lake as any other tool finds them: whatever does not begin with a dot.
pub fn visible_files(lake: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![lake.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry");
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// All rows that any other tool sees in a lake, by identity: nothing is passed over by a rule of
/// ours.
pub fn visible_rows(lake: &Path) -> Vec<OwnedRow> {
    use forebay_storage::read::{Columns, scan::scan};
    let mut rows = Vec::new();
    for path in visible_files(lake) {
        let each = &mut |row: RowView<'_>| rows.push(OwnedRow::of(&row));
        scan(&path, &Filter::default(), Columns::All, each).expect("a lake file");
    }
    rows.sort_by_key(OwnedRow::identity);
    rows
}
