//! JSON Web Tokens (RFC 7519), as little of them as is needed: signed by a pinned key, for us, in
//! their time.
//!
//! The algorithm follows from the pinned key, and the header must say the same: `none`, HMAC and
//! keys that the token brings along (`jwk`, `jku`, `x5c`) have no place here. Written over `ring`,
//! which TLS brings in any case: a general library would bring the algorithms we refuse.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use forebay_model::{DeviceId, TenantId};
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};
use serde::Deserialize;

use crate::{Admission, Denied, Grant, Standing, config::Jwt, grant::Source};

/// The scope that lets a token write as the device in its `sub`.
pub const SCOPE_WRITE: &str = "forebay.write";
/// The scope that lets a token read what its tenant's devices have sent.
pub const SCOPE_READ: &str = "forebay.read";

/// What a SubjectPublicKeyInfo of an Ed25519 key begins with (RFC 8410); 32 bytes follow.
const ED25519_HEAD: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What one of a P-256 key begins with (RFC 5480); an uncompressed point of 65 bytes follows.
const P256_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A pinned public key; its kind decides the algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedKey {
    kind: KeyKind,
    bytes: Box<[u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    Ed25519,
    P256,
}

/// Why a file is no pinned key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadKey;

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not one PEM block `PUBLIC KEY` of an Ed25519 or P-256 key")
    }
}

impl PinnedKey {
    /// Reads a PEM file with one `PUBLIC KEY` block.
    ///
    /// # Errors
    /// [`BadKey`]: something else is in it, such as an RSA key or a private one.
    pub fn from_pem(pem: &[u8]) -> Result<Self, BadKey> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| BadKey)?;
        if let Some(bytes) = der.strip_prefix(&ED25519_HEAD).filter(|bytes| bytes.len() == 32) {
            return Ok(Self { kind: KeyKind::Ed25519, bytes: bytes.into() });
        }
        match der.strip_prefix(&P256_HEAD) {
            Some(bytes @ [0x04, ..]) if bytes.len() == 65 => {
                Ok(Self { kind: KeyKind::P256, bytes: bytes.into() })
            }
            _ => Err(BadKey),
        }
    }

    fn verify(&self, algorithm: &str, signed: &[u8], signature: &[u8]) -> bool {
        match (self.kind, algorithm) {
            // RFC 8037 and its successor RFC 9864 name the same signature.
            (KeyKind::Ed25519, "EdDSA" | "Ed25519") => {
                UnparsedPublicKey::new(&ED25519, &self.bytes).verify(signed, signature).is_ok()
            }
            (KeyKind::P256, "ES256") => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.bytes)
                    .verify(signed, signature)
                    .is_ok()
            }
            _ => false,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    iat: Option<f64>,
    aud: Audience,
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    scope: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Some(Vec<String>),
}

/// Checks a token at `now_s` seconds since 1970.
///
/// Without a `tenant` claim it is of the single tenant. `scope` says what it may do:
/// [`SCOPE_WRITE`] as the device in `sub`, [`SCOPE_READ`].
///
/// # Errors
/// [`Denied`] says what is wrong.
pub fn check(
    token: &str,
    keys: &[PinnedKey],
    rules: &Jwt,
    now_s: u64,
) -> Result<Admission, Denied> {
    let (signed, signature) = token.rsplit_once('.').ok_or(Denied::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(Denied::Malformed)?;
    let decode =
        |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| Denied::Malformed);
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| Denied::Malformed)?;
    if header.crit.is_some() {
        // An extension that must be understood, and is not.
        return Err(Denied::Signature);
    }
    let (claims, signature) = (decode(claims)?, decode(signature)?);
    let key = keys
        .iter()
        .find(|key| key.verify(&header.alg, signed.as_bytes(), &signature))
        .ok_or(Denied::Signature)?;
    // From here on the issuer vouches for what is read.
    let claims: Claims = serde_json::from_slice(&claims).map_err(|_| Denied::Claims)?;
    in_time(&claims, rules, now_s)?;
    let for_us = match &claims.aud {
        Audience::One(one) => *one == rules.audience,
        Audience::Some(some) => some.contains(&rules.audience),
    };
    let from_them = rules.issuer.is_none() || claims.iss == rules.issuer;
    if !for_us || !from_them {
        return Err(Denied::Audience);
    }
    let grant = grant(&claims)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    let expires_s = Some(claims.exp as u64 + rules.leeway.as_secs());
    let source = Source::Jwt { key: key.bytes.clone() };
    Ok(Admission { grant, standing: Standing { expires_s, source } })
}

fn in_time(claims: &Claims, rules: &Jwt, now_s: u64) -> Result<(), Denied> {
    #[expect(clippy::cast_precision_loss, reason = "seconds are far below 2^52")]
    let (now, leeway) = (now_s as f64, rules.leeway.as_secs() as f64);
    if !(0.0..1e12).contains(&claims.exp) {
        return Err(Denied::Claims);
    }
    if claims.exp + leeway <= now {
        return Err(Denied::Expired);
    }
    let begun = |from: Option<f64>| from.is_none_or(|from| from <= now + leeway);
    if begun(claims.nbf) && begun(claims.iat) { Ok(()) } else { Err(Denied::NotYet) }
}

fn grant(claims: &Claims) -> Result<Grant, Denied> {
    let tenant = match &claims.tenant {
        Some(tenant) => TenantId::new(tenant).map_err(|_| Denied::Claims)?,
        None => TenantId::single(),
    };
    let may = |scope: &str| claims.scope.split(' ').any(|word| word == scope);
    let device = match &claims.sub {
        Some(device) if may(SCOPE_WRITE) => {
            Some(DeviceId::new(device).map_err(|_| Denied::Claims)?)
        }
        None if may(SCOPE_WRITE) => return Err(Denied::Claims),
        _ => None,
    };
    let read = may(SCOPE_READ);
    if device.is_none() && !read {
        return Err(Denied::Claims);
    }
    Ok(Grant { tenant, device, read })
}
