//! Whom a client certificate speaks for: a URI `forebay://tenant/device` among its alternative
//! names.
//!
//! TLS has checked the chain, the revocation lists and the times before; what is read here is
//! well-formed. A URI and nothing else: a DNS name or a common name may mean many things, and a
//! server's certificate of the same CA must not become a device.

use forebay_model::{DeviceId, TenantId};
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::{Admission, Grant, Standing, grant::Source};

/// What the URI begins with.
const SCHEME: &str = "forebay://";

/// Why a certificate names no device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Not a certificate.
    #[error("the certificate cannot be read")]
    Malformed,
    /// None or several of its names are ours.
    #[error("the certificate must have exactly one URI forebay://tenant/device")]
    Name,
}

/// Reads whom a certificate speaks for.
///
/// # Errors
/// [`CertificateError`]: nobody we know.
pub fn of_certificate(der: &CertificateDer<'_>) -> Result<Admission, CertificateError> {
    let certificate = EndEntityCert::try_from(der).map_err(|_| CertificateError::Malformed)?;
    let mut names = certificate.valid_uri_names().filter_map(|uri| uri.strip_prefix(SCHEME));
    let (Some(name), None) = (names.next(), names.next()) else {
        return Err(CertificateError::Name);
    };
    let (tenant, device) = name.split_once('/').ok_or(CertificateError::Name)?;
    let tenant = TenantId::new(tenant).map_err(|_| CertificateError::Name)?;
    let device = DeviceId::new(device).map_err(|_| CertificateError::Name)?;
    let expires_s = not_after(der).ok_or(CertificateError::Malformed)?;
    let grant = Grant { tenant, device: Some(device), read: false };
    let standing = Standing { expires_s: Some(expires_s), source: Source::Certificate };
    Ok(Admission { grant, standing })
}

/// The end of a certificate's validity in seconds since 1970 (RFC 5280, section 4.1.2.5).
fn not_after(der: &[u8]) -> Option<u64> {
    let (_, certificate, _) = element(der)?;
    let (_, mut rest, _) = element(certificate)?;
    // An explicit version comes first where it is not the oldest; then serial, algorithm, issuer.
    if rest.first() == Some(&0xa0) {
        rest = element(rest)?.2;
    }
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest)?;
    let (tag, time, _) = element(element(validity)?.2)?;
    let text = std::str::from_utf8(time).ok()?;
    let digits = |from: usize, count: usize| text.get(from..from + count)?.parse::<u64>().ok();
    let (year, from) = match tag {
        // UTCTime: two digits of the year, 50 and above are of the last century.
        0x17 => {
            let year = digits(0, 2)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, 2)
        }
        // GeneralizedTime.
        0x18 => (digits(0, 4)?, 4),
        _ => return None,
    };
    let (month, day) = (digits(from, 2)?, digits(from + 2, 2)?);
    let seconds = digits(from + 4, 2)? * 3600 + digits(from + 6, 2)? * 60 + digits(from + 8, 2)?;
    Some(days(year, month, day)? * 86_400 + seconds)
}

/// One DER element: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 3 {
            return None;
        }
        let (bytes, rest) = rest.split_at_checked(count)?;
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years counted from March, so that the leap day is the last of one.
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let since_march = (153 * month + 2) / 5 + day - 1;
    let since_zero = year * 365 + year / 4 - year / 100 + year / 400 + since_march;
    since_zero.checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType, date_time_ymd};

    use super::*;

    fn certificate(uris: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.not_after = date_time_ymd(2051, 2, 28);
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().expect("ASCII")));
        }
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    #[test]
    fn the_uri_names_tenant_and_device_and_the_validity_its_end() {
        let admission = of_certificate(&certificate(&["https://x", "forebay://acme/pump-7"]));
        let admission = admission.expect("a device");
        assert_eq!(admission.grant.tenant.as_str(), "acme");
        assert_eq!(admission.grant.device.as_ref().map(DeviceId::as_str), Some("pump-7"));
        assert_eq!(admission.standing.expires_s, Some(2_561_155_200));
    }

    #[test]
    fn a_certificate_that_names_no_device_or_two_is_refused() {
        let two = ["forebay://acme/a", "forebay://acme/b"];
        for uris in [&[][..], &["https://x"], &["forebay://acme"], &["forebay://a/b/c"], &two] {
            let found = of_certificate(&certificate(uris));
            assert_eq!(found, Err(CertificateError::Name), "{uris:?}");
        }
    }

    #[test]
    fn dates_are_counted_as_the_calendar_does() {
        for ((year, month, day), seconds) in [
            ((1970, 1, 1), 0),
            ((2000, 2, 29), 951_782_400),
            ((2023, 11, 14), 1_699_920_000),
            ((2100, 3, 1), 4_107_542_400),
        ] {
            assert_eq!(days(year, month, day).map(|days| days * 86_400), Some(seconds));
        }
        assert_eq!(days(2000, 13, 1), None);
    }
}
