//! A batch column by column, for stores that write it so: codes of rows and messages, and what the
//! codes stand for.

use forebay_wire::Seq;

use super::{Cell, Interner, Kind, NO_TIME, NONE, Rows, profiles::Profile};

impl Rows {
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

    /// Whether the registry lists a message's device.
    #[must_use]
    pub fn is_known(&self, message: usize) -> bool {
        self.message.profile[message] != NONE
    }

    /// The code of a message's device's name in [`Rows::names`].
    #[must_use]
    pub fn name(&self, message: usize) -> Option<u32> {
        self.profile(message, |profile| profile.name)
    }

    /// The code of a message's device's type in [`Rows::device_types`].
    #[must_use]
    pub fn device_type(&self, message: usize) -> Option<u32> {
        self.profile(message, |profile| profile.device_type)
    }

    /// The code of a message's device's location in [`Rows::locations`].
    #[must_use]
    pub fn location(&self, message: usize) -> Option<u32> {
        self.profile(message, |profile| profile.location)
    }

    fn profile(&self, message: usize, part: impl Fn(&Profile) -> u32) -> Option<u32> {
        let profile = self.profiles.get(self.message.profile[message])?;
        Some(part(profile)).filter(|&code| code != NONE)
    }

    /// Whether a row's value is not of the type or within the bounds that the registry gives.
    #[must_use]
    pub fn is_suspect(&self, row: usize) -> bool {
        self.reading.suspect[row]
    }

    /// How many rows are of devices that the registry does not list, and how many have a value that
    /// is not as it says; none where there is no registry.
    #[must_use]
    pub fn doubtful(&self) -> (u64, u64) {
        if self.profiles.registry().is_empty() {
            return (0, 0);
        }
        let messages = self.reading.message.iter();
        let unknown = messages.filter(|&&number| !self.is_known(number as usize)).count();
        let suspect = self.reading.suspect.iter().filter(|&&suspect| suspect).count();
        (unknown as u64, suspect as u64)
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

    /// Dictionary of devices' names.
    #[must_use]
    pub fn names(&self) -> &Interner {
        &self.profiles.names
    }

    /// Dictionary of devices' types.
    #[must_use]
    pub fn device_types(&self) -> &Interner {
        &self.profiles.types
    }

    /// Dictionary of devices' locations.
    #[must_use]
    pub fn locations(&self) -> &Interner {
        &self.profiles.locations
    }
}
