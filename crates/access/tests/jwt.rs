//! A JWT is taken only if a pinned key signed it, by that key's algorithm, for us, in its time.
//!
//! Method: tokens made here, each with one thing wrong. Not shown: the algorithms themselves, which
//! are ring's.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use forebay_access::{
    Denied,
    config::Jwt,
    jwt::{PinnedKey, check},
};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Value, json};

const NOW_S: u64 = 1_800_000_000;

enum Signer {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl Signer {
    fn ed25519() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        Self::Ed25519(Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("a key"))
    }

    fn p256() -> Self {
        let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("a key");
        Self::P256(EcdsaKeyPair::from_pkcs8(kind, key.as_ref(), &random).expect("a key"))
    }

    fn pem(&self) -> String {
        let der = match self {
            Self::Ed25519(key) => {
                [b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", key.public_key().as_ref()]
                    .concat()
            }
            Self::P256(key) => [
                b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a".as_slice(),
                b"\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00",
                key.public_key().as_ref(),
            ]
            .concat(),
        };
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(&der))
    }

    fn pinned(&self) -> PinnedKey {
        PinnedKey::from_pem(self.pem().as_bytes()).expect("a public key")
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = signed(header, claims);
        let signature = match self {
            Self::Ed25519(key) => key.sign(signed.as_bytes()).as_ref().to_vec(),
            Self::P256(key) => {
                let signature = key.sign(&SystemRandom::new(), signed.as_bytes());
                signature.expect("a signature").as_ref().to_vec()
            }
        };
        format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
    }
}

fn signed(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    format!("{}.{}", part(header), part(claims))
}

fn claims() -> Value {
    json!({
        "aud": "forebay", "sub": "pump-7", "tenant": "acme", "scope": "openid forebay.write",
        "exp": NOW_S + 60, "iat": NOW_S - 5,
    })
}

fn with(key: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[key] = value;
    claims
}

fn without(key: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove(key);
    claims
}

fn rules() -> Jwt {
    Jwt { issuer: None, ..Jwt::default() }
}

#[test]
fn tokens_of_both_algorithms_grant_what_they_say() {
    for (signer, algorithm) in [(Signer::ed25519(), "EdDSA"), (Signer::p256(), "ES256")] {
        let token = signer.sign(&json!({"alg": algorithm, "typ": "JWT", "kid": "x"}), &claims());
        let keys = [Signer::ed25519().pinned(), Signer::p256().pinned(), signer.pinned()];
        let admission = check(&token, &keys, &rules(), NOW_S).expect(algorithm);
        assert_eq!(admission.grant.tenant.as_str(), "acme");
        assert_eq!(admission.grant.device.expect("writes").as_str(), "pump-7");
        assert!(!admission.grant.read);
        assert_eq!(admission.standing.expires_s, Some(NOW_S + 60 + 30));
    }
}

#[test]
fn an_algorithm_that_is_not_the_pinned_keys_is_refused() {
    let signer = Signer::ed25519();
    let keys = [signer.pinned()];
    let denied = |token: &str| check(token, &keys, &rules(), NOW_S).expect_err("refused");
    // Signed with the public key as the secret of an HMAC: the classic confusion.
    let confused = signed(&json!({"alg": "HS256"}), &claims());
    for secret in [signer.pem().into_bytes(), BASE64.decode(b"AAAA").expect("bytes")] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), confused.as_bytes());
        let token = format!("{confused}.{}", BASE64URL_NOPAD.encode(tag.as_ref()));
        assert_eq!(denied(&token), Denied::Signature);
    }
    for algorithm in ["none", "None", "ES256", "RS256", "HS256", ""] {
        let token = signer.sign(&json!({"alg": algorithm}), &claims());
        assert_eq!(denied(&token), Denied::Signature, "{algorithm}");
    }
    let unsigned = format!("{}.", signed(&json!({"alg": "none"}), &claims()));
    assert_eq!(denied(&unsigned), Denied::Signature);
    // A key that the token brings along, and an extension that must be understood.
    let stranger = Signer::p256();
    let jwk = json!({"alg": "ES256", "jwk": {"kty": "EC"}, "jku": "https://evil.example"});
    assert_eq!(denied(&stranger.sign(&jwk, &claims())), Denied::Signature);
    let crit = json!({"alg": "EdDSA", "crit": ["b64"], "b64": false});
    assert_eq!(denied(&signer.sign(&crit, &claims())), Denied::Signature);
}

#[test]
fn claims_that_are_missing_late_or_for_others_are_refused() {
    let signer = Signer::ed25519();
    let keys = [signer.pinned()];
    let issuer = Jwt { issuer: Some("https://id.example".to_owned()), ..rules() };
    let try_with = |claims: &Value, rules: &Jwt| {
        let token = signer.sign(&json!({"alg": "EdDSA"}), claims);
        check(&token, &keys, rules, NOW_S).err()
    };
    let cases = [
        (claims(), None),
        (with("exp", json!(NOW_S - 29)), None),
        (with("exp", json!(NOW_S - 30)), Some(Denied::Expired)),
        (with("exp", json!(NOW_S as f64 + 0.5)), None),
        (with("exp", json!("never")), Some(Denied::Claims)),
        (with("exp", json!(-1)), Some(Denied::Claims)),
        (with("exp", json!(1e300)), Some(Denied::Claims)),
        (without("exp"), Some(Denied::Claims)),
        (with("nbf", json!(NOW_S + 30)), None),
        (with("nbf", json!(NOW_S + 31)), Some(Denied::NotYet)),
        (with("iat", json!(NOW_S + 31)), Some(Denied::NotYet)),
        (with("aud", json!(["other", "forebay"])), None),
        (with("aud", json!("other")), Some(Denied::Audience)),
        (with("aud", json!([])), Some(Denied::Audience)),
        (without("aud"), Some(Denied::Claims)),
        (without("sub"), Some(Denied::Claims)),
        (with("sub", json!("a/b")), Some(Denied::Claims)),
        (with("tenant", json!("")), Some(Denied::Claims)),
        (without("tenant"), None),
        (with("scope", json!("forebay.read")), None),
        (with("scope", json!("forebay.writer")), Some(Denied::Claims)),
        (without("scope"), Some(Denied::Claims)),
    ];
    for (claims, denied) in cases {
        assert_eq!(try_with(&claims, &rules()), denied, "{claims}");
    }
    assert_eq!(try_with(&claims(), &issuer), Some(Denied::Audience));
    assert_eq!(try_with(&with("iss", json!("https://id.example")), &issuer), None);
}

#[test]
fn bytes_that_are_no_token_are_told_so() {
    let keys = [Signer::ed25519().pinned()];
    for token in ["", "a", "..", "a.b.c", "e30.e30.", "e30=.e30.e30", "\u{e9}.\u{e9}.\u{e9}"] {
        let denied = check(token, &keys, &rules(), NOW_S).expect_err(token);
        assert!(matches!(denied, Denied::Malformed | Denied::Signature), "{token}: {denied}");
    }
    let signer = Signer::ed25519();
    let token = signer.sign(&json!({"alg": "EdDSA"}), &claims());
    let keys = [signer.pinned()];
    // Each character counts: whatever is changed, it is refused. The very last one of a part holds
    // bits that must be zero.
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).expect("ASCII");
        assert!(check(&changed, &keys, &rules(), NOW_S).is_err(), "changed at {at}");
    }
}

#[test]
fn only_public_keys_of_the_two_kinds_are_pinned() {
    for pem in [
        "",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----\n",
    ] {
        assert!(PinnedKey::from_pem(pem.as_bytes()).is_err(), "{pem}");
    }
}
