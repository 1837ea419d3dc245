//! The device registry: what is known of devices beforehand, by tenant and device.
//!
//! A device has a name, a type, a location, and key definitions. Those of its type are shared: ten
//! thousand pumps hold one table of keys, and only a device with keys of its own has its own table.
//! A registry never changes; a new version of its source is a new registry.
//!
//! Not here: where its text comes from, when it is read again, and what is done about a device or
//! reading that is not as it says.

mod definition;
mod load;

use std::{collections::HashMap, fmt, sync::Arc};

pub use definition::{DataType, KeyDefinition, Violation};
pub use load::LoadError;

use crate::{Body, DeviceId, Invalid, TenantId, limits, reading::check_text};

/// The keys of a type, or of one device, by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Keys(Vec<(Box<str>, KeyDefinition)>);

impl Keys {
    /// Adds a key, or replaces its definition.
    ///
    /// # Errors
    /// [`Invalid`]: no reading could have such a key.
    pub fn insert(&mut self, key: &str, definition: KeyDefinition) -> Result<(), Invalid> {
        check_text("key", key, limits::KEY_BYTES_MAX)?;
        if let Some(unit) = &definition.unit {
            check_text("unit", unit, limits::UNIT_BYTES_MAX)?;
        }
        match self.place(key) {
            Ok(place) => self.0[place].1 = definition,
            Err(place) => self.0.insert(place, (key.into(), definition)),
        }
        Ok(())
    }

    /// What is known of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&KeyDefinition> {
        self.place(key).ok().map(|place| &self.0[place].1)
    }

    /// All keys in the order of their bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &KeyDefinition)> {
        self.0.iter().map(|(key, definition)| (&**key, definition))
    }

    fn place(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(found, _)| (**found).cmp(key))
    }
}

/// What is known of one device.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Device {
    /// What people call it.
    pub name: Option<Box<str>>,
    /// What kind of device it is.
    pub device_type: Option<Arc<str>>,
    /// Where it is.
    pub location: Option<Arc<str>>,
    /// Its keys, shared with all devices of its type that have none of their own.
    pub keys: Arc<Keys>,
}

impl Device {
    /// The first reading that is not as the registry says: its place and what is wrong with it.
    ///
    /// # Errors
    /// The place, the key's name and the [`Violation`].
    pub fn check<'a>(&self, body: &'a Body<'_>) -> Result<(), (usize, &'a str, Violation)> {
        let Body::Readings(readings) = body else { return Ok(()) };
        for (place, reading) in readings.iter().enumerate() {
            if let Some(definition) = self.keys.get(&reading.key)
                && let Err(violation) = definition.check(&reading.value)
            {
                return Err((place, &reading.key, violation));
            }
        }
        Ok(())
    }
}

/// What is known of all devices.
#[derive(Clone, PartialEq, Default)]
pub struct Registry {
    tenants: HashMap<Box<str>, HashMap<Box<str>, Arc<Device>>>,
    devices: usize,
}

impl Registry {
    /// What is known of a device; `None` of one that is not listed.
    #[must_use]
    pub fn get(&self, tenant: &str, device: &str) -> Option<&Arc<Device>> {
        self.tenants.get(tenant)?.get(device)
    }

    /// Tenant, id and what is known of each device, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &Device)> {
        self.tenants.iter().flat_map(|(tenant, devices)| {
            devices.iter().map(|(device, entry)| (&**tenant, &**device, &**entry))
        })
    }

    /// How many devices it lists.
    #[must_use]
    pub fn len(&self) -> usize {
        self.devices
    }

    /// Whether it lists none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.devices == 0
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("devices", &self.devices).finish_non_exhaustive()
    }
}

/// A device as its source lists it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Listing {
    /// Whose it is; the installation's only tenant if absent.
    pub tenant: Option<String>,
    /// Its id.
    pub device: String,
    /// What people call it.
    pub name: Option<String>,
    /// What kind of device it is.
    pub device_type: Option<String>,
    /// Where it is.
    pub location: Option<String>,
    /// Keys that only this device has, or has in another way than its type.
    pub keys: Keys,
}

/// Why a listing is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListingError {
    /// A part is not what it has to be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The device is listed already.
    #[error("device {device} of tenant {tenant} is listed twice")]
    Twice {
        /// Whose.
        tenant: String,
        /// Which.
        device: String,
    },
}

/// Makes a registry: types first or last, in any order.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    types: HashMap<Arc<str>, Keys>,
    words: HashMap<Box<str>, Arc<str>>,
    listings: HashMap<(String, String), Listing>,
}

impl Builder {
    /// The keys of a type, to be added to.
    pub fn keys_of_type(&mut self, device_type: &str) -> &mut Keys {
        self.types.entry(device_type.into()).or_default()
    }

