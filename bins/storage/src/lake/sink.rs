//! The lake as a sink: a range is one file for each hour, put in place and synced before the ack.

use std::{io, path::Path, sync::Arc};

use forebay_ops::make_folder;

use super::{
    encode,
    file::{self, Observer},
    gate::Gate,
    name::Hour,
};
use crate::{
    rows::Rows,
    sink::{Durability, EncodeError, Encoded, Idempotency, Outcome, Part, Sending, Sink, Token},
};

/// Writes ranges into the lake at a folder.
pub struct LakeSink {
    gate: Arc<Gate>,
    observer: Observer,
}

impl LakeSink {
    /// Opens the lake, and sweeps away what an earlier process left unfinished.
    ///
    /// # Errors
    /// The folder cannot be made or listed.
    pub fn open(root: &Path) -> io::Result<Self> {
        make_folder(root)?;
        let swept = file::sweep(root)?;
        if swept > 0 {
            tracing::info!(path = %root.display(), count = swept, "swept unfinished lake files");
        }
        Ok(Self { gate: Arc::new(Gate::new(root)), observer: Arc::new(|_| {}) })
    }

    /// The same sink behind the gate that others who change this lake use too.
    #[must_use]
    pub fn behind(mut self, gate: &Arc<Gate>) -> Self {
        self.gate.clone_from(gate);
        self
    }

    /// The same sink, with something that watches each step of a write.
    #[must_use]
    pub fn with_observer(mut self, observer: Observer) -> Self {
        self.observer = observer;
        self
    }

    fn write(&self, encoded: &Encoded) -> io::Result<()> {
        for part in &encoded.parts {
            let (hour, name) = split(&part.name)
                .ok_or_else(|| io::Error::other(format!("{} is no lake file", part.name)))?;
            if !self.gate.put(hour, name, &part.bytes, &self.observer)? {
                tracing::debug!(file = part.name, "a range is in the lake already, compacted");
            }
        }
        Ok(())
    }
}

/// The hour and the file name of a part.
#[must_use]
pub fn split(part: &str) -> Option<(Hour, &str)> {
    let (folders, name) = part.rsplit_once('/')?;
    let (day, hour) = folders.split_once('/')?;
    Some((Hour::from_folders(day, hour)?, name))
}

impl Sink for LakeSink {
    fn encode(&mut self, rows: &Rows) -> Result<Encoded, EncodeError> {
        let files = encode::encode(rows).map_err(|error| EncodeError(error.to_string()))?;
        let parts = files
            .into_iter()
            .map(|file| Part {
                name: format!("{}/{}", file.hour, file.name),
                bytes: file.bytes,
                rows: file.rows as u64,
            })
            .collect();
        Ok(Encoded { parts, left_out: 0 })
    }

    fn send<'a>(&'a mut self, encoded: &'a Encoded, _: &'a Token) -> Sending<'a> {
        let outcome = match self.write(encoded) {
            Ok(()) => Outcome::Ack,
            Err(error) => {
                let reason = format!("lake {}: {error}", self.gate.root().display());
                match error.kind() {
                    // Waiting alone mends none of these.
                    io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::NotADirectory => Outcome::Misconfigured(reason),
                    _ => Outcome::Transient(reason),
                }
            }
        };
        Box::pin(std::future::ready(outcome))
    }

    fn durability(&self) -> Durability {
        Durability::OnAck
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::FileName
    }
}
