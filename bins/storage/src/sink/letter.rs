//! One row that a store refused, with all that is needed to send it again: a dead letter.
//!
//! It is JSON, for people and for `forebay dlq`. The token is that of the piece that was refused:
//! sent again under it, the row counts once however often that is done.

use std::{borrow::Cow, sync::Arc};

use forebay_model::{
    Body, Invalid, Message, MessageId, Reading, SessionId, Timestamp, Value, registry::Registry,
};
use forebay_wire::{QueueId, Seq, base64};
use serde::{Deserialize, Serialize};

use super::{Token, TokenPiece};
use crate::rows::{Cell, RowView, Rows};

/// A refused row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    /// Which sink was refused.
    pub sink: String,
    /// What the store said.
    pub reason: String,
    /// The middle's queue.
    pub queue: QueueId,
    /// First entry of the range it was in.
    pub first: Seq,
    /// Last entry of that range.
    pub last: Seq,
    /// The row's place in that range.
    pub row: u32,
    /// Its own entry.
    pub entry: Seq,
    /// Whose device it is.
    pub tenant: String,
    /// Who sent it.
    pub device: String,
    /// Session of its message.
    pub session: u64,
    /// Number of its message.
    pub seq: u64,
    /// Its place in the message.
    pub index: u16,
    /// When the front received it, in microseconds since 1970.
    pub received_us: i64,
    /// When it was measured, if the device said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_us: Option<i64>,
    /// What was measured; absent for an opaque payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The unit it was stored with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The value.
    pub value: LetterValue,
}

/// The value of a refused row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterValue {
    /// A number, by its bits: JSON has no way to keep every float exactly.
    Float {
        /// For people.
        number: f64,
        /// The bits of the number.
        bits: u64,
    },
    /// A whole number.
    Int(i64),
    /// On or off.
    Bool(bool),
    /// Text.
    Text(String),
    /// An opaque payload.
    Opaque {
        /// Its media type.
        content_type: String,
        /// Its bytes in base64.
        payload: String,
    },
}

impl Letter {
    /// The letter of a row of a range.
    #[must_use]
    pub fn new(sink: &str, reason: &str, token: &Token, place: u32, row: &RowView<'_>) -> Self {
        Self {
            sink: sink.to_owned(),
            reason: reason.to_owned(),
            queue: token.queue,
            first: token.first,
            last: token.last,
            row: place,
            entry: row.entry,
            tenant: row.tenant.to_owned(),
            device: row.device.to_owned(),
            session: row.session,
            seq: row.seq,
            index: row.index,
            received_us: row.received_us,
            time_us: row.time_us,
            key: row.key.map(str::to_owned),
            unit: row.unit.map(str::to_owned),
            value: match row.value {
                Cell::Float(number) => LetterValue::Float { number, bits: number.to_bits() },
                Cell::Int(number) => LetterValue::Int(number),
                Cell::Bool(on) => LetterValue::Bool(on),
                Cell::Text(text) => LetterValue::Text(text.to_owned()),
                Cell::Opaque { content_type, payload } => LetterValue::Opaque {
                    content_type: content_type.to_owned(),
                    payload: base64::encode(payload),
                },
            },
        }
    }

    /// The token of the piece that was refused.
    #[must_use]
    pub fn token(&self) -> Token {
        let piece = TokenPiece { start: self.row, end: self.row + 1, letter: true };
        let Self { queue, first, last, .. } = *self;
        Token { queue, first, last, piece: Some(piece) }
    }

    /// The row as a batch of its own, as it was when it was refused, described by `registry`.
    ///
    /// # Errors
    /// A number is out of its bounds: somebody changed the letter by hand.
    pub fn rows(&self, registry: Arc<Registry>) -> Result<Rows, Invalid> {
        let body = match &self.value {
            LetterValue::Opaque { content_type, payload } => Body::Opaque {
                content_type: Cow::Borrowed(content_type),
                payload: base64::decode(payload).unwrap_or_default().into(),
            },
            value => Body::Readings(vec![Reading {
                key: Cow::Borrowed(self.key.as_deref().unwrap_or_default()),
                value: match value {
                    LetterValue::Float { bits, .. } => Value::Float(f64::from_bits(*bits)),
                    LetterValue::Int(number) => Value::Int(*number),
                    LetterValue::Bool(on) => Value::Bool(*on),
                    LetterValue::Text(text) => Value::Text(Cow::Borrowed(text)),
                    LetterValue::Opaque { .. } => Value::Bool(false),
                },
                unit: self.unit.as_deref().map(Cow::Borrowed),
                time: self.time_us.map(Timestamp::from_micros).transpose()?,
            }]),
        };
        let message = Message {
            tenant: Cow::Borrowed(&self.tenant),
            device: Cow::Borrowed(&self.device),
            session: SessionId::new(self.session)?,
            seq: MessageId::new(self.seq)?,
            rejected_before: 0,
            received: Timestamp::from_micros(self.received_us)?,
            body,
        };
        let mut rows = Rows::new(self.queue);
        rows.describe_by(registry);
        rows.append(self.entry, &message);
        rows.number_from(self.index);
        Ok(rows)
    }
}
