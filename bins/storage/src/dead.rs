//! Where each sink of a configuration keeps its dead letters, and how it is opened to take them
//! again.

use std::path::PathBuf;

use crate::{config::Config, sink::Sink};

/// A folder of dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterFolder {
    /// Whose, as the configuration names its section.
    pub sink: String,
    /// Where.
    pub path: PathBuf,
}

/// The folders of all sinks that are enabled.
#[must_use]
pub fn folders(config: &Config) -> Vec<DeadLetterFolder> {
    let mut folders = Vec::new();
    if config.lake.enabled {
        let path = config.lake.dead_letters.clone();
        folders.push(DeadLetterFolder { sink: "lake".to_owned(), path });
    }
    folders
}

/// The sink of a section, to send dead letters to.
///
/// # Errors
/// A sentence: there is no such sink, or it cannot be opened.
pub fn open_sink(config: &Config, sink: &str) -> Result<Box<dyn Sink>, String> {
    match sink {
        // What the lake cannot write it will take later: it has only entries that are none.
        "lake" if config.lake.enabled => Err("the lake refuses no row".to_owned()),
        other => Err(format!("no sink {other} is configured")),
    }
}
