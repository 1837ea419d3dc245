//! A middle in memory behind the real uplink, whose durability a test can hold back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    task::Waker,
    time::Duration,
};

use forebay_link::{
    BindConfig, EntryStore, Fault, Joined, Level, QueueId, ReceiverConfig, Records, Seq,
    StoreError, UplinkReceiver,
};
use forebay_wire::{entry, partition};

/// A running middle.
pub struct Middle {
    receiver: UplinkReceiver,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    entries: Vec<Vec<u8>>,
    positions: HashMap<QueueId, Seq>,
    /// Whether what is appended becomes durable.
    held: bool,
    durable: u64,
    wakers: Vec<Waker>,
}

struct Store(Arc<Mutex<State>>);

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no panic under the lock")
}

impl Middle {
    /// A middle at `endpoint`; one that is `held` makes nothing durable until it is released.
    pub fn start(endpoint: &str, held: bool) -> Self {
        let state = Arc::new(Mutex::new(State { held, ..State::default() }));
        let config = ReceiverConfig {
            bind: BindConfig::new(endpoint),
            partitions: partition::map_hash([partition::SINGLE], partition::SINGLE),
            ..ReceiverConfig::new("test-middle", endpoint)
        };
        let on_failure = Box::new(|error| panic!("the middle failed: {error}"));
        let receiver = UplinkReceiver::start(config, Store(Arc::clone(&state)), on_failure);
        Self { receiver: receiver.expect("a middle"), state }
    }

    /// What it has appended becomes durable, now and from now on.
    pub fn release(&self) {
        let mut state = lock(&self.state);
        state.held = false;
        state.settle();
    }

    /// How many entries it has appended, durable or not.
    pub fn appended(&self) -> usize {
        lock(&self.state).entries.len()
    }

    /// Device and seq of each entry, in the order of arrival.
    pub fn seqs(&self) -> Vec<(String, u64)> {
        let state = lock(&self.state);
        let head = |entry: &Vec<u8>| {
            let head = entry::head(entry).expect("an entry");
            (head.device.to_owned(), head.seq.get())
        };
        state.entries.iter().map(head).collect()
    }

    pub fn stop(self) {
        self.receiver.stop(Duration::from_secs(5)).expect("the receiver's thread ends");
    }
}

impl State {
    fn settle(&mut self) {
        if !self.held {
            self.durable = self.entries.len() as u64;
            self.wakers.drain(..).for_each(Waker::wake);
        }
    }
}

/// The local number of the entry that was appended as the `count`th.
fn local(count: u64) -> Seq {
    if count == 0 { Seq::ZERO } else { Seq::from_parts(1, count) }
}

impl EntryStore for Store {
    fn level(&self) -> Level {
        Level::Disk
    }

    fn position(&mut self, source: QueueId) -> Result<Seq, Fault> {
        Ok(lock(&self.0).positions.get(&source).copied().unwrap_or(Seq::ZERO))
    }

    fn append(&mut self, source: QueueId, records: &Records<'_>) -> Result<Seq, StoreError> {
        let mut state = lock(&self.0);
        state.entries.extend(records.iter().map(|record| record.payload.to_vec()));
        state.positions.insert(source, records.last());
        state.settle();
        Ok(local(state.entries.len() as u64))
    }

    fn durable(&mut self) -> Seq {
        local(lock(&self.0).durable)
    }

    fn poll_durable(&mut self, seq: Seq, waker: &Waker) -> Result<bool, Fault> {
        let mut state = lock(&self.0);
        if local(state.durable) >= seq {
            return Ok(true);
        }
        state.wakers.push(waker.clone());
        Ok(false)
    }

    fn room_bytes(&self) -> u64 {
        64 << 20
    }

    fn joined(&mut self, joined: &Joined) {
        panic!("entries were lost: {joined:?}");
    }
}
