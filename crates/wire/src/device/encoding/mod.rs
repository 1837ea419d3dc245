//! Items of CBOR and of JSON behind one pair of traits, so that each frame is read and written by
//! one piece of code and both encodings refuse the same mistakes.
//!
//! Readers pull: nothing is built that the frame does not ask for, texts borrow from the message
//! wherever they hold no escapes and no chunks, no announced length is believed before the bytes
//! are there, and nesting is bounded by [`DEPTH_MAX`].

mod cbor_reader;
mod cbor_writer;
mod json_reader;
mod json_writer;

use std::borrow::Cow;

pub(super) use cbor_reader::CborReader;
pub(super) use cbor_writer::CborWriter;
pub(super) use json_reader::JsonReader;
pub(super) use json_writer::JsonWriter;

use super::{DecodeError, Fault, Place};

/// Arrays and maps within one another that are passed over at most.
pub(super) const DEPTH_MAX: usize = 16;

/// An error on its way up: boxed, so that the good path moves a pointer and not a report.
pub(super) type Flaw = Box<DecodeError>;

/// What is wrong with the item at `at`.
#[cold]
pub(super) fn flaw(at: usize, fault: Fault) -> Flaw {
    Box::new(DecodeError { seq: None, place: Place { at: Some(at), ..Place::default() }, fault })
}

/// Names the key in the error, if none is named yet.
pub(super) fn under(key: &'static str) -> impl Fn(Flaw) -> Flaw {
    move |mut flaw| {
        flaw.place.key.get_or_insert(key);
        flaw
    }
}

/// An item without items in it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar<'b> {
    Int(i64),
    /// Also an integer that 64 bits with a sign do not hold.
    Float(f64),
    Bool(bool),
    Null,
    Text(Cow<'b, str>),
    Bytes(Cow<'b, [u8]>),
}

impl Scalar<'_> {
    /// The type as an error names it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Int(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a boolean",
            Self::Null => "null",
            Self::Text(_) => "a text",
            Self::Bytes(_) => "bytes",
        }
    }
}

/// A key of a map: text everywhere, or an integer label in CBOR.
///
/// A text is kept as bytes: to be compared with the known keys it need not be UTF-8 first, and an
/// unknown one is refused or passed over anyway.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Key<'b> {
    Text(Cow<'b, [u8]>),
    Label(i64),
}

impl Key<'_> {
    /// The key's text; labels have none.
    #[inline]
    pub(super) fn text(&self) -> &[u8] {
        match self {
            Self::Text(text) => text,
            Self::Label(_) => b"",
        }
    }

    /// The fault of a key that is not known.
    #[cold]
    pub(super) fn unknown(&self) -> Fault {
        let key = match self {
            Self::Text(text) => String::from_utf8_lossy(text).chars().take(64).collect(),
            Self::Label(label) => label.to_string(),
        };
        Fault::UnknownKey { key }
    }
}

/// How far an array or a map has been read.
#[derive(Debug)]
pub(super) struct Items {
    /// Items left, where they were announced.
    left: Option<u64>,
    /// The byte that ends it, where they were not.
    end: u8,
    /// Whether none was read yet.
    first: bool,
}

