//! The listening end.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

use super::settings::is_given;
use super::{
    ClientCertificate, MutualTls, Reason, Refusals, ServerTls, TlsError, pem, provider, versions,
};
use crate::Metrics;
use crate::reload::{ReloadError, Watched};

/// The TLS of a port, from files that are followed. Clones share it.
#[derive(Debug, Clone)]
pub struct TlsServer {
    loaded: Watched<Loaded>,
    refusals: Refusals,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl TlsServer {
    /// Reads the files and follows them; `port` names it in logs and metrics.
    ///
    /// # Errors
    /// A file cannot be read or used: do not listen.
    pub fn open(port: &str, settings: &ServerTls, metrics: &Metrics) -> Result<Self, ReloadError> {
        let mut files = vec![settings.certificate.clone(), settings.key.clone()];
        let asks = settings.client_certificate != ClientCertificate::None;
        let optional = [&settings.client_ca, &settings.client_crl];
        files
            .extend(optional.into_iter().filter(|path| asks && is_given(path)).map(PathBuf::clone));
        let how = settings.clone();
        let loaded = Watched::open(&format!("{port}_tls"), files, metrics, move |contents| {
            load(&how, contents)
        })?;
        Ok(Self { loaded, refusals: Refusals::register(metrics, port)? })
    }

    /// As [`TlsServer::open`], for a port that only other tiers may use: TLS 1.3, and a certificate
    /// is required.
    ///
    /// # Errors
    /// As for [`TlsServer::open`].
    pub fn open_mutual(
        port: &str,
        settings: &MutualTls,
        metrics: &Metrics,
    ) -> Result<Self, ReloadError> {
        Self::open(port, &ServerTls::mutual(settings), metrics)
    }

    /// The configuration for the next connection.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.loaded.get().config)
    }

    /// Changes when the files have: a reason to look at open connections again.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.loaded.generation()
    }

    /// Whether a client that showed this chain would be let in now.
    ///
    /// # Errors
    /// It would not: the certificate has expired or was revoked meanwhile, or the authorities have
    /// changed. Close the connection.
    pub fn recheck(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let loaded = self.loaded.get();
        let Some(clients) = &loaded.clients else { return Ok(()) };
        match chain.split_first() {
            Some((own, above)) => {
                clients.verify_client_cert(own, above, UnixTime::now()).map(|_| ())
            }
            None if clients.client_auth_mandatory() => Err(rustls::Error::NoCertificatesPresented),
            None => Ok(()),
        }
    }

    /// Counts a handshake that failed, or a connection that was ended by [`Self::recheck`].
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

fn load(settings: &ServerTls, contents: &[Vec<u8>]) -> Result<Loaded, TlsError> {
    let chain = pem::chain("certificate", &contents[0])?;
    let key = pem::private_key("key", &contents[1])?;
    let clients = match settings.client_certificate {
        ClientCertificate::None => None,
        asks => Some(verifier(asks, &contents[2], contents.get(3))?),
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(settings.version_min))
        .map_err(|error| TlsError::Unusable { key: "version_min", error })?;
    let builder = match &clients {
        Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients)),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| TlsError::Unusable { key: "certificate", error })?;
    if clients.is_some() {
        // A resumed session skips the look at the certificate, which may be revoked by then.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Loaded { config: Arc::new(config), clients })
}

fn verifier(
    asks: ClientCertificate,
    authorities: &[u8],
    lists: Option<&Vec<u8>>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = pem::roots("client_ca", authorities)?;
    let revoked = pem::revoked("client_crl", lists)?;
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider()).with_crls(revoked);
    let builder = match asks {
        ClientCertificate::Required => builder,
        ClientCertificate::None | ClientCertificate::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| TlsError::Verifier { key: "client_ca", error })
}
