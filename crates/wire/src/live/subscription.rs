//! What a reader asks for.

use serde::{Deserialize, Serialize};

use super::Position;
use crate::limits::SUBSCRIBE_LIST_MAX;

/// What a reader sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientFrame {
    /// Starts the feed, or replaces the subscription of a running one.
    Subscribe(Subscription),
}

/// Which events a reader wants, from where on, and how a slow reader is treated.
///
/// An event is wanted if every filter that is given matches it; within a list any entry may match.
/// `devices` and `prefix` are one filter: a device is wanted if it is listed or has the prefix.
/// Without any filter all devices of the reader's tenants are wanted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Subscription {
    /// Devices by their whole id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// Devices whose id starts so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Device types, as the registry names them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// Tenants; those the reader may not see are refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<String>,
    /// Locations, as the registry names them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub locations: Vec<String>,
    /// Keys of readings; an event carries only those.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// What a slow reader gets.
    pub mode: Mode,
    /// The last event the reader has, one a queue: the feed goes on after it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Position>,
    /// Whether the last values are sent before the events.
    pub snapshot: bool,
}

/// What a reader gets that does not keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Every event in order; when the buffer is full the oldest go, and `missed` says how many.
    #[default]
    Every,
    /// The newest reading of each device and key; older ones are left out without a word.
    Latest,
}

/// The server's answer to a subscription it took.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Subscribed {
    /// As asked for.
    pub mode: Mode,
    /// Where the feed starts: events after these positions follow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Position>,
}

impl ClientFrame {
    /// Reads a frame of a reader.
    ///
    /// # Errors
    /// A sentence that names the key or the place: answer with `error` and close.
    pub fn decode(text: &str) -> Result<Self, String> {
        let frame: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let Self::Subscribe(subscription) = &frame;
        subscription.check()?;
        Ok(frame)
    }

    /// The frame as a text message.
    #[must_use]
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("a subscription has only texts and numbers")
    }
}

impl Subscription {
    /// Refuses lists that are too long to match against every event.
    fn check(&self) -> Result<(), String> {
        let lists = [
            ("devices", self.devices.len()),
            ("types", self.types.len()),
            ("tenants", self.tenants.len()),
            ("locations", self.locations.len()),
            ("keys", self.keys.len()),
            ("from", self.from.len()),
        ];
        match lists.into_iter().find(|(_, count)| *count > SUBSCRIBE_LIST_MAX) {
            Some((list, count)) => {
                Err(format!("{list} has {count} entries, the limit is {SUBSCRIBE_LIST_MAX}"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_subscription_asks_for_every_event_from_now_on() {
        let ClientFrame::Subscribe(subscription) =
            ClientFrame::decode(r#"{"subscribe":{}}"#).expect("valid");
        assert_eq!(subscription, Subscription::default());
        assert_eq!(subscription.mode, Mode::Every);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            (r#"{"subscribe":{"device":"a"}}"#, "device"),
            (r#"{"subscribe":{"mode":"all"}}"#, "all"),
            (r#"{"subscribe":{"from":[{"queue":"1","seq":"1:1"}]}}"#, "queue id"),
            (r#"{"unsubscribe":{}}"#, "unsubscribe"),
            (r#"{"subscribe":{"prefix":1}}"#, "string"),
            ("", "EOF"),
        ] {
            let error = ClientFrame::decode(text).expect_err("refused");
            assert!(error.contains(part), "{text}: {error}");
        }
        let keys = vec![String::new(); SUBSCRIBE_LIST_MAX + 1];
        let long = ClientFrame::Subscribe(Subscription { keys, ..Subscription::default() });
        assert!(ClientFrame::decode(&long.encode()).expect_err("refused").contains("keys"));
    }
}
