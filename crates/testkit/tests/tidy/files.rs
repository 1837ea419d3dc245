//! How files look: a head that says what they are, a size that one can hold, nothing left undone.

use std::fs;

use crate::source::{Strings, code, has_word};
use crate::{none, workspace};

/// The wall; most files are a third of it.
const LINES_MAX: usize = 500;

/// Where unsafe code may be: the ring's memory, its checksum, and the tests' system calls.
const UNSAFE: [&str; 3] =
    ["crates/queue/src/map.rs", "crates/queue/src/crc.rs", "crates/testkit/src/sys.rs"];

/// The packages those files are in; all others forbid it.
const WITH_UNSAFE: [&str; 2] = ["crates/queue/", "crates/testkit/"];

/// What shows at the top of the workspace.
const TOP: [&str; 12] = [
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "crates",
    "bins",
    "examples",
    "benches",
    "docs",
    "k8s",
    "docker-compose.yml",
    "target",
];

#[test]
fn every_file_says_first_what_it_is() {
    let headless = workspace::sources()
        .into_iter()
        .filter(|(_, source)| !source.starts_with("//! "))
        .map(|(path, _)| path);
    none("files that do not begin with `//! `", headless.collect());
}

#[test]
fn no_file_is_longer_than_one_can_hold() {
    let long = workspace::sources().into_iter().filter_map(|(path, source)| {
        let lines = source.lines().count();
        (lines > LINES_MAX).then(|| format!("{path} has {lines} lines"))
    });
    none(&format!("files of more than {LINES_MAX} lines"), long.collect());
}

#[test]
fn unsafe_code_is_where_it_is_proven_and_forbidden_elsewhere() {
    let mut faults = Vec::new();
    for (path, source) in workspace::sources() {
        if !UNSAFE.contains(&path.as_str()) && has_word(&code(&source, Strings::Blank), "unsafe") {
            faults.push(format!("{path} has unsafe code"));
        }
        let is_root = path.ends_with("/src/lib.rs") || path.ends_with("/src/main.rs");
        let may = WITH_UNSAFE.iter().any(|package| path.starts_with(package));
        if is_root && !may && !source.contains("\n#![forbid(unsafe_code)]\n") {
            faults.push(format!("{path} does not forbid unsafe code"));
        }
    }
    none("unsafe code", faults);
}

#[test]
fn nothing_is_left_undone() {
    // Put together here, so that this file does not hold them.
    let words = [["to", "do"], ["db", "g"], ["unimple", "mented"]].map(|word| word.concat() + "!");
    let notes = [["FIX", "ME"], ["TO", "DO"], ["XX", "X"]].map(|word| word.concat());
    let mut faults = Vec::new();
    for (path, source) in workspace::sources() {
        for (number, line) in source.lines().enumerate() {
            let left = words.iter().any(|word| line.contains(word.as_str()))
                || notes.iter().any(|note| has_word(line, note));
            if left {
                faults.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none("left undone", faults);
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    // Put together here, so that this file does not hold them.
    let paths = ["work", "root", "home"].map(|folder| format!("/{folder}/"));
    let ends = [".rs", ".toml", ".md", ".yml", ".yaml", ".json", ".sh", ".py", ".js", ".html"];
    let folders = ["crates", "bins", "examples", "benches", "docs", "k8s"];
    let mut texts: Vec<_> =
        folders.into_iter().flat_map(|folder| workspace::texts(folder, &ends)).collect();
    for single in ["README.md", "Cargo.toml", "docker-compose.yml", ".ci/run"] {
        if let Ok(text) = fs::read_to_string(workspace::root().join(single)) {
            texts.push((single.to_owned(), text));
        }
    }
    let mut faults = Vec::new();
    for (path, text) in texts {
        for (number, line) in text.lines().enumerate() {
            let known = paths.iter().find(|path| {
                line.match_indices(path.as_str()).any(|(at, _)| {
                    // The start of a path, not a part of one such as `benches/work/`.
                    let before = line[..at].chars().next_back();
                    before.is_none_or(|c| !c.is_alphanumeric() && c != '.' && c != '-' && c != '}')
                })
            });
            if known.is_some() {
                faults.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none("paths of one machine", faults);
}

#[test]
fn the_top_of_the_workspace_shows_its_parts_and_nothing_else() {
    let entries = fs::read_dir(workspace::root()).expect("the workspace can be listed");
    let strangers = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && !TOP.contains(&name.as_str()));
    none("strangers at the top of the workspace", strangers.collect());
}
