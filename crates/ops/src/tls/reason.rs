//! Why a handshake failed, for a metric: few values, each with another remedy.

use std::io;

use prometheus::IntCounter;
use rustls::{AlertDescription, CertificateError, Error};

use crate::{Metrics, MetricsError};

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The other end showed no certificate.
    NoCertificate,
    /// Its certificate comes from no authority that is trusted here.
    Authority,
    /// Its certificate has expired.
    Expired,
    /// Its certificate is not valid yet: look at the clocks.
    NotYetValid,
    /// Its certificate is revoked.
    Revoked,
    /// No list says whether its certificate is revoked.
    RevocationUnknown,
    /// Its certificate is for another name.
    Name,
    /// Its certificate cannot be used for another reason.
    Certificate,
    /// What it sent is not TLS, or TLS of a version that is not spoken here.
    Protocol,
    /// It refused what it was shown by this end.
    RefusedByPeer,
    /// It took too long.
    Late,
    /// It went away in the middle.
    Gone,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::NoCertificate,
        Self::Authority,
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::RevocationUnknown,
        Self::Name,
        Self::Certificate,
        Self::Protocol,
        Self::RefusedByPeer,
        Self::Late,
        Self::Gone,
    ];

    /// As the label of a metric.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Authority => "authority",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::RevocationUnknown => "revocation_unknown",
            Self::Name => "name",
            Self::Certificate => "certificate",
            Self::Protocol => "protocol",
            Self::RefusedByPeer => "refused_by_peer",
            Self::Late => "late",
            Self::Gone => "gone",
        }
    }

    /// The reason in an error of rustls.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        match error {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(error) => match error {
                CertificateError::UnknownIssuer => Self::Authority,
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Self::Expired
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Self::NotYetValid
                }
                CertificateError::Revoked => Self::Revoked,
                CertificateError::UnknownRevocationStatus => Self::RevocationUnknown,
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => Self::Name,
                _ => Self::Certificate,
            },
            Error::AlertReceived(AlertDescription::CloseNotify) => Self::Gone,
            Error::AlertReceived(_) => Self::RefusedByPeer,
            _ => Self::Protocol,
        }
    }

    /// The reason in an error of a TLS stream, which wraps those of rustls.
    #[must_use]
    pub fn of_io(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut {
            return Self::Late;
        }
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        inner.map_or(Self::Gone, Self::of)
    }
}

/// Counters of handshakes that failed, by reason.
#[derive(Debug, Clone)]
pub struct Refusals {
    counters: Vec<IntCounter>,
}

impl Refusals {
    /// Registers them for one port or link, which becomes the label `port`.
    ///
    /// # Errors
    /// They are registered already.
    pub fn register(metrics: &Metrics, port: &str) -> Result<Self, MetricsError> {
        let counters = metrics.with_label("port", port).counters(
            "forebay_tls_refused_total",
            "TLS handshakes that failed, and connections ended when their certificate went bad.",
            &["reason"],
        )?;
        let of = |reason: &Reason| counters.with_label_values(&[reason.as_str()]);
        Ok(Self { counters: Reason::ALL.iter().map(of).collect() })
    }

    /// Counts one.
    pub fn count(&self, reason: Reason) {
        self.counters[reason as usize].inc();
    }

    /// How many there were for this reason.
    #[must_use]
    pub fn get(&self, reason: Reason) -> u64 {
        self.counters[reason as usize].get()
    }
}
