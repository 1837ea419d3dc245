//! Reading CBOR frames, over `minicbor`: definite and indefinite lengths, floats of any width,
//! decimal fractions (tag 4); other tags and undefined values are refused.

use std::borrow::Cow;

use minicbor::{Decoder, decode::Error};

use super::{Flaw, Items, Key, Kind, Reader, Scalar, flaw, wrong};
use crate::device::Fault;

/// Ends an array, a map or a text of indefinite length.
const BREAK: u8 = 0xff;
/// RFC 8949 section 3.4.4: `[exponent, mantissa]` to the base of ten.
const DECIMAL_FRACTION: u64 = 4;

pub(in crate::device) struct CborReader<'b>(Decoder<'b>);

impl<'b> CborReader<'b> {
    pub(in crate::device) fn new(message: &'b [u8]) -> Self {
        Self(Decoder::new(message))
    }

    /// The first byte of the next item.
    #[inline]
    fn peek(&self) -> Result<u8, Flaw> {
        let at = self.0.position();
        self.0.input().get(at).copied().ok_or_else(|| flaw(at, Fault::Truncated))
    }

    /// Reads one item; an error names where it starts.
    #[inline]
    fn read<T>(
        &mut self,
        item: impl FnOnce(&mut Decoder<'b>) -> Result<T, Error>,
    ) -> Result<T, Flaw> {
        let at = self.0.position();
        item(&mut self.0).map_err(|error| not_read(at, &error))
    }

    /// The bytes of an item of known length behind its first byte.
    #[inline]
    fn take<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], Flaw> {
        let begin = self.0.position() + 1;
        match self.0.input().get(begin..).and_then(<[u8]>::first_chunk) {
            Some(bytes) => {
                self.0.set_position(begin + LENGTH);
                Ok(*bytes)
            }
            None => Err(flaw(begin - 1, Fault::Truncated)),
        }
    }

    /// An integer, or the nearest float if 64 bits with a sign do not hold it.
    #[inline]
    fn integer(&mut self, first: u8) -> Result<Scalar<'b>, Flaw> {
        // Small numbers and times are nearly all there is; the rest is left to the library.
        match first {
            0x00..=0x17 => {
                self.0.set_position(self.0.position() + 1);
                return Ok(Scalar::Int(i64::from(first)));
            }
            0x1b => {
                let number = u64::from_be_bytes(self.take()?);
                return Ok(i64::try_from(number).map_or(Scalar::Float(number as f64), Scalar::Int));
            }
            _ => {}
        }
        let number = self.read(Decoder::int)?;
        match i64::try_from(number) {
            Ok(number) => Ok(Scalar::Int(number)),
            Err(_) => Ok(Scalar::Float(i128::from(number) as f64)),
        }
    }

    /// A text in one piece is borrowed, one in chunks is put together.
    #[inline]
    fn text(&mut self, first: u8) -> Result<Cow<'b, str>, Flaw> {
        match first {
            // Nearly every key, unit and text is shorter than 24 bytes: no call, no second look.
            0x60..=0x77 => {
                let begin = self.0.position() + 1;
                let end = begin + usize::from(first - 0x60);
                let Some(bytes) = self.0.input().get(begin..end) else {
                    return Err(flaw(begin - 1, Fault::Truncated));
                };
                self.0.set_position(end);
                match std::str::from_utf8(bytes) {
                    Ok(text) => Ok(Cow::Borrowed(text)),
                    Err(_) => Err(not_utf8(begin - 1)),
                }
            }
            0x7f => self
                .read(|decoder| decoder.str_iter()?.collect::<Result<String, _>>())
                .map(Cow::Owned),
            _ => self.read(Decoder::str).map(Cow::Borrowed),
        }
    }

    fn byte_string(&mut self, first: u8) -> Result<Cow<'b, [u8]>, Flaw> {
        if first != 0x5f {
            return self.read(Decoder::bytes).map(Cow::Borrowed);
        }
        self.read(|decoder| {
            let mut bytes = Vec::new();
            for chunk in decoder.bytes_iter()? {
                bytes.extend_from_slice(chunk?);
            }
            Ok(bytes)
        })
        .map(Cow::Owned)
    }

    /// The only tag we know: a decimal fraction becomes a float.
    fn tagged(&mut self, expected: &'static str) -> Result<Scalar<'b>, Flaw> {
        let at = self.0.position();
        if self.read(Decoder::tag)?.as_u64() != DECIMAL_FRACTION {
            return Err(flaw(at, wrong(expected, "a tag")));
        }
        if self.read(Decoder::array)? != Some(2) {
            return Err(flaw(at, wrong(expected, "a tag that is not a decimal fraction")));
        }
        let exponent = self.read(Decoder::i64)?;
        let mantissa = self.read(Decoder::i64)?;
        // Through text: correctly rounded, and bounded whatever the exponent.
        let number = format!("{mantissa}e{exponent}").parse().unwrap_or(f64::NAN);
        Ok(Scalar::Float(number))
    }

    fn items(left: Option<u64>) -> Items {
        Items { left, end: BREAK, first: true }
    }
}

