//! Certificates for tests: an authority that issues them, good and bad, as PEM files.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};

/// An authority of its own; two of them do not trust each other's certificates.
///
/// ```
/// # fn main() -> anyhow::Result<()> {
/// use forebay_testkit::certificates::{Authority, Validity};
///
/// let folder = tempfile::tempdir()?;
/// let authority = Authority::new("tiers")?;
/// let ca = authority.write(folder.path(), "ca")?;
/// let middle = authority.issue("middle", &["localhost", "127.0.0.1"], Validity::Now)?;
/// let files = middle.write(folder.path(), "middle")?;
/// assert!(ca.exists() && files.certificate.exists() && files.key.exists());
/// # Ok(())
/// # }
/// ```
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// When a certificate can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// For the next decades.
    Now,
    /// It was, some years ago.
    Expired,
    /// It will be, in some decades.
    Later,
}

/// A certificate with its key, as PEM: for a server as well as for a client.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
    serial: SerialNumber,
}

/// Where a [`Certificate`] was written.
#[derive(Debug, Clone)]
pub struct Files {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// The system gave no random numbers.
    pub fn new(name: &str) -> Result<Authority> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("{name} authority"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// Issues a certificate for these DNS names, IP addresses or URIs (`urn:forebay:device:a`).
    ///
    /// # Errors
    /// A name cannot stand in a certificate.
    pub fn issue(&self, name: &str, names: &[&str], validity: Validity) -> Result<Certificate> {
        let (uris, plain): (Vec<&str>, Vec<&str>) =
            names.iter().partition(|name| name.contains("://") || name.starts_with("urn:"));
        let plain: Vec<String> = plain.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(plain)?;
        for uri in uris {
            params.subject_alt_names.push(rcgen::SanType::URI(uri.try_into()?));
        }
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = match validity {
            Validity::Now => (date_time_ymd(2020, 1, 1), date_time_ymd(2070, 1, 1)),
            Validity::Expired => (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
            Validity::Later => (date_time_ymd(2070, 1, 1), date_time_ymd(2080, 1, 1)),
        };
        let key = KeyPair::generate()?;
        // rcgen would take the serial from the key, which names it just as well.
        let digest = params.key_identifier(&key);
        let serial = SerialNumber::from_slice(&digest[..digest.len().min(16)]);
        params.serial_number = Some(serial.clone());
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Certificate { certificate, key: key.serialize_pem(), serial })
    }

    /// The list of revoked certificates, as PEM; good until some decades from now.
    ///
    /// # Errors
    /// The list cannot be signed.
    pub fn revocations(&self, revoked: &[&Certificate]) -> Result<String> {
        let of = |certificate: &&Certificate| RevokedCertParams {
            serial_number: certificate.serial.clone(),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2070, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(of).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }

    /// The authority's own certificate, as PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Writes the authority's certificate to `name.pem`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, folder: &Path, name: &str) -> Result<PathBuf> {
        put(folder, &format!("{name}.pem"), &self.pem())
    }
}

impl Certificate {
    /// Writes `name.pem` and `name.key`, replacing what is there, each at once.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, folder: &Path, name: &str) -> Result<Files> {
        Ok(Files {
            certificate: put(folder, &format!("{name}.pem"), &self.certificate)?,
            key: put(folder, &format!("{name}.key"), &self.key)?,
        })
    }
}

/// Writes a file beside its place and moves it there, as a careful operator does.
fn put(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let (path, new) = (folder.join(name), folder.join(format!("{name}.new")));
    std::fs::write(&new, text)?;
    std::fs::rename(&new, &path)?;
    Ok(path)
}
