//! What a credential allows, and what is remembered of it while a connection is open.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use forebay_model::{DeviceId, TenantId};

/// What the bearer of a credential may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whose data it is.
    pub tenant: TenantId,
    /// The device it may write as; none may not write.
    pub device: Option<DeviceId>,
    /// Whether it may read what the tenant's devices have sent.
    pub read: bool,
}

/// A credential that was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// What it allows.
    pub grant: Grant,
    /// What to ask [`crate::Gate::holds`] about from now on.
    pub standing: Standing,
}

/// What is kept of a credential while its connection is open: no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Seconds since 1970 from which on it is worth nothing.
    pub expires_s: Option<u64>,
    pub(crate) source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// An API key: its id, and the hash it had.
    Key { id: Box<str>, hash: [u8; 32] },
    /// A JWT: the public key that signed it.
    Jwt { key: Box<[u8]> },
    /// A certificate; TLS looks after its chain.
    Certificate,
}

/// Why a credential is worth nothing. No text of it holds any part of the credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// Neither `id.secret` nor a JWT.
    #[error("the credential is neither id.secret nor a JWT")]
    Malformed,
    /// No such key, or another secret; which of both is not told.
    #[error("the key is unknown or its secret is wrong")]
    Unknown,
    /// The key was revoked.
    #[error("the key is revoked")]
    Revoked,
    /// Its time is over.
    #[error("the credential has expired")]
    Expired,
    /// Its time has not come.
    #[error("the credential is not valid yet")]
    NotYet,
    /// Not signed by a pinned key, or by an algorithm that is not pinned.
    #[error("the token is not signed by a key that is pinned here")]
    Signature,
    /// Made for somebody else.
    #[error("the token is for another audience or of another issuer")]
    Audience,
    /// A claim is missing or not what it should be.
    #[error("a claim of the token is missing or not valid: exp, sub, tenant or scope")]
    Claims,
    /// This kind of credential is not configured.
    #[error("credentials of this kind are not taken here")]
    NotTaken,
}

impl Denied {
    /// A stable word, for metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Signature => "signature",
            Self::Audience => "audience",
            Self::Claims => "claims",
            Self::NotTaken => "not_taken",
        }
    }
}

/// Seconds since 1970 by the wall clock, which expiry is about.
#[must_use]
pub fn unix_now_s() -> u64 {
    // A clock before 1970 makes every expiry lie ahead, and every `not before` too.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Shows that there is a secret, and nothing of it.
pub(crate) fn redacted(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("***")
}
