//! Planted faults: each takes out one safeguard, so that a test can show that it notices.
//!
//! Only with the feature `testing`; without it [`Faults::has`] is a constant `false` and the
//! branches vanish.
// Public for `testing`, which is not in every build.
#![allow(unreachable_pub)]

/// A safeguard to take out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Entries are called durable without a sync.
    AckWithoutSync,
    /// The last page of each range is left out of its sync.
    SyncPageShort,
    /// The next checkpoint goes to the other slot before this one's sync returned.
    SlotToggledEarly,
    /// Entries accepted above the durable mark are not synced at open.
    ReopenWithoutSync,
    /// Space behind the live cursor is reused before a checkpoint says so.
    SpaceReusedEarly,
    /// Checksums are not checked.
    NoCrc,
    /// The order of seqs is not checked.
    NoSeqCheck,
    /// All checkpoints go to one slot.
    OneSlot,
    /// An open goes on in the epoch it found.
    NoEpochInRecord,
    /// The new epoch, and where it begins, is not stored at open.
    EpochNotStored,
    /// A failed sync counts as done.
    SyncErrorIgnored,
    /// Entries accepted at open are synced, but their pages not marked dirty before.
    ReopenWithoutRedirty,
}

impl Fault {
    /// Every fault, for tests that go through them.
    #[cfg(any(test, feature = "testing"))]
    pub const ALL: [Fault; 12] = [
        Fault::AckWithoutSync,
        Fault::SyncPageShort,
        Fault::SlotToggledEarly,
        Fault::ReopenWithoutSync,
        Fault::SpaceReusedEarly,
        Fault::NoCrc,
        Fault::NoSeqCheck,
        Fault::OneSlot,
        Fault::NoEpochInRecord,
        Fault::EpochNotStored,
        Fault::SyncErrorIgnored,
        Fault::ReopenWithoutRedirty,
    ];
}

/// The faults planted in one queue; normally none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    #[cfg(any(test, feature = "testing"))]
    planted: u16,
}

impl Faults {
    /// Plants these.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub(crate) fn planted(faults: &[Fault]) -> Self {
        Faults { planted: faults.iter().fold(0, |bits, fault| bits | 1 << *fault as u16) }
    }

    /// Whether `fault` is planted.
    #[inline]
    #[must_use]
    pub(crate) fn has(self, fault: Fault) -> bool {
        #[cfg(any(test, feature = "testing"))]
        return self.planted & (1 << fault as u16) != 0;
        #[cfg(not(any(test, feature = "testing")))]
        {
            let _ = fault;
            false
        }
    }
}
