//! Rust source with its comments, or its comments and strings, blanked out.

/// What [`code`] leaves of a string.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strings {
    /// Its text.
    Keep,
    /// Its quotes only.
    Blank,
}

/// The code without comments; lines stay where they are.
pub(crate) fn code(source: &str, strings: Strings) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' if !ends_in_word(&out) => raw_string(rest).unwrap_or(1),
            '\'' => character(rest),
            _ => first.len_utf8(),
        };
        let (piece, tail) = rest.split_at(end);
        let literal = piece.len() > 1 && (piece.ends_with('"') || piece.ends_with('#'));
        if piece.starts_with('/') && piece.len() > 1 {
            out.extend(piece.chars().filter(|c| *c == '\n'));
        } else if literal && strings == Strings::Blank {
            out.push('"');
            out.extend(piece.chars().filter(|c| *c == '\n'));
            out.push('"');
        } else {
            out.push_str(piece);
        }
        rest = tail;
    }
    out
}

/// The code of a file without its tests: nothing if the file is for tests, else up to its module
/// of tests, which comes last.
pub(crate) fn without_tests<'a>(path: &str, source: &'a str) -> &'a str {
    if path.contains("/tests/") || path.ends_with("tests.rs") {
        return "";
    }
    source.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default()
}

/// Whether `word` stands in `code` as a whole word.
pub(crate) fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word)
        .any(|(at, _)| !ends_in_word(&code[..at]) && !code[at + word.len()..].starts_with(is_word))
}

fn ends_in_word(text: &str) -> bool {
    text.ends_with(is_word)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(body.find(&close).map_or(text.len(), |at| 2 + hashes + at + close.len()))
}

/// A character literal, or the quote of a lifetime.
fn character(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => {
            text[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 3)
        }
        Some((at, c)) if text[at + c.len_utf8()..].starts_with('\'') => at + c.len_utf8() + 1,
        _ => 1,
    }
}

#[test]
fn comments_and_strings_are_told_from_code() {
    let source = "let a = \"unsafe // x\"; // unsafe\n/* unsafe /* b */ */ let c = '\"'; \
                  let d: &'static str = r#\"unsafe \" \"#; let e = '\\''; unsafe_code(); f(\"\\\"\", 1)";
    let blank = code(source, Strings::Blank);
    assert!(!has_word(&blank, "unsafe"), "{blank}");
    for kept in
        ["let a = \"\";", "let c = '\"';", "&'static str = \"\"", "let e = '\\'';", "f(\"\", 1)"]
    {
        assert!(blank.contains(kept), "{kept} in {blank}");
    }
    assert_eq!(blank.lines().count(), source.lines().count());
    assert!(code(source, Strings::Keep).contains("unsafe // x"));
    assert!(has_word("a unsafe{", "unsafe") && !has_word("unsafe_code", "unsafe"));
}
