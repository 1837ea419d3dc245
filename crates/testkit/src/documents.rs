//! Code blocks of the documents, so that a test can run what a reader would type.

use std::fs;
use std::path::Path;

/// The blocks of one language (` ```sql `) below the heading `## title` of a page in `docs/`.
///
/// # Panics
/// If there is no such page or heading, or no such block below it: the documents have moved.
pub fn blocks(page: &str, title: &str, language: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{page}: {error}"));
    let found = blocks_in(&text, title, language);
    assert!(!found.is_empty(), "no {language} block below `## {title}` of {page}");
    found
}

fn blocks_in(text: &str, title: &str, language: &str) -> Vec<String> {
    let (heading, fence) = (format!("## {title}"), format!("```{language}"));
    let (mut below, mut found, mut block) = (false, Vec::new(), None::<String>);
    for line in text.lines() {
        if let Some(lines) = &mut block {
            if line == "```" {
                found.extend(block.take());
            } else {
                lines.push_str(line);
                lines.push('\n');
            }
        } else if line.starts_with("## ") {
            below = line == heading;
        } else if below && line == fence {
            block = Some(String::new());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_those_of_their_heading_and_language() {
        let page = "## A\n```sql\nSELECT 1\n```\n### A.1\n```sql\nSELECT 2\n;\n```\n```sh\nls\n```\n\
                    ## B\n```sql\nSELECT 3\n```\n";
        assert_eq!(blocks_in(page, "A", "sql"), ["SELECT 1\n", "SELECT 2\n;\n"]);
        assert_eq!(blocks_in(page, "B", "sql"), ["SELECT 3\n"]);
        assert!(blocks_in(page, "B", "sh").is_empty());
    }
}
