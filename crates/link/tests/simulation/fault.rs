//! Mistakes planted on purpose: a simulation that does not catch each of them proves nothing.

/// One mistake, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The rules as they are.
    None,
    /// The middle acks what it has appended and not yet synced.
    AckBeforeDurable,
    /// The middle takes a batch although something before it is missing.
    AckOfGap,
    /// The middle's snapshot does not bring the messages it knew back.
    DedupForgotten,
    /// Once the middle had no room, it never gives credit again.
    CreditNeverReturned,
    /// Requests of a consumer's older session are done as if it were the newest.
    StaleSessionHonoured,
    /// A queue opens without a new epoch: numbers cut off by a power cut are given out again.
    SeqReused,
    /// A fetch begins one record too late.
    ReplayOffByOne,
}

/// All that must be caught.
pub(crate) const PLANTED: [Fault; 7] = [
    Fault::AckBeforeDurable,
    Fault::AckOfGap,
    Fault::DedupForgotten,
    Fault::CreditNeverReturned,
    Fault::StaleSessionHonoured,
    Fault::SeqReused,
    Fault::ReplayOffByOne,
];
