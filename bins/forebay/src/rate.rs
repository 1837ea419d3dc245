//! Messages a second on a command line: a number or `unlimited`.

use std::str::FromStr;

/// How fast a fleet sends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate(pub(crate) Option<f64>);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if matches!(text, "unlimited" | "max") {
            return Ok(Self(None));
        }
        match text.replace(['_', ','], "").parse::<f64>() {
            Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Self(Some(rate))),
            _ => Err("a number of messages a second above 0, or `unlimited`".to_owned()),
        }
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(rate) => rate.fmt(f),
            None => f.write_str("unlimited"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_or_unlimited() {
        assert_eq!("150_000".parse(), Ok(Rate(Some(150_000.0))));
        assert_eq!("unlimited".parse(), Ok(Rate(None)));
        for text in ["0", "-1", "inf", "nan", "fast", ""] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
