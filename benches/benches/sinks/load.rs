//! What the stores are given: messages of listed devices, as entries and as batches of rows.
//!
//! 10,000 messages a second of the wall clock that is in them, two readings each.

use std::sync::Arc;

use forebay_link::{QueueId, Seq};
use forebay_model::{
    Body, Message, MessageId, Reading, SessionId, Timestamp, Value,
    registry::{Builder, Listing, Registry},
};
use forebay_storage::rows::Rows;
use forebay_wire::entry;
use rustix::time::{ClockId, clock_gettime};

/// Rows of a batch: the default of the ClickHouse sink.
pub(crate) const ROWS: usize = 100_000;
/// Devices of the usual load, all of them listed in the registry.
pub(crate) const DEVICES: usize = 500;
/// Of a message: a float and an integer.
pub(crate) const READINGS: usize = 2;
/// Between two messages.
const STEP_US: i64 = 100;
/// 2026-11-22T14:00:00Z.
pub(crate) const START_US: i64 = 1_795_356_000_000_000;

/// All devices, with what is known of them.
pub(crate) fn registry() -> Arc<Registry> {
    let mut builder = Builder::default();
    for device in 0..DEVICES {
        let listing = Listing {
            device: format!("device-{device:05}"),
            name: Some(format!("Press number {device}")),
            device_type: Some(["press", "pump", "fan"][device % 3].to_owned()),
            location: Some(format!("hall {}", device % 20)),
            ..Listing::default()
        };
        builder.add(listing).expect("a listing");
    }
    Arc::new(builder.build())
}

/// The canonical entry of the message of this number, of the usual devices.
#[cfg(feature = "peers")]
pub(crate) fn entry_of(number: usize) -> Vec<u8> {
    entry_among(number, DEVICES)
}

/// The same where so many devices send in turn.
fn entry_among(number: usize, devices: usize) -> Vec<u8> {
    let at = START_US + number as i64 * STEP_US;
    let time = Timestamp::from_micros(at - 2000).ok();
    let float = ((number as f64 / 700.0).sin() * 1000.0).round() / 100.0;
    let reading = |key: &'static str, value, unit: Option<&'static str>| Reading {
        key: key.into(),
        value,
        unit: unit.map(Into::into),
        time,
    };
    let readings = vec![
        reading("temperature", Value::Float(float), Some("°C")),
        reading("count", Value::Int((number / devices) as i64), None),
    ];
    let message = Message {
        tenant: "default".into(),
        device: format!("device-{:05}", number % devices).into(),
        session: SessionId::new((number % devices) as u64 + 1).expect("small"),
        seq: MessageId::new((number / devices) as u64 + 1).expect("from 1"),
        rejected_before: 0,
        received: Timestamp::from_micros(at).expect("in bounds"),
        body: Body::Readings(readings),
    };
    let mut bytes = Vec::new();
    entry::encode(&message, &mut bytes);
    bytes
}

/// The batch of this number, of the usual devices.
pub(crate) fn batch(number: usize, registry: &Arc<Registry>) -> Rows {
    batch_of(number, registry, DEVICES)
}

/// The same where so many devices send in turn.
pub(crate) fn batch_of(number: usize, registry: &Arc<Registry>, devices: usize) -> Rows {
    let mut rows = Rows::new(QueueId::new(1));
    rows.describe_by(registry.clone());
    let messages = ROWS / READINGS;
    for message in number * messages..(number + 1) * messages {
        let seq = Seq::from_parts(1, message as u64 + 1);
        rows.append_entry(seq, &entry_among(message, devices)).expect("an entry");
    }
    rows
}

/// Time that a batch takes, in milliseconds.
#[cfg(feature = "peers")]
pub(crate) fn span_ms() -> i64 {
    (ROWS / READINGS) as i64 * STEP_US / 1000
}

/// CPU seconds of this thread so far.
pub(crate) fn thread_cpu() -> f64 {
    seconds(ClockId::ThreadCPUTime)
}

/// CPU seconds of this process so far.
#[cfg(feature = "peers")]
pub(crate) fn process_cpu() -> f64 {
    seconds(ClockId::ProcessCPUTime)
}

fn seconds(clock: ClockId) -> f64 {
    let spent = clock_gettime(clock);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}
