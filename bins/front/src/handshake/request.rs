//! What a request asks for: a device's WebSocket, or something to be refused with a reason.
//!
//! Pure: bytes in, decision out.

use forebay_model::DeviceId;
use forebay_wire::device::{Format, Offer, PATH_PREFIX, RAW_SUBPROTOCOL, token_entry};
use tokio_tungstenite::tungstenite::{
    Error,
    error::ProtocolError,
    handshake::{
        machine::TryParse,
        server::{Request, create_response},
    },
    http::{HeaderMap, Response, header},
};

use super::answer::Refusal;

/// A request that may become a session.
pub(crate) struct Opening {
    /// Whose session it is to be.
    pub device: DeviceId,
    /// The encoding spoken in it; `None` is raw mode.
    pub format: Option<Format>,
    /// The credential in the request.
    pub token: Option<String>,
    /// The web page that asks, if one does.
    pub origin: Option<String>,
    /// The addresses in `X-Forwarded-For`, the nearest last.
    pub forwarded: Vec<String>,
    /// The answer that opens the WebSocket.
    pub response: Response<()>,
    /// Bytes of the request; what follows belongs to the WebSocket.
    pub bytes: usize,
}

/// Where the header of a request ends, if it has ended; `from` is where an earlier look ended.
pub(crate) fn header_end(bytes: &[u8], from: usize) -> Option<usize> {
    // The end is `\n\r\n` or, from lenient peers, `\n\n`; look again at what may be its start.
    let from = from.saturating_sub(3);
    (from..bytes.len()).find_map(|at| match bytes[at..] {
        [b'\n', b'\r', b'\n', ..] => Some(at + 3),
        [b'\n', b'\n', ..] => Some(at + 2),
        _ => None,
    })
}

/// Reads a whole header.
///
/// # Errors
/// [`Refusal`]: answer it and close.
pub(crate) fn parse(header: &[u8], token_in_query: bool) -> Result<Opening, Refusal> {
    let (bytes, request) = match Request::try_parse(header) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return Err(Refusal::BadRequest("the request ends too early")),
        Err(Error::Protocol(ProtocolError::WrongHttpMethod)) => return Err(Refusal::Method),
        Err(_) => return Err(Refusal::BadRequest("the request is not HTTP/1.1")),
    };
    let path = request.uri().path();
    let Some(name) = path.strip_prefix(PATH_PREFIX) else { return Err(Refusal::NotFound) };
    let mut response = create_response(&request).map_err(|error| match error {
        Error::Protocol(
            ProtocolError::MissingConnectionUpgradeHeader
            | ProtocolError::MissingUpgradeWebSocketHeader
            | ProtocolError::MissingSecWebSocketVersionHeader,
        ) => Refusal::UpgradeRequired,
        _ => Refusal::BadRequest("the WebSocket key is missing or not valid"),
    })?;
    let device = device_id(name)?;
    let (format, name) = subprotocol(request.headers())?;
    if let Some(name) = name {
        let name = header::HeaderValue::from_static(name);
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    let query = request.uri().query().filter(|_| token_in_query);
    let token = token(request.headers(), query)?;
    let text = |value: &header::HeaderValue| value.to_str().unwrap_or("?").to_owned();
    let origin = request.headers().get(header::ORIGIN).map(text);
    let forwarded = request.headers().get_all("x-forwarded-for").iter().map(text);
    let forwarded = forwarded.flat_map(|value| {
        value.split(',').map(|address| address.trim().to_owned()).collect::<Vec<_>>()
    });
    let forwarded = forwarded.collect();
    Ok(Opening { device, format, token, origin, forwarded, response, bytes })
}

/// The one credential in a request: a header, an entry of the subprotocol list, or the query.
fn token(headers: &HeaderMap, query: Option<&str>) -> Result<Option<String>, Refusal> {
    let mut found = Vec::new();
    for value in headers.get_all(header::AUTHORIZATION) {
        let bearer = value.to_str().ok().and_then(|value| value.split_once(' '));
        match bearer {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                found.push(token.trim().to_owned());
            }
            _ => return Err(Refusal::BadRequest("the header Authorization is not Bearer")),
        }
    }
    let entries = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    found
        .extend(entries.filter_map(|value| token_entry([value.to_str().ok()?])).map(str::to_owned));
    let pairs = query.unwrap_or_default().split('&');
    found.extend(pairs.filter_map(|pair| pair.strip_prefix("token=")).map(str::to_owned));
    match found.len() {
        0 | 1 => Ok(found.pop()),
        _ => Err(Refusal::BadRequest("the request has more than one credential")),
    }
}

/// The device id in the last part of the path.
fn device_id(encoded: &str) -> Result<DeviceId, Refusal> {
    let bytes = percent_decode(encoded)
        .ok_or_else(|| Refusal::Device("device id has a broken percent encoding".to_owned()))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Refusal::Device("device id is not UTF-8".to_owned()))?;
    DeviceId::new(&text).map_err(|error| Refusal::Device(error.to_string()))
}

/// Bytes with `%41` read as `A`; `None` if a `%` is not followed by two hex digits.
fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let value = digit()? * 16 + digit()?;
        decoded.push(u8::try_from(value).ok()?);
    }
    Some(decoded)
}

