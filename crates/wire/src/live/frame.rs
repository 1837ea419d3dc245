//! What the storage tier sends to a reader.

use std::borrow::Cow;

use forebay_model::{MessageId, SessionId, Timestamp, Value};
use serde::{Deserialize, Serialize};

use super::{Subscribed, text};
use crate::{QueueId, Seq};

/// Where an event stands in the feed: its queue and its number in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The middle's queue.
    pub queue: QueueId,
    /// The entry in it.
    pub seq: Seq,
}

/// What the server sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerFrame<'a> {
    /// The subscription is taken.
    Subscribed(Subscribed),
    /// A part of the last values.
    Snapshot(Snapshot<'a>),
    /// A message that matches.
    Event(Event<'a>),
    /// Events that this reader does not get.
    Missed(Missed),
    /// Something was refused; the server closes after it.
    Error {
        /// A stable word.
        code: Cow<'a, str>,
        /// A sentence.
        reason: Cow<'a, str>,
    },
}

/// Last values of matching devices, in one or several parts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Snapshot<'a> {
    /// At most [`crate::limits::SNAPSHOT_VALUES_MAX`] values.
    pub values: Vec<LastValue<'a>>,
    /// What the values include: only later events follow. The same in every part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<Position>,
    /// Whether this is the last part.
    pub done: bool,
}

/// The newest reading of one key of one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastValue<'a> {
    /// Whose device it is.
    pub tenant: Cow<'a, str>,
    /// Who sent it.
    pub device: Cow<'a, str>,
    /// Session of the message it came with.
    #[serde(with = "text::session")]
    pub session: SessionId,
    /// Number of that message in its session.
    #[serde(with = "text::message")]
    pub seq: MessageId,
    /// When the front received it, microseconds since 1970.
    #[serde(with = "text::time")]
    pub received: Timestamp,
    /// The device's name, if the registry knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Cow<'a, str>>,
    /// The device's type, if the registry knows it.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub device_type: Option<Cow<'a, str>>,
    /// The device's location, if the registry knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Cow<'a, str>>,
    /// Whether the registry lists the device; absent where there is no registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<bool>,
    /// The reading.
    #[serde(flatten)]
    pub reading: LiveReading<'a>,
}

/// One message, or those of its readings that the subscription's keys match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event<'a> {
    /// Where it stands in the feed; resume after it.
    pub at: Position,
    /// Whose device it is.
    pub tenant: Cow<'a, str>,
    /// Who sent it.
    pub device: Cow<'a, str>,
    /// The device's name, if the registry knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Cow<'a, str>>,
    /// The device's type, if the registry knows it.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub device_type: Option<Cow<'a, str>>,
    /// The device's location, if the registry knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Cow<'a, str>>,
    /// Whether the registry lists the device; absent where there is no registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<bool>,
    /// Which life of the device's counter numbered it.
    #[serde(with = "text::session")]
    pub session: SessionId,
    /// Its number in that session.
    #[serde(with = "text::message")]
    pub seq: MessageId,
    /// When the front received it, microseconds since 1970.
    #[serde(with = "text::time")]
    pub received: Timestamp,
    /// Its readings, unless it is opaque.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readings: Vec<LiveReading<'a>>,
    /// Its payload, if it is opaque.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opaque: Option<Opaque<'a>>,
}

/// One reading of an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveReading<'a> {
    /// Its place in the message, from 0.
    pub index: u16,
    /// What was measured.
    pub key: Cow<'a, str>,
    /// The value: a number, a text, `true` or `false`.
    #[serde(with = "text::value")]
    pub value: Value<'a>,
    /// Its unit: the device's own word, else the registry's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Cow<'a, str>>,
    /// Whether the value is not of the type or within the bounds that the registry gives.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspect: bool,
    /// When it was measured, microseconds since 1970, if the device has a clock.
    #[serde(default, with = "text::time_option", skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
}

/// The payload of an opaque message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opaque<'a> {
    /// Its media type.
    pub content_type: Cow<'a, str>,
    /// Its bytes, in base64 on the wire.
    #[serde(with = "text::bytes")]
    pub payload: Cow<'a, [u8]>,
}

/// What a reader does not get, in the place where it would have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Missed {
    /// How many matching events; `null` if they are no longer held, so that nobody can count them.
    pub count: Option<u64>,
    /// The first of them, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Position>,
    /// The last of them, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Position>,
}

impl<'a> ServerFrame<'a> {
    /// What followed `after` is gone, and nobody knows how much of it the reader wanted.
    #[must_use]
    pub fn lost(after: Position) -> Self {
        Self::Missed(Missed { count: None, from: Some(after), to: None })
    }

    /// Appends the frame as a text message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(out, self)
            .expect("a live frame has finite numbers and a vector takes every byte");
    }
}

impl ServerFrame<'static> {
    /// Reads a frame of the server; keys of later versions are passed over.
    ///
    /// # Errors
    /// A sentence that names the key or the place: the other side speaks something else.
    pub fn decode(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn event() -> Event<'static> {
        let reading = |index, value| LiveReading {
            index,
            key: "t".into(),
            value,
            unit: None,
            suspect: false,
            time: Timestamp::from_micros(5).ok(),
        };
        Event {
            at: Position { queue: QueueId::new(7), seq: Seq::from_parts(2, 40) },
            tenant: "default".into(),
            device: "pump-7".into(),
            name: None,
            device_type: Some("pump".into()),
            location: None,
            known: None,
            session: SessionId::new(9).expect("small"),
            seq: MessageId::FIRST,
            received: Timestamp::from_micros(1_700_000_000_000_000).expect("in bounds"),
            readings: vec![
                reading(0, Value::Float(21.0)),
                reading(1, Value::Int(-3)),
                reading(3, Value::Bool(true)),
                reading(4, Value::Text("a\"b".into())),
            ],
            opaque: None,
        }
    }

    #[test]
    fn frames_read_back() {
        let opaque = Opaque { content_type: "a/b".into(), payload: vec![0, 255, 7].into() };
        let event = event();
        let last = LastValue {
            tenant: "default".into(),
            device: "pump-7".into(),
            session: event.session,
            seq: event.seq,
            received: event.received,
            name: None,
            device_type: None,
            location: None,
            known: Some(false),
            reading: event.readings[0].clone(),
        };
        let at = vec![event.at];
        for frame in [
            ServerFrame::Subscribed(Subscribed::default()),
            ServerFrame::Snapshot(Snapshot { values: vec![last], at, done: true }),
            ServerFrame::Event(Event { opaque: Some(opaque), readings: vec![], ..event.clone() }),
            ServerFrame::Event(event.clone()),
            ServerFrame::Missed(Missed { count: Some(12), from: Some(event.at), to: None }),
            ServerFrame::Error { code: "forbidden".into(), reason: "not your tenant".into() },
        ] {
            let mut text = Vec::new();
            frame.encode(&mut text);
            let text = String::from_utf8(text).expect("JSON is UTF-8");
            assert_eq!(ServerFrame::decode(&text).as_ref(), Ok(&frame), "{text}");
        }
    }

    #[test]
    fn keys_of_later_versions_are_passed_over() {
        let frame = ServerFrame::decode(r#"{"missed":{"count":null,"why":"slow"}}"#);
        assert_eq!(frame, Ok(ServerFrame::Missed(Missed::default())));
    }
}
