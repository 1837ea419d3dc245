//! How a server is reached: by the URL, with the password and the certificates of the moment.

use std::{fs, future::Future, path::Path, pin::Pin, str::FromStr as _};

use forebay_ops::tls::{StoreTls, store_refusal};
use tokio_postgres::{
    Client, Config, Error, NoTls,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What moves a connection's bytes, until it ends.
pub(super) type Driving = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum DialError {
    /// A file of ours cannot be read or used.
    File(String),
    /// The server refused, or is away.
    Server(Error),
}

/// How to connect, by a URL or words as libpq takes them.
///
/// # Errors
/// What is wrong with it, without what stands in it: that may be a password.
pub(super) fn parse(url: &str) -> Result<Config, String> {
    Config::from_str(url).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        let advice = if url.contains("ssl") {
            "; sslmode is disable, prefer or require, and certificates are named in [..tls]"
        } else {
            ""
        };
        format!("is not understood: {error}{}{advice}", cause.unwrap_or_default())
    })
}

/// Whether TLS is asked for: by `sslmode=require`, or by any setting of it. `prefer`, which is what
/// a URL without it says, asks for none: encryption that may fail to be there protects nobody.
fn speaks_tls(config: &Config, tls: &StoreTls) -> bool {
    config.get_ssl_mode() == SslMode::Require || tls.is_set()
}

/// What a URL says of the network, for those who check settings.
pub(crate) struct Address(Config);

impl Address {
    /// As [`parse`].
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        parse(url).map(Self)
    }

    /// Whether it says that TLS is not spoken.
    pub(crate) fn forbids_tls(&self) -> bool {
        self.0.get_ssl_mode() == SslMode::Disable
    }

    /// Whether TLS is spoken, with these settings beside it.
    pub(crate) fn speaks_tls(&self, tls: &StoreTls) -> bool {
        speaks_tls(&self.0, tls)
    }

    /// Whether a socket in a folder of this machine is among the servers.
    pub(crate) fn is_folder(&self) -> bool {
        self.0.get_hosts().iter().any(|host| !matches!(host, Host::Tcp(_)))
    }

    /// Whether it has addresses and no names, by which TLS knows a server.
    pub(crate) fn is_nameless(&self) -> bool {
        self.0.get_hosts().is_empty()
    }

    /// Whether a password stands in it.
    pub(crate) fn has_password(&self) -> bool {
        self.0.get_password().is_some()
    }

    /// The machines that are connected to.
    pub(crate) fn hosts(&self) -> Vec<String> {
        // Where addresses are given, names are only looked at by TLS.
        let addresses = self.0.get_hostaddrs();
        if !addresses.is_empty() {
            return addresses.iter().map(ToString::to_string).collect();
        }
        let names = self.0.get_hosts().iter().filter_map(|host| match host {
            Host::Tcp(name) => Some(name.clone()),
            _ => None,
        });
        names.collect()
    }
}

/// The password in this file.
pub(super) fn set_password(config: &mut Config, file: Option<&Path>) -> Result<(), String> {
    if let Some(path) = file {
        let password = fs::read_to_string(path);
        let password =
            password.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        config.password(password.trim_end_matches(['\r', '\n']));
    }
    Ok(())
}

/// Connects; nothing is sent or received but while the second part is polled.
pub(super) async fn dial(
    config: &mut Config,
    tls: &StoreTls,
) -> Result<(Client, Driving), DialError> {
    if !speaks_tls(config, tls) {
        let (client, connection) = config.connect(NoTls).await.map_err(DialError::Server)?;
        return Ok((client, Box::pin(connection)));
    }
    let client = tls.config(&["postgresql"]);
    let client = client.map_err(|error| DialError::File(error.to_string()))?;
    let connecting = config.ssl_mode(SslMode::Require).connect(MakeRustlsConnect::new(client));
    let (client, connection) = connecting.await.map_err(DialError::Server)?;
    Ok((client, Box::pin(connection)))
}

/// What a human must mend about TLS, if that is what failed.
pub(super) fn tls_refusal(error: &Error) -> Option<String> {
    let source = std::error::Error::source(error).map(ToString::to_string);
    // Its only word for it.
    if source.as_deref() == Some("server does not support TLS") {
        return Some("TLS: the server speaks none".to_owned());
    }
    store_refusal(error)
}
