//! An entry of a queue in words and in JSON, whether a front's or a middle's.

use forebay_model::{Body, Message, Reading, Value};
use forebay_queue::Entry;
use forebay_wire::{entry, feed::Stored};
use serde_json::{Map, Value as Json, json};

/// What an entry's payload is.
enum Content<'a> {
    /// A front's: a message in canonical form.
    Message(Message<'a>),
    /// A middle's: the same, with the place it came from.
    Forwarded(Stored<'a>, Message<'a>),
    /// A middle's note that everything up to a place was there before.
    Marker(Stored<'a>),
    /// Something else: some other program's queue.
    Other(&'a [u8]),
}

fn content(payload: &[u8]) -> Content<'_> {
    if let Ok(message) = entry::decode(payload) {
        return Content::Message(message);
    }
    match Stored::decode(payload) {
        Some(stored) if stored.is_marker() => Content::Marker(stored),
        Some(stored) => match entry::decode(stored.entry) {
            Ok(message) => Content::Forwarded(stored, message),
            Err(_) => Content::Other(payload),
        },
        None => Content::Other(payload),
    }
}

/// The entry on a line for people.
pub(super) fn words(entry: Entry<'_>) -> String {
    let what = match content(entry.payload) {
        Content::Message(message) => message_words(&message),
        Content::Forwarded(stored, message) => {
            format!("{} (from {} {})", message_words(&message), stored.source, stored.seq)
        }
        Content::Marker(stored) => format!("position of {} {}", stored.source, stored.seq),
        Content::Other(payload) => format!("{} bytes {}", payload.len(), hex(payload)),
    };
    format!("{} {what}", entry.seq)
}

/// The entry as a JSON object.
pub(super) fn json(entry: Entry<'_>) -> Json {
    let mut object = Map::new();
    object.insert("entry".to_owned(), entry.seq.to_string().into());
    object.insert("time_us".to_owned(), entry.time_us.into());
    let mut put = |stored: &Stored<'_>| {
        object.insert("source".to_owned(), stored.source.to_string().into());
        object.insert("source_entry".to_owned(), stored.seq.to_string().into());
    };
    let message = match content(entry.payload) {
        Content::Message(message) => Some(message),
        Content::Forwarded(stored, message) => {
            put(&stored);
            Some(message)
        }
        Content::Marker(stored) => {
            put(&stored);
            object.insert("marker".to_owned(), true.into());
            None
        }
        Content::Other(payload) => {
            object.insert("payload_hex".to_owned(), hex(payload).into());
            None
        }
    };
    if let Some(message) = message {
        object.insert("tenant".to_owned(), message.tenant.as_ref().into());
        object.insert("device".to_owned(), message.device.as_ref().into());
        object.insert("session".to_owned(), message.session.get().into());
        object.insert("seq".to_owned(), message.seq.get().into());
        object.insert("received_us".to_owned(), message.received.micros().into());
        match &message.body {
            Body::Readings(readings) => {
                let readings: Vec<Json> = readings.iter().map(reading_json).collect();
                object.insert("readings".to_owned(), readings.into());
            }
            Body::Opaque { content_type, payload } => {
                object.insert("content_type".to_owned(), content_type.as_ref().into());
                object.insert("payload_hex".to_owned(), hex(payload).into());
            }
        }
    }
    Json::Object(object)
}

fn reading_json(reading: &Reading<'_>) -> Json {
    let value = match &reading.value {
        Value::Float(number) => json!(number),
        Value::Int(number) => json!(number),
        Value::Bool(on) => json!(on),
        Value::Text(text) => json!(text),
    };
    let time = reading.time.map(|time| time.micros());
    json!({ "key": reading.key, "value": value, "unit": reading.unit, "time_us": time })
}

fn message_words(message: &Message<'_>) -> String {
    let body = match &message.body {
        Body::Readings(readings) => {
            readings.iter().map(reading_words).collect::<Vec<_>>().join(" ")
        }
        Body::Opaque { content_type, payload } => {
            format!("{content_type} {} bytes", payload.len())
        }
    };
    format!("{} session {} #{} {body}", message.device, message.session, message.seq)
}

fn reading_words(reading: &Reading<'_>) -> String {
    let value = match &reading.value {
        Value::Float(number) => number.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Bool(on) => on.to_string(),
        // A device chose the text: nothing in it may move the cursor.
        Value::Text(text) => format!("{text:?}"),
    };
    format!("{}={value}{}", reading.key, reading.unit.as_deref().unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_model::{MessageId, SessionId, Timestamp};
    use forebay_queue::Seq;
    use forebay_wire::{QueueId, Seq as WireSeq};

    fn message() -> Message<'static> {
        Message {
            tenant: "default".into(),
            device: "pump-7".into(),
            session: SessionId::new(5).unwrap(),
            seq: MessageId::new(9).unwrap(),
            rejected_before: 0,
            received: Timestamp::from_micros(1).unwrap(),
            body: Body::Readings(vec![Reading {
                key: "t".into(),
                value: Value::Float(1.5),
                unit: None,
                time: None,
            }]),
        }
    }

    fn shown(payload: &[u8]) -> (String, Json) {
        let entry = Entry { seq: Seq::new(1, 2), time_us: 3, payload };
        (words(entry), json(entry))
    }

    #[test]
    fn entries_of_fronts_and_of_middles_are_decoded() {
        let mut payload = Vec::new();
        entry::encode(&message(), &mut payload);
        let (text, object) = shown(&payload);
        assert_eq!(text, "1:2 pump-7 session 5 #9 t=1.5");
        assert_eq!(object["readings"][0]["value"], 1.5);

        let prefix = Stored::prefix(QueueId::new(0xab), WireSeq::from_parts(4, 7));
        let forwarded = [&prefix[..], &payload].concat();
        let (text, object) = shown(&forwarded);
        assert!(text.ends_with("(from 000000000000000000000000000000ab 4:7)"), "{text}");
        assert_eq!(object["source_entry"], "4:7");
        assert_eq!(shown(&prefix).1["marker"], true);
    }

    #[test]
    fn what_is_not_an_entry_of_ours_is_shown_in_hexadecimal() {
        let (text, object) = shown(b"hello");
        assert_eq!(text, "1:2 5 bytes 68656c6c6f");
        assert_eq!(object["payload_hex"], "68656c6c6f");
    }
}
