//! docs/configuration.md lists exactly the settings of the three tiers.
//!
//! Keys and defaults come from the tiers' own defaults; what a key means is the comment on its
//! field. A setting without a comment is a fault.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use forebay_ops::config::{Key, Settings, keys, load_from, to_toml};

use serde_json::Value;

use crate::{generated, none, workspace};

const HEAD: &str = "# Configuration

Each tier reads one TOML file (`--config FILE`) in which every key is optional. Environment
variables override it: `FOREBAY__SECTION__KEY=value`, so `queue.capacity` is
`FOREBAY__QUEUE__CAPACITY`. Sizes are written `\"64MiB\"`, times `\"250ms\"`, `\"5s\"`, `\"1h30m\"`.
A key that does not exist, or a value of the wrong kind, is refused: all faults are reported at
once, with a suggestion where one is at hand, and the process ends with exit code 78.
`--print-config` shows what is in effect.

This page is written from the code: `UPDATE_DOCS=1 cargo test -p forebay-testkit --test tidy`.
";

#[test]
fn the_page_of_settings_lists_every_key_with_its_default_and_nothing_else() {
    let mut page = HEAD.to_owned();
    let mut faults = Vec::new();
    tier::<forebay_front::Config>("Front", "bins/front", &mut page, &mut faults);
    tier::<forebay_middle::Config>("Middle", "bins/middle", &mut page, &mut faults);
    tier::<forebay_storage::Config>("Storage", "bins/storage", &mut page, &mut faults);
    none("settings without a comment on their field", faults);
    generated::compare("docs/configuration.md", &page);
}

fn tier<C: Settings>(title: &str, folder: &str, page: &mut String, faults: &mut Vec<String>) {
    let structs = structs_of(folder);
    let _ = write!(page, "\n## {title}\n");
    let mut section = None;
    for Key { path, default } in keys::<C>() {
        let top = path.split_once('.').map(|(top, _)| top.to_owned());
        if section.as_ref() != Some(&top) {
            if let Some(top) = &top {
                let about = field_at(&structs, top).map_or("", |field| &field.comment);
                let _ = write!(page, "\n### `[{top}]`\n\n{about}\n");
            }
            page.push_str("\n| key | default | meaning |\n| --- | --- | --- |\n");
            section = Some(top);
        }
        let mut row = |path: &str, default: Option<&str>, comment: &str| {
            if comment.is_empty() {
                faults.push(format!("{path} of {folder}"));
            }
            let default = default.map_or("none".to_owned(), |default| format!("`{default}`"));
            let (default, comment) = (generated::cell(&default), generated::cell(comment));
            let _ = writeln!(page, "| `{path}` | {default} | {comment} |");
        };
        let Some(field) = field_at(&structs, &path) else {
            row(&path, None, "");
            continue;
        };
        let list = item(&field.kind).and_then(|kind| structs.get(kind));
        let optional =
            field.kind.strip_prefix("Option<").and_then(|_| structs.get(inner(&field.kind)));
        if let Some(items) = list {
            // What each item has, with the values of the one that is there by default.
            row(&path, Some(&format!("[[{path}]]")), &field.comment);
            let list: Value = default.and_then(|text| text.parse().ok()).unwrap_or_default();
            for (name, field) in items {
                let default = list.get(0).and_then(|item| item.get(name)).filter(|v| !v.is_null());
                let default = default.map(Value::to_string);
                row(&format!("{path}[].{name}"), default.as_deref(), &field.comment);
            }
        } else {
            row(&path, default.as_deref(), &field.comment);
            // A section that is not there by default has keys all the same.
            for (name, field) in optional.into_iter().flatten() {
                row(&format!("{path}.{name}"), None, &field.comment);
            }
        }
    }
}

#[test]
fn the_defaults_of_each_tier_are_valid_and_load_again_as_printed() {
    loads_as_printed::<forebay_front::Config>();
    loads_as_printed::<forebay_middle::Config>();
    loads_as_printed::<forebay_storage::Config>();
}

fn loads_as_printed<C: Settings>() {
    let printed = to_toml(&C::default()).expect("the defaults can be printed");
    let loaded: C = load_from(Some(("printed", &printed)), []).expect("the defaults are valid");
    assert_eq!(to_toml(&loaded).expect("what was loaded can be printed"), printed);
}

