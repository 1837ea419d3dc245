//! The tree of defaults, and what is given laid over it leaf by leaf.

use serde_json::{Map, Value};

use super::{Faults, Leaf, Settings, keys};

/// The complete tree of defaults; it says which keys exist.
///
/// JSON rather than TOML, because it keeps keys whose default is nothing.
pub(super) fn defaults<C: Settings>() -> Value {
    serde_json::to_value(C::default()).expect("a configuration's defaults are plain values")
}

/// Which keys exist: the defaults with every map emptied, as a map takes any key.
///
/// A map is told from a section by what it says to a key that cannot be one of its own.
pub(super) fn known<C: Settings>(defaults: &Value) -> Value {
    const PROBE: &str = "no key of ours has spaces";
    let mut known = defaults.clone();
    let mut sections = Vec::new();
    walk_sections(defaults, &mut Vec::new(), &mut sections);
    for path in sections {
        let mut probed = defaults.clone();
        let below: Vec<String> = path.iter().cloned().chain([PROBE.to_owned()]).collect();
        set(&mut probed, &below, Value::Null);
        let refused_value = C::deserialize(probed)
            .is_err_and(|error| !error.to_string().contains(&format!("unknown field `{PROBE}`")));
        if refused_value {
            set(&mut known, &path, Value::Object(Map::new()));
        }
    }
    known
}

fn walk_sections(tree: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    for (key, value) in section(tree).into_iter().flatten() {
        path.push(key.clone());
        if section(value).is_some() {
            found.push(path.clone());
            walk_sections(value, path, found);
        }
        path.pop();
    }
}

/// Takes the leaves out of a file's table; keys that do not exist become faults.
pub(super) fn leaves_of_file(
    file: &str,
    table: toml::Table,
    known: &Value,
    given: &mut Vec<Leaf>,
    faults: &mut Faults,
) {
    let mut walk = Walk { file, root: known, given, faults };
    walk.table(&mut Vec::new(), table, known);
}

struct Walk<'a> {
    file: &'a str,
    root: &'a Value,
    given: &'a mut Vec<Leaf>,
    faults: &'a mut Faults,
}

impl Walk<'_> {
    fn table(&mut self, path: &mut Vec<String>, table: toml::Table, known: &Value) {
        for (key, value) in table {
            path.push(key);
            self.value(path, value, known);
            path.pop();
        }
    }

    fn value(&mut self, path: &mut Vec<String>, value: toml::Value, known: &Value) {
        let Some(default) = known.get(path.last().expect("a value has a key")) else {
            self.fault(path, keys::unknown(self.root, path));
            return;
        };
        match (value, section(default)) {
            (toml::Value::Table(table), Some(_)) => self.table(path, table, default),
            (value, _) => match json(value) {
                Ok(value) => self.given.push(Leaf {
                    path: path.clone(),
                    as_text: value.clone(),
                    value,
                    origin: self.file.to_owned(),
                }),
                Err(message) => self.fault(path, message),
            },
        }
    }

    fn fault(&mut self, path: &[String], message: String) {
        self.faults.add_from(self.file, path.join("."), message);
    }
}

/// The keys of a section; `None` for a leaf. An empty section is a map, which takes any key.
pub(super) fn section(default: &Value) -> Option<&Map<String, Value>> {
    default.as_object().filter(|keys| !keys.is_empty())
}

/// Puts the leaves of one optional section together, as its keys may need one another.
pub(super) fn gathered(defaults: &Value, given: Vec<Leaf>) -> Vec<Leaf> {
    let mut all: Vec<Leaf> = Vec::new();
    for leaf in given {
        let (path, below) = leaf.path.split_at(optional(defaults, &leaf.path));
        match all.iter_mut().find(|earlier| earlier.path == path) {
            Some(earlier) => {
                set(&mut earlier.value, below, leaf.value);
                set(&mut earlier.as_text, below, leaf.as_text);
                earlier.origin = match below.is_empty() {
                    true => leaf.origin,
                    false => format!("{}, {}", earlier.origin, leaf.origin),
                };
            }
            None => {
                let (mut value, mut as_text) = (Value::Null, Value::Null);
                set(&mut value, below, leaf.value);
                set(&mut as_text, below, leaf.as_text);
                let (path, origin) = (path.to_vec(), leaf.origin);
                all.push(Leaf { path, value, as_text, origin });
            }
        }
    }
    all
}

/// How many keys of `path` lead to what is nothing by default, or to its end.
fn optional(defaults: &Value, path: &[String]) -> usize {
    (1..path.len())
        .find(|keys| at(defaults, &path[..*keys]).is_some_and(Value::is_null))
        .unwrap_or(path.len())
}

/// The value under which this leaf is taken, judged alone over the defaults.
///
/// Alone, so that the message is about this leaf, and so that all leaves are judged.
pub(super) fn accepted<C: Settings>(
    defaults: &Value,
    known: &Value,
    leaf: &Leaf,
) -> Result<Value, String> {
    if at(known, &leaf.path).is_some_and(|default| section(default).is_some()) {
        return Err(format!("is a section: give it keys, as in {}.key", leaf.path.join(".")));
    }
    let judge = |value: &Value| {
        let mut tree = defaults.clone();
        set(&mut tree, &leaf.path, value.clone());
        C::deserialize(tree).map(drop).map_err(|error| error.to_string())
    };
    let as_typed = match judge(&leaf.value) {
        Ok(()) => return Ok(leaf.value.clone()),
        Err(message) => message,
    };
    match judge(&leaf.as_text) {
        Ok(()) => Ok(leaf.as_text.clone()),
        Err(_) => Err(as_typed),
    }
}

/// Puts `value` at `path`, making sections on the way where there are none.
pub(super) fn set(tree: &mut Value, path: &[String], value: Value) {
    let Some((key, rest)) = path.split_first() else {
        *tree = value;
        return;
    };
    if !tree.is_object() {
        *tree = Value::Object(Map::new());
    }
    let section = tree.as_object_mut().expect("it was made a section just now");
    set(section.entry(key).or_insert(Value::Null), rest, value);
}

pub(super) fn at<'a>(tree: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(tree, |tree, key| tree.get(key))
}

/// The same value as JSON, in which a number is finite and a date a text.
pub(super) fn json(value: toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Boolean(truth) => Value::Bool(truth),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Float(number) if number.is_finite() => Value::from(number),
        toml::Value::Float(number) => return Err(format!("{number} is not a finite number")),
        toml::Value::Array(items) => {
            Value::Array(items.into_iter().map(json).collect::<Result<_, _>>()?)
        }
        toml::Value::Table(table) => Value::Object(
            table
                .into_iter()
                .map(|(key, value)| Ok((key, json(value)?)))
                .collect::<Result<_, String>>()?,
        ),
    })
}