    /// Adds a device.
    ///
    /// # Errors
    /// [`ListingError`]; nothing was added.
    pub fn add(&mut self, mut listing: Listing) -> Result<(), ListingError> {
        let tenant =
            listing.tenant.take().unwrap_or_else(|| TenantId::single().as_str().to_owned());
        TenantId::check(&tenant)?;
        DeviceId::check(&listing.device)?;
        for (what, text) in [
            ("name", &listing.name),
            ("type", &listing.device_type),
            ("location", &listing.location),
        ] {
            if let Some(text) = text {
                check_text(what, text, limits::DESCRIPTION_BYTES_MAX)?;
            }
        }
        let device = listing.device.clone();
        if self.listings.contains_key(&(tenant.clone(), device.clone())) {
            return Err(ListingError::Twice { tenant, device });
        }
        self.listings.insert((tenant, device), listing);
        Ok(())
    }

    /// The registry of all that was added.
    #[must_use]
    pub fn build(mut self) -> Registry {
        let shared: HashMap<Arc<str>, Arc<Keys>> =
            self.types.drain().map(|(name, keys)| (name, Arc::new(keys))).collect();
        let none = Arc::new(Keys::default());
        let mut registry = Registry { devices: self.listings.len(), ..Registry::default() };
        for ((tenant, device), listing) in std::mem::take(&mut self.listings) {
            let device_type = listing.device_type.as_deref().map(|text| self.word(text));
            let of_type = device_type.as_ref().and_then(|name| shared.get(name)).unwrap_or(&none);
            let keys = if listing.keys.0.is_empty() {
                of_type.clone()
            } else {
                let mut keys = Keys::clone(of_type);
                for (key, definition) in listing.keys.0 {
                    match keys.place(&key) {
                        Ok(place) => keys.0[place].1 = definition,
                        Err(place) => keys.0.insert(place, (key, definition)),
                    }
                }
                Arc::new(keys)
            };
            let location = listing.location.as_deref().map(|text| self.word(text));
            let name = listing.name.map(Into::into);
            let entry = Arc::new(Device { name, device_type, location, keys });
            registry.tenants.entry(tenant.into()).or_default().insert(device.into(), entry);
        }
        registry
    }

    /// A text that many devices have, kept once.
    fn word(&mut self, text: &str) -> Arc<str> {
        if let Some(word) = self.words.get(text) {
            return word.clone();
        }
        let word: Arc<str> = text.into();
        self.words.insert(text.into(), word.clone());
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Reading, Value};

    fn pump(device: &str) -> Listing {
        Listing {
            device: device.to_owned(),
            device_type: Some("pump".to_owned()),
            location: Some("hall 3".to_owned()),
            ..Listing::default()
        }
    }

    #[test]
    fn thousands_of_devices_share_the_keys_of_their_type() {
        let mut builder = Builder::default();
        let unit = Some("Cel".into());
        let keys = builder.keys_of_type("pump");
        keys.insert("t", KeyDefinition { unit, ..KeyDefinition::default() }).expect("a key");
        for number in 0..5000 {
            builder.add(pump(&format!("pump-{number}"))).expect("a device");
        }
        let mut own = pump("own");
        let strict = KeyDefinition { data_type: Some(DataType::Int), ..KeyDefinition::default() };
        own.keys.insert("speed", strict).expect("a key");
        builder.add(own).expect("a device");
        let registry = builder.build();
        assert_eq!(registry.len(), 5001);
        let get = |device: &str| registry.get("default", device).expect("listed").clone();
        let (first, last, own) = (get("pump-0"), get("pump-4999"), get("own"));
        assert!(Arc::ptr_eq(&first.keys, &last.keys));
        assert!(Arc::ptr_eq(
            first.location.as_ref().expect("there"),
            own.location.as_ref().expect("there")
        ));
        assert_eq!(own.keys.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["speed", "t"]);
        assert!(registry.get("other", "own").is_none());
        assert!(registry.get("default", "pump-5000").is_none());
        let value = Value::Float(1.5);
        let reading = Reading { key: "speed".into(), value, unit: None, time: None };
        let body = Body::Readings(vec![reading]);
        let (place, key, violation) = own.check(&body).expect_err("refused");
        assert_eq!((place, key, violation.code()), (0, "speed", "wrong_type"));
        assert_eq!(first.check(&body), Ok(()));
    }

    #[test]
    fn a_device_that_is_listed_twice_or_cannot_be_one_is_refused() {
        let mut builder = Builder::default();
        builder.add(pump("a")).expect("a device");
        let twice = builder.add(pump("a")).expect_err("refused").to_string();
        assert_eq!(twice, "device a of tenant default is listed twice");
        let other = Listing { tenant: Some("acme".to_owned()), ..pump("a") };
        builder.add(other).expect("another tenant's");
        assert!(builder.add(pump("a/b")).is_err());
        assert!(builder.add(Listing { name: Some("a\nb".to_owned()), ..pump("c") }).is_err());
        assert_eq!(builder.build().len(), 2);
    }
}
