//! Overrides from the environment: `FOREBAY__SECTION__KEY=value`.
//!
//! The value is read as a TOML value if it is one and fits, else as a string: `64`, `true`,
//! `["a", "b"]`, and `64MiB` without quotes.

use serde_json::Value;

use super::{Faults, Leaf, keys, tree};

/// What every override begins with; `__` also parts sections and keys. Names are lower-cased.
pub const PREFIX: &str = "FOREBAY__";

/// The overrides in this process's environment; those that are not UTF-8 come out mangled, so that
/// they are refused rather than passed over.
pub(super) fn of_process() -> Vec<(String, String)> {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect()
}

/// Takes the leaves out of variables, in the order of their names.
pub(super) fn leaves(
    variables: impl IntoIterator<Item = (String, String)>,
    known: &Value,
    given: &mut Vec<Leaf>,
    faults: &mut Faults,
) {
    let mut variables: Vec<_> =
        variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    variables.sort();
    for (name, text) in variables {
        let path: Vec<String> =
            name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
        if !exists(known, &path) {
            faults.add_from(&name, path.join("."), keys::unknown(known, &path));
            continue;
        }
        let value = match text.parse::<toml::Value>().ok().map(tree::json) {
            Some(Ok(value)) => value,
            Some(Err(message)) => {
                faults.add_from(&name, path.join("."), message);
                continue;
            }
            None => Value::String(text.clone()),
        };
        given.push(Leaf { path, value, as_text: Value::String(text), origin: name });
    }
}

/// Whether this key is known, or lies below one that leaves open what it has.
fn exists(known: &Value, path: &[String]) -> bool {
    let mut here = known;
    for key in path {
        let Some(section) = tree::section(here) else {
            // A map takes any key, and what is nothing by default may be a section.
            return here.is_object() || here.is_null();
        };
        let Some(next) = section.get(key) else { return false };
        here = next;
    }
    true
}
