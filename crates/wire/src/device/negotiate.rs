//! Which encoding a connection speaks, from the WebSocket subprotocols the device offers.

/// An encoding of the device protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Binary messages of CBOR (RFC 8949).
    Cbor,
    /// Text messages of JSON (RFC 8259).
    Json,
}

/// Names raw mode, for those whose WebSocket needs a name in the answer: a browser that offers a
/// [`TOKEN_ENTRY`] is one.
pub const RAW_SUBPROTOCOL: &str = "forebay.v1.raw";

/// Begins an entry of `Sec-WebSocket-Protocol` that carries a credential and names no protocol:
/// scripts in browsers can set no other header. It is never part of an answer.
pub const TOKEN_ENTRY: &str = "forebay.token.";

/// The credential among the values of all `Sec-WebSocket-Protocol` headers, if there is one.
///
/// ```
/// use forebay_wire::device::token_entry;
/// assert_eq!(token_entry(["forebay.v1.json, forebay.token.k7.open"]), Some("k7.open"));
/// ```
#[must_use]
pub fn token_entry<'h>(values: impl IntoIterator<Item = &'h str>) -> Option<&'h str> {
    names(values).find_map(|name| name.strip_prefix(TOKEN_ENTRY))
}

fn names<'h>(values: impl IntoIterator<Item = &'h str>) -> impl Iterator<Item = &'h str> {
    values.into_iter().flat_map(|value| value.split(',')).map(str::trim)
}

/// What a device's offer leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Offer {
    /// Speak this encoding and name its subprotocol in the response.
    Speak(Format),
    /// Nothing was offered: raw mode.
    Raw,
    /// Raw mode by its name: answer with [`RAW_SUBPROTOCOL`].
    NamedRaw,
    /// Something was offered, but nothing we know: refuse with HTTP 400.
    Unknown,
}

impl Format {
    /// Both encodings, the preferred one first.
    pub const ALL: [Self; 2] = [Self::Cbor, Self::Json];

    /// Its name in `Sec-WebSocket-Protocol`.
    #[must_use]
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Cbor => "forebay.v1.cbor",
            Self::Json => "forebay.v1.json",
        }
    }

    /// The encoding of a name; names are compared as they are, case matters.
    #[must_use]
    pub fn from_subprotocol(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.subprotocol() == name)
    }

    /// Whether its frames are WebSocket text messages.
    #[must_use]
    pub const fn is_text(self) -> bool {
        matches!(self, Self::Json)
    }
}

impl Offer {
    /// Decides from the values of all `Sec-WebSocket-Protocol` headers of a request.
    ///
    /// The device's order counts: the first name that is known wins. A credential is no offer.
    ///
    /// ```
    /// use forebay_wire::device::{Format, Offer};
    /// assert_eq!(Offer::from_headers(["forebay.v2, forebay.v1.json"]), Offer::Speak(Format::Json));
    /// assert_eq!(Offer::from_headers([]), Offer::Raw);
    /// assert_eq!(Offer::from_headers(["mqtt"]), Offer::Unknown);
    /// ```
    #[must_use]
    pub fn from_headers<'h>(values: impl IntoIterator<Item = &'h str>) -> Self {
        let mut offered = false;
        for name in names(values) {
            if let Some(format) = Format::from_subprotocol(name) {
                return Self::Speak(format);
            }
            if name == RAW_SUBPROTOCOL {
                return Self::NamedRaw;
            }
            offered |= !name.is_empty() && !name.starts_with(TOKEN_ENTRY);
        }
        if offered { Self::Unknown } else { Self::Raw }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_name_wins() {
        let offer = |values: &[&'static str]| Offer::from_headers(values.iter().copied());
        assert_eq!(offer(&["forebay.v1.json,forebay.v1.cbor"]), Offer::Speak(Format::Json));
        assert_eq!(offer(&["x", "forebay.v1.cbor"]), Offer::Speak(Format::Cbor));
        assert_eq!(offer(&["", " , "]), Offer::Raw);
        assert_eq!(offer(&["FOREBAY.V1.CBOR"]), Offer::Unknown);
        assert_eq!(offer(&["forebay.v1.raw"]), Offer::NamedRaw);
        assert_eq!(offer(&["forebay.token.a.b"]), Offer::Raw);
        assert_eq!(offer(&["forebay.token.a.b, mqtt"]), Offer::Unknown);
        let json = ["forebay.token.a.b", "forebay.v1.json"];
        assert_eq!(offer(&json), Offer::Speak(Format::Json));
        assert_eq!(token_entry(json), Some("a.b"));
        assert_eq!(token_entry(["forebay.v1.json"]), None);
    }
}
