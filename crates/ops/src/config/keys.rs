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

/// Every key of a configuration with its default, ordered by path.
pub fn keys<C: Settings>() -> Vec<Key> {
    let mut found = Vec::new();
    let defaults = tree::defaults::<C>();
    walk(&tree::known::<C>(&defaults), &mut Vec::new(), &mut |path, _| {
        let default = tree::at(&defaults, path).filter(|value| !value.is_null());
        let default = default.map(Value::to_string);
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

/// The key most like `path`: a neighbour by name, else the same name in another section, else the
/// whole path most like it (a slip in a section's name).
fn suggestion(defaults: &Value, path: &[String]) -> Option<String> {
    let (name, section) = path.split_last()?;
    let mut known = Vec::new();
    walk_all(defaults, &mut Vec::new(), &mut |path| known.push(path.to_vec()));
    let neighbours =
        known.iter().filter(|known| known.split_last().is_some_and(|k| k.1 == section));
    let most_like = |candidates: &mut dyn Iterator<Item = (f64, String)>| {
        candidates
            .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
            .max_by(|one, other| one.0.total_cmp(&other.0))
            .map(|(_, path)| path)
    };
    let named = |known: &&Vec<String>| known.last() == Some(name);
    let whole = path.join(".");
    most_like(&mut neighbours.map(|known| {
        (strsim::jaro_winkler(name, known.last().expect("a path has a name")), known.join("."))
    }))
    .or_else(|| known.iter().find(named).map(|known| known.join(".")))
    .or_else(|| {
        most_like(&mut known.iter().map(|known| {
            let known = known.join(".");
            (strsim::jaro_winkler(&whole, &known), known)
        }))
    })
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
