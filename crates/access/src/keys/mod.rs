//! API keys: what one looks like, how its secret is kept, and the table that they are checked
//! against.
//!
//! A key is `id.secret`: the id is public and names the key in lists and logs, the secret is 256
//! random bits that are shown once, when the key is made. The file holds
//! SHA-256("forebay key v1", id, secret) and nothing of the secret.

mod file;

use std::{collections::HashSet, fmt};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use forebay_model::{DeviceId, TenantId};
use ring::{
    digest,
    rand::{SecureRandom as _, SystemRandom},
};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

pub use file::{KeysError, KeysFile, Owner};

use crate::{
    Admission, Denied, Grant, Standing,
    grant::{Source, redacted},
};

/// What every id begins with, so that scanners for leaked secrets can tell one of ours.
pub const ID_PREFIX: &str = "fbk";
/// Keys of a device, or readers' keys of one name, that are good at the same time.
pub const LIVE_KEYS_MAX: usize = 2;
/// Random bytes of an id, and of a secret.
const ID_BYTES: usize = 9;
const SECRET_BYTES: usize = 32;

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// Its public name.
    pub id: String,
    /// Whose data it is about.
    pub tenant: String,
    /// The device it writes as; a key without one reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What a key that reads is for, such as `dashboard`; rotation goes by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<String>,
    /// The hash of its secret, in hexadecimal.
    pub hash: String,
    /// When it was made, in seconds since 1970.
    pub created_s: u64,
    /// From when on it is worth nothing, if ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_s: Option<u64>,
    /// When it was revoked, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_s: Option<u64>,
}

impl KeyRecord {
    /// Whether it is good at `now_s`.
    #[must_use]
    pub fn is_live(&self, now_s: u64) -> bool {
        self.revoked_s.is_none() && self.expires_s.is_none_or(|expires_s| now_s < expires_s)
    }
}

/// A new key as its owner gets it, once. Shows itself only through [`Self::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct NewKey {
    /// Its public name.
    pub id: String,
    token: String,
    hash: [u8; 32],
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.", self.id)?;
        redacted(f)
    }
}

impl NewKey {
    /// Draws one.
    ///
    /// # Errors
    /// The system gave no random bytes.
    pub fn draw() -> Result<Self, KeysError> {
        let random = SystemRandom::new();
        let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
        random
            .fill(&mut id)
            .and_then(|()| random.fill(&mut secret))
            .map_err(|_| KeysError::Random)?;
        let id = format!("{ID_PREFIX}{}", HEXLOWER.encode(&id));
        let secret = BASE64URL_NOPAD.encode(&secret);
        let hash = hash(&id, &secret);
        Ok(Self { token: format!("{id}.{secret}"), id, hash })
    }

    /// `id.secret`, for the owner's eyes.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.token
    }

    fn hash_text(&self) -> String {
        HEXLOWER.encode(&self.hash)
    }
}

