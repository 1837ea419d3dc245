//! The PROXY protocol: a load balancer says first where a connection comes from.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>. Version 1 is a line of text,
//! version 2 begins with twelve bytes that nothing else begins with. Pure: bytes in, address out.

use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};

/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Longest line of version 1, its end included.
const LINE_BYTES_MAX: usize = 107;
/// Longest header of version 2 that is taken: addresses and some attributes.
pub(crate) const HEADER_BYTES_MAX: usize = 16 + 1024;

/// What the bytes so far say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Header {
    /// It has not ended; wait for more.
    Partial,
    /// It has ended after so many bytes, and says where the connection comes from; nothing if it is
    /// the proxy's own, such as a health check.
    Whole(usize, Option<IpAddr>),
    /// It is not one.
    Bad,
}

/// Reads a header from the first bytes of a connection.
pub(crate) fn parse(bytes: &[u8]) -> Header {
    let length = bytes.len().min(SIGNATURE.len());
    if bytes[..length] == SIGNATURE[..length] && length > 0 {
        return if length < SIGNATURE.len() { Header::Partial } else { binary(bytes) };
    }
    let length = bytes.len().min(6);
    if bytes[..length] == b"PROXY "[..length] {
        return line(bytes);
    }
    Header::Bad
}

fn line(bytes: &[u8]) -> Header {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LINE_BYTES_MAX { Header::Partial } else { Header::Bad };
    };
    if end + 2 > LINE_BYTES_MAX {
        return Header::Bad;
    }
    let Ok(text) = std::str::from_utf8(&bytes[..end]) else { return Header::Bad };
    let mut words = text.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Header::Whole(end + 2, None);
    }
    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
    match (family, address) {
        (Some("TCP4"), Some(address @ IpAddr::V4(_)))
        | (Some("TCP6"), Some(address @ IpAddr::V6(_))) => Header::Whole(end + 2, Some(address)),
        _ => Header::Bad,
    }
}

fn binary(bytes: &[u8]) -> Header {
    let Some(&[version, family, high, low]) = bytes.get(12..16).and_then(|part| part.as_array())
    else {
        return Header::Partial;
    };
    let end = 16 + usize::from(u16::from_be_bytes([high, low]));
    if end > HEADER_BYTES_MAX {
        return Header::Bad;
    }
    if bytes.len() < end {
        return Header::Partial;
    }
    let body = &bytes[16..end];
    match (version, family >> 4) {
        // LOCAL: from the proxy itself.
        (0x20, _) => Header::Whole(end, None),
        (0x21, 1) => match body.get(..4).and_then(|part| <[u8; 4]>::try_from(part).ok()) {
            Some(octets) if body.len() >= 12 => {
                Header::Whole(end, Some((*SocketAddrV4::new(octets.into(), 0).ip()).into()))
            }
            _ => Header::Bad,
        },
        (0x21, 2) => match body.get(..16).and_then(|part| <[u8; 16]>::try_from(part).ok()) {
            Some(octets) if body.len() >= 36 => {
                Header::Whole(end, Some((*SocketAddrV6::new(octets.into(), 0, 0, 0).ip()).into()))
            }
            _ => Header::Bad,
        },
        (0x21, _) => Header::Whole(end, None),
        _ => Header::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn both_versions_name_the_address_wherever_they_are_cut() {
        let mut v4 = SIGNATURE.to_vec();
        v4.extend([0x21, 0x11, 0, 12, 192, 0, 2, 7, 10, 0, 0, 1, 1, 0, 2, 0]);
        let mut v6 = SIGNATURE.to_vec();
        v6.extend([0x21, 0x21, 0, 36]);
        v6.extend([0xfd; 36]);
        let mut local = SIGNATURE.to_vec();
        local.extend([0x20, 0, 0, 0]);
        let cases = [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n".to_vec(), address("192.0.2.7")),
            (b"PROXY TCP6 fd00::7 fd00::1 56324 443\r\n".to_vec(), address("fd00::7")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (v4, address("192.0.2.7")),
            (v6, address("fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd")),
            (local, None),
        ];
        for (header, from) in cases {
            for cut in 0..header.len() {
                let partial = parse(&header[..cut]);
                assert_eq!(partial, Header::Partial, "{header:?} cut at {cut}");
            }
            let mut all = header.clone();
            all.extend(b"GET /");
            assert_eq!(parse(&all), Header::Whole(header.len(), from));
        }
    }

    #[test]
    fn what_is_no_header_is_told_at_once() {
        let mut huge = SIGNATURE.to_vec();
        huge.extend([0x21, 0x11, 0xff, 0xff]);
        let mut short = SIGNATURE.to_vec();
        short.extend([0x21, 0x11, 0, 2, 1, 2]);
        let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 120]].concat();
        let bad: [&[u8]; 7] = [
            b"GET / HTTP/1.1\r\n",
            b"\x16\x03\x01",
            b"PROXY TCP4 fd00::1 fd00::2 1 2\r\n",
            b"PROXY TCP4 nonsense\r\n",
            &huge,
            &short,
            &long,
        ];
        for bytes in bad {
            assert_eq!(parse(bytes), Header::Bad, "{bytes:?}");
        }
    }
}
