//! Which events a reader wants, made ready to be asked for every message.

use std::collections::HashSet;

use forebay_model::{Body, Message, registry::Device};
use forebay_wire::live::Subscription;

/// A subscription that cannot be served; the sentence is for its author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSubscription(pub String);

/// The filters of one subscription.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventFilter {
    devices: HashSet<String>,
    prefix: Option<String>,
    types: HashSet<String>,
    locations: HashSet<String>,
    tenants: HashSet<String>,
    keys: HashSet<String>,
}

impl EventFilter {
    /// Takes the filters of a subscription; `registry` says whether there is a device registry.
    ///
    /// # Errors
    /// [`BadSubscription`]: it filters by what only a device registry knows, and there is none.
    pub fn new(subscription: &Subscription, registry: bool) -> Result<Self, BadSubscription> {
        for (name, list) in [("types", &subscription.types), ("locations", &subscription.locations)]
        {
            if !list.is_empty() && !registry {
                return Err(BadSubscription(format!(
                    "{name} cannot be matched: no device registry is configured"
                )));
            }
        }
        let set = |list: &Vec<String>| list.iter().cloned().collect();
        Ok(Self {
            devices: set(&subscription.devices),
            prefix: subscription.prefix.clone(),
            types: set(&subscription.types),
            locations: set(&subscription.locations),
            tenants: set(&subscription.tenants),
            keys: set(&subscription.keys),
        })
    }

    /// Whether a device is wanted; `listed` is what the registry knows of it.
    #[must_use]
    pub fn wants_device(&self, tenant: &str, device: &str, listed: Option<&Device>) -> bool {
        let has = |wanted: &HashSet<String>, found: Option<&str>| {
            wanted.is_empty() || found.is_some_and(|found| wanted.contains(found))
        };
        if !has(&self.tenants, Some(tenant))
            || !has(&self.types, listed.and_then(|listed| listed.device_type.as_deref()))
            || !has(&self.locations, listed.and_then(|listed| listed.location.as_deref()))
        {
            return false;
        }
        if self.devices.is_empty() && self.prefix.is_none() {
            return true;
        }
        self.devices.contains(device)
            || self.prefix.as_deref().is_some_and(|prefix| device.starts_with(prefix))
    }

    /// Whether a reading of a wanted device is wanted.
    #[must_use]
    pub fn wants_key(&self, key: &str) -> bool {
        self.keys.is_empty() || self.keys.contains(key)
    }

    /// Puts the places of the wanted readings into `picked`; says whether the message is wanted.
    /// An opaque payload has no key: it is wanted where no keys are named.
    pub fn pick(
        &self,
        message: &Message<'_>,
        listed: Option<&Device>,
        picked: &mut Vec<u16>,
    ) -> bool {
        picked.clear();
        if !self.wants_device(&message.tenant, &message.device, listed) {
            return false;
        }
        match &message.body {
            Body::Opaque { .. } => self.keys.is_empty(),
            Body::Readings(readings) => {
                let places = readings.iter().enumerate();
                picked.extend(places.filter_map(|(place, reading)| {
                    self.wants_key(&reading.key).then_some(place as u16)
                }));
                !picked.is_empty()
            }
        }
    }
}
