//! The keys that exist, and the one that was probably meant.

use serde_json::Value;

use super::{Settings, tree};

/// How alike two names must be for one to be suggested for the other (Jaro-Winkler, 0 to 1).
///
/// Found by trying: it takes one or two slips in a word of ours, and refuses unrelated ones.
const LIKENESS_MIN: f64 = 0.82;

/// One key of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The full path, such as `queue.capacity`.
    pub path: String,
    /// The default as TOML; `None` if there is none.
    pub default: Option<String>,
}

/// Every key of a configuration with its default, in the order of the structs' fields... by name.
pub fn keys<C: Settings>() -> Vec<Key> {
    let mut found = Vec::new();
    walk(&tree::defaults::<C>(), &mut Vec::new(), &mut |path, value| {
        let default = match value {
            Value::Null => None,
            value => Some(value.to_string()),
        };
        found.push(Key { path: path.join("."), default });
    });
    found
}

/// Says that a key does not exist, and which one was probably meant.
pub(super) fn unknown(defaults: &Value, path: &[String]) -> String {
    match suggestion(defaults, path) {
        Some(meant) => format!("no such key, did you mean `{meant}`?"),
        None => "no such key".to_owned(),
    }
}

/// The key most like `path`: a neighbour by name, else the same name in another section.
fn suggestion(defaults: &Value, path: &[String]) -> Option<String> {
    let (key, section) = path.split_last()?;
    let mut best: Option<(f64, String)> = None;
    let mut offer = |likeness: f64, path: String| {
        if likeness >= LIKENESS_MIN && best.as_ref().is_none_or(|(most, _)| likeness > *most) {
            best = Some((likeness, path));
        }
    };
    let mut all = Vec::new();
    walk_all(defaults, &mut Vec::new(), &mut |path| all.push(path.to_vec()));
    for known in &all {
        let (name, parent) = known.split_last().expect("a key's path has a name");
        let likeness = strsim::jaro_winkler(key, name);
        if parent == section {
            // A neighbour wins against a better name elsewhere.
            offer(
                likeness + 1.0 - LIKENESS_MIN * f64::from(likeness < LIKENESS_MIN),
                known.join("."),
            );
        } else if name == key {
            offer(LIKENESS_MIN, known.join("."));
        }
        offer(strsim::jaro_winkler(&path.join("."), &known.join(".")) * 0.95, known.join("."));
    }
    best.map(|(_, path)| path)
}

fn walk(tree: &Value, path: &mut Vec<String>, leaf: &mut impl FnMut(&[String], &Value)) {
    let Some(section) = tree::section(tree) else { return leaf(path, tree) };
    for (key, value) in section {
        path.push(key.clone());
        walk(value, path, leaf);
        path.pop();
    }
}

fn walk_all(tree: &Value, path: &mut Vec<String>, seen: &mut impl FnMut(&[String])) {
    let Some(section) = tree::section(tree) else { return };
    for (key, value) in section {
        path.push(key.clone());
        seen(path);
        walk_all(value, path, seen);
        path.pop();
    }
}
