//! The secret that a drain must be asked with.
//!
//! Read anew at each request, so that a rotated file counts at once. Without one nobody may.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The variable that holds the token, where there is no file. Not a setting: settings are printed.
pub const TOKEN_VARIABLE: &str = "FOREBAY_ADMIN_TOKEN";

/// A shorter one could be guessed.
const TOKEN_BYTES_MIN: usize = 16;

/// Where the token comes from.
#[derive(Debug, Clone, Default)]
pub struct TokenSource {
    file: Option<PathBuf>,
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// There is no token, so that nobody can have it.
    #[error("no token is set: name a file in admin.token_file, or set {TOKEN_VARIABLE}")]
    None,
    /// Too short to be a secret.
    #[error("the token is shorter than {TOKEN_BYTES_MIN} bytes")]
    Short,
    /// The file cannot be read.
    #[error("reading the token from {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The request has none, or another.
    #[error("the request has no `Authorization: Bearer` with the token")]
    Wrong,
}

impl TokenSource {
    /// The content of `file` without the white space around it, or else the environment.
    #[must_use]
    pub fn new(file: Option<&Path>) -> Self {
        Self { file: file.map(Path::to_owned) }
    }

    /// Checks what a request has after `Authorization:`.
    ///
    /// # Errors
    /// [`TokenError`]: refuse it, and say why in the log only.
    pub fn check(&self, authorization: Option<&[u8]>) -> Result<(), TokenError> {
        self.check_against(std::env::var(TOKEN_VARIABLE).ok(), authorization)
    }

    /// The token itself, for whoever is to ask with it.
    ///
    /// # Errors
    /// As for [`Self::check`], except [`TokenError::Wrong`].
    pub fn token(&self) -> Result<String, TokenError> {
        self.token_or(std::env::var(TOKEN_VARIABLE).ok())
    }

    fn token_or(&self, variable: Option<String>) -> Result<String, TokenError> {
        let text = match &self.file {
            Some(path) => fs::read_to_string(path)
                .map_err(|error| TokenError::Read { path: path.clone(), error })?,
            None => variable.ok_or(TokenError::None)?,
        };
        let token = text.trim();
        if token.len() < TOKEN_BYTES_MIN { Err(TokenError::Short) } else { Ok(token.to_owned()) }
    }

    fn check_against(
        &self,
        variable: Option<String>,
        authorization: Option<&[u8]>,
    ) -> Result<(), TokenError> {
        let token = self.token_or(variable)?;
        let given = authorization.and_then(|value| value.strip_prefix(b"Bearer "));
        let given = given.ok_or(TokenError::Wrong)?;
        if equal(token.as_bytes(), given.trim_ascii()) { Ok(()) } else { Err(TokenError::Wrong) }
    }
}

/// Compares in a time that depends on the length of what was given alone: how long an answer takes
/// must not tell how many bytes were right.
fn equal(secret: &[u8], given: &[u8]) -> bool {
    let mut different = u8::from(secret.len() != given.len());
    for (place, byte) in given.iter().enumerate() {
        different |= byte ^ secret[place % secret.len()];
    }
    std::hint::black_box(different) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef-secret";

    #[test]
    fn only_the_whole_token_is_let_in() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), format!("{TOKEN}\n")).unwrap();
        let from_file = TokenSource::new(Some(file.path()));
        let from_variable = TokenSource::default();
        let variable = || Some(TOKEN.to_owned());
        for source in [from_file, from_variable] {
            let check = |given: Option<&str>| {
                let given = given.map(|text| format!("Bearer {text}"));
                source.check_against(variable(), given.as_deref().map(str::as_bytes))
            };
            assert!(check(Some(TOKEN)).is_ok());
            for wrong in [&TOKEN[1..], "", "0123456789abcdef", &format!("{TOKEN}x")] {
                assert!(matches!(check(Some(wrong)), Err(TokenError::Wrong)), "{wrong}");
            }
            assert!(matches!(check(None), Err(TokenError::Wrong)));
            let basic = source.check_against(variable(), Some(TOKEN.as_bytes()));
            assert!(matches!(basic, Err(TokenError::Wrong)), "a token without its scheme");
        }
    }

    #[test]
    fn without_a_token_worth_the_name_nobody_is_let_in() {
        let source = TokenSource::default();
        let check = |variable: Option<&str>, given: &str| {
            let given = format!("Bearer {given}");
            source.check_against(variable.map(str::to_owned), Some(given.as_bytes()))
        };
        assert!(matches!(check(None, ""), Err(TokenError::None)));
        assert!(matches!(check(Some(""), ""), Err(TokenError::Short)));
        assert!(matches!(check(Some("short"), "short"), Err(TokenError::Short)));
        let missing = TokenSource::new(Some(Path::new("/nowhere/token")));
        assert!(matches!(missing.check_against(None, None), Err(TokenError::Read { .. })));
    }
}
