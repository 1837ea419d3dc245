//! What an answer of the server means for a block: again, never this row, or not before a human.

use clickhouse::error::Error;
use forebay_ops::tls::store_refusal;

use crate::sink::Outcome;

/// Codes that say that rows are at fault, whatever is done to the server: parsing and constraints.
const POISON: &[u32] = &[6, 26, 27, 33, 53, 69, 117, 469];
/// Codes that a human must mend: no such column, database or table, no right, wrong password, a
/// table that is read-only, no such function or setting, a statement it does not know, a volume
/// that is not there, tables that
/// are not ours.
const MISCONFIGURED: &[u32] =
    &[10, 16, 20, 36, 46, 47, 57, 60, 62, 81, 115, 164, 192, 193, 450, 497, 516];

/// What an error means.
pub(super) fn of(error: &Error) -> Outcome {
    if let Some(reason) = store_refusal(error) {
        return Outcome::Misconfigured(format!("ClickHouse: {reason}"));
    }
    match error {
        Error::BadResponse(text) => of_text(text),
        // Our own request cannot be made: an address that is none, TLS that is not there.
        Error::InvalidParams(_) | Error::Unsupported(_) => {
            Outcome::Misconfigured(format!("ClickHouse: {}", whole(error)))
        }
        other => Outcome::Transient(format!("ClickHouse: {}", whole(other))),
    }
}

/// What an answer other than 200 means.
fn of_text(text: &str) -> Outcome {
    let reason = format!("ClickHouse: {}", shortened(text));
    match code(text) {
        // It names the partitions of one block: the block will always have them.
        Some(252) if text.contains("single INSERT block") => Outcome::Poison(reason),
        Some(code) if POISON.contains(&code) => Outcome::Poison(reason),
        Some(code) if MISCONFIGURED.contains(&code) => Outcome::Misconfigured(reason),
        // Everything else passes by itself, or is told by the alarm of a sink that lags: memory,
        // too many parts or queries, a disk that is full, a proxy that answers 503.
        _ => Outcome::Transient(reason),
    }
}

/// Whether the database or a table is not there.
pub(super) fn is_missing(error: &Error) -> bool {
    matches!(error, Error::BadResponse(text) if matches!(code(text), Some(60 | 81)))
}

/// The number in `Code: 60. DB::Exception: ...`.
fn code(text: &str) -> Option<u32> {
    let at = text.find("Code: ")? + "Code: ".len();
    let digits = text[at..].split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// An error with its causes: the network's own word is the last of them.
fn whole(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// The first words; a server may answer with a page.
fn shortened(text: &str) -> String {
    const CHARACTERS_MAX: usize = 400;
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(CHARACTERS_MAX) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_sorted_by_what_helps() {
        let sorted = |text: &str| match of(&Error::BadResponse(text.to_owned())) {
            Outcome::Ack => "ack",
            Outcome::Transient(_) => "transient",
            Outcome::Poison(_) => "poison",
            Outcome::Misconfigured(_) => "misconfigured",
        };
        for (text, expected) in [
            ("Code: 252. DB::Exception: Too many parts (300)", "transient"),
            ("Code: 252. DB::Exception: Too many partitions for single INSERT block", "poison"),
            ("Code: 241. DB::Exception: Memory limit exceeded", "transient"),
            ("Code: 243. DB::Exception: Cannot reserve 1.00 MiB, not enough space", "transient"),
            ("Code: 60. DB::Exception: Table a.b does not exist", "misconfigured"),
            ("Code: 516. DB::Exception: forebay: Authentication failed", "misconfigured"),
            ("Code: 469. DB::Exception: Constraint `c` is violated at row 1", "poison"),
            ("Code: 27. DB::Exception: Cannot parse input", "poison"),
            ("<html><h1>503 Service Unavailable</h1></html>", "transient"),
            ("", "transient"),
        ] {
            assert_eq!(sorted(text), expected, "{text}");
        }
        assert!(matches!(of(&Error::TimedOut), Outcome::Transient(_)));
    }

    #[test]
    fn a_page_for_an_answer_is_cut_to_its_first_words() {
        let Outcome::Transient(reason) = of_text(&"long \n".repeat(1000)) else { panic!() };
        assert!(reason.len() < 450 && !reason.contains('\n'), "{reason}");
    }
}
