//! Who may do what: which device a credential writes as, which tenant it reads.
//!
//! A [`Gate`] checks what a stranger presents and says what it grants. It knows three kinds of
//! credential: API keys `id.secret` from a file that `forebay keys` keeps, JWTs signed by a pinned
//! key, and certificates whose chain TLS has checked already. What it once granted it can be asked
//! about again: [`Gate::holds`] turns false when the credential has expired or was revoked, so
//! that open connections end.
//!
//! Promises: the device and the tenant come from the credential, never from what the peer says
//! beside it; a secret is compared in constant time and never printed; a file that cannot be read
//! changes nothing. Why SHA-256 is enough for the secrets: docs/decisions/0004-key-hashes.md.
//!
//! Not here: sockets and HTTP (the front and the storage tier present what they were given), TLS
//! (`forebay_ops::tls`).
#![forbid(unsafe_code)]

mod certificate;
pub mod config;
mod gate;
mod grant;
pub mod jwt;
pub mod keys;

pub use certificate::{CertificateError, of_certificate};
pub use config::Auth;
pub use gate::{Gate, GateError};
pub use grant::{Admission, Denied, Grant, Standing, unix_now_s};

/// Longest token that is looked at; a JWT with a few claims has some 500 bytes.
pub const TOKEN_BYTES_MAX: usize = 4096;
