//! The rows of one range of entries, column by column, as every sink and reader takes them.
//!
//! A batch is filled straight from decoded messages: numbers into vectors, repeated strings into
//! dictionaries, other text into one arena; there is no struct per row. What it holds depends on
//! the entries alone, so a replayed range gives an equal batch, which is what makes a re-sent block
//! identical.
//!
//! Not here: which rows form a batch (`sink`), and how a store writes them.

mod interner;
mod view;

pub use interner::Interner;
pub use view::{Cell, Kind, RowView};

use forebay_model::{Body, Message, Value};
use forebay_wire::{QueueId, Seq, entry, entry::EntryError};

/// Stands for "no code" in a column of codes.
pub const NONE: u32 = u32::MAX;

/// Stands for "the device gave no time"; outside [`forebay_model::Timestamp`]'s bounds.
const NO_TIME: i64 = i64::MIN;

/// The rows of the entries `first..=last` of one queue.
#[derive(Debug)]
pub struct Rows {
    queue: QueueId,
    first: Seq,
    last: Seq,
    entries: u64,
    tenants: Interner,
    devices: Interner,
    keys: Interner,
    /// Units, and content types of opaque payloads.
    labels: Interner,
    message: MessageColumns,
    reading: ReadingColumns,
    /// Text values and opaque payloads, one behind the other.
    text: Vec<u8>,
}

/// One element a message.
#[derive(Debug, Default)]
struct MessageColumns {
    tenant: Vec<u32>,
    device: Vec<u32>,
    session: Vec<u64>,
    seq: Vec<u64>,
    received_us: Vec<i64>,
    entry: Vec<u64>,
}

/// One element a row.
#[derive(Debug, Default)]
struct ReadingColumns {
    message: Vec<u32>,
    index: Vec<u16>,
    key: Vec<u32>,
    kind: Vec<Kind>,
    /// The bits of a number, or start and length in the arena (upper and lower half).
    value: Vec<u64>,
    label: Vec<u32>,
    time_us: Vec<i64>,
}

impl Rows {
    /// An empty batch of a queue.
    #[must_use]
    pub fn new(queue: QueueId) -> Self {
        Self {
            queue,
            first: Seq::ZERO,
            last: Seq::ZERO,
            entries: 0,
            tenants: Interner::default(),
            devices: Interner::default(),
            keys: Interner::default(),
            labels: Interner::default(),
            message: MessageColumns::default(),
            reading: ReadingColumns::default(),
            text: Vec::new(),
        }
    }

    /// Makes room for so many rows and bytes of text at once.
    ///
    /// Pages that are never touched cost nothing, and a batch that grows by doubling would hold up
    /// to twice what it needs.
    pub fn reserve(&mut self, rows: usize, text_bytes: usize) {
        let MessageColumns { tenant, device, session, seq, received_us, entry } = &mut self.message;
        tenant.reserve(rows);
        device.reserve(rows);
        session.reserve(rows);
        seq.reserve(rows);
        received_us.reserve(rows);
        entry.reserve(rows);
        let ReadingColumns { message, index, key, kind, value, label, time_us } = &mut self.reading;
        message.reserve(rows);
        index.reserve(rows);
        key.reserve(rows);
        kind.reserve(rows);
        value.reserve(rows);
        label.reserve(rows);
        time_us.reserve(rows);
        self.text.reserve(text_bytes);
    }

    /// Decodes one canonical entry and appends its rows.
    ///
    /// # Errors
    /// [`EntryError`]: the bytes are not an entry; nothing was appended and the range was not
    /// extended. Call [`Rows::skip`] to pass over it.
    pub fn append_entry(&mut self, seq: Seq, canonical: &[u8]) -> Result<(), EntryError> {
        let message = entry::decode(canonical)?;
        self.append(seq, &message);
        Ok(())
    }

    /// Extends the range by an entry that makes no rows.
    pub fn skip(&mut self, seq: Seq) {
        if self.entries == 0 {
            self.first = seq;
        }
        debug_assert!(seq > self.last, "entries come in order: {seq} after {}", self.last);
        self.last = seq;
        self.entries += 1;
    }

