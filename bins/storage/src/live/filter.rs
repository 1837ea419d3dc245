//! Which events a reader wants, made ready to be asked for every message.

use std::collections::HashSet;

use forebay_model::{Body, Message};
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
    tenants: HashSet<String>,
    keys: HashSet<String>,
}

impl EventFilter {
    /// Takes the filters of a subscription.
    ///
    /// # Errors
    /// [`BadSubscription`]: it filters by what only a device registry knows, and there is none.
    pub fn new(subscription: &Subscription) -> Result<Self, BadSubscription> {
        for (name, list) in [("types", &subscription.types), ("locations", &subscription.locations)]
        {
            if !list.is_empty() {
                return Err(BadSubscription(format!(
                    "{name} cannot be matched: no device registry is configured"
                )));
            }
        }
        let set = |list: &Vec<String>| list.iter().cloned().collect();
        Ok(Self {
            devices: set(&subscription.devices),
            prefix: subscription.prefix.clone(),
            tenants: set(&subscription.tenants),
            keys: set(&subscription.keys),
        })
    }

    /// Whether a device is wanted.
    #[must_use]
    pub fn wants_device(&self, tenant: &str, device: &str) -> bool {
        if !self.tenants.is_empty() && !self.tenants.contains(tenant) {
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
    pub fn pick(&self, message: &Message<'_>, picked: &mut Vec<u16>) -> bool {
        picked.clear();
        if !self.wants_device(&message.tenant, &message.device) {
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
