//! Faults of a configuration, gathered so that one look mends them all.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why there is no configuration. The process ends with [`crate::EXIT_CONFIG`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The file is not TOML.
    #[error("configuration file {file} is not TOML: {message}")]
    Syntax {
        /// The file.
        file: String,
        /// What is wrong, with line and column.
        message: String,
    },
    /// The file or the environment says something that cannot be followed.
    #[error("{0}")]
    Faults(Faults),
    /// The configuration cannot be shown.
    #[error("the configuration cannot be written as TOML: {0}")]
    Print(String),
}

impl ConfigError {
    /// The exit code for it: [`crate::EXIT_CONFIG`].
    pub fn exit_code(&self) -> u8 {
        crate::EXIT_CONFIG
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The full path of the key, such as `queue.capacity`; empty if it is about the whole.
    pub path: String,
    /// What is wrong, as a lower-case sentence without a full stop.
    pub message: String,
    /// The file or the variable it came from; `None` if it is about the result.
    pub origin: Option<String>,
}

/// All faults found so far. Handed to [`crate::Validate::validate`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    section: Vec<String>,
    found: Vec<Fault>,
}

impl Faults {
    /// Adds a fault of the key `path`, relative to the section being looked at.
    pub fn add(&mut self, path: &str, message: impl Into<String>) {
        let path = self.full(path);
        self.found.push(Fault { path, message: message.into(), origin: None });
    }

    /// Adds a fault of the key `path` unless `holds`.
    pub fn check(&mut self, holds: bool, path: &str, message: impl Into<String>) {
        if !holds {
            self.add(path, message);
        }
    }

    /// Looks at a section: within `look`, paths are relative to it.
    pub fn within(&mut self, section: &str, look: impl FnOnce(&mut Faults)) {
        self.section.push(section.to_owned());
        look(self);
        self.section.pop();
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// What was found.
    pub fn found(&self) -> &[Fault] {
        &self.found
    }

    pub(super) fn add_from(&mut self, origin: &str, path: String, message: String) {
        self.found.push(Fault { path, message, origin: Some(origin.to_owned()) });
    }

    /// Takes over the faults of keys that have none yet.
    pub(super) fn extend_new(&mut self, other: Faults) {
        let known: Vec<String> = self.found.iter().map(|fault| fault.path.clone()).collect();
        self.found.extend(other.found.into_iter().filter(|fault| !known.contains(&fault.path)));
    }

    fn full(&self, path: &str) -> String {
        let mut parts: Vec<&str> = self.section.iter().map(String::as_str).collect();
        if !path.is_empty() {
            parts.push(path);
        }
        parts.join(".")
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.found.len() {
            1 => write!(f, "the configuration has a fault:")?,
            count => write!(f, "the configuration has {count} faults:")?,
        }
        for Fault { path, message, origin } in &self.found {
            write!(f, "\n  ")?;
            if !path.is_empty() {
                write!(f, "{path}: ")?;
            }
            write!(f, "{message}")?;
            if let Some(origin) = origin {
                write!(f, " ({origin})")?;
            }
        }
        Ok(())
    }
}
