//! Who sent a message and which one it is: (tenant, device, session, seq).

use std::fmt;

use crate::{Invalid, SAFE_INTEGER_MAX, error::check_length, limits};

/// Characters of an id: no separator of a path, a topic, a query or a table, nothing to escape.
fn check_id(what: &'static str, text: &str, bytes_max: usize) -> Result<(), Invalid> {
    check_length(what, text.len(), bytes_max)?;
    for (at, byte) in text.bytes().enumerate() {
        let inner = matches!(byte, b'-' | b'_' | b'.' | b':');
        if !(byte.is_ascii_alphanumeric() || (inner && at > 0)) {
            return Err(Invalid::BadCharacter { what, at });
        }
    }
    Ok(())
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks and keeps an id.
            ///
            /// # Errors
            /// [`Invalid`] names the first character or the length that is not allowed.
            pub fn new(text: &str) -> Result<Self, Invalid> {
                Self::check(text)?;
                Ok(Self(text.into()))
            }

            /// Checks an id without keeping it.
            ///
            /// # Errors
            /// As [`Self::new`].
            pub fn check(text: &str) -> Result<(), Invalid> {
                check_id($what, text, $max)
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// One device: 1 to 128 of `A-Z a-z 0-9 - _ . :`, the first a letter or digit.
    ///
    /// ```
    /// use forebay_model::DeviceId;
    /// assert!(DeviceId::new("pump-7.left").is_ok());
    /// assert!(DeviceId::new("pump/7").is_err());
    /// ```
    DeviceId, "device id", limits::DEVICE_BYTES_MAX
}

text_id! {
    /// One customer of the installation: 1 to 64 of the characters of a device id.
    TenantId, "tenant id", limits::TENANT_BYTES_MAX
}

impl TenantId {
    /// The tenant of an installation that has only one.
    #[must_use]
    pub fn single() -> Self {
        Self("default".into())
    }
}

/// The life of one message counter of a device, drawn at random together with the counter.
///
/// A device that keeps its counter over a reboot keeps its session too; one that loses the counter
/// draws a new session. 0 to 2^53 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(u64);

impl SessionId {
    /// Checks and keeps a session number.
    ///
    /// # Errors
    /// [`Invalid::NumberOutOfBounds`] above 2^53 - 1.
    pub fn new(number: u64) -> Result<Self, Invalid> {
        if number > SAFE_INTEGER_MAX {
            return Err(Invalid::NumberOutOfBounds { what: "session", number, min: 0 });
        }
        Ok(Self(number))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a message within its session, from 1, without holes as the device counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(u64);

impl MessageId {
    /// The first message of a session.
    pub const FIRST: Self = Self(1);

    /// Checks and keeps a message number.
    ///
    /// # Errors
    /// [`Invalid::NumberOutOfBounds`] for 0 and above 2^53 - 1.
    pub fn new(number: u64) -> Result<Self, Invalid> {
        if number == 0 || number > SAFE_INTEGER_MAX {
            return Err(Invalid::NumberOutOfBounds { what: "seq", number, min: 1 });
        }
        Ok(Self(number))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_separators_and_say_where() {
        for (text, at) in [("a/b", 1), ("a b", 1), ("ab\n", 2), ("-a", 0), ("a#", 1), ("é", 0)] {
            let error = DeviceId::new(text).unwrap_err();
            assert_eq!(error, Invalid::BadCharacter { what: "device id", at }, "{text:?}");
        }
        assert_eq!(DeviceId::new("").unwrap_err().code(), "empty");
        assert!(DeviceId::new(&"a".repeat(128)).is_ok());
        assert_eq!(DeviceId::new(&"a".repeat(129)).unwrap_err().code(), "too_long");
    }

    #[test]
    fn numbers_stay_within_what_every_client_can_carry() {
        assert!(SessionId::new(0).is_ok());
        assert!(SessionId::new(SAFE_INTEGER_MAX + 1).is_err());
        assert!(MessageId::new(0).is_err());
        assert!(MessageId::new(SAFE_INTEGER_MAX).is_ok());
    }
}