/// The first encoding offered that we speak, and its name; none offered is raw mode.
fn subprotocol(headers: &HeaderMap) -> Result<(Option<Format>, Option<&'static str>), Refusal> {
    // A value that is not text names no encoding of ours, but it is an offer.
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    match Offer::from_headers(values.map(|value| value.to_str().unwrap_or("?"))) {
        Offer::Speak(format) => Ok((Some(format), Some(format.subprotocol()))),
        Offer::Raw => Ok((None, None)),
        Offer::NamedRaw => Ok((None, Some(RAW_SUBPROTOCOL))),
        Offer::Unknown => Err(Refusal::Subprotocol),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, extra: &str) -> Vec<u8> {
        format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
        )
        .into_bytes()
    }

    fn status(header: &[u8]) -> u16 {
        parse(header, false).err().expect("refused").status()
    }

    #[test]
    fn a_device_is_named_by_the_path_percent_decoded() {
        for (path, device) in [
            ("/v1/ingest/pump-7", "pump-7"),
            ("/v1/ingest/pump%2D7", "pump-7"),
            ("/v1/ingest/a:b.c?x=1", "a:b.c"),
        ] {
            assert_eq!(parse(&request(path, ""), false).expect(path).device.as_str(), device);
        }
        for path in ["/v1/ingest/", "/v1/ingest/a/b", "/v1/ingest/a%2Fb", "/v1/ingest/%zz"] {
            assert_eq!(status(&request(path, "")), 400, "{path}");
        }
        for path in ["/v1/ingest/%ff", "/v1/ingest/%", "/v1/ingest/a%20b", "/v1/ingest/%C3%A9"] {
            assert_eq!(status(&request(path, "")), 400, "{path}");
        }
        let long = format!("/v1/ingest/{}", "a".repeat(129));
        assert_eq!(status(&request(&long, "")), 400);
    }

    #[test]
    fn the_first_known_subprotocol_is_chosen_and_an_unknown_one_refused() {
        let cases = [
            ("", None),
            ("Sec-WebSocket-Protocol: forebay.v1.json\r\n", Some("forebay.v1.json")),
            ("Sec-WebSocket-Protocol: x, forebay.v1.cbor\r\n", Some("forebay.v1.cbor")),
            (
                "Sec-WebSocket-Protocol: x\r\nSec-WebSocket-Protocol: forebay.v1.json\r\n",
                Some("forebay.v1.json"),
            ),
        ];
        for (extra, chosen) in cases {
            let opening = parse(&request("/v1/ingest/a", extra), false).expect("opened");
            assert_eq!(opening.format.map(Format::subprotocol), chosen, "{extra}");
            let header = opening.response.headers().get("sec-websocket-protocol");
            assert_eq!(header.map(|value| value.to_str().expect("text")), chosen);
        }
        let unknown = request("/v1/ingest/a", "Sec-WebSocket-Protocol: forebay.v9.cbor\r\n");
        assert_eq!(status(&unknown), 400);
    }

    #[test]
    fn other_requests_are_refused_with_the_status_that_says_why() {
        assert_eq!(status(&request("/", "")), 404);
        assert_eq!(status(&request("/v1/ingest", "")), 404);
        assert_eq!(status(b"POST /v1/ingest/a HTTP/1.1\r\nHost: a\r\n\r\n"), 405);
        assert_eq!(status(b"GET /v1/ingest/a HTTP/1.1\r\nHost: a\r\n\r\n"), 426);
        assert_eq!(status(b"GET /v1/ingest/a HTTP/1.0\r\nHost: a\r\n\r\n"), 400);
        assert_eq!(status(b"\x16\x03\x01\x02\x00 not http\r\n\r\n"), 400);
        let key = b"GET /v1/ingest/a HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n\r\n";
        assert_eq!(status(key), 400);
    }

    #[test]
    fn the_end_of_a_header_is_found_wherever_the_reads_were_cut() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nmore";
        let end = bytes.len() - 4;
        for cut in 0..bytes.len() {
            let found = header_end(&bytes[..cut], 0).or_else(|| header_end(bytes, cut));
            assert_eq!(found, Some(end), "cut at {cut}");
        }
        assert_eq!(header_end(b"GET / HTTP/1.1\n\n", 0), Some(16));
    }

    #[test]
    fn a_credential_is_taken_from_one_place_and_never_echoed() {
        let token = |path: &str, extra: &str, query| {
            let opening =
                parse(&request(path, extra), query).map_err(|refusal| refusal.status())?;
            let shown = format!("{:?}", opening.response);
            assert!(!shown.contains("fbk1"), "{shown}");
            Ok::<_, u16>(opening.token)
        };
        let path = "/v1/ingest/a";
        let some = || Ok(Some("fbk1.s".to_owned()));
        assert_eq!(token(path, "", false), Ok(None));
        assert_eq!(token(path, "Authorization: Bearer fbk1.s\r\n", false), some());
        assert_eq!(token(path, "authorization: bearer fbk1.s\r\n", false), some());
        assert_eq!(token(path, "Authorization: Basic eDp5\r\n", false), Err(400));
        let entry = "Sec-WebSocket-Protocol: forebay.v1.json, forebay.token.fbk1.s\r\n";
        assert_eq!(token(path, entry, false), some());
        assert_eq!(token("/v1/ingest/a?token=fbk1.s", "", false), Ok(None));
        assert_eq!(token("/v1/ingest/a?x=1&token=fbk1.s", "", true), some());
        let two = format!("{entry}Authorization: Bearer fbk1.s\r\n");
        assert_eq!(token(path, &two, false), Err(400));
    }
}
