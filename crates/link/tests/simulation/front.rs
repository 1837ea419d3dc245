//! Fronts in simulated time: what their devices send, what they forward, how they die.

use forebay_link::machine::sender::{self, Sender};
use forebay_link::{BatchBuilder, Bounds, SenderConfig, Seq};
use forebay_wire::uplink::RefuseCode;

use crate::disk::{Log, message_of};
use crate::event::{Crash, Event};
use crate::world::{Agent, BATCH_BYTES, Client, Maps, Ring, World};

impl World {
    pub(crate) fn append(&mut self, message: u64, front: usize) {
        if !self.front_up[front] {
            return self.soon(500_000, Event::Append { message, front });
        }
        let middle = (message % self.maps.fronts[front] as u64) as usize;
        let ring = front * self.shape.middles + middle;
        self.truth.sent.insert(message, middle);
        let own = &mut self.rings[ring];
        let upto = own.log.append(message.to_le_bytes().to_vec());
        let life = own.life;
        self.soon(10_000, Event::SyncFront { ring, upto, life });
        if self.shape.process_fronts {
            self.truth.acked.insert(message);
            self.run_uplink(ring);
        }
    }

    pub(crate) fn sync_front(&mut self, index: usize, upto: Seq, life: u32) {
        let ring = &mut self.rings[index];
        if ring.life != life {
            return;
        }
        ring.log.sync(upto);
        ring.cursor_durable = ring.cursor;
        let acked = ring.log.entries.iter().filter(|(seq, _)| *seq <= ring.log.durable);
        self.truth.acked.extend(acked.filter_map(|(_, entry)| message_of(entry)));
        ring.log.reclaim(ring.cursor_durable);
        self.run_uplink(index);
    }

    pub(crate) fn crash_front(&mut self, front: usize, crash: Crash) {
        if !std::mem::replace(&mut self.front_up[front], false) {
            return;
        }
        let middles = self.shape.middles;
        for index in front * middles..(front + 1) * middles {
            let mut again = Vec::new();
            let new_id = self.queue_id();
            let ring = &mut self.rings[index];
            ring.machine = None;
            ring.life += 1;
            let connection = ring.connection.take();
            ring.cursor = ring.cursor_durable;
            match crash {
                Crash::Kill | Crash::Torn => {}
                Crash::Power => again = ring.log.cut_power(&mut self.random),
                Crash::Disk => {
                    for (_, entry) in &ring.log.entries {
                        let message = message_of(entry).expect("a message");
                        if !self.truth.reached.contains(&message) {
                            self.truth.excused.insert(message);
                        }
                    }
                    ring.log = Log::new(new_id, self.shape.process_fronts);
                    (ring.cursor, ring.cursor_durable) = (Seq::ZERO, Seq::ZERO);
                }
            }
            if crash != Crash::Disk {
                ring.log.reopen(self.shape.fault);
            }
            self.network.connections.retain(|id, _| Some(*id) != connection);
            for message in again.iter().filter_map(|entry| message_of(entry)) {
                if self.shape.process_fronts {
                    // Its device was told that it survives the process, and it was the machine.
                    if !self.truth.reached.contains(&message) {
                        self.truth.excused.insert(message);
                    }
                    continue;
                }
                // Nobody was told that it is safe: its device sends it again, anywhere.
                let front = self.random.below(self.shape.fronts as u64) as usize;
                self.soon(500_000, Event::Append { message, front });
            }
        }
        self.soon(3_000_000, Event::StartFront(front));
    }

    pub(crate) fn start_front(&mut self, front: usize) {
        self.front_up[front] = true;
        let middles = self.shape.middles;
        for index in front * middles..(front + 1) * middles {
            let mut config = SenderConfig::new("uplink", "");
            config.batch_bytes = BATCH_BYTES;
            config.window_bytes = 2_000;
            config.window_batches = 6;
            let (known, middle) = (self.maps.fronts[front], index % middles);
            config.partitions = Maps::hash(known, middle);
            if middle >= known {
                // A middle this front was not told of.
                continue;
            }
            let seed = self.random.next_u64();
            let ring = &mut self.rings[index];
            if ring.machine.is_none() {
                ring.machine = Some(Sender::new(&config, ring.log.id, seed));
            }
            let acked = ring.log.entries.iter().filter(|(seq, _)| *seq <= ring.log.durable);
            self.truth.acked.extend(acked.filter_map(|(_, entry)| message_of(entry)));
            self.poll(Agent::Uplink(index));
        }
    }

    pub(crate) fn run_uplink(&mut self, index: usize) {
        loop {
            let ring = &mut self.rings[index];
            let Some(machine) = &mut ring.machine else { return };
            if let Some(action) = machine.next_action() {
                self.uplink_action(index, action);
                continue;
            }
            let Some(after) = machine.wants() else { break };
            let mut batch = BatchBuilder::new(BATCH_BYTES);
            ring.log.fill(after.max(ring.cursor), &mut batch);
            if batch.is_empty() {
                break;
            }
            machine.batch(&mut batch);
        }
        let deadline = self.rings[index].machine.as_ref().and_then(Sender::deadline);
        self.tick_at(Agent::Uplink(index), deadline);
    }

    pub(crate) fn uplink_action(&mut self, index: usize, action: sender::Action) {
        let ring = &mut self.rings[index];
        match action {
            sender::Action::Connect => {
                let life = ring.life;
                self.connect_soon(Client::Uplink(index), life);
            }
            sender::Action::Disconnect => {
                if let Some(id) = ring.connection.take() {
                    self.network.connections.remove(&id);
                }
            }
            sender::Action::Send(frame) => {
                if let Some(id) = ring.connection {
                    self.send(id, true, frame);
                }
            }
            sender::Action::Commit(upto) => {
                let reached = &self.truth.reached;
                let committed = ring.log.above(ring.cursor);
                let early = committed.iter().find(|(seq, entry)| {
                    *seq <= upto && message_of(entry).is_some_and(|id| !reached.contains(&id))
                });
                let early = early.map(|(seq, _)| *seq);
                ring.cursor = ring.cursor.max(upto);
                if let Some(seq) = early {
                    self.fail(format!("I10: ring {index} commits {seq} before a middle has it"));
                }
            }
            sender::Action::Report(report) => {
                use sender::Report::{AckBeyondSent, Ahead, LevelTooLow, Malformed, Refused};
                let (front, at) = (index / self.shape.middles, index % self.shape.middles);
                let maps_differ = self.maps.fronts[front] != self.maps.middles[at];
                match report {
                    Refused { code: RefuseCode::Partitions, .. } if maps_differ => {
                        self.maps.refused += 1;
                    }
                    Ahead { .. }
                    | AckBeyondSent { .. }
                    | Malformed(_)
                    | LevelTooLow { .. }
                    | Refused { .. } => {
                        self.fail(format!("ring {index}: {report:?}"));
                    }
                    _ => {}
                }
            }
        }
    }
}

impl Ring {
    pub(crate) fn bounds(&self) -> Bounds {
        let next = self.log.next();
        let oldest = self.log.above(self.cursor).first().map_or(next, |(seq, _)| *seq);
        Bounds { committed: self.cursor, oldest, next }
    }
}
