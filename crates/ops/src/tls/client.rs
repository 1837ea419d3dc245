//! The dialing end.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::{Resumption, WebPkiServerVerifier};

use super::settings::is_given;
use super::{MutualTls, Reason, Refusals, TlsError, Version, pem, provider, versions};
use crate::Metrics;
use crate::reload::{ReloadError, Watched};

/// The TLS of a link to another tier, from files that are followed. Clones share it.
#[derive(Debug, Clone)]
pub struct TlsClient {
    loaded: Watched<Arc<ClientConfig>>,
    refusals: Refusals,
}

impl TlsClient {
    /// Reads the files and follows them; `port` names the link in logs and metrics.
    ///
    /// # Errors
    /// A file cannot be read or used: do not connect.
    pub fn open(port: &str, settings: &MutualTls, metrics: &Metrics) -> Result<Self, ReloadError> {
        let mut files =
            vec![settings.certificate.clone(), settings.key.clone(), settings.ca.clone()];
        files.extend(Some(settings.crl.clone()).filter(|path| is_given(path)));
        let loaded = Watched::open(&format!("{port}_tls"), files, metrics, load)?;
        Ok(Self { loaded, refusals: Refusals::register(metrics, port)? })
    }

    /// The configuration for the next connection.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.loaded.get())
    }

    /// Changes when the files have.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.loaded.generation()
    }

    /// Counts a handshake that failed.
    pub fn failed(&self, error: &io::Error) {
        self.refusals.count(Reason::of_io(error));
    }

    /// Counters of handshakes that failed here.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Looks at the files now; whether a new version was taken over.
    #[must_use]
    pub fn look(&self) -> bool {
        self.loaded.look()
    }
}

fn load(contents: &[Vec<u8>]) -> Result<Arc<ClientConfig>, TlsError> {
    let chain = pem::chain("certificate", &contents[0])?;
    let key = pem::private_key("key", &contents[1])?;
    let roots = pem::roots("ca", &contents[2])?;
    let revoked = pem::revoked("crl", contents.get(3))?;
    let servers = WebPkiServerVerifier::builder_with_provider(roots, provider())
        .with_crls(revoked)
        .build()
        .map_err(|error| TlsError::Verifier { key: "ca", error })?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(Version::Tls13))
        .map_err(|error| TlsError::Unusable { key: "certificate", error })?
        .with_webpki_verifier(servers)
        .with_client_auth_cert(chain, key)
        .map_err(|error| TlsError::Unusable { key: "certificate", error })?;
    // A resumed session skips the look at the certificate, which may be revoked by then.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
