//! How TLS is set up: the files, and who must show a certificate.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Faults, Validate};

/// The lowest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// TLS 1.2 with forward secrecy, and 1.3.
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 only.
    #[default]
    #[serde(rename = "1.3")]
    Tls13,
}

/// Whether who connects must show a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// None is asked for.
    #[default]
    None,
    /// One is asked for, and must be good if there is one.
    Optional,
    /// Nobody gets in without a good one.
    Required,
}

/// TLS of a port that anybody may connect to. Off while `certificate` is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerTls {
    /// PEM file of the certificate and its chain, the port's own first. Empty: no TLS.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
    /// The lowest version spoken: `1.2` or `1.3`.
    pub version_min: Version,
    /// Whether a client must show a certificate: `none`, `optional` or `required`.
    pub client_certificate: ClientCertificate,
    /// PEM file of the authorities that clients' certificates must come from.
    pub client_ca: PathBuf,
    /// PEM file of revocation lists, one from each of the authorities. Empty: none is checked.
    pub client_crl: PathBuf,
}

/// Mutual TLS between tiers, of either end: TLS 1.3, and both show a certificate. Off while
/// `certificate` is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MutualTls {
    /// PEM file of this tier's certificate and its chain, its own first. Empty: no TLS.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
    /// PEM file of the authorities that the other end's certificate must come from.
    pub ca: PathBuf,
    /// PEM file of revocation lists, one from each of the authorities. Empty: none is checked.
    pub crl: PathBuf,
}

impl ServerTls {
    /// Whether the port speaks TLS.
    #[must_use]
    pub fn is_on(&self) -> bool {
        is_given(&self.certificate)
    }

    /// A port that clients without a certificate of `ca` cannot use.
    #[must_use]
    pub fn mutual(tls: &MutualTls) -> Self {
        Self {
            certificate: tls.certificate.clone(),
            key: tls.key.clone(),
            version_min: Version::Tls13,
            client_certificate: ClientCertificate::Required,
            client_ca: tls.ca.clone(),
            client_crl: tls.crl.clone(),
        }
    }
}

impl MutualTls {
    /// Whether the link speaks TLS.
    #[must_use]
    pub fn is_on(&self) -> bool {
        is_given(&self.certificate)
    }
}

impl Validate for ServerTls {
    fn validate(&self, faults: &mut Faults) {
        let asks = self.client_certificate != ClientCertificate::None;
        if self.is_on() {
            needs(faults, "key", &self.key, "certificate");
            if asks {
                needs(faults, "client_ca", &self.client_ca, "client_certificate");
            }
        } else {
            let others = [("key", &self.key), ("client_ca", &self.client_ca)];
            unused(faults, &others, "certificate");
            faults.check(!asks, "client_certificate", "needs certificate and key");
        }
        if !asks {
            let others = [("client_ca", &self.client_ca), ("client_crl", &self.client_crl)];
            if self.is_on() {
                unused(faults, &others, "client_certificate");
            }
        }
    }
}

impl Validate for MutualTls {
    fn validate(&self, faults: &mut Faults) {
        if self.is_on() {
            needs(faults, "key", &self.key, "certificate");
            needs(faults, "ca", &self.ca, "certificate");
        } else {
            let others = [("key", &self.key), ("ca", &self.ca), ("crl", &self.crl)];
            unused(faults, &others, "certificate");
        }
    }
}

pub(super) fn is_given(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

pub(super) fn needs(faults: &mut Faults, key: &str, path: &Path, because: &str) {
    faults.check(is_given(path), key, format!("must name a PEM file, as {because} is set"));
}

/// A file that is named and would silently not be used.
pub(super) fn unused(faults: &mut Faults, others: &[(&str, &PathBuf)], without: &str) {
    for (key, path) in others {
        faults.check(!is_given(path), key, format!("has no effect while {without} is not set"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(settings: &impl Validate) -> Vec<String> {
        let mut faults = Faults::default();
        settings.validate(&mut faults);
        faults.found().iter().map(|fault| fault.path.clone()).collect()
    }

    #[test]
    fn what_is_half_set_is_a_fault_and_never_silently_no_tls() {
        let none = Vec::<String>::new();
        assert_eq!(faults(&ServerTls::default()), none);
        assert_eq!(faults(&MutualTls::default()), none);
        let mut mutual = MutualTls { certificate: "c".into(), ..MutualTls::default() };
        assert_eq!(faults(&mutual), ["key", "ca"]);
        (mutual.key, mutual.ca) = ("k".into(), "a".into());
        assert_eq!(faults(&mutual), none);
        assert_eq!(faults(&ServerTls::mutual(&mutual)), none);
        let without = MutualTls { certificate: PathBuf::new(), ..mutual };
        assert_eq!(faults(&without), ["key", "ca"]);
    }

    #[test]
    fn a_client_certificate_needs_an_authority_and_an_authority_a_client_certificate() {
        let on = ServerTls { certificate: "c".into(), key: "k".into(), ..ServerTls::default() };
        let asks = ServerTls { client_certificate: ClientCertificate::Optional, ..on.clone() };
        assert_eq!(faults(&asks), ["client_ca"]);
        let idle = ServerTls { client_ca: "a".into(), client_crl: "r".into(), ..on };
        assert_eq!(faults(&idle), ["client_ca", "client_crl"]);
        let off =
            ServerTls { client_certificate: ClientCertificate::Required, ..ServerTls::default() };
        assert_eq!(faults(&off), ["client_certificate"]);
    }
}
