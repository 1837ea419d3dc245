//! How the data model's types look in JSON; the model itself knows no encoding.

/// A session number.
pub(super) mod session {
    use forebay_model::SessionId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in crate::live) fn serialize<S: Serializer>(
        session: &SessionId,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(session.get())
    }

    pub(in crate::live) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SessionId, D::Error> {
        SessionId::new(u64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The number of a message.
pub(super) mod message {
    use forebay_model::MessageId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in crate::live) fn serialize<S: Serializer>(
        message: &MessageId,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(message.get())
    }

    pub(in crate::live) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<MessageId, D::Error> {
        MessageId::new(u64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A moment in microseconds since 1970.
pub(super) mod time {
    use forebay_model::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in crate::live) fn serialize<S: Serializer>(
        time: &Timestamp,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(time.micros())
    }

    pub(in crate::live) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Timestamp, D::Error> {
        Timestamp::from_micros(i64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A moment that may be missing.
pub(super) mod time_option {
    use forebay_model::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in crate::live) fn serialize<S: Serializer>(
        time: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.serialize_i64(time.micros()),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::live) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        let micros = Option::<i64>::deserialize(deserializer)?;
        micros.map(Timestamp::from_micros).transpose().map_err(D::Error::custom)
    }
}

/// A value: a number, a text or a boolean. A number without a fraction or an exponent is an integer.
pub(super) mod value {
    use std::{borrow::Cow, fmt};

    use forebay_model::Value;
    use serde::{Deserializer, Serializer, de};

    pub(in crate::live) fn serialize<S: Serializer>(
        value: &Value<'_>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Value::Float(number) => serializer.serialize_f64(*number),
            Value::Int(number) => serializer.serialize_i64(*number),
            Value::Bool(on) => serializer.serialize_bool(*on),
            Value::Text(text) => serializer.serialize_str(text),
        }
    }

    pub(in crate::live) fn deserialize<'de, 'a, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Value<'a>, D::Error> {
        deserializer.deserialize_any(Visitor(std::marker::PhantomData))
    }

    struct Visitor<'a>(std::marker::PhantomData<&'a ()>);

    impl<'a> de::Visitor<'_> for Visitor<'a> {
        type Value = Value<'a>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number, a text or a boolean")
        }

        fn visit_bool<E: de::Error>(self, on: bool) -> Result<Value<'a>, E> {
            Ok(Value::Bool(on))
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value<'a>, E> {
            Ok(Value::Int(number))
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value<'a>, E> {
            Ok(i64::try_from(number).map_or(Value::Float(number as f64), Value::Int))
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value<'a>, E> {
            Ok(Value::Float(number))
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Value<'a>, E> {
            Ok(Value::Text(Cow::Owned(text.to_owned())))
        }
    }
}

/// Bytes, as base64.
pub(super) mod bytes {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::base64;

    pub(in crate::live) fn serialize<S: Serializer>(
        bytes: &[u8],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64::encode(bytes))
    }

    pub(in crate::live) fn deserialize<'de, 'a, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Cow<'a, [u8]>, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        base64::decode(&text).map(Cow::Owned).ok_or_else(|| D::Error::custom("not base64"))
    }
}
