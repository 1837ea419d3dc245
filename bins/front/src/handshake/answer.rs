//! The answer to a request that gets no session: a status and a JSON reason.

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not a request we understand.
    BadRequest(&'static str),
    /// The device id in the path is not one.
    Device(String),
    /// Subprotocols were offered, and we speak none of them.
    Subprotocol,
    /// No credential, or one that is worth nothing; the text says which, and nothing of it.
    Unauthenticated(String),
    /// The credential is of somebody else, or the page may not connect.
    Forbidden(String),
    /// The address has as many connections as it may.
    TooMany,
    /// Nothing is at this path.
    NotFound,
    /// Only GET opens a WebSocket.
    Method,
    /// The request did not end in time.
    TooSlow,
    /// Right path, but not a WebSocket request.
    UpgradeRequired,
    /// The header is above its limit.
    HeaderTooLarge,
    /// No room, or about to end; the text says which.
    Unavailable(&'static str),
}

/// Seconds a device that found no room should wait; it adds its own jitter.
const RETRY_AFTER_SECONDS: u32 = 5;

impl Refusal {
    /// The HTTP status.
    pub(crate) fn status(&self) -> u16 {
        self.parts().0
    }

    /// The outcome as a metric label.
    pub(crate) fn code(&self) -> &'static str {
        self.parts().2
    }

    fn parts(&self) -> (u16, &'static str, &'static str, &str) {
        match self {
            Self::BadRequest(reason) => (400, "Bad Request", "bad_request", reason),
            Self::Device(reason) => (400, "Bad Request", "bad_device", reason),
            Self::Subprotocol => (
                400,
                "Bad Request",
                "bad_subprotocol",
                "offer forebay.v1.cbor or forebay.v1.json, or no subprotocol for raw mode",
            ),
            Self::Unauthenticated(reason) => (401, "Unauthorized", "unauthenticated", reason),
            Self::Forbidden(reason) => (403, "Forbidden", "forbidden", reason),
            Self::NotFound => {
                (404, "Not Found", "not_found", "devices connect to /v1/ingest/{device}")
            }
            Self::Method => (405, "Method Not Allowed", "bad_method", "only GET opens a WebSocket"),
            Self::TooSlow => {
                (408, "Request Timeout", "too_slow", "the request did not end in time")
            }
            Self::UpgradeRequired => {
                (426, "Upgrade Required", "upgrade_required", "this path speaks WebSocket only")
            }
            Self::TooMany => (
                429,
                "Too Many Requests",
                "too_many",
                "this address has as many connections as it may",
            ),
            Self::HeaderTooLarge => (
                431,
                "Request Header Fields Too Large",
                "header_too_large",
                "the request header is above its limit",
            ),
            Self::Unavailable(reason) => (503, "Service Unavailable", "unavailable", reason),
        }
    }

    /// The whole answer.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (status, phrase, code, reason) = self.parts();
        let body = serde_json::json!({ "error": code, "reason": reason }).to_string();
        let extra = match self {
            Self::Method => "Allow: GET\r\n".to_owned(),
            Self::UpgradeRequired => {
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n".to_owned()
            }
            Self::Unauthenticated(_) => "WWW-Authenticate: Bearer\r\n".to_owned(),
            Self::Unavailable(_) | Self::TooMany => {
                format!("Retry-After: {RETRY_AFTER_SECONDS}\r\n")
            }
            _ => String::new(),
        };
        format!(
            "HTTP/1.1 {status} {phrase}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{extra}\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_http_with_a_json_reason() {
        let refusal = Refusal::Device("device id is \"empty\"".to_owned());
        let text = String::from_utf8(refusal.to_bytes()).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("header and body");
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"));
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["error"], "bad_device");
        assert_eq!(body["reason"], "device id is \"empty\"");
    }
}
