//! What the tenants of a front share: how fast one of them may send, and how much of a ring its
//! messages may fill.
//!
//! A ring's share is counted by a ledger: each append notes its tenant and bytes under the number
//! of its last entry, and what the middle has acked is taken off again. Entries that an earlier run
//! of the front left are nobody's. The ledger is kept only while there is more than one tenant.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use forebay_model::TenantId;
use forebay_queue::Seq;
use hashbrown::HashMap;

use crate::{config::Config, rings::Ring, session::bucket::Bucket};

/// Bytes up to which appends of one tenant share an entry of the ledger.
const RUN_BYTES_MAX: u64 = 64 * 1024;

/// What an entry takes in a ring beside its bytes, about.
const RECORD_BYTES: u64 = 36;

/// The tenants of a front.
pub(crate) struct Tenants {
    all: Mutex<HashMap<TenantId, Arc<Tenant>>>,
    /// How many there are; not below what the file of keys names.
    count: AtomicUsize,
    ledgers: Vec<Mutex<Ledger>>,
    /// Bytes of each ring that one tenant may fill.
    share_bytes: u64,
    rate: Option<(u32, u32)>,
}

/// One tenant.
#[derive(Debug)]
pub(crate) struct Tenant {
    /// Bytes in each ring that the middle has not acked.
    used: Vec<AtomicU64>,
    bucket: Option<Mutex<Bucket>>,
}

#[derive(Debug, Default)]
struct Ledger {
    runs: VecDeque<Run>,
}

/// Appends of one tenant, one after the other.
#[derive(Debug)]
struct Run {
    last: Seq,
    tenant: Arc<Tenant>,
    bytes: u64,
}

impl Tenants {
    /// No tenants yet, over the rings of `config`.
    pub(crate) fn new(config: &Config, rings: usize) -> Self {
        let share = config.queue.capacity.get() / 100 * u64::from(config.queue.tenant_share);
        let rate = (config.rate.tenant_messages_per_second, config.rate.tenant_burst);
        Self {
            all: Mutex::default(),
            count: AtomicUsize::new(0),
            ledgers: (0..rings).map(|_| Mutex::default()).collect(),
            share_bytes: share,
            rate: Some(rate).filter(|(rate, _)| *rate > 0),
        }
    }

    /// The file of keys names so many.
    pub(crate) fn expect(&self, count: usize) {
        self.count.fetch_max(count, Ordering::Relaxed);
    }

    /// The tenant of this name.
    pub(crate) fn get(&self, name: &TenantId, now_ms: u64) -> Arc<Tenant> {
        let mut all = lock(&self.all);
        if let Some(tenant) = all.get(name) {
            return Arc::clone(tenant);
        }
        let bucket = self.rate.and_then(|(rate, burst)| Bucket::new(rate, burst, now_ms));
        let tenant = Arc::new(Tenant {
            used: self.ledgers.iter().map(|_| AtomicU64::new(0)).collect(),
            bucket: bucket.map(Mutex::new),
        });
        all.insert(name.clone(), Arc::clone(&tenant));
        self.expect(all.len());
        tenant
    }

    /// Whether `tenant` may fill more of the ring `number`; what the middle has acked is taken off
    /// first.
    pub(crate) fn has_room(&self, tenant: &Tenant, number: usize, ring: &Ring) -> bool {
        if !self.are_several() || tenant.used[number].load(Ordering::Relaxed) < self.share_bytes {
            return true;
        }
        self.settle(number, ring);
        tenant.used[number].load(Ordering::Relaxed) < self.share_bytes
    }

    /// `tenant` has appended `entries` of `bytes` to the ring `number`, up to `last`.
    pub(crate) fn appended(
        &self,
        tenant: &Arc<Tenant>,
        number: usize,
        (entries, bytes): (usize, usize),
        last: Seq,
        ring: &Ring,
    ) {
        if !self.are_several() {
            return;
        }
        let bytes = bytes as u64 + entries as u64 * RECORD_BYTES;
        tenant.used[number].fetch_add(bytes, Ordering::Relaxed);
        let mut ledger = lock(&self.ledgers[number]);
        match ledger.runs.back_mut() {
            Some(run) if Arc::ptr_eq(&run.tenant, tenant) && run.bytes + bytes < RUN_BYTES_MAX => {
                run.bytes += bytes;
                // Cores append side by side: a later number may have been noted first.
                run.last = run.last.max(last);
            }
            _ => ledger.runs.push_back(Run { last, tenant: Arc::clone(tenant), bytes }),
        }
        ledger.settle(number, ring.acked.get());
    }

    fn settle(&self, number: usize, ring: &Ring) {
        lock(&self.ledgers[number]).settle(number, ring.acked.get());
    }

    fn are_several(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 1
    }
}

impl Ledger {
    fn settle(&mut self, number: usize, acked: Seq) {
        while let Some(run) = self.runs.pop_front_if(|run| run.last <= acked) {
            run.tenant.used[number].fetch_sub(run.bytes, Ordering::Relaxed);
        }
    }
}

impl Tenant {
    /// Takes one message off what the tenant may send; `Err` holds the milliseconds after which it
    /// may send again.
    pub(crate) fn take(&self, now_ms: u64) -> Result<(), u32> {
        let Some(bucket) = &self.bucket else { return Ok(()) };
        let mut bucket = lock(bucket);
        bucket.refill(now_ms);
        bucket.take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
