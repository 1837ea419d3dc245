//! docs/configuration.md lists exactly the settings of the three tiers.
//!
//! Keys and defaults come from the tiers' own defaults; what a key means is the comment on its
//! field. A setting without a comment is a fault.

use std::collections::HashMap;
use std::fmt::Write as _;

use forebay_ops::config::{Key, Settings, keys};

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
        let top = path.split_once('.').map(|(top, _)| top);
        if section != Some(top.map(str::to_owned)) {
            section = Some(top.map(str::to_owned));
            if let Some(top) = top {
                let about = meaning(&structs, top).unwrap_or_default();
                let _ = write!(page, "\n### `[{top}]`\n\n{about}\n");
            }
            page.push_str("\n| key | default | meaning |\n| --- | --- | --- |\n");
        }
        let Some(meaning) = meaning(&structs, &path).filter(|meaning| !meaning.is_empty()) else {
            faults.push(format!("{path} of {folder}"));
            continue;
        };
        let default = default.map_or("none".to_owned(), |default| format!("`{default}`"));
        let (default, meaning) = (generated::cell(&default), generated::cell(&meaning));
        let _ = writeln!(page, "| `{path}` | {default} | {meaning} |");
    }
}

/// A field: its type as written, and its comment.
type Fields = HashMap<String, (String, String)>;

/// The comment on the field that `path` leads to from `Config`.
fn meaning(structs: &HashMap<String, Fields>, path: &str) -> Option<String> {
    let mut here = structs.get("Config")?;
    let mut keys = path.split('.').peekable();
    while let Some(key) = keys.next() {
        let (kind, comment) = here.get(key)?;
        if keys.peek().is_none() {
            return Some(comment.clone());
        }
        here = structs.get(inner(kind))?;
    }
    None
}

/// The name of a type, without its path and without an `Option` around it.
fn inner(kind: &str) -> &str {
    let kind = kind.strip_prefix("Option<").map_or(kind, |kind| kind.trim_end_matches('>'));
    kind.rsplit("::").next().unwrap_or(kind)
}

/// The structs with named fields of a package, and of those of ours it may take settings from.
fn structs_of(folder: &str) -> HashMap<String, Fields> {
    let mut found = HashMap::new();
    // The package itself last, so that its own names win.
    for folder in ["crates/ops/src", "crates/queue/src", "crates/link/src", &format!("{folder}/src")] {
        for (_, source) in workspace::texts(folder, &[".rs"]) {
            structs(&source, &mut found);
        }
    }
    found
}

fn structs(source: &str, found: &mut HashMap<String, Fields>) {
    let mut current: Option<(String, Fields)> = None;
    let mut comment = String::new();
    for line in source.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            if !comment.is_empty() {
                comment.push(' ');
            }
            comment.push_str(text.trim());
            continue;
        }
        if let Some(name) = opened(line) {
            current = Some((name, Fields::new()));
        } else if line == "}" {
            found.extend(current.take());
        } else if let (Some((_, fields)), Some((name, kind))) = (&mut current, field(line)) {
            fields.insert(name, (kind, std::mem::take(&mut comment)));
        }
        if !line.starts_with("#[") {
            comment.clear();
        }
    }
}

fn opened(line: &str) -> Option<String> {
    let line = line.strip_suffix('{')?.trim_end();
    let (_, name) = line.split_once("struct ")?;
    Some(name.split('<').next().unwrap_or(name).to_owned())
}

fn field(line: &str) -> Option<(String, String)> {
    let line = line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub ")).unwrap_or(line);
    let (name, kind) = line.strip_suffix(',')?.split_once(": ")?;
    let plain = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    plain.then(|| (name.trim_start_matches("r#").to_owned(), kind.to_owned()))
}

#[test]
fn the_comment_on_a_field_is_found_by_its_path() {
    let source = "
        /// All.
        pub struct Config {
            /// The ring,
            /// on disk.
            #[serde(rename = \"queue\")]
            pub queue: Option<ring::Settings>,
        }
        pub struct Settings {
            /// Its bytes.
            pub capacity: ByteSize,
        }";
    let mut found = HashMap::new();
    structs(source, &mut found);
    assert_eq!(meaning(&found, "queue").as_deref(), Some("The ring, on disk."));
    assert_eq!(meaning(&found, "queue.capacity").as_deref(), Some("Its bytes."));
    assert_eq!(meaning(&found, "queue.other"), None);
}
