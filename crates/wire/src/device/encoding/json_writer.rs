//! Writing JSON frames: no white space, floats always with a point or an exponent, bytes as base64.

use std::io::Write as _;

use super::Writer;
use crate::base64;

pub(in crate::device) struct JsonWriter<'o> {
    out: &'o mut Vec<u8>,
    /// Whether a comma is due before the next item.
    comma: bool,
}

impl<'o> JsonWriter<'o> {
    pub(in crate::device) fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out, comma: false }
    }

    /// The comma that separates an item from the one before it.
    fn separate(&mut self) {
        if self.comma {
            self.out.push(b',');
        }
        self.comma = true;
    }

    fn display(&mut self, item: std::fmt::Arguments<'_>) {
        self.separate();
        self.out.write_fmt(item).expect("a vector takes every byte");
    }

    fn open(&mut self, bracket: u8) {
        self.separate();
        self.out.push(bracket);
        self.comma = false;
    }

    fn close(&mut self, bracket: u8) {
        self.out.push(bracket);
        self.comma = true;
    }

    fn quoted(&mut self, text: &str) {
        self.out.push(b'"');
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
            let (plain, special) = rest.split_at(at);
            self.out.extend_from_slice(plain.as_bytes());
            match special.as_bytes()[0] {
                byte @ (b'"' | b'\\') => self.out.extend_from_slice(&[b'\\', byte]),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                b'\r' => self.out.extend_from_slice(b"\\r"),
                b'\t' => self.out.extend_from_slice(b"\\t"),
                byte => write!(self.out, "\\u{byte:04x}").expect("a vector takes every byte"),
            }
            rest = &special[1..];
        }
        self.out.extend_from_slice(rest.as_bytes());
        self.out.push(b'"');
    }
}

impl Writer for JsonWriter<'_> {
    fn map(&mut self, _pairs: usize) {
        self.open(b'{');
    }

    fn end_map(&mut self) {
        self.close(b'}');
    }

    fn array(&mut self, _items: usize) {
        self.open(b'[');
    }

    fn end_array(&mut self) {
        self.close(b']');
    }

    fn key(&mut self, key: &'static str) {
        self.separate();
        self.quoted(key);
        self.out.push(b':');
        self.comma = false;
    }

    fn uint(&mut self, number: u64) {
        self.display(format_args!("{number}"));
    }

    fn int(&mut self, number: i64) {
        self.display(format_args!("{number}"));
    }

    fn float(&mut self, number: f64) {
        // Debug, not Display: 21 prints as 21.0 and so stays a float, 1e300 keeps its exponent.
        self.display(format_args!("{number:?}"));
    }

    fn bool(&mut self, on: bool) {
        self.display(format_args!("{on}"));
    }

    fn null(&mut self) {
        self.display(format_args!("null"));
    }

    fn text(&mut self, text: &str) {
        self.separate();
        self.quoted(text);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.separate();
        self.quoted(&base64::encode(bytes));
    }
}
