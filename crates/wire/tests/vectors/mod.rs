//! The vectors of docs/protocol.md: fenced blocks whose info string is `hex NAME` or `json NAME`.
//!
//! In a hex block white space is free and `#` starts a comment; a json block is one frame on one
//! line, byte for byte.

use std::{collections::BTreeMap, fs, path::Path};

/// The blocks of one vector.
#[derive(Debug, Default, Clone)]
pub(crate) struct Vector {
    /// The bytes of its hex block.
    pub(crate) hex: Option<Vec<u8>>,
    /// The text of its json block.
    pub(crate) json: Option<String>,
}

/// All vectors whose name starts with `prefix`, by the rest of their name.
pub(crate) fn vectors(prefix: &str) -> BTreeMap<String, Vector> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocol.md");
    let text = fs::read_to_string(&path).expect("docs/protocol.md is in the repository");
    let mut vectors: BTreeMap<String, Vector> = BTreeMap::new();
    let mut block: Option<(String, String, String)> = None;
    for line in text.lines() {
        match (&mut block, line.strip_prefix("```")) {
            (None, Some(info)) => {
                let (kind, name) = info.split_once(' ').unwrap_or((info, ""));
                block = Some((kind.to_owned(), name.to_owned(), String::new()));
            }
            (Some((_, _, content)), None) => {
                content.push_str(line);
                content.push('\n');
            }
            (Some(_), Some(_)) => {
                let (kind, name, content) = block.take().expect("inside a block");
                let Some(name) = name.strip_prefix(prefix) else { continue };
                let vector = vectors.entry(name.to_owned()).or_default();
                let fresh = match kind.as_str() {
                    "hex" => vector.hex.replace(from_hex(&content)).is_none(),
                    "json" => vector.json.replace(content.trim_end().to_owned()).is_none(),
                    other => panic!("{name}: unknown kind of vector {other:?}"),
                };
                assert!(fresh, "{name} is in the document twice");
            }
            (None, None) => {}
        }
    }
    assert!(block.is_none(), "the last block is not closed");
    vectors
}

fn from_hex(content: &str) -> Vec<u8> {
    let digits: String = content
        .lines()
        .map(|line| line.split('#').next().unwrap_or(""))
        .flat_map(str::chars)
        .filter(|character| !character.is_whitespace())
        .collect();
    assert!(digits.len().is_multiple_of(2), "half a byte in {content}");
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits"))
        .collect()
}

/// Bytes as the document writes them, for a test's message.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        line.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
        text.push('\n');
    }
    text
}
