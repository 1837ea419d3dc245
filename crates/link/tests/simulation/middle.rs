//! Middles in simulated time: what they take, publish and serve, how they die.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use forebay_link::machine::publisher::Publisher;
use forebay_link::machine::receiver::{self, Receiver};
use forebay_link::machine::replay::{self, Replay};
use forebay_link::{BatchBuilder, ReceiverConfig, ReplayConfig, Seq};
use forebay_wire::feed::{Commit, Feed, Prepare};
use forebay_wire::frame::Kind;
use forebay_wire::uplink::Uplink;

use crate::disk::{MiddleDisk, message_of};
use crate::event::{Crash, Event};
use crate::fault::Fault;
use crate::network::ConnectionId;
use crate::store::MiddleStore;
use crate::world::{Agent, BATCH_BYTES, Client, Maps, Middle, Running, World};

impl World {
    pub(crate) fn start_middle(&mut self, index: usize) {
        let fault = self.shape.fault;
        let session = self.random.next_u64();
        let middle = &mut self.middles[index];
        if middle.running.is_some() {
            return;
        }
        let partitions = Maps::hash(self.maps.middles[index], index);
        let disk = middle.store.disk.clone();
        let joined = std::mem::take(&mut middle.store.joined);
        middle.store = MiddleStore::open(disk, fault);
        middle.store.joined = joined;
        let log = &middle.store.disk.log;
        let mut config = ReceiverConfig::new("receiver", "");
        config.window_bytes = 700;
        config.partitions = partitions;
        let mut replay = ReplayConfig::new("replay", "");
        replay.batch_bytes = BATCH_BYTES;
        middle.synced = log.durable;
        middle.running = Some(Running {
            receiver: Receiver::new(&config),
            replay: Replay::new(&replay),
            publisher: Publisher::new(log.id, session, log.durable, Duration::from_millis(100)),
        });
        self.reached(index);
        self.poll(Agent::Middle(index));
    }

    pub(crate) fn crash_middle(&mut self, index: usize, crash: Crash) {
        let new_id = self.queue_id();
        let fault = self.shape.fault;
        let middle = &mut self.middles[index];
        if middle.running.take().is_none() {
            return;
        }
        middle.life += 1;
        let before = messages_in(&middle.store.disk);
        match crash {
            Crash::Kill => {}
            Crash::Power => drop(middle.store.disk.log.cut_power(&mut self.random)),
            Crash::Disk => {
                middle.store.disk = MiddleDisk::new(new_id, self.shape.capacity_bytes);
            }
            Crash::Torn => middle.store.disk.tear_newer_snapshot(),
        }
        if crash == Crash::Disk {
            // Whatever a front has committed on the strength of this disk is lost, unless a
            // consumer has it; the receiver must say so, and nobody can do more.
            let after = messages_in(&middle.store.disk);
            self.truth.excused.extend(before.difference(&after));
            self.truth.forgetful.insert(index);
        }
        if crash != Crash::Disk {
            middle.store.disk.log.reopen(fault);
        }
        let mut ids: Vec<_> = self.network.connections.iter().collect();
        ids.retain(|(_, connection)| connection.middle == index);
        let mut ids: Vec<_> = ids.into_iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        for id in ids {
            self.break_connection(id, 700);
        }
        self.soon(3_000_000, Event::StartMiddle(index));
    }

    pub(crate) fn serve(&mut self, index: usize, client: Client, id: ConnectionId, bytes: &Bytes) {
        let now = self.clock(Agent::Middle(index));
        let Middle { store, running, .. } = &mut self.middles[index];
        let Some(running) = running else { return };
        match client {
            Client::Uplink(_) => {
                let bytes = plant_gap(store, bytes);
                let served = running.receiver.frame(now, &id, &bytes, store);
                served.expect("a simulated store does not fail");
            }
            Client::Fetch(_) => {
                let bytes = plant_stale_session(store, bytes);
                let served = running.replay.frame(&id, &bytes, store);
                served.expect("a simulated store does not fail");
                self.check_cursors(index);
            }
            Client::Feed(_) => {}
        }
        self.run_middle(index);
    }