/// The fault of an item that `minicbor` did not read.
#[cold]
fn not_read(at: usize, error: &Error) -> Flaw {
    if error.is_end_of_input() {
        return flaw(at, Fault::Truncated);
    }
    flaw(at, Fault::Malformed { what: Cow::Owned(error.to_string()) })
}

fn into_key(text: Cow<'_, str>) -> Key<'_> {
    match text {
        Cow::Borrowed(text) => Key::Text(Cow::Borrowed(text.as_bytes())),
        Cow::Owned(text) => Key::Text(Cow::Owned(text.into_bytes())),
    }
}

#[cold]
fn not_utf8(at: usize) -> Flaw {
    flaw(at, Fault::Malformed { what: Cow::Borrowed("text is not UTF-8") })
}

/// What an item is, by its first byte.
fn name(first: u8) -> &'static str {
    match first {
        0x00..=0x3f => "an integer",
        0x40..=0x5f => "bytes",
        0x60..=0x7f => "a text",
        0x80..=0x9f => "an array",
        0xa0..=0xbf => "a map",
        0xc0..=0xdf => "a tag",
        0xf4 | 0xf5 => "a boolean",
        0xf6 => "null",
        0xf7 => "undefined",
        0xf9..=0xfb => "a float",
        BREAK => "a break",
        _ => "a simple value",
    }
}

impl<'b> Reader<'b> for CborReader<'b> {
    fn at(&self) -> usize {
        self.0.position()
    }

    fn left(&self) -> usize {
        self.0.input().len() - self.0.position()
    }

    fn kind(&mut self) -> Result<Kind, Flaw> {
        Ok(match self.peek()? {
            0x80..=0x9f => Kind::Array,
            0xa0..=0xbf => Kind::Map,
            _ => Kind::Scalar,
        })
    }

    #[inline]
    fn scalar(&mut self, expected: &'static str) -> Result<Scalar<'b>, Flaw> {
        let first = self.peek()?;
        match first {
            0x60..=0x7f => self.text(first).map(Scalar::Text),
            0xfb => self.take().map(|bytes| Scalar::Float(f64::from_be_bytes(bytes))),
            0x00..=0x3f => self.integer(first),
            0xf9..=0xfa => self.read(Decoder::f64).map(Scalar::Float),
            0xf4 | 0xf5 => self.read(Decoder::bool).map(Scalar::Bool),
            0xf6 => self.read(Decoder::null).map(|()| Scalar::Null),
            0x40..=0x5f => self.byte_string(first).map(Scalar::Bytes),
            0xc0..=0xdf => self.tagged(expected),
            _ => Err(flaw(self.at(), wrong(expected, name(first)))),
        }
    }

    fn map(&mut self, expected: &'static str) -> Result<Items, Flaw> {
        match self.peek()? {
            0xa0..=0xbf => self.read(Decoder::map).map(Self::items),
            other => Err(flaw(self.at(), wrong(expected, name(other)))),
        }
    }

    fn array(&mut self, expected: &'static str) -> Result<Items, Flaw> {
        match self.peek()? {
            0x80..=0x9f => self.read(Decoder::array).map(Self::items),
            other => Err(flaw(self.at(), wrong(expected, name(other)))),
        }
    }

    #[inline]
    fn more(&mut self, items: &mut Items) -> Result<bool, Flaw> {
        match &mut items.left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if self.peek()? == items.end => {
                self.0.set_position(self.0.position() + 1);
                Ok(false)
            }
            None => Ok(true),
        }
    }

    #[inline]
    fn key(&mut self) -> Result<Key<'b>, Flaw> {
        let at = self.at();
        match self.peek()? {
            first @ 0x60..=0x77 => {
                let begin = at + 1;
                let end = begin + usize::from(first - 0x60);
                let Some(text) = self.0.input().get(begin..end) else {
                    return Err(flaw(at, Fault::Truncated));
                };
                self.0.set_position(end);
                Ok(Key::Text(Cow::Borrowed(text)))
            }
            first @ 0x78..=0x7f => self.text(first).map(into_key),
            first @ 0x00..=0x3f => match self.integer(first)? {
                Scalar::Int(label) => Ok(Key::Label(label)),
                other => Err(flaw(at, wrong("a key", other.name()))),
            },
            other => Err(flaw(at, wrong("a key", name(other)))),
        }
    }

    fn bytes(&mut self) -> Result<Cow<'b, [u8]>, Flaw> {
        let at = self.at();
        match self.scalar("bytes")? {
            Scalar::Bytes(bytes) => Ok(bytes),
            other => Err(flaw(at, wrong("bytes", other.name()))),
        }
    }

    fn skip_tags(&mut self) -> Result<(), Flaw> {
        while matches!(self.peek()?, 0xc0..=0xdf) {
            self.read(Decoder::tag)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Flaw> {
        match self.left() {
            0 => Ok(()),
            _ => Err(flaw(self.at(), Fault::Trailing)),
        }
    }
}
