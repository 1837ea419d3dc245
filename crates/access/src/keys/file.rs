//! The file of keys as `forebay keys` changes it: one JSON object a line, replaced as a whole.
//!
//! A change is written beside the file, synced, and put in its place by a rename: a tier that reads
//! meanwhile sees the old file or the new one, and a crash leaves one of both.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use forebay_model::{DeviceId, TenantId};
use forebay_ops::make_folder;

use super::{BadKeys, KeyRecord, LIVE_KEYS_MAX, NewKey};

/// Why keys cannot be read or changed. The file is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// The file cannot be read or replaced.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The file is not one of keys.
    #[error("{}: {error}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: BadKeys,
    },
    /// The owner has as many good keys as it may.
    #[error("{owner} has {LIVE_KEYS_MAX} live keys already: rotate or revoke one")]
    TooMany {
        /// The device or reader.
        owner: String,
    },
    /// There is no such key, or none that is live.
    #[error("no live key {what}")]
    NoSuchKey {
        /// What was looked for.
        what: String,
    },
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
}

/// Whose keys are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A device, which writes as itself.
    Device(DeviceId),
    /// A reader of all that the tenant's devices send, by a name of the user's choice.
    Reader(DeviceId),
}

impl Owner {
    fn owns(&self, tenant: &TenantId, record: &KeyRecord) -> bool {
        let (device, reader) = self.fields();
        record.tenant == tenant.as_str() && record.device == device && record.reader == reader
    }

    fn fields(&self) -> (Option<String>, Option<String>) {
        match self {
            Self::Device(id) => (Some(id.to_string()), None),
            Self::Reader(name) => (None, Some(name.to_string())),
        }
    }

    fn words(&self, tenant: &TenantId) -> String {
        match self {
            Self::Device(id) => format!("device {id} of tenant {tenant}"),
            Self::Reader(name) => format!("reader {name} of tenant {tenant}"),
        }
    }
}

/// A file of keys, read to be changed.
#[derive(Debug)]
pub struct KeysFile {
    path: PathBuf,
    records: Vec<KeyRecord>,
}

/// The records of a file, each with its line.
pub(super) fn records(bytes: &[u8]) -> Result<Vec<(usize, KeyRecord)>, BadKeys> {
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    lines
        .map(|(number, line)| match serde_json::from_slice(line) {
            Ok(record) => Ok((number + 1, record)),
            Err(error) => Err(BadKeys { line: number + 1, reason: error.to_string() }),
        })
        .collect()
}

