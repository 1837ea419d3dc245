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
    let sources = workspace::sources();
    none("left undone", lines_that(&sources, is_undone));
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let ends = [".rs", ".toml", ".md", ".yml", ".yaml", ".json", ".sh", ".py", ".js", ".html"];
    let folders = ["crates", "bins", "examples", "benches", "docs", "k8s"];
    let mut texts: Vec<_> =
        folders.into_iter().flat_map(|folder| workspace::texts(folder, &ends)).collect();
    for single in ["README.md", "Cargo.toml", "docker-compose.yml", ".ci/run"] {
        if let Ok(text) = fs::read_to_string(workspace::root().join(single)) {
            texts.push((single.to_owned(), text));
        }
    }
    none("paths of one machine", lines_that(&texts, knows_a_machine));
}

fn lines_that(texts: &[(String, String)], fault: fn(&str) -> bool) -> Vec<String> {
    let lines = texts.iter().flat_map(|(path, text)| {
        text.lines().enumerate().map(move |(number, line)| (path, number + 1, line))
    });
    lines
        .filter(|(_, _, line)| fault(line))
        .map(|(path, number, line)| format!("{path}:{number}: {}", line.trim()))
        .collect()
}

/// A macro or a note that says that something is missing.
fn is_undone(line: &str) -> bool {
    // Put together, so that this file does not hold them.
    let macros = [["to", "do"], ["db", "g"], ["unimple", "mented"]].map(|word| word.concat() + "!");
    let notes = [["FIX", "ME"], ["TO", "DO"], ["XX", "X"]].map(|word| word.concat());
    macros.iter().any(|word| line.contains(word.as_str()))
        || notes.iter().any(|note| has_word(line, note))
}

/// A path into a folder that only one machine or one person has.
fn knows_a_machine(line: &str) -> bool {
    ["work", "root", "home"].iter().any(|folder| {
        // Put together, so that this file does not hold them.
        line.match_indices(&format!("/{folder}/")).any(|(at, _)| {
            // The start of a path, not a part of a longer one.
            let before = line[..at].chars().next_back();
            before.is_none_or(|c| !c.is_alphanumeric() && !['.', '-', '_', '}', '~'].contains(&c))
        })
    })
}

#[test]
fn what_is_undone_or_local_is_told_from_what_only_looks_so() {
    assert!(is_undone(&["    to", "do!()"].concat()) && is_undone(&["// FIX", "ME: x"].concat()));
    assert!(!is_undone("// what is left to do! and todos"));
    assert!(knows_a_machine(&["cd /wo", "rk/main"].concat()));
    assert!(knows_a_machine(&["\"/ro", "ot/x\""].concat()));
    assert!(!knows_a_machine(&["benches/wo", "rk/x, ./ho", "me/y, $HOME/.cache"].concat()));
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
