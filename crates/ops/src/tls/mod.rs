//! TLS of the ports and links of a tier: rustls configurations from PEM files, kept up to date.
//!
//! | for | settings | use |
//! | --- | --- | --- |
//! | a port that devices or readers connect to | [`ServerTls`] | [`TlsServer`] |
//! | a port that other tiers connect to | [`MutualTls`] | [`TlsServer::open_mutual`] |
//! | a link to another tier's port | [`MutualTls`] | [`TlsClient`] |
//! | a connection to a store | [`StoreTls`] | [`StoreTls::config`], at each connect |
//!
//! A new connection gets the configuration of the moment: [`TlsServer::config`] is asked for each.
//! Files that change are taken over within seconds, and kept out if they are bad (see
//! [`crate::reload`]). A connection that is open already can be looked at again with
//! [`TlsServer::recheck`], so that a revoked or expired certificate does not outlive its revocation
//! by a connection that stays. Refusals are counted by [`Reason`].
//!
//! Not here: sockets. Who does the I/O uses tokio-rustls with the configurations from here.

mod client;
mod pem;
mod reason;
mod server;
mod settings;
mod store;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::VerifierBuilderError;
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedProtocolVersion, pki_types};

pub use client::TlsClient;
pub use reason::{Reason, Refusals};
pub use server::TlsServer;
pub use settings::{ClientCertificate, MutualTls, ServerTls, Version};
pub use store::{StoreTls, StoreTlsMode, store_refusal};

/// What is wrong with the files, without what is in them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{key}: {}: {error}", path.display())]
    Read {
        /// The setting that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// No authority is named, and the system has none.
    #[error("tls.ca: not set, and the system has no authorities (see SSL_CERT_FILE)")]
    NoAuthorities,
    /// A file holds no item of its kind.
    #[error("{key}: no PEM block of a {kind} in the file")]
    Empty {
        /// The setting that names the file.
        key: &'static str,
        /// What was looked for.
        kind: &'static str,
    },
    /// A file is no PEM, or a block in it is damaged.
    #[error("{key}: {error}")]
    Pem {
        /// The setting that names the file.
        key: &'static str,
        /// What is wrong with it.
        error: pki_types::pem::Error,
    },
    /// A certificate or key cannot be used, or they do not belong together.
    #[error("{key}: {error}")]
    Unusable {
        /// The setting that names the file.
        key: &'static str,
        /// What rustls says.
        error: rustls::Error,
    },
    /// The authorities or the revocation lists cannot be used.
    #[error("{key}: {error}")]
    Verifier {
        /// The setting that names the file.
        key: &'static str,
        /// What rustls says.
        error: VerifierBuilderError,
    },
}

/// ring: it builds in seconds with a C compiler alone, and links statically.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn versions(lowest: Version) -> &'static [&'static SupportedProtocolVersion] {
    static SPOKEN: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match lowest {
        Version::Tls12 => &SPOKEN,
        Version::Tls13 => &SPOKEN[..1],
    }
}

#[cfg(test)]
mod tests;
