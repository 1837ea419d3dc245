//! The rows of one range of entries, column by column, as every sink and reader takes them.
//!
//! A batch is filled straight from decoded messages: numbers into vectors, repeated strings into
//! dictionaries, other text into one arena; there is no struct per row. Which rows it holds, and in
//! which order, depends on the entries alone, so a replayed range gives an equal batch, which is
//! what makes a re-sent block identical. What the device registry knows is added in columns of its
//! own, one registry a batch.
//!
//! Not here: which rows form a batch (`sink`), and how a store writes them.

mod columns;
mod interner;
mod piece;
mod profiles;
mod view;

pub use interner::Interner;
pub use view::{Cell, Kind, RowView};

use std::sync::Arc;

use forebay_model::{Body, Message, Value, registry::Registry};
use forebay_wire::{QueueId, Seq, entry, entry::EntryError};

use profiles::Profiles;

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
    /// Which labels came with an entry, and their bytes: those of the registry count for nothing.
    sent_labels: Vec<bool>,
    sent_label_bytes: usize,
    profiles: Profiles,
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
    profile: Vec<u32>,
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
    suspect: Vec<bool>,
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
            sent_labels: Vec::new(),
            sent_label_bytes: 0,
            profiles: Profiles::default(),
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
        let MessageColumns { tenant, device, session, seq, received_us, entry, profile } =
            &mut self.message;
        tenant.reserve(rows);
        device.reserve(rows);
        session.reserve(rows);
        seq.reserve(rows);
        received_us.reserve(rows);
        entry.reserve(rows);
        profile.reserve(rows);
        let ReadingColumns { message, index, key, kind, value, label, time_us, suspect } =
            &mut self.reading;
        message.reserve(rows);
        index.reserve(rows);
        key.reserve(rows);
        kind.reserve(rows);
        value.reserve(rows);
        label.reserve(rows);
        time_us.reserve(rows);
        suspect.reserve(rows);
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
        let tenant = self.tenants.intern(&message.tenant);
        let device = self.devices.intern(&message.device);
        let profile = self.profiles.of((tenant, device), &message.tenant, &message.device);
        self.message.tenant.push(tenant);
        self.message.device.push(device);
        self.message.profile.push(profile);
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
                    let key = self.keys.intern(&reading.key);
                    self.reading.key.push(key);
                    self.reading.kind.push(kind);
                    self.reading.value.push(value);
                    let sent = reading.unit.as_deref().map(|unit| self.label_of(unit));
                    let (unit, suspect) = self.profiles.judge(
                        profile,
                        (key, &reading.key),
                        &reading.value,
                        &mut self.labels,
                        sent.is_none(),
                    );
                    self.reading.label.push(sent.unwrap_or(unit));
                    self.reading.suspect.push(suspect);
                    self.reading.time_us.push(reading.time.map_or(NO_TIME, |time| time.micros()));
                }
            }
            Body::Opaque { content_type, payload } => {
                self.reading.message.push(number);
                self.reading.index.push(0);
                self.reading.key.push(NONE);
                self.reading.kind.push(Kind::Opaque);
                self.reading.value.push(keep(&mut self.text, payload));
                let label = self.label_of(content_type);
                self.reading.label.push(label);
                self.reading.time_us.push(NO_TIME);
                self.reading.suspect.push(false);
            }
        }
    }

    /// The code of a label that came with an entry.
    fn label_of(&mut self, text: &str) -> u32 {
        let code = self.labels.intern(text);
        let place = code as usize;
        if self.sent_labels.len() <= place {
            self.sent_labels.resize(place + 1, false);
        }
        if !std::mem::replace(&mut self.sent_labels[place], true) {
            // Its entry in the table, its end and itself.
            self.sent_label_bytes += 9 + text.len();
        }
        code
    }

    /// Devices of the rows that follow are looked up in `registry`.
    ///
    /// # Panics
    /// If it holds rows already: one registry serves a whole batch.
    pub fn describe_by(&mut self, registry: Arc<Registry>) {
        assert!(self.message.seq.is_empty(), "a batch is described by one registry");
        self.profiles.clear(registry);
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
        self.sent_labels.clear();
        self.sent_label_bytes = 0;
        let registry = self.profiles.registry().clone();
        self.profiles.clear(registry);
        let MessageColumns { tenant, device, session, seq, received_us, entry, profile } =
            &mut self.message;
        tenant.clear();
        device.clear();
        session.clear();
        seq.clear();
        received_us.clear();
        entry.clear();
        profile.clear();
        let ReadingColumns { message, index, key, kind, value, label, time_us, suspect } =
            &mut self.reading;
        message.clear();
        index.clear();
        key.clear();
        kind.clear();
        value.clear();
        label.clear();
        time_us.clear();
        suspect.clear();
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
        let profiles = &self.profiles;
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
            name: self.name(message).map(|code| profiles.names.get(code)),
            device_type: self.device_type(message).map(|code| profiles.types.get(code)),
            location: self.location(message).map(|code| profiles.locations.get(code)),
            known: self.is_known(message),
            suspect: self.reading.suspect[row],
        }
    }

    /// All rows in the order of their entries.
    pub fn iter(&self) -> impl Iterator<Item = RowView<'_>> {
        (0..self.len()).map(|row| self.row(row))
    }

    /// Bytes it would take to keep what it holds now: what a batch is closed by.
    ///
    /// What the registry adds is not counted: where a batch ends must not depend on it.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        const MESSAGE_BYTES: usize = 4 + 4 + 8 + 8 + 8 + 8 + 4;
        const ROW_BYTES: usize = 4 + 2 + 4 + 1 + 8 + 4 + 8 + 1;
        let dictionaries = [&self.tenants, &self.devices, &self.keys];
        self.messages() * MESSAGE_BYTES
            + self.len() * ROW_BYTES
            + self.text.len()
            + self.sent_label_bytes
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