    /// Appends the rows of one message.
    pub fn append(&mut self, seq: Seq, message: &Message<'_>) {
        self.skip(seq);
        let number =
            u32::try_from(self.message.seq.len()).expect("a batch has under 2^32 messages");
        self.message.tenant.push(self.tenants.intern(&message.tenant));
        self.message.device.push(self.devices.intern(&message.device));
        self.message.session.push(message.session.get());
        self.message.seq.push(message.seq.get());
        self.message.received_us.push(message.received.micros());
        self.message.entry.push(seq.get());
        match &message.body {
            Body::Readings(readings) => {
                for (index, reading) in readings.iter().enumerate() {
                    let (kind, value) = match &reading.value {
                        Value::Float(number) => (Kind::Float, number.to_bits()),
                        Value::Int(number) => (Kind::Int, number.cast_unsigned()),
                        Value::Bool(on) => (Kind::Bool, u64::from(*on)),
                        Value::Text(text) => (Kind::Text, keep(&mut self.text, text.as_bytes())),
                    };
                    self.reading.message.push(number);
                    self.reading.index.push(index as u16);
                    self.reading.key.push(self.keys.intern(&reading.key));
                    self.reading.kind.push(kind);
                    self.reading.value.push(value);
                    let unit = reading.unit.as_deref();
                    self.reading.label.push(unit.map_or(NONE, |unit| self.labels.intern(unit)));
                    self.reading.time_us.push(reading.time.map_or(NO_TIME, |time| time.micros()));
                }
            }
            Body::Opaque { content_type, payload } => {
                self.reading.message.push(number);
                self.reading.index.push(0);
                self.reading.key.push(NONE);
                self.reading.kind.push(Kind::Opaque);
                self.reading.value.push(keep(&mut self.text, payload));
                self.reading.label.push(self.labels.intern(content_type));
                self.reading.time_us.push(NO_TIME);
            }
        }
    }

    /// Forgets all rows and keeps the memory, for the next range of a queue.
    pub fn clear(&mut self, queue: QueueId) {
        self.queue = queue;
        self.first = Seq::ZERO;
        self.last = Seq::ZERO;
        self.entries = 0;
        for interner in [&mut self.tenants, &mut self.devices, &mut self.keys, &mut self.labels] {
            interner.clear();
        }
        let MessageColumns { tenant, device, session, seq, received_us, entry } = &mut self.message;
        tenant.clear();
        device.clear();
        session.clear();
        seq.clear();
        received_us.clear();
        entry.clear();
        let ReadingColumns { message, index, key, kind, value, label, time_us } = &mut self.reading;
        message.clear();
        index.clear();
        key.clear();
        kind.clear();
        value.clear();
        label.clear();
        time_us.clear();
        self.text.clear();
    }

