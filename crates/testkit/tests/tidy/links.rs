//! A link from one document to another file leads somewhere.

use crate::{none, workspace};

#[test]
fn links_between_documents_lead_somewhere() {
    let root = workspace::root();
    let mut documents: Vec<_> = ["docs", "crates", "bins", "examples", "benches", "k8s"]
        .into_iter()
        .flat_map(|folder| workspace::texts(folder, &[".md"]))
        .collect();
    if let Ok(text) = std::fs::read_to_string(root.join("README.md")) {
        documents.push(("README.md".to_owned(), text));
    }
    let mut faults = Vec::new();
    for (path, text) in documents {
        let folder = root.join(&path).parent().expect("a file lies in a folder").to_owned();
        for target in targets(&text) {
            let file = target.split('#').next().unwrap_or_default();
            let outside = target.contains("://") || target.starts_with("mailto:");
            if !outside && !file.is_empty() && !folder.join(file).exists() {
                faults.push(format!("{path} links to {target}"));
            }
        }
    }
    none("links that lead nowhere", faults);
}

/// What stands in the round brackets of `[text](target)`, outside of code.
fn targets(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Odd pieces lie between backquotes.
        for piece in line.split('`').step_by(2) {
            for (at, _) in piece.match_indices("](") {
                let target = piece[at + 2..].split(')').next().unwrap_or_default();
                found.push(target.split_whitespace().next().unwrap_or_default().to_owned());
            }
        }
    }
    found
}

#[test]
fn links_are_found_outside_of_code() {
    let text = "see [a](a.md) and [b](b.md#x \"title\")\n```\n[c](c.md)\n```\n`[d](d.md)` [e](e)";
    assert_eq!(targets(text), ["a.md", "b.md#x", "e"]);
}
