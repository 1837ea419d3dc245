//! One row as every store sees it, borrowed from wherever it lies: a batch or a lake file.

use forebay_wire::Seq;

/// What a row holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// A finite number.
    Float(f64),
    /// A whole number.
    Int(i64),
    /// On or off.
    Bool(bool),
    /// Text.
    Text(&'a str),
    /// Bytes that only the application understands.
    Opaque {
        /// Their media type.
        content_type: &'a str,
        /// The bytes as sent.
        payload: &'a [u8],
    },
}

/// The kinds of [`Cell`] as they stand in the column `type`; the number is the code in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// `float`
    Float = 0,
    /// `int`
    Int = 1,
    /// `bool`
    Bool = 2,
    /// `text`
    Text = 3,
    /// `opaque`
    Opaque = 4,
}

impl Kind {
    /// All kinds, by code.
    pub const ALL: [Self; 5] = [Self::Float, Self::Int, Self::Bool, Self::Text, Self::Opaque];

    /// The word in the column `type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Int => "int",
            Self::Bool => "bool",
            Self::Text => "text",
            Self::Opaque => "opaque",
        }
    }

    /// The kind of a word in the column `type`.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl Cell<'_> {
    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Float(_) => Kind::Float,
            Self::Int(_) => Kind::Int,
            Self::Bool(_) => Kind::Bool,
            Self::Text(_) => Kind::Text,
            Self::Opaque { .. } => Kind::Opaque,
        }
    }

    /// The number to average, if it is one: floats, integers, and booleans as 0 and 1.
    #[must_use]
    pub fn as_number(&self) -> Option<f64> {
        match *self {
            Self::Float(number) => Some(number),
            Self::Int(number) => Some(number as f64),
            Self::Bool(on) => Some(f64::from(u8::from(on))),
            Self::Text(_) | Self::Opaque { .. } => None,
        }
    }
}

/// One reading with everything that is stored beside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowView<'a> {
    /// Whose device it is.
    pub tenant: &'a str,
    /// Who sent it.
    pub device: &'a str,
    /// Which life of the device's counter.
    pub session: u64,
    /// The message's number in that session.
    pub seq: u64,
    /// The reading's place in the message.
    pub index: u16,
    /// What was measured; `None` for an opaque payload.
    pub key: Option<&'a str>,
    /// The value.
    pub value: Cell<'a>,
    /// Its unit: the device's own word, else the registry's.
    pub unit: Option<&'a str>,
    /// When it was measured, if the device said so, in microseconds since the epoch.
    pub time_us: Option<i64>,
    /// When the front received it, in microseconds since the epoch.
    pub received_us: i64,
    /// Its entry in the middle's queue.
    pub entry: Seq,
    /// The device's name, if the registry gives one.
    pub name: Option<&'a str>,
    /// The device's type, if the registry gives one.
    pub device_type: Option<&'a str>,
    /// The device's location, if the registry gives one.
    pub location: Option<&'a str>,
    /// Whether the registry lists the device; `false` of all where there is no registry.
    pub known: bool,
    /// Whether the value is not of the type or within the bounds that the registry gives.
    pub suspect: bool,
}

impl RowView<'_> {
    /// The time readers sort and cut by: when it was measured, else when it was received.
    #[must_use]
    pub fn at_us(&self) -> i64 {
        self.time_us.unwrap_or(self.received_us)
    }
}
