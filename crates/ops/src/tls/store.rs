//! TLS to a store: a server of somebody else, which is checked by its address and may ask who we
//! are.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde::{Deserialize, Serialize};

use super::settings::{is_given, needs, unused};
use super::{Reason, TlsError, Version, pem, provider, versions};
use crate::{Faults, Validate};

/// What is asked of a store's certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreTlsMode {
    /// An authority that is trusted, the store's name, its dates.
    #[default]
    VerifyFull,
    /// Nothing: who only listens learns nothing, and anybody can answer.
    Require,
}

/// TLS to a store. Whether it is spoken is for the store's URL to say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreTls {
    /// PEM file of the authorities that the store's certificate must come from, read at each
    /// connect like the others. Empty: those of the system, or of the file in SSL_CERT_FILE.
    pub ca: PathBuf,
    /// PEM file of the certificate and its chain that the store is shown, its own first. Empty:
    /// none.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
    /// What is asked of the store's certificate: `verify-full`, which is so without it, is an
    /// authority of `ca` and the name in the URL; `require` is nothing, so that anybody can answer.
    pub mode: Option<StoreTlsMode>,
}

impl StoreTls {
    /// Whether any of it is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        *self != Self::default()
    }

    /// Whether the store must show who it is.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.mode.unwrap_or_default() == StoreTlsMode::VerifyFull
    }

    /// Reads the files, for one connection that offers these protocols by ALPN.
    ///
    /// # Errors
    /// A file cannot be read or used, or no authority is known: do not connect.
    pub fn config(&self, protocols: &[&str]) -> Result<ClientConfig, TlsError> {
        // 1.2 too: which versions a store speaks is not ours to say.
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(Version::Tls12))
            .map_err(|error| TlsError::Unusable { key: "tls.mode", error })?;
        let builder = if self.is_verified() {
            let servers = WebPkiServerVerifier::builder_with_provider(self.roots()?, provider())
                .build()
                .map_err(|error| TlsError::Verifier { key: "tls.ca", error })?;
            builder.with_webpki_verifier(servers)
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider())))
        };
        let mut config = if is_given(&self.certificate) {
            let chain = read("tls.certificate", &self.certificate)?;
            let key = read("tls.key", &self.key)?;
            let chain = pem::chain("tls.certificate", &chain)?;
            let key = pem::private_key("tls.key", &key)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| TlsError::Unusable { key: "tls.certificate", error })?
        } else {
            builder.with_no_client_auth()
        };
        // It serves one connection: there is nothing to resume.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(config)
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, TlsError> {
        if is_given(&self.ca) {
            return pem::roots("tls.ca", &read("tls.ca", &self.ca)?);
        }
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        // Some of a system's are older than the rules; the others do.
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 { Err(TlsError::NoAuthorities) } else { Ok(Arc::new(roots)) }
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError::Read { key, path: path.to_owned(), error })
}

impl Validate for StoreTls {
    fn validate(&self, faults: &mut Faults) {
        if is_given(&self.certificate) {
            needs(faults, "key", &self.key, "certificate");
        } else {
            unused(faults, &[("key", &self.key)], "certificate");
        }
        let idle = is_given(&self.ca) && !self.is_verified();
        faults.check(!idle, "ca", "has no effect while mode is \"require\": leave one of them out");
    }
}

/// What a human must mend about TLS, if that is what an error of a client comes from: a file of
/// ours, a certificate, or an end that speaks something else. `None`: another cause, or one that
/// passes.
#[must_use]
pub fn store_refusal(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(file) = cause::<TlsError>(error) {
        return Some(file.to_string());
    }
    let found = cause::<rustls::Error>(error)?;
    let advice = match Reason::of(found) {
        Reason::Authority => "the store's certificate comes from no authority of tls.ca",
        Reason::Name => "the store's certificate is for another name than the one in the URL",
        Reason::Expired => "the store's certificate has expired",
        Reason::NotYetValid => "the store's certificate is not valid yet: look at the clocks",
        Reason::RefusedByPeer => "the store refuses what it was shown: look at tls.certificate",
        Reason::Protocol => "what answers there speaks no TLS that is understood here",
        Reason::Gone | Reason::Late => return None,
        _ => "the store's certificate cannot be used",
    };
    Some(format!("TLS: {advice} ({found})"))
}

/// An error of this type among the causes of another; some hide what they were made of.
fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let shared = error.downcast_ref::<Arc<dyn Error + Send + Sync>>();
        next = match (inner, shared) {
            (Some(inner), _) => Some(inner),
            (_, Some(shared)) => Some(shared.as_ref()),
            _ => error.source(),
        };
    }
    None
}

/// Takes any certificate whose key the other end has.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(settings: &StoreTls) -> Vec<String> {
        let mut faults = Faults::default();
        settings.validate(&mut faults);
        faults.found().iter().map(|fault| fault.path.clone()).collect()
    }

    #[test]
    fn half_a_pair_and_an_authority_that_nobody_asks_are_faults() {
        let none = Vec::<String>::new();
        assert_eq!(faults(&StoreTls::default()), none);
        let ca = StoreTls { ca: "ca".into(), ..StoreTls::default() };
        assert_eq!(faults(&ca), none);
        let require = StoreTls { mode: Some(StoreTlsMode::Require), ..ca.clone() };
        assert_eq!(faults(&require), ["ca"]);
        assert_eq!(faults(&StoreTls { certificate: "c".into(), ..ca.clone() }), ["key"]);
        assert_eq!(faults(&StoreTls { key: "k".into(), ..ca.clone() }), ["key"]);
        let pair = StoreTls { certificate: "c".into(), key: "k".into(), ..ca };
        assert_eq!(faults(&pair), none);
    }

    #[test]
    fn a_file_that_is_missing_or_empty_is_named_by_its_setting() {
        let folder = tempfile::tempdir().expect("temp dir");
        let tls = StoreTls { ca: folder.path().join("ca.pem"), ..StoreTls::default() };
        let said = tls.config(&[]).expect_err("missing").to_string();
        assert!(said.starts_with("tls.ca: ") && said.contains("ca.pem"), "{said}");
        fs::write(&tls.ca, "nothing of the kind").expect("written");
        let said = tls.config(&[]).expect_err("empty").to_string();
        assert!(said.starts_with("tls.ca: no PEM block"), "{said}");
    }

    #[test]
    fn a_refusal_is_found_however_deep_it_lies_and_a_broken_connection_is_none() {
        let unknown = rustls::CertificateError::UnknownIssuer;
        let inner = io::Error::other(rustls::Error::InvalidCertificate(unknown));
        let shared: Arc<dyn Error + Send + Sync> = Arc::new(inner);
        let outer = io::Error::other(io::Error::other(shared));
        let said = store_refusal(&outer).expect("a refusal");
        assert!(said.contains("no authority of tls.ca"), "{said}");
        assert_eq!(store_refusal(&io::Error::from(io::ErrorKind::ConnectionReset)), None);
    }
}
