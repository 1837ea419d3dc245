//! Why a front ends a connection, and what the device does then.

use std::fmt;

use std::time::Duration;

/// A WebSocket close code the front uses. docs/protocol.md has the same table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseCode {
    /// 1000: the session is over; also what a device sends.
    Normal,
    /// 1001: the front goes away at once.
    GoingAway,
    /// 1002: not the WebSocket protocol.
    Protocol,
    /// 1007: a text message that is not UTF-8.
    NotUtf8,
    /// 1008: silence, stall, or another breach of the front's policy.
    Policy,
    /// 1009: a message above the limit.
    TooLarge,
    /// 1011: the front failed.
    Internal,
    /// 1012: the front drains; the reason carries `retry_ms`.
    Restart,
    /// 1013: overloaded; the reason may carry `retry_ms`.
    TryAgainLater,
    /// 4400: a frame whose number could not be read, or a frame out of turn.
    BadMessage,
    /// 4401: no credential, or a wrong, expired or revoked one.
    Unauthenticated,
    /// 4403: the credential is of another device.
    Forbidden,
    /// 4406: a text message in CBOR mode or a binary one in JSON mode.
    WrongEncoding,
    /// 4408: no hello in time.
    HelloTimeout,
    /// 4409: the same device has connected again.
    Replaced,
    /// 4429: this device connects or sends too often; the reason carries `retry_ms`.
    TooMany,
}

/// Whether to connect again after a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reconnect {
    /// Yes, with back-off and jitter, and not before `retry_ms` if it is given.
    Yes,
    /// No: the same device would be closed again until somebody mends the cause.
    No,
}

impl CloseCode {
    /// All codes.
    pub const ALL: [Self; 16] = [
        Self::Normal,
        Self::GoingAway,
        Self::Protocol,
        Self::NotUtf8,
        Self::Policy,
        Self::TooLarge,
        Self::Internal,
        Self::Restart,
        Self::TryAgainLater,
        Self::BadMessage,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::WrongEncoding,
        Self::HelloTimeout,
        Self::Replaced,
        Self::TooMany,
    ];

    /// The number in the close frame.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::Protocol => 1002,
            Self::NotUtf8 => 1007,
            Self::Policy => 1008,
            Self::TooLarge => 1009,
            Self::Internal => 1011,
            Self::Restart => 1012,
            Self::TryAgainLater => 1013,
            Self::BadMessage => 4400,
            Self::Unauthenticated => 4401,
            Self::Forbidden => 4403,
            Self::WrongEncoding => 4406,
            Self::HelloTimeout => 4408,
            Self::Replaced => 4409,
            Self::TooMany => 4429,
        }
    }

    /// The code of a number, if the protocol knows it.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// Whether the device should connect again. For an unknown number: yes.
    #[must_use]
    pub const fn reconnect(self) -> Reconnect {
        match self {
            Self::Normal
            | Self::GoingAway
            | Self::Policy
            | Self::Internal
            | Self::Restart
            | Self::TryAgainLater
            | Self::HelloTimeout
            | Self::TooMany => Reconnect::Yes,
            Self::Protocol
            | Self::NotUtf8
            | Self::TooLarge
            | Self::BadMessage
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::WrongEncoding
            | Self::Replaced => Reconnect::No,
        }
    }

    /// The reason text that tells a device when to come back: `retry_ms=1500`.
    #[must_use]
    pub fn retry_reason(retry: Duration) -> String {
        format!("retry_ms={}", retry.as_millis())
    }

    /// Reads the wait from a reason text; `None` if it names none.
    #[must_use]
    pub fn retry_after(reason: &str) -> Option<Duration> {
        let (_, rest) = reason.split_once("retry_ms=")?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse().ok().map(Duration::from_millis)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back() {
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_number(code.number()), Some(code));
        }
        assert_eq!(CloseCode::from_number(1006), None);
    }

    #[test]
    fn a_reason_carries_the_wait() {
        let wait = Duration::from_millis(1500);
        assert_eq!(CloseCode::retry_after(&CloseCode::retry_reason(wait)), Some(wait));
        assert_eq!(CloseCode::retry_after("draining; retry_ms=20 please").unwrap().as_millis(), 20);
        for reason in ["", "retry_ms=", "retry_ms=x", "retry_ms=99999999999999999999999"] {
            assert_eq!(CloseCode::retry_after(reason), None, "{reason}");
        }
    }
}
