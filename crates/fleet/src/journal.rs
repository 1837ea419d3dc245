//! What each (device, session) has sent and what was acknowledged: the promise to hold against
//! what was stored.
//!
//! Devices number their messages without holes and acks are cumulative, so that two marks and the
//! few rejected numbers say it all: a session costs some hundred bytes, whatever it sent. `sent`
//! moves before the first byte leaves, `acked` after the ack was read: what a kill leaves between
//! them may be stored or not, and both are right.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// The record of a run, shared by all its devices.
#[derive(Debug, Default)]
pub struct Journal {
    sessions: Mutex<Vec<Arc<SessionLog>>>,
}

/// The record of one session of one device.
#[derive(Debug)]
pub struct SessionLog {
    /// The device's number in its script.
    pub device: u32,
    /// The device's id.
    pub name: String,
    /// The session's number.
    pub session: u64,
    /// How many readings each message has.
    pub rows: u16,
    sent: AtomicU64,
    acked: AtomicU64,
    roamed: AtomicBool,
    rejected: Mutex<Vec<u64>>,
}

/// A session's record, taken out for a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// The device's number in its script.
    pub device: u32,
    /// The device's id.
    pub name: String,
    /// The session's number.
    pub session: u64,
    /// How many readings each message has.
    pub rows: u16,
    /// Highest seq that may have left; all from 1 on may be stored.
    pub sent: u64,
    /// Highest seq acknowledged; all from 1 on must be stored, but for the rejected.
    pub acked: u64,
    /// Whether the device used several fronts, so that its rows may arrive in another order.
    pub roamed: bool,
    /// Seqs that a front refused for good: they must not be stored. Ascending.
    pub rejected: Vec<u64>,
}

impl Journal {
    /// Opens the record of a new session.
    pub fn open(&self, device: u32, name: &str, session: u64, rows: u16) -> Arc<SessionLog> {
        let log = Arc::new(SessionLog {
            device,
            name: name.to_owned(),
            session,
            rows,
            sent: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            roamed: AtomicBool::new(false),
            rejected: Mutex::default(),
        });
        self.lock().push(Arc::clone(&log));
        log
    }

    /// Every session as it stands now.
    #[must_use]
    pub fn records(&self) -> Vec<SessionRecord> {
        self.lock().iter().map(|log| log.record()).collect()
    }

    /// Messages sent, acknowledged (without the rejected) and rejected so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for log in self.lock().iter() {
            let rejected = log.rejected().len() as u64;
            totals.sent += log.sent();
            totals.acked += log.acked().saturating_sub(rejected);
            totals.rejected += rejected;
        }
        totals
    }

    /// Sessions by (device id, session).
    pub(crate) fn by_identity(records: &[SessionRecord]) -> HashMap<&str, HashMap<u64, usize>> {
        let mut map: HashMap<&str, HashMap<u64, usize>> = HashMap::new();
        for (index, record) in records.iter().enumerate() {
            map.entry(&record.name).or_default().insert(record.session, index);
        }
        map
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<SessionLog>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sums over all sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages that may have left.
    pub sent: u64,
    /// Messages acknowledged and not rejected.
    pub acked: u64,
    /// Messages refused for good.
    pub rejected: u64,
}

impl SessionLog {
    /// All up to `seq` may leave from now on. Call it before the first byte does.
    pub fn sending(&self, seq: u64) {
        self.sent.fetch_max(seq, Ordering::Relaxed);
    }

    /// All up to `seq` are acknowledged.
    pub fn acknowledged(&self, seq: u64) {
        debug_assert!(seq <= self.sent(), "ack of {seq} above what was sent");
        self.acked.fetch_max(seq, Ordering::Relaxed);
    }

    /// A front refused `seq` for good.
    pub fn rejected_one(&self, seq: u64) {
        let mut rejected = self.rejected();
        if let Err(place) = rejected.binary_search(&seq) {
            rejected.insert(place, seq);
        }
    }

    /// The device went to another front than before.
    pub fn roamed(&self) {
        self.roamed.store(true, Ordering::Relaxed);
    }

    /// Highest seq that may have left.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Highest seq acknowledged.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    fn rejected(&self) -> std::sync::MutexGuard<'_, Vec<u64>> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self) -> SessionRecord {
        // Acked first: it never passes what is read as sent afterwards.
        let acked = self.acked();
        SessionRecord {
            device: self.device,
            name: self.name.clone(),
            session: self.session,
            rows: self.rows,
            sent: self.sent(),
            acked,
            roamed: self.roamed.load(Ordering::Relaxed),
            rejected: self.rejected().clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_only_rise_and_rejected_messages_are_not_counted_as_acked() {
        let journal = Journal::default();
        let log = journal.open(3, "pump-00003", 17, 2);
        log.sending(10);
        log.sending(4);
        log.acknowledged(7);
        log.acknowledged(5);
        log.rejected_one(6);
        log.rejected_one(2);
        log.rejected_one(6);
        assert_eq!(journal.totals(), Totals { sent: 10, acked: 5, rejected: 2 });
        let records = journal.records();
        assert_eq!((records[0].sent, records[0].acked), (10, 7));
        assert_eq!(records[0].rejected, [2, 6]);
        assert!(Journal::by_identity(&records)["pump-00003"].contains_key(&17));
    }
}
