//! Who a connection speaks for, and the partition its messages go to.
//!
//! Today the path names the device and every device belongs to [`TenantId::single`]: anonymous
//! mode, which a front offers on loopback, and elsewhere only if it is told to. A credential will
//! supply both; then [`Policy::admit`] compares it with the path, and nothing behind it changes.

use forebay_model::{DeviceId, TenantId};

use crate::handshake::answer::Refusal;

/// Who sends over a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    /// Whose device it is.
    pub tenant: TenantId,
    /// The device.
    pub device: DeviceId,
}

/// Whom this front lets in.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    anonymous: bool,
}

impl Policy {
    /// `anonymous` lets in everybody as the device the path names.
    pub(crate) fn new(anonymous: bool) -> Self {
        Self { anonymous }
    }

    /// Decides who a connection to the path of `device` speaks for.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`]: nobody is let in without a credential.
    pub(crate) fn admit(&self, device: DeviceId) -> Result<Identity, Refusal> {
        if self.anonymous {
            Ok(Identity { tenant: TenantId::single(), device })
        } else {
            Err(Refusal::Unauthenticated)
        }
    }
}

impl Identity {
    /// Which of `partitions` the device belongs to; never changes while their number stays.
    ///
    /// FNV-1a over `tenant 0x00 device` (0 occurs in neither), folded so that its weak low bits do
    /// not decide. Every front of an installation must agree, so the function is part of the
    /// protocol between the tiers, not a detail.
    pub(crate) fn partition(&self, partitions: usize) -> usize {
        let tenant = self.tenant.as_str().bytes();
        let bytes = tenant.chain(std::iter::once(0)).chain(self.device.as_str().bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let folded = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        usize::try_from(folded % partitions as u64).expect("below a number of partitions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(device: &str) -> Identity {
        Identity { tenant: TenantId::single(), device: DeviceId::new(device).expect("valid") }
    }

    #[test]
    fn strangers_are_let_in_only_in_anonymous_mode() {
        let device = DeviceId::new("pump").expect("valid");
        assert_eq!(Policy::new(false).admit(device.clone()), Err(Refusal::Unauthenticated));
        assert_eq!(Policy::new(true).admit(device), Ok(identity("pump")));
    }

    #[test]
    fn devices_spread_evenly_and_stay_where_they_are() {
        for partitions in [1, 2, 3, 5] {
            let mut counts = vec![0_usize; partitions];
            for number in 0..10_000 {
                counts[identity(&format!("device-{number}")).partition(partitions)] += 1;
            }
            let even = 10_000 / partitions;
            assert!(counts.iter().all(|count| count.abs_diff(even) < even / 10), "{counts:?}");
        }
        // Golden: a change here sends devices to another middle, past its record of duplicates.
        let golden: Vec<_> = ["a", "pump-7", "x.y:z"].map(|id| identity(id).partition(8)).into();
        assert_eq!(golden, GOLDEN);
    }

    const GOLDEN: [usize; 3] = [3, 2, 1];
}