/// A field: its type as written, and its comment.
#[derive(Debug, Default)]
struct Field {
    kind: String,
    comment: String,
}

/// The fields of a struct, by name.
type Fields = BTreeMap<String, Field>;

/// The field that `path` leads to from `Config`.
fn field_at<'a>(structs: &'a HashMap<String, Fields>, path: &str) -> Option<&'a Field> {
    let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
    let mut here = structs.get("Config")?;
    for key in parents.split('.').filter(|key| !key.is_empty()) {
        here = structs.get(inner(&here.get(key)?.kind))?;
    }
    here.get(name)
}

/// The name of a type, without its path and without an `Option` around it.
fn inner(kind: &str) -> &str {
    let kind = kind.strip_prefix("Option<").map_or(kind, |kind| kind.trim_end_matches('>'));
    kind.rsplit("::").next().unwrap_or(kind)
}

/// The name of the type that a list is of.
fn item(kind: &str) -> Option<&str> {
    kind.strip_prefix("Vec<")?.strip_suffix('>').map(inner)
}

/// The structs with named fields of a package, and of those of ours it may take settings from.
fn structs_of(folder: &str) -> HashMap<String, Fields> {
    let mut found = HashMap::new();
    // The package itself last, so that its own names win.
    for folder in [
        "crates/ops/src",
        "crates/access/src",
        "crates/queue/src",
        "crates/link/src",
        &format!("{folder}/src"),
    ] {
        for (_, source) in workspace::texts(folder, &[".rs"]) {
            structs(&source, &mut found);
        }
    }
    found
}

/// Adds the structs that can be read from a file: two of one name are told apart by that.
fn structs(source: &str, found: &mut HashMap<String, Fields>) {
    let mut current: Option<(String, Fields)> = None;
    let (mut comment, mut readable) = (String::new(), false);
    for line in source.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            if !comment.is_empty() {
                comment.push(' ');
            }
            comment.push_str(text.trim());
            continue;
        }
        if line.starts_with("#[") {
            readable |= line.contains("Deserialize");
            continue;
        }
        if let Some(name) = opened(line) {
            current = readable.then(|| (name, Fields::new()));
            readable = false;
        } else if line == "}" {
            found.extend(current.take());
        } else if let (Some((_, fields)), Some((name, kind))) = (&mut current, field(line)) {
            fields.insert(name, Field { kind, comment: std::mem::take(&mut comment) });
        }
        comment.clear();
    }
}

fn opened(line: &str) -> Option<String> {
    let line = line.strip_suffix('{')?.trim_end();
    let (_, name) = line.split_once("struct ")?;
    Some(name.split('<').next().unwrap_or(name).to_owned())
}

fn field(line: &str) -> Option<(String, String)> {
    let line =
        line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub ")).unwrap_or(line);
    let (name, kind) = line.strip_suffix(',')?.split_once(": ")?;
    let plain = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    plain.then(|| (name.trim_start_matches("r#").to_owned(), kind.to_owned()))
}

#[test]
fn the_comment_on_a_field_is_found_by_its_path() {
    let source = "
        /// All.
        #[derive(Debug, Deserialize)]
        #[serde(default)]
        pub struct Config {
            /// The ring,
            /// on disk.
            #[serde(rename = \"queue\")]
            pub queue: Option<ring::Settings>,
            /// Where to.
            pub sinks: Vec<Settings>,
        }
        #[derive(Deserialize)]
        pub struct Settings {
            /// Its bytes.
            pub capacity: ByteSize,
        }
        /// Another of that name.
        pub struct Settings {
            other: u8,
        }";
    let mut found = HashMap::new();
    structs(source, &mut found);
    let comment = |path| field_at(&found, path).map(|field| field.comment.as_str());
    assert_eq!(comment("queue"), Some("The ring, on disk."));
    assert_eq!(comment("queue.capacity"), Some("Its bytes."));
    assert_eq!(comment("queue.other"), None);
    assert_eq!(item(&found["Config"]["sinks"].kind), Some("Settings"));
}
