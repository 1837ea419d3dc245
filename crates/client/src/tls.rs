//! TLS of a client: whom it trusts, and the certificate it shows.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::net::TcpStream;
use tokio_rustls::rustls::{
    ClientConfig, ConfigBuilder, Error, RootCertStore,
    client::WantsClientCert,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem, pem::PemObject as _},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

/// Where Linux distributions keep the authorities that they trust.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// Whom a client trusts, and the certificate it shows. Clones share it; connections that use the
/// same one resume earlier sessions.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
}

/// Why there is no TLS: a file is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// A file holds no PEM of its kind.
    #[error("{}: {error}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: pem::Error,
    },
    /// The certificates or the key cannot be used.
    #[error("TLS: {0}")]
    Unusable(#[from] Error),
    /// No file of trusted authorities was found; name one.
    #[error("no file of trusted authorities: set SSL_CERT_FILE, or name one")]
    NoAuthorities,
}

impl Tls {
    /// Trusts the authorities in the PEM file `ca`, or those of the system.
    ///
    /// # Errors
    /// [`TlsError`]: a file is wrong.
    pub fn trusting(ca: Option<&Path>) -> Result<Self, TlsError> {
        let config = builder(ca)?.with_no_client_auth();
        Ok(Self { config: Arc::new(config) })
    }

    /// As [`Self::trusting`], and shows the certificate in `certificate` with its key in `key`.
    ///
    /// # Errors
    /// [`TlsError`]: a file is wrong, or the key is another's.
    pub fn showing(ca: Option<&Path>, certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = certificates(certificate)?;
        let own = PrivateKeyDer::from_pem_slice(&read(key)?)
            .map_err(|error| TlsError::Pem { path: key.to_owned(), error })?;
        let config = builder(ca)?.with_client_auth_cert(chain, own)?;
        Ok(Self { config: Arc::new(config) })
    }

    /// Does the handshake with `host`.
    pub(crate) async fn connect(&self, host: &str, tcp: TcpStream) -> io::Result<Stream> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let stream = TlsConnector::from(Arc::clone(&self.config)).connect(name, tcp).await?;
        Ok(Either::Right(Box::new(stream)))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

type Builder = ConfigBuilder<ClientConfig, WantsClientCert>;

fn builder(ca: Option<&Path>) -> Result<Builder, TlsError> {
    let path = match ca {
        Some(path) => path.to_owned(),
        None => system().ok_or(TlsError::NoAuthorities)?,
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(&path)?);
    if added == 0 {
        return Err(TlsError::NoAuthorities);
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots))
}

fn system() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.or_else(|| SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Pem { path: path.to_owned(), error })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError::Read { path: path.to_owned(), error })
}

/// What a WebSocket is spoken over: TCP, or TLS over TCP.
pub(crate) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;
