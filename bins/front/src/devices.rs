//! Which connection speaks for a device: the newest, on whatever core it is.
//!
//! Touched once when a connection says hello and once when it ends, never by a message. The map is
//! cut into shards so that a reconnect storm does not queue at one lock.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError},
};

use hashbrown::HashMap;

use crate::{
    control::{Control, Order},
    tenancy::Identity,
};

/// Locks; far more than cores, so that two rarely meet.
const SHARDS: usize = 64;

type Shard = Mutex<HashMap<Identity, Arc<Control>>>;

/// The connections of this front by device.
pub(crate) struct Devices {
    hasher: RandomState,
    shards: Vec<Shard>,
}

impl Devices {
    pub(crate) fn new() -> Self {
        Self { hasher: RandomState::new(), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// From now on `control` speaks for the device; an older connection is told to end.
    ///
    /// Returns the handle of the older one, so that the same session can be continued.
    pub(crate) fn take_over(
        &self,
        identity: &Identity,
        control: &Arc<Control>,
    ) -> Option<Arc<Control>> {
        let mut shard = self.shard(identity).lock().unwrap_or_else(PoisonError::into_inner);
        let older = shard.insert(identity.clone(), Arc::clone(control));
        drop(shard);
        if let Some(older) = &older {
            older.order(Order::Replaced);
        }
        older
    }

    /// `control` has ended; a newer connection of the device stays.
    pub(crate) fn leave(&self, identity: &Identity, control: &Arc<Control>) {
        let mut shard = self.shard(identity).lock().unwrap_or_else(PoisonError::into_inner);
        if shard.get(identity).is_some_and(|current| Arc::ptr_eq(current, control)) {
            shard.remove(identity);
        }
    }

    fn shard(&self, identity: &Identity) -> &Shard {
        let hash = self.hasher.hash_one(identity);
        &self.shards[usize::try_from(hash % SHARDS as u64).expect("below SHARDS")]
    }
}

#[cfg(test)]
mod tests {
    use forebay_model::{DeviceId, TenantId};

    use super::*;

    #[test]
    fn the_newest_connection_speaks_and_the_older_one_is_told() {
        let devices = Devices::new();
        let device = DeviceId::new("pump").expect("valid");
        let identity = Identity { tenant: TenantId::single(), device };
        let (first, second) = (Arc::new(Control::new()), Arc::new(Control::new()));
        assert!(devices.take_over(&identity, &first).is_none());
        first.name_session(7);
        first.reach(3);
        let older = devices.take_over(&identity, &second).expect("the first");
        assert_eq!((older.reached_in(7), older.reached_in(8)), (Some(3), None));
        assert_eq!((first.ordered(), second.ordered()), (Some(Order::Replaced), None));
        // The older one ends late; the newer one stays.
        devices.leave(&identity, &first);
        devices.take_over(&identity, &first);
        assert_eq!(second.ordered(), Some(Order::Replaced));
    }
}
