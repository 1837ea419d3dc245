//! What `sim` and `tail` show a server, and whom they trust.

use std::{collections::HashMap, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use forebay_client::Tls;
use forebay_wire::device::Token;

/// The credential and the authorities.
#[derive(Debug, Args)]
pub(crate) struct Credentials {
    /// A token or an API key `id.secret`. Others on this machine see it in the list of processes:
    /// better use --key-file.
    #[arg(long, value_name = "TOKEN", conflicts_with = "key_file")]
    token: Option<String>,
    /// File with one token; or with lines `device token`, or those that `forebay keys add --json`
    /// prints, each for one device.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Trust the authorities in this PEM file for wss:// [default: those of the system].
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Show the certificate in this PEM file.
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_certificate: Option<PathBuf>,
    /// The certificate's private key.
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,
}

impl Credentials {
    /// The tokens by device; the one under the empty id is for all.
    pub(crate) fn tokens(&self) -> Result<HashMap<String, Token<'static>>> {
        if let Some(token) = &self.token {
            return Ok(HashMap::from([(String::new(), Token::new(token.clone()))]));
        }
        let Some(path) = &self.key_file else { return Ok(HashMap::new()) };
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let tokens: HashMap<_, _> = lines
            .enumerate()
            .map(|(number, line)| {
                parse(line).with_context(|| format!("{} line {}", path.display(), number + 1))
            })
            .collect::<Result<_>>()?;
        if tokens.is_empty() {
            bail!("{} holds no token", path.display());
        }
        Ok(tokens)
    }

    /// The one token.
    pub(crate) fn token(&self) -> Result<Option<Token<'static>>> {
        Ok(self.tokens()?.into_values().next())
    }

    /// TLS as it was asked for.
    pub(crate) fn tls(&self) -> Result<Option<Tls>> {
        let ca = self.ca.as_deref();
        Ok(match (&self.client_certificate, &self.client_key) {
            (Some(certificate), Some(key)) => Some(Tls::showing(ca, certificate, key)?),
            _ if ca.is_some() => Some(Tls::trusting(ca)?),
            _ => None,
        })
    }
}

/// A line: its device and its token.
fn parse(line: &str) -> Result<(String, Token<'static>)> {
    if line.starts_with('{') {
        #[derive(serde::Deserialize)]
        struct Line {
            #[serde(default)]
            device: String,
            token: String,
        }
        // The error would quote the line.
        let line: Line = serde_json::from_str(line)
            .map_err(|_| anyhow::anyhow!("not an object with device and token"))?;
        return Ok((line.device, Token::new(line.token)));
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    match (words.next(), words.next(), words.next()) {
        (Some(token), None, _) => Ok((String::new(), Token::new(token))),
        (Some(device), Some(token), None) => Ok((device, Token::new(token))),
        _ => bail!("neither a token nor a device and a token"),
    }
}
