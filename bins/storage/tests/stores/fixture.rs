//! Ranges of messages, as a task would give them to a sink.

use std::{ops::Range, path::Path, time::Duration};

use forebay_link::{QueueId, Seq};
use forebay_model::{
    Message,
    registry::{Builder, Listing, Registry},
};
use forebay_storage::{
    registry::Current,
    rows::Rows,
    sink::{Limits, Outcome, Sink, SinkTask, SinkTaskConfig, Token},
};

use crate::common::Log;

/// The queue of all ranges here.
pub(crate) const QUEUE: QueueId = QueueId::new(0xfeed);

/// A registry that knows some devices of `rows::messages` and of the documented questions.
pub(crate) fn registry() -> Registry {
    let mut builder = Builder::default();
    for (device, device_type, location) in [
        ("device-0", "meter", "cellar"),
        ("pump-1", "pump", "hall 1"),
        ("pump-2", "pump", "hall 2"),
        ("fan-1", "fan", "hall 1"),
    ] {
        let listing = Listing {
            device: device.to_owned(),
            name: Some(format!("the {device}")),
            device_type: Some(device_type.to_owned()),
            location: Some(location.to_owned()),
            ..Listing::default()
        };
        builder.add(listing).unwrap();
    }
    builder.build()
}

/// The rows of the messages at these places; the place is the entry's number.
pub(crate) fn rows(messages: &[Message<'_>], range: Range<usize>) -> Rows {
    let mut rows = Rows::new(QUEUE);
    rows.describe_by(registry().into());
    for place in range {
        rows.append(Seq::from_parts(1, place as u64 + 1), &messages[place]);
    }
    rows
}

/// Encodes and sends a range once.
pub(crate) fn send(sink: &mut impl Sink, rows: &Rows) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    send_on(&runtime, sink, rows)
}

/// The same on a runtime that goes on, as a task's does: connections stay open.
pub(crate) fn send_on(
    runtime: &tokio::runtime::Runtime,
    sink: &mut impl Sink,
    rows: &Rows,
) -> Outcome {
    let (first, last) = rows.span().unwrap();
    send_as(runtime, sink, rows, &Token::whole(rows.queue(), first, last))
}

/// The same under a token of its own.
pub(crate) fn send_as(
    runtime: &tokio::runtime::Runtime,
    sink: &mut impl Sink,
    rows: &Rows,
    token: &Token,
) -> Outcome {
    let encoded = sink.encode(rows).unwrap();
    runtime.block_on(sink.send(&encoded, token))
}

/// A task of ranges of at most 50 rows, that are closed soon.
pub(crate) fn start(log: &Log, name: &str, dead: &Path, sink: impl Sink) -> SinkTask {
    let limits = Limits {
        rows: 50,
        held_bytes: 1 << 20,
        outstanding_bytes: 1 << 20,
        age: Duration::from_millis(20),
    };
    let task = SinkTaskConfig {
        name: name.to_owned(),
        limits,
        registry: Current::default(),
        dead_letters: dead.to_owned(),
        stored: Box::new(|_| {}),
    };
    SinkTask::start(task, log.consumer(name), sink, forebay_ops::Shutdown::new()).unwrap()
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[track_caller]
pub(crate) fn transient(outcome: Outcome) {
    assert!(matches!(outcome, Outcome::Transient(_)), "{outcome:?}");
}

#[track_caller]
pub(crate) fn misconfigured(outcome: Outcome) {
    assert!(matches!(outcome, Outcome::Misconfigured(_)), "{outcome:?}");
}

#[track_caller]
pub(crate) fn poison(outcome: Outcome) {
    assert!(matches!(outcome, Outcome::Poison(_)), "{outcome:?}");
}