    pub(crate) fn run_middle(&mut self, index: usize) {
        let Middle { store, running, life, synced, .. } = &mut self.middles[index];
        let Some(running) = running else { return };
        running.receiver.settle(store);
        let mut frames = Vec::new();
        let mut refused = Vec::new();
        while let Some(action) = running.receiver.next_action() {
            match action {
                receiver::Action::Send(id, frame) => frames.push((id, frame)),
                receiver::Action::Report(receiver::Report::Malformed(error)) => {
                    refused.push(format!("middle {index}: {error}"));
                }
                receiver::Action::Report(_) => {}
            }
        }
        while let Some(action) = running.replay.next_action() {
            match action {
                replay::Action::Send(id, frame) => frames.push((id, frame)),
                replay::Action::Report(replay::Report::Malformed(error)) => {
                    refused.push(format!("middle {index}: {error}"));
                }
                replay::Action::Report(_) => {}
            }
        }
        let (life, last) = (*life, store.disk.log.last());
        let sync = last > *synced;
        *synced = last;
        let tick = if running.receiver.is_starving() { 20 } else { 1_000 };
        let deadline = running.publisher.deadline();
        let now = self.clock(Agent::Middle(index));
        let deadline = deadline.min(now + Duration::from_millis(tick));
        for (id, frame) in frames {
            self.send(id, false, frame);
        }
        for what in refused {
            self.fail(what);
        }
        if sync {
            self.soon(15_000, Event::SyncMiddle { middle: index, upto: last, life });
        }
        self.tick_at(Agent::Middle(index), Some(deadline));
    }

    pub(crate) fn sync_middle(&mut self, index: usize, upto: Seq, life: u32) {
        let now = self.clock(Agent::Middle(index));
        let middle = &mut self.middles[index];
        if middle.life != life || middle.running.is_none() {
            return;
        }
        middle.store.disk.log.sync(upto);
        self.reached(index);
        loop {
            let Middle { store, running, .. } = &mut self.middles[index];
            let Some(running) = running else { return };
            let mut batch = BatchBuilder::new(BATCH_BYTES);
            store.disk.log.fill(running.publisher.published(), &mut batch);
            let Some(frame) = running.publisher.batch(now, &mut batch) else { break };
            self.publish(index, &frame);
        }
        self.run_middle(index);
    }

    pub(crate) fn publish(&mut self, index: usize, frame: &Bytes) {
        let mut to: Vec<_> = self.network.connections.iter().collect();
        to.retain(|(_, known)| known.middle == index && matches!(known.client, Client::Feed(_)));
        let mut to: Vec<_> = to.into_iter().map(|(id, _)| *id).collect();
        to.sort_unstable();
        for id in to {
            self.send(id, false, frame.clone());
        }
    }

    /// Notes what is durable in a middle now.
    pub(crate) fn reached(&mut self, index: usize) {
        let log = &self.middles[index].store.disk.log;
        for (seq, payload) in log.entries.iter().rev() {
            if *seq <= log.durable
                && let Some(message) = message_of(&payload[24..])
            {
                self.truth.reached.insert(message);
            }
        }
    }

    pub(crate) fn reclaim(&mut self, index: usize) {
        let names: Vec<String> = (0..self.shape.names).map(|name| format!("sink-{name}")).collect();
        self.middles[index].store.disk.reclaim(&names);
        self.soon(400_000, Event::Reclaim(index));
    }
}

/// Messages a middle's disk holds or remembers.
fn messages_in(disk: &MiddleDisk) -> HashSet<u64> {
    disk.recover(Fault::None).messages
}

/// With the fault planted, the middle takes a batch as if nothing were missing before it.
fn plant_gap(store: &MiddleStore, bytes: &Bytes) -> Bytes {
    if store.fault == Fault::AckOfGap
        && let Ok(Uplink::Batch(batch)) = Uplink::decode(bytes)
    {
        let has = store.known.positions.get(&batch.queue).copied().unwrap_or_default();
        if batch.prev > has {
            let mut rebuilt = BatchBuilder::new(BATCH_BYTES);
            for record in &batch.records {
                let pushed = rebuilt.push(record.seq, record.time_us, record.payload);
                assert_eq!(pushed, forebay_link::Pushed::Taken);
            }
            return rebuilt.finish(Kind::Batch, batch.round, batch.queue, batch.session, has);
        }
    }
    bytes.clone()
}

/// With the fault planted, a consumer's older session is taken for the newest.
fn plant_stale_session(store: &MiddleStore, bytes: &Bytes) -> Bytes {
    if store.fault == Fault::StaleSessionHonoured {
        let newest = |name: &str| store.disk.consumers.get(name).map_or(0, |state| state.session);
        match Feed::decode(bytes) {
            Ok(Feed::Prepare(prepare)) => {
                let session = newest(prepare.consumer);
                return Prepare { session, ..prepare }.encode();
            }
            Ok(Feed::Commit(commit)) => {
                let session = newest(commit.consumer);
                return Commit { session, ..commit }.encode();
            }
            _ => {}
        }
    }
    bytes.clone()
}
