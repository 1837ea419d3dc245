//! What PEM files hold, by the setting that names them.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::TlsError;

/// A certificate and its chain, its own first.
pub(super) fn chain(
    key: &'static str,
    file: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    all(key, "CERTIFICATE", file)
}

/// The first private key: PKCS#8, PKCS#1 or SEC1.
pub(super) fn private_key(
    key: &'static str,
    file: &[u8],
) -> Result<PrivateKeyDer<'static>, TlsError> {
    match PrivateKeyDer::from_pem_slice(file) {
        Ok(found) => Ok(found),
        Err(rustls::pki_types::pem::Error::NoItemsFound) => {
            Err(TlsError::Empty { key, kind: "PRIVATE KEY" })
        }
        Err(error) => Err(TlsError::Pem { key, error }),
    }
}

/// Authorities.
pub(super) fn roots(key: &'static str, file: &[u8]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(key, file)? {
        roots.add(certificate).map_err(|error| TlsError::Unusable { key, error })?;
    }
    Ok(Arc::new(roots))
}

/// Revocation lists; none without a file.
pub(super) fn revoked(
    key: &'static str,
    file: Option<&Vec<u8>>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    file.map_or(Ok(Vec::new()), |file| all(key, "X509 CRL", file))
}

fn all<T: PemObject>(
    key: &'static str,
    kind: &'static str,
    file: &[u8],
) -> Result<Vec<T>, TlsError> {
    let found: Vec<T> = T::pem_slice_iter(file)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Pem { key, error })?;
    if found.is_empty() { Err(TlsError::Empty { key, kind }) } else { Ok(found) }
}
