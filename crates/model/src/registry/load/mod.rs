//! A registry from the text of files: TOML, or CSV for long lists. Errors name file, line and key.
//!
//! Not here: reading the files, and following them.

mod csv;
mod toml;

use super::{Builder, DataType, KeyDefinition, Keys, ListingError, Registry};
use crate::Invalid;

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file} line {line}: {message}")]
pub struct LoadError {
    /// Its name.
    pub file: String,
    /// Where, from 1.
    pub line: usize,
    /// What, with the name of the key or column.
    pub message: String,
}

/// A fault before it is known in which file.
#[derive(Debug)]
struct Fault {
    line: usize,
    message: String,
}

impl Registry {
    /// The registry of some files, by name and content: names end in `.toml` or `.csv`. All files
    /// are one registry, in any order.
    ///
    /// # Errors
    /// [`LoadError`] names the first fault.
    pub fn load<'a>(
        files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, LoadError> {
        let mut builder = Builder::default();
        for (name, content) in files {
            let loaded = match std::str::from_utf8(content) {
                Ok(text) if name.ends_with(".csv") => csv::load(text, &mut builder),
                Ok(text) if name.ends_with(".toml") => toml::load(text, &mut builder),
                Ok(_) => Err(Fault::at(1, "the name of the file ends neither in .toml nor .csv")),
                Err(error) => {
                    let line = line_of(content, error.valid_up_to());
                    Err(Fault::at(line, "the file is not UTF-8"))
                }
            };
            loaded.map_err(|Fault { line, message }| LoadError {
                file: name.to_owned(),
                line,
                message,
            })?;
        }
        Ok(builder.build())
    }
}

impl Fault {
    fn at(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

/// The line of a byte, from 1.
fn line_of(content: &[u8], at: usize) -> usize {
    1 + content[..at.min(content.len())].iter().filter(|&&byte| byte == b'\n').count()
}

/// A key's definition as a file spells it.
#[derive(Debug, Default)]
struct Spelled {
    data_type: Option<String>,
    unit: Option<String>,
    description: Option<String>,
    min: Option<f64>,
    max: Option<f64>,
}

impl Spelled {
    /// Adds the definition to `keys`; says what is wrong with it, named as in the file.
    fn define(self, key: &str, data_type_name: &str, keys: &mut Keys) -> Result<(), String> {
        let data_type = match self.data_type.as_deref() {
            None => None,
            Some(word) => Some(DataType::from_word(word).ok_or_else(|| {
                let words = DataType::ALL.map(DataType::as_str).join(", ");
                format!("{data_type_name} of key {key:?} is {word:?}, not one of {words}")
            })?),
        };
        let (min, max) = (self.min, self.max);
        for (name, bound) in [("min", min), ("max", max)] {
            if bound.is_some_and(|bound| !bound.is_finite()) {
                return Err(format!("{name} of key {key:?} is not a finite number"));
            }
            let counts = matches!(data_type, None | Some(DataType::Float | DataType::Int));
            if bound.is_some() && !counts {
                return Err(format!("{name} of key {key:?} bounds what is no number"));
            }
        }
        if let (Some(min), Some(max)) = (min, max)
            && min > max
        {
            return Err(format!("min of key {key:?} is {min}, above its max {max}"));
        }
        let unit = self.unit.map(Into::into);
        let description = self.description.map(Into::into);
        let definition = KeyDefinition { data_type, unit, description, min, max };
        keys.insert(key, definition).map_err(|error| format!("key {key:?}: {error}"))
    }
}

fn listing_fault(device: &str, error: &ListingError) -> String {
    match error {
        ListingError::Invalid(Invalid::Empty { what: "device id" }) => error.to_string(),
        ListingError::Invalid(error) => format!("device {device:?}: {error}"),
        ListingError::Twice { .. } => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
