//! What a request asks for: each parameter checked, unknown and repeated ones refused by name.

use std::str::FromStr;

use forebay_wire::live::Position;

use super::error::ApiError;
use crate::lake::name::time_of_text;

/// The parameters of a query, taken out one by one; what is left over at the end is unknown.
#[derive(Debug)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn new(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// All values of a parameter that may be repeated.
    pub(super) fn all(&mut self, name: &str) -> Vec<String> {
        let mut found = Vec::new();
        self.0.retain_mut(|(key, value)| {
            let wanted = key == name;
            if wanted {
                found.push(std::mem::take(value));
            }
            !wanted
        });
        found
    }

    /// The value of a parameter that may be given once.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        let mut found = self.all(name);
        if found.len() > 1 {
            return Err(ApiError::bad(format!("{name} is given {} times", found.len())));
        }
        match found.pop() {
            Some(value) if value.is_empty() => Err(ApiError::bad(format!("{name} is empty"))),
            found => Ok(found),
        }
    }

    /// The value of a parameter that must be given.
    pub(super) fn required(&mut self, name: &str) -> Result<String, ApiError> {
        self.text(name)?.ok_or_else(|| ApiError::bad(format!("{name} is missing")))
    }

    /// A value of some type; `expected` says what it should have been.
    pub(super) fn parsed<T: FromStr>(
        &mut self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let parsed = text.parse();
        parsed.map(Some).map_err(|_| ApiError::bad(format!("{name} is {text:?}, not {expected}")))
    }

    /// A time: microseconds since 1970, or RFC 3339 in UTC.
    pub(super) fn time(&mut self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let time = text.parse().ok().or_else(|| time_of_text(&text));
        time.map(Some).ok_or_else(|| {
            ApiError::bad(format!(
                "{name} is {text:?}, neither microseconds since 1970 nor a time such as \
                 2026-11-22T14:00:00Z"
            ))
        })
    }

    /// A whole number within bounds.
    pub(super) fn count(
        &mut self,
        name: &str,
        default: usize,
        max: usize,
    ) -> Result<usize, ApiError> {
        let count = self.parsed(name, "a whole number")?.unwrap_or(default);
        if count == 0 || count > max {
            return Err(ApiError::bad(format!("{name} is {count}, it must be from 1 to {max}")));
        }
        Ok(count)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        Ok(self.parsed(name, "true or false")?.unwrap_or(false))
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|&(_, value)| Some(value)).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            ApiError::bad(format!("{name} is {text:?}, not one of {}", words.join(", ")))
        })
    }

    /// Refuses what nobody has taken.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        match self.0.first() {
            Some((name, _)) => Err(ApiError::bad(format!("unknown parameter {name:?}"))),
            None => Ok(()),
        }
    }
}

/// A position as events show it: `queue/epoch:counter`.
pub(super) fn position(text: &str) -> Result<Position, ApiError> {
    let parsed = text.split_once('/').and_then(|(queue, seq)| {
        Some(Position { queue: queue.parse().ok()?, seq: seq.parse().ok()? })
    });
    parsed.ok_or_else(|| ApiError::bad(format!("{text:?} is not a position: queue/epoch:counter")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params::new(pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect())
    }

    #[test]
    fn mistakes_are_named() {
        assert!(params(&[("device", "a"), ("device", "b")]).text("device").is_err());
        assert!(params(&[]).required("device").is_err());
        assert!(params(&[("limit", "0")]).count("limit", 1, 9).is_err());
        assert!(params(&[("limit", "10")]).count("limit", 1, 9).is_err());
        assert!(params(&[("limit", "x")]).count("limit", 1, 9).is_err());
        assert!(params(&[("from", "yesterday")]).time("from").is_err());
        assert!(params(&[("order", "up")]).word("order", &[("asc", 1)]).is_err());
        assert!(params(&[("devise", "a")]).finish().is_err());
        assert!(position("1/2").is_err());
    }

    #[test]
    fn times_are_microseconds_or_rfc_3339() {
        for (text, time_us) in [
            ("1700000000000000", 1_700_000_000_000_000),
            ("2023-11-14T22:13:20Z", 1_700_000_000_000_000),
            ("2023-11-14T22:13:20.5Z", 1_700_000_000_500_000),
        ] {
            assert_eq!(params(&[("from", text)]).time("from"), Ok(Some(time_us)), "{text}");
        }
    }
}
