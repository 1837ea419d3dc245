//! The settings of who is let in, the same in every tier that asks.

use std::{path::PathBuf, time};

use forebay_ops::{Duration, Faults, Validate};
use serde::{Deserialize, Serialize};

/// Who is let in; without any source of credentials nobody can show one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// File of API keys, kept by `forebay keys` and read again when it changes.
    pub keys: Option<PathBuf>,
    /// Tokens signed by somebody else.
    pub jwt: Jwt,
    /// Take a token from `?token=` of the path. Off by default: paths end up in the logs of
    /// proxies and in browser histories.
    pub token_in_query: bool,
}

/// Tokens signed by somebody else (RFC 7519), by EdDSA or ES256.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    /// PEM files with one public key each, Ed25519 or P-256; a token must be signed by one of them.
    /// Read again when they change. None: no token is taken.
    pub keys: Vec<PathBuf>,
    /// What the token's `aud` must name.
    pub audience: String,
    /// What its `iss` must be, if anything.
    pub issuer: Option<String>,
    /// How far the clocks of the issuer and of this machine may be apart.
    pub leeway: Duration,
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            audience: "forebay".to_owned(),
            issuer: None,
            // Machines that keep time by NTP are apart by far less; a revoked token must not live
            // on for long.
            leeway: Duration::from_secs(30),
        }
    }
}

impl Auth {
    /// Whether any credential can be shown.
    #[must_use]
    pub fn has_sources(&self) -> bool {
        self.keys.is_some() || !self.jwt.keys.is_empty()
    }
}

impl Validate for Auth {
    fn validate(&self, faults: &mut Faults) {
        faults.within("jwt", |faults| {
            faults.check(!self.jwt.audience.is_empty(), "audience", "must not be empty");
            let leeway = self.jwt.leeway.get() <= time::Duration::from_secs(300);
            faults.check(leeway, "leeway", "must be at most 5m");
        });
    }
}
