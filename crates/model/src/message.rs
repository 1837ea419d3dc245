//! One message of a device: what is acknowledged, deduplicated and stored as a whole.

use std::borrow::Cow;

use crate::{Invalid, MessageId, Reading, SessionId, Timestamp, limits, reading::check_text};

/// What a message carries.
#[derive(Debug, Clone, PartialEq)]
pub enum Body<'a> {
    /// Values that stores understand: 1 to 4,096 of them, their order is their index.
    Readings(Vec<Reading<'a>>),
    /// Bytes that only the application understands.
    Opaque {
        /// A media type, such as `application/x-protobuf`: 1 to 128 bytes.
        content_type: Cow<'a, str>,
        /// The bytes as sent.
        payload: Cow<'a, [u8]>,
    },
}

/// A message as the front accepted it. Its identity is (tenant, device, session, seq).
#[derive(Debug, Clone, PartialEq)]
pub struct Message<'a> {
    /// Whose device it is; a valid [`crate::TenantId`].
    pub tenant: Cow<'a, str>,
    /// Who sent it; a valid [`crate::DeviceId`].
    pub device: Cow<'a, str>,
    /// Which life of the device's counter numbered it.
    pub session: SessionId,
    /// Its number in that session.
    pub seq: MessageId,
    /// How many numbers directly below `seq` the front rejected for good.
    ///
    /// They will never be stored; naming them here closes the hole they leave in the middle's set
    /// of stored numbers.
    pub rejected_before: u32,
    /// When the front received it.
    pub received: Timestamp,
    /// What it carries.
    pub body: Body<'a>,
}

impl Body<'_> {
    /// Checks every part against its bounds.
    ///
    /// # Errors
    /// [`Invalid`] names the first part that is out of bounds. Reject the message.
    pub fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::Readings(readings) => {
                if readings.is_empty() {
                    return Err(Invalid::NoReadings);
                }
                if readings.len() > limits::READINGS_MAX {
                    return Err(Invalid::TooManyReadings { count: readings.len() });
                }
                readings.iter().try_for_each(Reading::validate)
            }
            Self::Opaque { content_type, .. } => {
                check_text("content type", content_type, limits::CONTENT_TYPE_BYTES_MAX)
            }
        }
    }

    /// How many rows a store makes of it: one a reading, one for an opaque payload.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Self::Readings(readings) => readings.len(),
            Self::Opaque { .. } => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    #[test]
    fn a_message_has_at_least_one_reading_and_not_too_many() {
        assert_eq!(Body::Readings(vec![]).validate(), Err(Invalid::NoReadings));
        let one = Reading { key: "t".into(), value: Value::Int(1), unit: None, time: None };
        let many = Body::Readings(vec![one; limits::READINGS_MAX + 1]);
        assert_eq!(many.validate(), Err(Invalid::TooManyReadings { count: 4097 }));
    }

    #[test]
    fn an_opaque_payload_names_what_it_is() {
        let body = Body::Opaque { content_type: "".into(), payload: vec![1].into() };
        assert_eq!(body.validate(), Err(Invalid::Empty { what: "content type" }));
        let body = Body::Opaque { content_type: "text/plain".into(), payload: vec![].into() };
        assert_eq!((body.validate(), body.rows()), (Ok(()), 1));
    }
}
