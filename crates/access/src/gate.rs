//! Where credentials are checked, and asked about again.

use std::sync::Arc;

use forebay_ops::{
    Metrics,
    reload::{ReloadError, Watched},
};

use crate::{
    Admission, Auth, Denied, Standing, TOKEN_BYTES_MAX,
    config::Jwt,
    grant::Source,
    jwt::{self, PinnedKey},
    keys::KeyTable,
};

/// Why a gate cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {source}")]
pub struct GateError {
    /// The setting that is meant.
    pub setting: &'static str,
    /// What is wrong with its files.
    pub source: ReloadError,
}

/// Checks credentials against files that it follows. Clones share them; the default knows none.
#[derive(Clone, Default)]
pub struct Gate {
    keys: Option<Watched<KeyTable>>,
    pinned: Option<Watched<Vec<PinnedKey>>>,
    rules: Arc<Jwt>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate")
            .field("keys", &self.keys.is_some())
            .field("jwt", &self.pinned.is_some())
            .finish()
    }
}

impl Gate {
    /// Reads the files that `config` names and follows them. `tier` names them in metrics.
    ///
    /// # Errors
    /// [`GateError`]: a file is missing or wrong; nobody could be let in.
    pub fn open(config: &Auth, tier: &str, metrics: &Metrics) -> Result<Self, GateError> {
        let keys = match &config.keys {
            None => None,
            Some(path) => {
                let what = format!("{tier}_keys");
                let opened = Watched::open(&what, vec![path.clone()], metrics, |contents| {
                    KeyTable::parse(contents.first().map_or(&[][..], Vec::as_slice))
                });
                Some(opened.map_err(|source| GateError { setting: "auth.keys", source })?)
            }
        };
        let pinned = if config.jwt.keys.is_empty() {
            None
        } else {
            let what = format!("{tier}_jwt");
            let opened = Watched::open(&what, config.jwt.keys.clone(), metrics, |contents| {
                contents.iter().map(|pem| PinnedKey::from_pem(pem)).collect::<Result<Vec<_>, _>>()
            });
            Some(opened.map_err(|source| GateError { setting: "auth.jwt.keys", source })?)
        };
        Ok(Self { keys, pinned, rules: Arc::new(config.jwt.clone()) })
    }

    /// Checks a token, an API key or a JWT, at `now_s` seconds since 1970.
    ///
    /// # Errors
    /// [`Denied`] says why it is worth nothing.
    pub fn check(&self, token: &str, now_s: u64) -> Result<Admission, Denied> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Denied::Malformed);
        }
        match token.bytes().filter(|byte| *byte == b'.').count() {
            1 => self.keys.as_ref().ok_or(Denied::NotTaken)?.get().check(token, now_s),
            2 => {
                let pinned = self.pinned.as_ref().ok_or(Denied::NotTaken)?.get();
                jwt::check(token, &pinned, &self.rules, now_s)
            }
            _ => Err(Denied::Malformed),
        }
    }

    /// Whether a credential that was good is still good: neither expired nor revoked.
    #[must_use]
    pub fn holds(&self, standing: &Standing, now_s: u64) -> bool {
        if standing.expires_s.is_some_and(|expires_s| expires_s <= now_s) {
            return false;
        }
        match &standing.source {
            Source::Key { id, hash } => {
                self.keys.as_ref().is_some_and(|keys| keys.get().holds(id, hash, now_s))
            }
            Source::Jwt { key } => self
                .pinned
                .as_ref()
                .is_some_and(|pinned| pinned.get().iter().any(|pin| pin.bytes() == &**key)),
            Source::Certificate => true,
        }
    }

    /// Changes whenever what [`Self::holds`] says may change for another reason than time.
    #[must_use]
    pub fn generation(&self) -> u64 {
        let keys = self.keys.as_ref().map_or(0, Watched::generation);
        keys + self.pinned.as_ref().map_or(0, Watched::generation)
    }

    /// Looks at the files now instead of at the next turn.
    pub fn look(&self) {
        if let Some(keys) = &self.keys {
            keys.look();
        }
        if let Some(pinned) = &self.pinned {
            pinned.look();
        }
    }

    /// How many tenants the file of keys names.
    #[must_use]
    pub fn tenants(&self) -> usize {
        self.keys.as_ref().map_or(0, |keys| keys.get().tenants())
    }
}
