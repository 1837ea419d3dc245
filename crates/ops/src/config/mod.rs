//! Configuration: a TOML file, overridden by the environment, every key optional.
//!
//! A tier's configuration is one tree of structs with `#[serde(default, deny_unknown_fields)]`
//! whose defaults are complete. [`load`] lays the file over the defaults, then the environment over
//! the file (`FOREBAY__SECTION__KEY`), and reports **every** fault at once: unknown keys with the
//! full path and a suggestion, wrong types with the path, then what [`Validate`] finds.
//!
//! The tree of defaults is what says which keys exist, so no field may be skipped when serialized.
//! A map takes any key: one in a file replaces the default map, a variable adds a key to it.

mod environment;
mod error;
mod keys;
mod tree;

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use environment::PREFIX;
pub use error::{ConfigError, Fault, Faults};
pub use keys::{Key, keys};

/// What a configuration must hold beyond its types.
pub trait Validate {
    /// Adds every fault of this configuration, not only the first.
    fn validate(&self, faults: &mut Faults);
}

/// What [`load`] needs of a configuration; implemented for every type that has it all.
pub trait Settings: Serialize + DeserializeOwned + Default + Validate {}

impl<C: Serialize + DeserializeOwned + Default + Validate> Settings for C {}

/// Reads the configuration of this process: defaults, then `file`, then the environment.
///
/// # Errors
/// The file cannot be read, or anything in it or in the environment is wrong. All faults are in the
/// error; end with [`crate::EXIT_CONFIG`].
pub fn load<C: Settings>(file: Option<&Path>) -> Result<C, ConfigError> {
    let text = match file {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
            Some((path.display().to_string(), text))
        }
    };
    let text = text.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
    load_from(text, environment::of_process())
}

/// Names of the variables of this process that change its configuration; their values may be
/// secrets.
#[must_use]
pub fn variables() -> Vec<String> {
    let ours = environment::of_process().into_iter().map(|(name, _)| name);
    let mut names: Vec<_> = ours.filter(|name| name.starts_with(PREFIX)).collect();
    names.sort_unstable();
    names
}

/// Reads a configuration from `(name, text)` of a TOML file and from variables: for tests, tools.
///
/// Variables that do not begin with [`PREFIX`] are passed over.
///
/// # Errors
/// As for [`load`].
pub fn load_from<C: Settings>(
    file: Option<(&str, &str)>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<C, ConfigError> {
    let mut faults = Faults::default();
    let defaults = tree::defaults::<C>();
    let known = tree::known::<C>(&defaults);
    let mut given = Vec::new();
    if let Some((name, text)) = file {
        let table = text.parse::<toml::Table>().map_err(|error| ConfigError::Syntax {
            file: name.to_owned(),
            message: error.to_string(),
        })?;
        tree::leaves_of_file(name, table, &known, &mut given, &mut faults);
    }
    environment::leaves(variables, &known, &mut given, &mut faults);
    let mut effective = defaults.clone();
    for leaf in tree::gathered(&defaults, given) {
        match tree::accepted::<C>(&defaults, &known, &leaf) {
            Ok(value) => tree::set(&mut effective, &leaf.path, value),
            Err(message) => faults.add_from(&leaf.origin, leaf.path.join("."), message),
        }
    }
    let config = match C::deserialize(effective) {
        Ok(config) => config,
        Err(error) => {
            faults.add("", error.to_string());
            return Err(ConfigError::Faults(faults));
        }
    };
    // What could not be taken stands at its default here; its path has a fault already.
    let mut found = Faults::default();
    config.validate(&mut found);
    faults.extend_new(found);
    if faults.is_empty() { Ok(config) } else { Err(ConfigError::Faults(faults)) }
}

/// The whole configuration as TOML, defaults included, as `--print-config` shows it.
///
/// # Errors
/// A value cannot be written as TOML, such as an integer above 2^63.
pub fn to_toml<C: Serialize>(config: &C) -> Result<String, ConfigError> {
    toml::to_string(config).map_err(|error| ConfigError::Print(error.to_string()))
}

/// One given value: where it goes, what it is, where it came from.
struct Leaf {
    path: Vec<String>,
    value: Value,
    /// The value with what came from the environment as strings, which it may be meant to be.
    as_text: Value,
    origin: String,
}

#[cfg(test)]
mod tests;