impl KeysFile {
    /// Reads `path`; a file that is not there is an empty one.
    ///
    /// # Errors
    /// [`KeysError::Io`], [`KeysError::Content`].
    pub fn open(path: &Path) -> Result<Self, KeysError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(KeysError::Io { path: path.to_owned(), error }),
        };
        let content = |error| KeysError::Content { path: path.to_owned(), error };
        // All that a tier would refuse is refused here, before anything is written.
        super::KeyTable::parse(&bytes).map_err(content)?;
        let records = records(&bytes).map_err(content)?;
        let records = records.into_iter().map(|(_, record)| record).collect();
        Ok(Self { path: path.to_owned(), records })
    }

    /// All keys, in the order in which they were made.
    #[must_use]
    pub fn records(&self) -> &[KeyRecord] {
        &self.records
    }

    /// Makes a key.
    ///
    /// # Errors
    /// [`KeysError::TooMany`]: the owner has two live keys already.
    pub fn add(
        &mut self,
        tenant: &TenantId,
        owner: &Owner,
        expires_s: Option<u64>,
        now_s: u64,
    ) -> Result<NewKey, KeysError> {
        if self.live(tenant, owner, now_s).count() >= LIVE_KEYS_MAX {
            return Err(KeysError::TooMany { owner: owner.words(tenant) });
        }
        let key = NewKey::draw()?;
        let (device, reader) = owner.fields();
        self.records.push(KeyRecord {
            id: key.id.clone(),
            tenant: tenant.to_string(),
            device,
            reader,
            hash: key.hash_text(),
            created_s: now_s,
            expires_s,
            revoked_s: None,
        });
        Ok(key)
    }

    /// Makes a key beside the newest one of its owner, which is good until `grace_until_s` from now
    /// on; older ones are revoked. Returns the new key and the ids of those that were revoked.
    ///
    /// # Errors
    /// [`KeysError::NoSuchKey`]: the owner has none to rotate.
    pub fn rotate(
        &mut self,
        tenant: &TenantId,
        owner: &Owner,
        grace_until_s: Option<u64>,
        expires_s: Option<u64>,
        now_s: u64,
    ) -> Result<(NewKey, Vec<String>), KeysError> {
        let mut live: Vec<String> =
            self.live(tenant, owner, now_s).map(|record| record.id.clone()).collect();
        let Some(newest) = live.pop() else {
            return Err(KeysError::NoSuchKey { what: format!("of {}", owner.words(tenant)) });
        };
        for id in &live {
            self.revoke(id, now_s)?;
        }
        if let Some(until_s) = grace_until_s
            && let Some(record) = self.records.iter_mut().find(|record| record.id == newest)
        {
            record.expires_s = Some(record.expires_s.map_or(until_s, |at| at.min(until_s)));
        }
        Ok((self.add(tenant, owner, expires_s, now_s)?, live))
    }

    /// Makes a key worth nothing from now on.
    ///
    /// # Errors
    /// [`KeysError::NoSuchKey`]: it is not there or was revoked before.
    pub fn revoke(&mut self, id: &str, now_s: u64) -> Result<(), KeysError> {
        let record =
            self.records.iter_mut().find(|record| record.id == id && record.revoked_s.is_none());
        match record {
            Some(record) => record.revoked_s = Some(now_s),
            None => return Err(KeysError::NoSuchKey { what: id.to_owned() }),
        }
        Ok(())
    }

    /// Revokes all keys of an owner; returns their ids.
    ///
    /// # Errors
    /// [`KeysError::NoSuchKey`]: it has none that is live.
    pub fn revoke_all(
        &mut self,
        tenant: &TenantId,
        owner: &Owner,
        now_s: u64,
    ) -> Result<Vec<String>, KeysError> {
        let ids: Vec<String> =
            self.live(tenant, owner, now_s).map(|record| record.id.clone()).collect();
        if ids.is_empty() {
            return Err(KeysError::NoSuchKey { what: format!("of {}", owner.words(tenant)) });
        }
        for id in &ids {
            self.revoke(id, now_s)?;
        }
        Ok(ids)
    }

    fn live(
        &self,
        tenant: &TenantId,
        owner: &Owner,
        now_s: u64,
    ) -> impl Iterator<Item = &KeyRecord> {
        self.records
            .iter()
            .filter(move |record| record.is_live(now_s) && owner.owns(tenant, record))
    }

    /// Puts the changed file in the place of the old one; it is synced, and only its owner reads it.
    ///
    /// # Errors
    /// [`KeysError::Io`]: the old file is still there.
    pub fn save(&self) -> Result<(), KeysError> {
        let failed = |error| KeysError::Io { path: self.path.clone(), error };
        let mut text = Vec::new();
        for record in &self.records {
            serde_json::to_writer(&mut text, record).map_err(|error| failed(error.into()))?;
            text.push(b'\n');
        }
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        make_folder(folder).map_err(failed)?;
        let mut new = tempfile::Builder::new()
            .prefix(".keys-")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(folder)
            .map_err(failed)?;
        new.write_all(&text).and_then(|()| new.as_file().sync_all()).map_err(failed)?;
        new.persist(&self.path).map_err(|error| failed(error.error))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }

    /// Keeps others of this command away from `path` until the result is dropped.
    ///
    /// # Errors
    /// [`KeysError::Io`]: the lock's file cannot be made.
    pub fn lock(path: &Path) -> Result<File, KeysError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let failed = |error| KeysError::Io { path: PathBuf::from(&name), error };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let lock = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&name);
        let lock = lock.map_err(failed)?;
        lock.lock().map_err(failed)?;
        Ok(lock)
    }
}
