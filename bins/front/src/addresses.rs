//! How many connections each IP address has, where that is bounded.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use hashbrown::HashMap;

/// The counts. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct AddressCounts {
    /// Connections of one address; 0 is without limit.
    most: u32,
    counts: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

/// A connection's place in the count of its address, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    addresses: AddressCounts,
    address: IpAddr,
}

impl AddressCounts {
    /// `most` connections of one address; 0 is without limit.
    pub(crate) fn new(most: u32) -> Self {
        Self { most, counts: Arc::default() }
    }

    /// Whether nobody is counted.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.most == 0
    }

    /// Counts a connection of `address`; `None` if it has as many as it may.
    pub(crate) fn take(&self, address: IpAddr) -> Option<Place> {
        // One host often has a whole /64 of IPv6 addresses: it is one address here.
        let address = match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
            address @ IpAddr::V4(_) => address,
        };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { addresses: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.addresses.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_gives_it_back() {
        let addresses = AddressCounts::new(2);
        let of = |text: &str| addresses.take(text.parse().expect("an address"));
        let (first, _second) = (of("192.0.2.7"), of("::ffff:192.0.2.7"));
        assert!(of("192.0.2.7").is_none() && of("192.0.2.8").is_some());
        drop(first);
        let _third = of("192.0.2.7");
        assert!(of("192.0.2.7").is_none());
        let _six = (of("fd00::1"), of("fd00::2"));
        assert!(of("fd00::3").is_none(), "one /64 is one address");
        assert!(of("fd00:0:0:1::3").is_some());
    }
}