/// What is kept of a secret. The id is hashed with it, so that no hash can be moved to another key.
fn hash(id: &str, secret: &str) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in ["forebay key v1", id, secret] {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// The keys of a file, by id.
#[derive(Debug, Clone, Default)]
pub struct KeyTable {
    keys: std::collections::HashMap<Box<str>, Entry>,
    tenants: usize,
}

#[derive(Debug, Clone)]
struct Entry {
    grant: Grant,
    hash: [u8; 32],
    expires_s: Option<u64>,
    revoked: bool,
}

/// Why a file is no file of keys; names the line and never its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct BadKeys {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl KeyTable {
    /// Reads a file: a JSON object a line; empty lines are passed over.
    ///
    /// # Errors
    /// [`BadKeys`]: the first line that is wrong. Nothing of the file counts then.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadKeys> {
        let mut table = Self::default();
        let mut tenants = HashSet::new();
        for (line, record) in file::records(bytes)? {
            let bad = |reason: &str| BadKeys { line, reason: reason.to_owned() };
            let tenant = TenantId::new(&record.tenant).map_err(|error| bad(&error.to_string()))?;
            let device = record.device.as_deref().map(DeviceId::new).transpose();
            let device = device.map_err(|error| bad(&error.to_string()))?;
            let mut hash = [0; 32];
            match HEXLOWER.decode(record.hash.as_bytes()) {
                Ok(bytes) if bytes.len() == hash.len() => hash.copy_from_slice(&bytes),
                _ => return Err(bad("hash is not 64 hexadecimal digits")),
            }
            tenants.insert(tenant.clone());
            let entry = Entry {
                grant: Grant { tenant, read: device.is_none(), device },
                hash,
                expires_s: record.expires_s,
                revoked: record.revoked_s.is_some(),
            };
            if table.keys.insert(record.id.into(), entry).is_some() {
                return Err(bad("the id is in the file twice"));
            }
        }
        table.tenants = tenants.len();
        Ok(table)
    }

    pub(crate) fn check(&self, token: &str, now_s: u64) -> Result<Admission, Denied> {
        let (id, secret) = token.split_once('.').ok_or(Denied::Malformed)?;
        // Hashed in any case: an unknown id takes as long as a wrong secret.
        let shown = hash(id, secret);
        let entry = self.keys.get(id);
        let kept = entry.map_or([0; 32], |entry| entry.hash);
        let same = bool::from(shown.ct_eq(&kept));
        let Some(entry) = entry.filter(|_| same) else { return Err(Denied::Unknown) };
        if entry.revoked {
            return Err(Denied::Revoked);
        }
        if entry.expires_s.is_some_and(|expires_s| expires_s <= now_s) {
            return Err(Denied::Expired);
        }
        let source = Source::Key { id: id.into(), hash: entry.hash };
        let standing = Standing { expires_s: entry.expires_s, source };
        Ok(Admission { grant: entry.grant.clone(), standing })
    }

    pub(crate) fn holds(&self, id: &str, hash: &[u8; 32], now_s: u64) -> bool {
        self.keys.get(id).is_some_and(|entry| {
            let same = bool::from(entry.hash.ct_eq(hash));
            same && !entry.revoked && entry.expires_s.is_none_or(|expires_s| now_s < expires_s)
        })
    }

    pub(crate) fn tenants(&self) -> usize {
        self.tenants
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_good_for_its_device_and_shows_nothing_of_itself() {
        let key = NewKey::draw().expect("random bytes");
        let line = format!(
            r#"{{"id":"{}","tenant":"acme","device":"pump","hash":"{}","created_s":1}}"#,
            key.id,
            key.hash_text()
        );
        let table = KeyTable::parse(line.as_bytes()).expect("a file");
        let admission = table.check(key.expose(), 5).expect("good");
        assert_eq!(admission.grant.device.as_ref().map(DeviceId::as_str), Some("pump"));
        assert_eq!((admission.grant.tenant.as_str(), admission.grant.read), ("acme", false));
        let secret = key.expose().split_once('.').expect("two parts").1;
        for shown in [format!("{key:?}"), format!("{table:?}"), format!("{admission:?}"), line] {
            assert!(!shown.contains(secret), "{shown}");
        }
        let mut wrong = key.expose().to_owned();
        wrong.push('x');
        assert_eq!(table.check(&wrong, 5), Err(Denied::Unknown));
        assert_eq!(table.check("fbk00.secret", 5), Err(Denied::Unknown));
        // The hash of one key is worth nothing under the id of another.
        let other = NewKey::draw().expect("random bytes");
        assert_eq!(table.check(&format!("{}.{secret}", other.id), 5), Err(Denied::Unknown));
    }

    #[test]
    fn a_line_that_is_wrong_is_named_and_not_shown() {
        for (text, reason) in [
            ("\n{", "line 2: "),
            (r#"{"id":"a","tenant":"t","hash":"00","created_s":1}"#, "hexadecimal"),
            (r#"{"id":"a","tenant":"t t","hash":"00","created_s":1}"#, "tenant id"),
            (r#"{"id":"a","tenant":"t","hash":"00","created_s":1,"role":1}"#, "role"),
        ] {
            let error = KeyTable::parse(text.as_bytes()).expect_err("refused").to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
