//! What the registry knows of the devices of a batch: looked up once a device, kept by column.
//!
//! It never decides which rows there are, in which order or in which batch: it only adds columns.
//! One registry serves a whole batch, whatever is loaded meanwhile.

use std::sync::Arc;

use forebay_model::{
    Value,
    registry::{Device, KeyDefinition, Keys, Registry},
};
use hashbrown::HashMap;

use super::{Interner, NONE};

/// The profiles of the devices of one batch.
#[derive(Debug, Clone, Default)]
pub(super) struct Profiles {
    registry: Arc<Registry>,
    /// By the codes of tenant and device.
    codes: HashMap<(u32, u32), u32>,
    /// The device asked for last, and its profile: neighbours are often of one device.
    recent: Option<((u32, u32), u32)>,
    profiles: Vec<Profile>,
    tables: Vec<Table>,
    pub(super) names: Interner,
    pub(super) types: Interner,
    pub(super) locations: Interner,
}

/// One device that the registry lists.
#[derive(Debug, Clone, Copy)]
pub(super) struct Profile {
    pub(super) name: u32,
    pub(super) device_type: u32,
    pub(super) location: u32,
    /// Which of the tables of keys is its.
    table: u32,
}

/// A table of keys as this batch names them.
#[derive(Debug, Clone)]
struct Table {
    keys: Arc<Keys>,
    /// By the code of a key; looked up when it is first seen.
    facts: Vec<Fact>,
}

/// What the registry says of a key.
#[derive(Debug, Clone, Default)]
enum Fact {
    #[default]
    NotLookedUp,
    Unlisted,
    Listed {
        definition: Box<KeyDefinition>,
        /// The code of its unit, once it was used.
        unit: Option<u32>,
    },
}

impl Profiles {
    /// Forgets all devices; those that follow are looked up in `registry`.
    pub(super) fn clear(&mut self, registry: Arc<Registry>) {
        self.registry = registry;
        self.codes.clear();
        self.recent = None;
        self.profiles.clear();
        self.tables.clear();
        for words in [&mut self.names, &mut self.types, &mut self.locations] {
            words.clear();
        }
    }

    /// The registry of this batch.
    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The profile of a device by its texts and their codes; [`NONE`] if it is not listed.
    pub(super) fn of(&mut self, codes: (u32, u32), tenant: &str, device: &str) -> u32 {
        if self.registry.is_empty() {
            return NONE;
        }
        if let Some((recent, profile)) = self.recent
            && recent == codes
        {
            return profile;
        }
        let profile = match self.codes.get(&codes) {
            Some(&profile) => profile,
            None => {
                let profile = match self.registry.get(tenant, device).cloned() {
                    Some(device) => self.add(&device),
                    None => NONE,
                };
                self.codes.insert(codes, profile);
                profile
            }
        };
        self.recent = Some((codes, profile));
        profile
    }

    fn add(&mut self, device: &Device) -> u32 {
        let code =
            |words: &mut Interner, text: Option<&str>| text.map_or(NONE, |text| words.intern(text));
        let same = |table: &Table| Arc::ptr_eq(&table.keys, &device.keys);
        let table = self.tables.iter().position(same).unwrap_or_else(|| {
            self.tables.push(Table { keys: device.keys.clone(), facts: Vec::new() });
            self.tables.len() - 1
        });
        self.profiles.push(Profile {
            name: code(&mut self.names, device.name.as_deref()),
            device_type: code(&mut self.types, device.device_type.as_deref()),
            location: code(&mut self.locations, device.location.as_deref()),
            table: table as u32,
        });
        (self.profiles.len() - 1) as u32
    }

    /// A listed device.
    pub(super) fn get(&self, profile: u32) -> Option<&Profile> {
        self.profiles.get(profile as usize)
    }

    /// What the registry says of a reading: the code in `labels` of the key's unit, and whether
    /// the value is not as it should be.
    pub(super) fn judge(
        &mut self,
        profile: u32,
        (code, key): (u32, &str),
        value: &Value<'_>,
        labels: &mut Interner,
        wants_unit: bool,
    ) -> (u32, bool) {
        let Some(profile) = self.profiles.get(profile as usize) else { return (NONE, false) };
        let Table { keys, facts } = &mut self.tables[profile.table as usize];
        if facts.len() <= code as usize {
            facts.resize(code as usize + 1, Fact::NotLookedUp);
        }
        let fact = &mut facts[code as usize];
        if matches!(fact, Fact::NotLookedUp) {
            *fact = match keys.get(key) {
                None => Fact::Unlisted,
                Some(definition) => {
                    Fact::Listed { definition: Box::new(definition.clone()), unit: None }
                }
            };
        }
        let Fact::Listed { definition, unit } = fact else { return (NONE, false) };
        let mut label = NONE;
        if wants_unit && let Some(text) = &definition.unit {
            label = *unit.get_or_insert_with(|| labels.intern(text));
        }
        (label, definition.check(value).is_err())
    }
}
