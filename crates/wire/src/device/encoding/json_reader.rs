//! Reading JSON frames (RFC 8259), strictly: no comments, no trailing commas, no NaN, no lone
//! surrogates. A reader of our own, because a frame's errors must say where they are and what was
//! found, and because numbers without fraction or exponent are integers.

use std::borrow::Cow;

use super::{Flaw, Items, Key, Kind, Reader, Scalar, flaw, wrong};
use crate::{base64, device::Fault};

pub(in crate::device) struct JsonReader<'b> {
    message: &'b [u8],
    at: usize,
}

impl<'b> JsonReader<'b> {
    pub(in crate::device) fn new(message: &'b [u8]) -> Self {
        let mut reader = Self { message, at: 0 };
        reader.skip_space();
        reader
    }

    fn skip_space(&mut self) {
        while matches!(self.message.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Result<u8, Flaw> {
        self.message.get(self.at).copied().ok_or_else(|| flaw(self.at, Fault::Truncated))
    }

    fn malformed<T>(&self, what: &'static str) -> Result<T, Flaw> {
        Err(flaw(self.at, Fault::Malformed { what: Cow::Borrowed(what) }))
    }

    /// Takes one byte that must be there, and the space after it.
    fn take(&mut self, byte: u8, what: &'static str) -> Result<(), Flaw> {
        if self.peek()? != byte {
            return self.malformed(what);
        }
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    fn literal(&mut self, word: &'static str) -> Result<(), Flaw> {
        let rest = &self.message[self.at..];
        if rest.starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(());
        }
        if word.as_bytes().starts_with(rest) {
            return Err(flaw(self.message.len(), Fault::Truncated));
        }
        self.malformed("not a value")
    }

    /// A text; borrowed if it has no escapes.
    fn string(&mut self) -> Result<Cow<'b, str>, Flaw> {
        let opened = self.at;
        let start = opened + 1;
        let Some(length) =
            self.message[start..].iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))
        else {
            return Err(flaw(self.message.len(), Fault::Truncated));
        };
        let end = start + length;
        let plain = self.utf8(start, end)?;
        self.at = end;
        if self.message[end] == b'"' {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = String::from(plain);
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => text.push(self.escape()?),
                0..=0x1f => return self.malformed("control character in a text"),
                _ => {
                    let from = self.at;
                    while !matches!(self.peek()?, b'"' | b'\\' | 0..=0x1f) {
                        self.at += 1;
                    }
                    text.push_str(self.utf8(from, self.at)?);
                }
            }
        }
        self.at += 1;
        Ok(Cow::Owned(text))
    }

    fn utf8(&self, from: usize, to: usize) -> Result<&'b str, Flaw> {
        std::str::from_utf8(&self.message[from..to]).map_err(|error| {
            let what = Cow::Borrowed("text is not UTF-8");
            flaw(from + error.valid_up_to(), Fault::Malformed { what })
        })
    }

    fn escape(&mut self) -> Result<char, Flaw> {
        self.at += 1;
        let character = match self.peek()? {
            byte @ (b'"' | b'\\' | b'/') => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => return self.malformed("unknown escape"),
        };
        self.at += 1;
        Ok(character)
    }

    fn unicode_escape(&mut self) -> Result<char, Flaw> {
        let mut code = self.four_digits()?;
        if (0xd800..0xdc00).contains(&code) {
            if self.peek()? != b'\\' {
                return self.malformed("half a surrogate pair");
            }
            self.at += 1;
            if self.peek()? != b'u' {
                return self.malformed("half a surrogate pair");
            }
            let low = self.four_digits()?;
            if !(0xdc00..0xe000).contains(&low) {
                return self.malformed("half a surrogate pair");
            }
            code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
        match char::from_u32(code) {
            Some(character) => Ok(character),
            None => self.malformed("half a surrogate pair"),
        }
    }

    /// The digits after `\u`; stands on the `u`.
    fn four_digits(&mut self) -> Result<u32, Flaw> {
        let mut code = 0;
        for _ in 0..4 {
            self.at += 1;
            match char::from(self.peek()?).to_digit(16) {
                Some(digit) => code = code << 4 | digit,
                None => return self.malformed("not a hexadecimal digit"),
            }
        }
        self.at += 1;
        Ok(code)
    }

    fn digits(&mut self) -> Result<(), Flaw> {
        if !self.peek()?.is_ascii_digit() {
            return self.malformed("not a digit");
        }
        while self.message.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Scalar<'b>, Flaw> {
        let from = self.at;
        if self.peek()? == b'-' {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            _ => self.digits()?,
        }
        let mut whole = true;
        if self.message.get(self.at) == Some(&b'.') {
            whole = false;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.message.get(self.at), Some(b'e' | b'E')) {
            whole = false;
            self.at += 1;
            if matches!(self.peek()?, b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self.utf8(from, self.at)?;
        if whole && let Ok(number) = text.parse() {
            return Ok(Scalar::Int(number));
        }
        match text.parse() {
            Ok(number) => Ok(Scalar::Float(number)),
            Err(_) => self.malformed("not a number"),
        }
    }

    fn enter(&mut self, open: u8, end: u8, expected: &'static str) -> Result<Items, Flaw> {
        if self.peek()? != open {
            let at = self.at;
            let found = match self.kind()? {
                Kind::Array => "an array",
                Kind::Map => "a map",
                Kind::Scalar => self.scalar(expected)?.name(),
            };
            return Err(flaw(at, wrong(expected, found)));
        }
        self.at += 1;
        self.skip_space();
        Ok(Items { left: None, end, first: true })
    }
}

impl<'b> Reader<'b> for JsonReader<'b> {
    fn at(&self) -> usize {
        self.at
    }

    fn left(&self) -> usize {
        self.message.len() - self.at
    }

    fn kind(&mut self) -> Result<Kind, Flaw> {
        Ok(match self.peek()? {
            b'[' => Kind::Array,
            b'{' => Kind::Map,
            _ => Kind::Scalar,
        })
    }

    fn scalar(&mut self, expected: &'static str) -> Result<Scalar<'b>, Flaw> {
        let scalar = match self.peek()? {
            b'"' => Scalar::Text(self.string()?),
            b'-' | b'0'..=b'9' => self.number()?,
            b't' => self.literal("true").map(|()| Scalar::Bool(true))?,
            b'f' => self.literal("false").map(|()| Scalar::Bool(false))?,
            b'n' => self.literal("null").map(|()| Scalar::Null)?,
            b'[' => return Err(flaw(self.at, wrong(expected, "an array"))),
            b'{' => return Err(flaw(self.at, wrong(expected, "a map"))),
            _ => return self.malformed("not a value"),
        };
        self.skip_space();
        Ok(scalar)
    }

    fn map(&mut self, expected: &'static str) -> Result<Items, Flaw> {
        self.enter(b'{', b'}', expected)
    }

    fn array(&mut self, expected: &'static str) -> Result<Items, Flaw> {
        self.enter(b'[', b']', expected)
    }

    fn more(&mut self, items: &mut Items) -> Result<bool, Flaw> {
        if self.peek()? == items.end {
            self.at += 1;
            self.skip_space();
            return Ok(false);
        }
        if !items.first {
            self.take(b',', "expected a comma or the end")?;
        }
        items.first = false;
        Ok(true)
    }

    fn key(&mut self) -> Result<Key<'b>, Flaw> {
        if self.peek()? != b'"' {
            return self.malformed("expected a key in quotes");
        }
        let key = match self.string()? {
            Cow::Borrowed(key) => Key::Text(Cow::Borrowed(key.as_bytes())),
            Cow::Owned(key) => Key::Text(Cow::Owned(key.into_bytes())),
        };
        self.skip_space();
        self.take(b':', "expected a colon")?;
        Ok(key)
    }

    fn bytes(&mut self) -> Result<Cow<'b, [u8]>, Flaw> {
        let at = self.at;
        match self.scalar("a text of base64")? {
            Scalar::Text(text) => match base64::decode(&text) {
                Some(bytes) => Ok(Cow::Owned(bytes)),
                None => {
                    Err(flaw(at, Fault::Malformed { what: Cow::Borrowed("text is not base64") }))
                }
            },
            other => Err(flaw(at, wrong("a text of base64", other.name()))),
        }
    }

    fn skip_tags(&mut self) -> Result<(), Flaw> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Flaw> {
        match self.left() {
            0 => Ok(()),
            _ => Err(flaw(self.at, Fault::Trailing)),
        }
    }
}
