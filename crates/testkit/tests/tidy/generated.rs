//! Documents that are written from the code, and must be what the code says.

use std::fs;

use crate::workspace;

/// Compares the document at `path` with what it should be, or writes it if `UPDATE_DOCS=1`.
///
/// # Panics
/// It differs; the message shows the first line that does, and how to write it anew.
#[track_caller]
pub(crate) fn compare(path: &str, wanted: &str) {
    let file = workspace::root().join(path);
    if std::env::var("UPDATE_DOCS").is_ok_and(|value| value == "1") {
        fs::write(&file, wanted).unwrap_or_else(|error| panic!("{path}: {error}"));
        return;
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    if found == wanted {
        return;
    }
    // The end of a document counts as a line, so that one that is cut short differs there.
    let (mut found, mut wanted) = (found.lines(), wanted.lines());
    let (number, found, wanted) = (1..)
        .map(|number| (number, found.next(), wanted.next()))
        .find(|(_, found, wanted)| found != wanted || found.is_none())
        .expect("the lines of a document end");
    let [found, wanted] = [found, wanted].map(|line| line.unwrap_or("(the end)"));
    panic!(
        "{path} is not what the code says, line {number}:\n  found:  {found}\n  wanted: \
         {wanted}\nUPDATE_DOCS=1 cargo test -p forebay-testkit --test tidy writes it anew"
    );
}

/// A text as a cell of a table.
pub(crate) fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