impl Items {
    /// How many items to make room for: never more than the bytes that are there could hold.
    pub(super) fn room(&self, bytes_left: usize, item_bytes_min: usize) -> usize {
        let announced = self.left.unwrap_or(8);
        usize::try_from(announced).unwrap_or(usize::MAX).min(bytes_left / item_bytes_min)
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Array,
    Map,
    Scalar,
}

/// Pulls items out of one message, in order.
pub(super) trait Reader<'b> {
    /// Offset of the next item.
    fn at(&self) -> usize;
    /// Bytes from there to the end of the message.
    fn left(&self) -> usize;
    /// What the next item is; nothing is read.
    fn kind(&mut self) -> Result<Kind, Flaw>;
    /// Reads a scalar; `expected` is for the error if something else comes.
    fn scalar(&mut self, expected: &'static str) -> Result<Scalar<'b>, Flaw>;
    /// Enters a map.
    fn map(&mut self, expected: &'static str) -> Result<Items, Flaw>;
    /// Enters an array.
    fn array(&mut self, expected: &'static str) -> Result<Items, Flaw>;
    /// Whether there is another item (of an array) or pair (of a map); leaves it at its end.
    fn more(&mut self, items: &mut Items) -> Result<bool, Flaw>;
    /// Reads a key.
    fn key(&mut self) -> Result<Key<'b>, Flaw>;
    /// Bytes as this encoding carries them.
    fn bytes(&mut self) -> Result<Cow<'b, [u8]>, Flaw>;
    /// Passes over a tag before an item that is skipped.
    fn skip_tags(&mut self) -> Result<(), Flaw>;
    /// Checks that nothing follows.
    fn finish(&mut self) -> Result<(), Flaw>;
}

/// The fault of one type where another is due.
pub(super) fn wrong(expected: &'static str, found: &'static str) -> Fault {
    Fault::WrongType { expected, found }
}

/// Reads a text.
#[inline]
pub(super) fn text<'b>(reader: &mut impl Reader<'b>) -> Result<Cow<'b, str>, Flaw> {
    let at = reader.at();
    match reader.scalar("a text")? {
        Scalar::Text(text) => Ok(text),
        other => Err(flaw(at, wrong("a text", other.name()))),
    }
}

/// Reads a text, or null for none.
#[inline]
pub(super) fn text_or_null<'b>(reader: &mut impl Reader<'b>) -> Result<Option<Cow<'b, str>>, Flaw> {
    let at = reader.at();
    match reader.scalar("a text")? {
        Scalar::Text(text) => Ok(Some(text)),
        Scalar::Null => Ok(None),
        other => Err(flaw(at, wrong("a text", other.name()))),
    }
}

/// Reads an integer from 0.
#[inline]
pub(super) fn uint<'b>(reader: &mut impl Reader<'b>) -> Result<u64, Flaw> {
    const EXPECTED: &str = "an integer of 0 or more";
    let at = reader.at();
    match reader.scalar(EXPECTED)? {
        Scalar::Int(number) => {
            u64::try_from(number).map_err(|_| flaw(at, wrong(EXPECTED, "a negative integer")))
        }
        other => Err(flaw(at, wrong(EXPECTED, other.name()))),
    }
}

/// Passes over one item, whatever it is.
pub(super) fn skip<'b>(reader: &mut impl Reader<'b>, depth: usize) -> Result<(), Flaw> {
    let at = reader.at();
    reader.skip_tags()?;
    let kind = reader.kind()?;
    if depth == DEPTH_MAX && kind != Kind::Scalar {
        let what = Cow::Borrowed("arrays and maps are nested too deep");
        return Err(flaw(at, Fault::Malformed { what }));
    }
    match kind {
        Kind::Scalar => drop(reader.scalar("an item")?),
        Kind::Array => {
            let mut items = reader.array("an array")?;
            while reader.more(&mut items)? {
                skip(reader, depth + 1)?;
            }
        }
        Kind::Map => {
            let mut items = reader.map("a map")?;
            while reader.more(&mut items)? {
                reader.key()?;
                skip(reader, depth + 1)?;
            }
        }
    }
    Ok(())
}

/// Puts items into one message, in order. Maps and arrays are closed by their `end`.
pub(super) trait Writer {
    fn map(&mut self, pairs: usize);
    fn end_map(&mut self);
    fn array(&mut self, items: usize);
    fn end_array(&mut self);
    fn key(&mut self, key: &'static str);
    fn uint(&mut self, number: u64);
    fn int(&mut self, number: i64);
    fn float(&mut self, number: f64);
    fn bool(&mut self, on: bool);
    fn null(&mut self);
    fn text(&mut self, text: &str);
    fn bytes(&mut self, bytes: &[u8]);
}