    /// How many rows it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.reading.message.len()
    }

    /// Whether it holds no row; it may still cover entries that make none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reading.message.is_empty()
    }

    /// How many entries it covers.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The queue of its entries.
    #[must_use]
    pub fn queue(&self) -> QueueId {
        self.queue
    }

    /// The first and last entry it covers, `None` while it covers none.
    #[must_use]
    pub fn span(&self) -> Option<(Seq, Seq)> {
        (self.entries > 0).then_some((self.first, self.last))
    }

    /// One row.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn row(&self, row: usize) -> RowView<'_> {
        let message = self.reading.message[row] as usize;
        let label = self.label(row).map(|code| self.labels.get(code));
        let value = self.cell(row);
        let opaque = matches!(value, Cell::Opaque { .. });
        RowView {
            tenant: self.tenants.get(self.message.tenant[message]),
            device: self.devices.get(self.message.device[message]),
            session: self.message.session[message],
            seq: self.message.seq[message],
            index: self.reading.index[row],
            key: self.key(row).map(|code| self.keys.get(code)),
            value,
            unit: label.filter(|_| !opaque),
            time_us: self.time_us(row),
            received_us: self.message.received_us[message],
            entry: Seq::new(self.message.entry[message]),
        }
    }

    /// All rows in the order of their entries.
    pub fn iter(&self) -> impl Iterator<Item = RowView<'_>> {
        (0..self.len()).map(|row| self.row(row))
    }

    /// The value of a row.
    #[must_use]
    pub fn cell(&self, row: usize) -> Cell<'_> {
        let bits = self.reading.value[row];
        match self.reading.kind[row] {
            Kind::Float => Cell::Float(f64::from_bits(bits)),
            Kind::Int => Cell::Int(bits.cast_signed()),
            Kind::Bool => Cell::Bool(bits != 0),
            Kind::Text => {
                let text = std::str::from_utf8(self.kept(bits)).expect("it was a str when kept");
                Cell::Text(text)
            }
            Kind::Opaque => Cell::Opaque {
                content_type: self.labels.get(self.reading.label[row]),
                payload: self.kept(bits),
            },
        }
    }

    /// The kind of a row's value.
    #[must_use]
    pub fn kind(&self, row: usize) -> Kind {
        self.reading.kind[row]
    }

    /// Which message of the batch a row belongs to, from 0.
    #[must_use]
    pub fn message(&self, row: usize) -> usize {
        self.reading.message[row] as usize
    }

    /// The code of a row's key in [`Rows::keys`].
    #[must_use]
    pub fn key(&self, row: usize) -> Option<u32> {
        Some(self.reading.key[row]).filter(|&code| code != NONE)
    }

    /// The code of a row's unit or content type in [`Rows::labels`].
    #[must_use]
    pub fn label(&self, row: usize) -> Option<u32> {
        Some(self.reading.label[row]).filter(|&code| code != NONE)
    }

    /// A row's place in its message.
    #[must_use]
    pub fn index(&self, row: usize) -> u16 {
        self.reading.index[row]
    }

    /// When a row was measured, if its device said so.
    #[must_use]
    pub fn time_us(&self, row: usize) -> Option<i64> {
        Some(self.reading.time_us[row]).filter(|&time_us| time_us != NO_TIME)
    }

    /// The code of a message's tenant in [`Rows::tenants`].
    #[must_use]
    pub fn tenant(&self, message: usize) -> u32 {
        self.message.tenant[message]
    }

    /// The code of a message's device in [`Rows::devices`].
    #[must_use]
    pub fn device(&self, message: usize) -> u32 {
        self.message.device[message]
    }

    /// A message's session and its number there.
    #[must_use]
    pub fn identity(&self, message: usize) -> (u64, u64) {
        (self.message.session[message], self.message.seq[message])
    }

    /// When the front received a message.
    #[must_use]
    pub fn received_us(&self, message: usize) -> i64 {
        self.message.received_us[message]
    }

    /// A message's entry in the queue.
    #[must_use]
    pub fn entry(&self, message: usize) -> Seq {
        Seq::new(self.message.entry[message])
    }

    /// How many messages it holds.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.message.seq.len()
    }

    /// Dictionary of tenants.
    #[must_use]
    pub fn tenants(&self) -> &Interner {
        &self.tenants
    }

    /// Dictionary of devices.
    #[must_use]
    pub fn devices(&self) -> &Interner {
        &self.devices
    }

    /// Dictionary of keys.
    #[must_use]
    pub fn keys(&self) -> &Interner {
        &self.keys
    }

    /// Dictionary of units and content types.
    #[must_use]
    pub fn labels(&self) -> &Interner {
        &self.labels
    }

    /// Bytes it would take to keep what it holds now: what a batch is closed by.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        const MESSAGE_BYTES: usize = 4 + 4 + 8 + 8 + 8 + 8;
        const ROW_BYTES: usize = 4 + 2 + 4 + 1 + 8 + 4 + 8;
        let dictionaries = [&self.tenants, &self.devices, &self.keys, &self.labels];
        self.messages() * MESSAGE_BYTES
            + self.len() * ROW_BYTES
            + self.text.len()
            + dictionaries.iter().map(|dictionary| dictionary.heap_bytes()).sum::<usize>()
    }

    /// Text or payload kept by [`keep`].
    fn kept(&self, span: u64) -> &[u8] {
        let (start, length) = ((span >> 32) as usize, (span & 0xffff_ffff) as usize);
        &self.text[start..start + length]
    }
}

/// Keeps bytes in the arena and returns where they lie.
fn keep(text: &mut Vec<u8>, bytes: &[u8]) -> u64 {
    let start = u32::try_from(text.len()).expect("a batch is closed long before 4 GiB of text");
    text.extend_from_slice(bytes);
    (u64::from(start) << 32) | bytes.len() as u64
}
