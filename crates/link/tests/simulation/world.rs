//! A topology in simulated time: fronts, middles, consumers, and what happens to them.
//!
//! One seed gives one history. Every step is an event at a time; the machines are polled after
//! each event that touches them, and what they want done becomes events.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use forebay_link::machine::Random;
use forebay_link::machine::publisher::Publisher;
use forebay_link::machine::receiver::{self, Receiver};
use forebay_link::machine::replay::{self, Replay};
use forebay_link::machine::sender::{self, Sender};
use forebay_link::{BatchBuilder, Bounds, ReceiverConfig, ReplayConfig, SenderConfig, Seq};
use forebay_wire::feed::{Commit, Feed, Prepare};
use forebay_wire::frame::Kind;
use forebay_wire::uplink::Uplink;

use crate::disk::{Log, MiddleDisk, message_of};
use crate::fault::Fault;
use crate::network::{ConnectionId, Delivery, Network};
use crate::process::{Process, Sink};
use crate::store::MiddleStore;

/// Length at which batches close: small, so that a few entries make several.
const BATCH_BYTES: usize = 64 + 3 * 40;

/// An end that connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Client {
    /// A front's ring towards one middle.
    Uplink(usize),
    /// A consumer process's SUB.
    Feed(usize),
    /// A consumer process's DEALER.
    Fetch(usize),
}

/// Whose machine is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Agent {
    Uplink(usize),
    Middle(usize),
    Process(usize),
}

/// How a machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    Kill,
    Power,
    /// The disk is gone with it.
    Disk,
    /// Of a middle's two snapshots, the newer cannot be read.
    Torn,
}

#[derive(Debug, Clone)]
pub(crate) enum Event {
    Deliver(Delivery),
    Tick(Agent),
    Connect { client: Client, life: u32 },
    Lost { client: Client, connection: ConnectionId },
    Append { message: u64, front: usize },
    SyncFront { ring: usize, upto: Seq, life: u32 },
    SyncMiddle { middle: usize, upto: Seq, life: u32 },
    CrashFront(usize, Crash),
    StartFront(usize),
    CrashMiddle(usize, Crash),
    StartMiddle(usize),
    CrashProcess(usize),
    StartProcess(usize),
    Take { process: usize, life: u32 },
    Written { process: usize, life: u32 },
    Reclaim(usize),
    Cut { client: Client, middle: usize, lasts: Duration },
    HalfOpen(u64),
    Break(u64),
    JumpClock(Agent, Duration),
}

impl Event {
    /// Whether nothing can be said to have drained before it.
    fn is_awaited(&self) -> bool {
        matches!(
            self,
            Self::Append { .. }
                | Self::CrashFront(..)
                | Self::CrashMiddle(..)
                | Self::StartProcess(_)
                | Self::StartFront(_)
                | Self::StartMiddle(_)
        )
    }
}

#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) at: Duration,
    order: u64,
    pub(crate) event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// How large a scenario is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) fronts: usize,
    pub(crate) middles: usize,
    pub(crate) names: usize,
    pub(crate) processes_each: usize,
    pub(crate) capacity_bytes: usize,
    /// Fronts ack what is appended, and a power cut may take it back.
    pub(crate) process_fronts: bool,
    pub(crate) fault: Fault,
}

/// One front's ring towards one middle, and its sender.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) middle: usize,
    pub(crate) log: Log,
    pub(crate) cursor: Seq,
    cursor_durable: Seq,
    machine: Option<Sender>,
    pub(crate) connection: Option<ConnectionId>,
    pub(crate) life: u32,
}

#[derive(Debug)]
struct Running {
    receiver: Receiver<ConnectionId>,
    replay: Replay<ConnectionId>,
    publisher: Publisher,
}

#[derive(Debug)]
pub(crate) struct Middle {
    pub(crate) store: MiddleStore,
    running: Option<Running>,
    life: u32,
    synced: Seq,
}

/// What really happened, for the checks.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// Messages some device sent, with the middle they belong to.
    pub(crate) sent: BTreeMap<u64, usize>,
    /// Messages that were durable in a front: their devices were told so.
    pub(crate) acked: HashSet<u64>,
    /// Messages that were ever durable in a middle.
    pub(crate) reached: HashSet<u64>,
    /// Messages whose only durable copies were on a disk that was lost.
    pub(crate) excused: HashSet<u64>,
    /// Middles that lost entries: duplicates across their lives are not theirs to see.
    pub(crate) forgetful: HashSet<usize>,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) shape: Shape,
    pub(crate) now: Duration,
    pub(crate) random: Random,
    events: BinaryHeap<Reverse<Queued>>,
    order: u64,
    pub(crate) steps: u64,
    trace: bool,
    /// Messages that a device has yet to send, and disasters yet to come.
    pub(crate) awaited: usize,
    pub(crate) network: Network,
    pub(crate) rings: Vec<Ring>,
    front_up: Vec<bool>,
    pub(crate) middles: Vec<Middle>,
    pub(crate) processes: Vec<Process>,
    pub(crate) sinks: BTreeMap<(usize, String), Sink>,
    ticks: BTreeMap<Agent, Duration>,
    clocks: BTreeMap<Agent, Duration>,
    pub(crate) truth: Truth,
    pub(crate) violations: Vec<String>,
    next_queue: u64,
}

impl World {
    pub(crate) fn new(seed: u64, shape: Shape) -> Self {
        let mut world = Self {
            shape,
            now: Duration::ZERO,
            random: Random::new(seed),
            events: BinaryHeap::new(),
            order: 0,
            steps: 0,
            trace: std::env::var_os("FOREBAY_SIM_TRACE").is_some(),
            awaited: 0,
            network: Network::default(),
            rings: Vec::new(),
            front_up: vec![true; shape.fronts],
            middles: Vec::new(),
            processes: Vec::new(),
            sinks: BTreeMap::new(),
            ticks: BTreeMap::new(),
            clocks: BTreeMap::new(),
            truth: Truth::default(),
            violations: Vec::new(),
            next_queue: 1,
        };
        for middle in 0..shape.middles {
            let disk = MiddleDisk::new(world.queue_id(), shape.capacity_bytes);
            let store = MiddleStore::open(disk, shape.fault);
            let synced = Seq::ZERO;
            world.middles.push(Middle { store, running: None, life: 0, synced });
            world.start_middle(middle);
            for name in 0..shape.names {
                let name = format!("sink-{name}");
                world.sinks.insert((middle, name.clone()), Sink::default());
                for _ in 0..shape.processes_each {
                    world.processes.push(Process::new(middle, name.clone()));
                }
            }
        }
        for ring in 0..shape.fronts * shape.middles {
            let log = Log::new(world.queue_id(), shape.process_fronts);
            world.rings.push(Ring {
                middle: ring % shape.middles,
                log,
                cursor: Seq::ZERO,
                cursor_durable: Seq::ZERO,
                machine: None,
                connection: None,
                life: 0,
            });
        }
        for front in 0..shape.fronts {
            world.start_front(front);
        }
        for process in 0..world.processes.len() {
            let at = Duration::from_millis(world.random.below(1_500));
            world.at(at, Event::StartProcess(process));
        }
        world
    }

    fn queue_id(&mut self) -> u64 {
        self.next_queue += 1;
        self.next_queue
    }

    pub(crate) fn at(&mut self, at: Duration, event: Event) {
        self.order += 1;
        self.awaited += usize::from(event.is_awaited());
        let order = self.order;
        self.events.push(Reverse(Queued { at: at.max(self.now), order, event }));
    }

    pub(crate) fn soon(&mut self, micros_max: u64, event: Event) {
        let delay = Duration::from_micros(1 + self.random.below(micros_max));
        self.at(self.now + delay, event);
    }

    pub(crate) fn fail(&mut self, what: String) {
        if self.violations.len() < 10 {
            self.violations.push(format!("at {:?}: {what}", self.now));
        }
    }

    /// Does the next event; `false` if there is none before `until`.
    pub(crate) fn step(&mut self, until: Duration) -> bool {
        if self.events.peek().is_none_or(|Reverse(next)| next.at > until) {
            self.now = until;
            return false;
        }
        let Some(Reverse(queued)) = self.events.pop() else { return false };
        self.now = queued.at;
        self.steps += 1;
        if self.trace && !matches!(queued.event, Event::Tick(_) | Event::Reclaim(_)) {
            println!("{:?} {:?}", self.now, queued.event);
        }
        self.happen(queued.event);
        true
    }

    fn happen(&mut self, event: Event) {
        self.awaited -= usize::from(event.is_awaited());
        match event {
            Event::Deliver(delivery) => self.deliver(delivery),
            Event::Tick(agent) => self.tick(agent),
            Event::Connect { client, life } => self.connect(client, life),
            Event::Lost { client, connection } => self.lost(client, connection),
            Event::Append { message, front } => self.append(message, front),
            Event::SyncFront { ring, upto, life } => self.sync_front(ring, upto, life),
            Event::SyncMiddle { middle, upto, life } => self.sync_middle(middle, upto, life),
            Event::CrashFront(front, crash) => self.crash_front(front, crash),
            Event::StartFront(front) => self.start_front(front),
            Event::CrashMiddle(middle, crash) => self.crash_middle(middle, crash),
            Event::StartMiddle(middle) => self.start_middle(middle),
            Event::CrashProcess(process) => self.crash_process(process),
            Event::StartProcess(process) => self.start_process(process),
            Event::Take { process, life } => self.take(process, life),
            Event::Written { process, life } => self.written(process, life),
            Event::Reclaim(middle) => self.reclaim(middle),
            Event::Cut { client, middle, lasts } => {
                self.network.cut(client, middle, self.now + lasts);
            }
            Event::HalfOpen(any) => {
                let count = self.network.connections.len() as u64;
                if count > 0 {
                    let mut ids: Vec<_> = self.network.connections.keys().copied().collect();
                    ids.sort_unstable();
                    let id = ids[(any % count) as usize];
                    if let Some(connection) = self.network.connections.get_mut(&id) {
                        connection.half_open = true;
                    }
                }
            }
            Event::Break(any) => {
                let mut ids: Vec<_> = self.network.connections.keys().copied().collect();
                ids.sort_unstable();
                if !ids.is_empty() {
                    self.break_connection(ids[any as usize % ids.len()], 1_000);
                }
            }
            Event::JumpClock(agent, by) => {
                *self.clocks.entry(agent).or_default() += by;
                self.poll(agent);
            }
        }
    }

    /// The time on an agent's clock.
    pub(crate) fn clock(&self, agent: Agent) -> Duration {
        self.now + self.clocks.get(&agent).copied().unwrap_or_default()
    }

    /// Sees to it that the agent is ticked when its machine wants it.
    pub(crate) fn tick_at(&mut self, agent: Agent, deadline: Option<Duration>) {
        let Some(deadline) = deadline else { return };
        let ahead = self.clocks.get(&agent).copied().unwrap_or_default();
        let at = deadline.saturating_sub(ahead).max(self.now + Duration::from_micros(1));
        if self.ticks.get(&agent).is_none_or(|known| at < *known || *known <= self.now) {
            self.ticks.insert(agent, at);
            self.at(at, Event::Tick(agent));
        }
    }

    fn tick(&mut self, agent: Agent) {
        if self.ticks.get(&agent) == Some(&self.now) {
            self.ticks.remove(&agent);
            self.poll(agent);
        }
    }

    fn poll(&mut self, agent: Agent) {
        let now = self.clock(agent);
        match agent {
            Agent::Uplink(ring) => {
                if let Some(machine) = &mut self.rings[ring].machine {
                    machine.tick(now);
                }
                self.run_uplink(ring);
            }
            Agent::Middle(middle) => {
                let Middle { store, running, .. } = &mut self.middles[middle];
                let Some(running) = running else { return };
                running.receiver.tick(now, store);
                let head = running.publisher.tick(now);
                if let Some(head) = head {
                    self.publish(middle, &head);
                }
                self.run_middle(middle);
            }
            Agent::Process(process) => {
                if let Some(machine) = &mut self.processes[process].machine {
                    machine.tick(now);
                }
                self.run_process(process);
            }
        }
    }

    // The network.

    pub(crate) fn send(&mut self, connection: ConnectionId, to_server: bool, bytes: Bytes) {
        let deliveries =
            self.network.send(self.now, connection, to_server, bytes, &mut self.random);
        for delivery in deliveries {
            self.at(delivery.at, Event::Deliver(delivery));
        }
    }

    pub(crate) fn connect_soon(&mut self, client: Client, life: u32) {
        self.soon(2_000, Event::Connect { client, life });
    }

    fn connect(&mut self, client: Client, life: u32) {
        let (middle, own_life, agent) = match client {
            Client::Uplink(ring) => {
                (self.rings[ring].middle, self.rings[ring].life, Agent::Uplink(ring))
            }
            Client::Feed(process) | Client::Fetch(process) => {
                let known = &self.processes[process];
                (known.middle, known.life, Agent::Process(process))
            }
        };
        if life != own_life {
            return;
        }
        let now = self.clock(agent);
        let reachable = self.middles[middle].running.is_some()
            && !self.network.is_cut(client, middle, self.now);
        let connection = reachable.then(|| self.network.connect(client, middle));
        match client {
            Client::Uplink(ring) => {
                let ring_index = ring;
                let ring = &mut self.rings[ring];
                let bounds = ring.bounds();
                ring.connection = connection;
                if let Some(machine) = &mut ring.machine {
                    match connection {
                        Some(_) => machine.connected(now, bounds),
                        None => machine.disconnected(now),
                    }
                }
                self.run_uplink(ring_index);
            }
            Client::Feed(process) | Client::Fetch(process) => {
                self.process_connected(client, process, connection, now);
            }
        }
    }

    /// The connection breaks; its client is told within a while.
    fn break_connection(&mut self, id: ConnectionId, told_of_thousand: u64) {
        let Some(connection) = self.network.connections.remove(&id) else { return };
        if self.random.below(1_000) < told_of_thousand {
            let client = connection.client;
            self.soon(50_000, Event::Lost { client, connection: id });
        }
    }

    fn lost(&mut self, client: Client, id: ConnectionId) {
        match client {
            Client::Uplink(index) => {
                let now = self.clock(Agent::Uplink(index));
                let ring = &mut self.rings[index];
                if ring.connection == Some(id) {
                    ring.connection = None;
                    if let Some(machine) = &mut ring.machine {
                        machine.disconnected(now);
                    }
                    self.run_uplink(index);
                }
            }
            Client::Feed(process) | Client::Fetch(process) => {
                self.process_lost(client, process, id);
            }
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        let Delivery { connection: id, to_server, bytes, .. } = delivery;
        let Some(connection) = self.network.connections.get(&id) else { return };
        if connection.half_open {
            return;
        }
        let (client, middle) = (connection.client, connection.middle);
        if to_server {
            self.serve(middle, client, id, &bytes);
            return;
        }
        match client {
            Client::Uplink(index) => {
                let now = self.clock(Agent::Uplink(index));
                let ring = &mut self.rings[index];
                if ring.connection == Some(id)
                    && let Some(machine) = &mut ring.machine
                {
                    machine.frame(now, &bytes);
                    self.run_uplink(index);
                }
            }
            Client::Feed(process) | Client::Fetch(process) => {
                self.process_frame(client, process, id, &bytes);
            }
        }
    }

    // Fronts.

    fn append(&mut self, message: u64, front: usize) {
        if !self.front_up[front] {
            return self.soon(500_000, Event::Append { message, front });
        }
        let middle = (message % self.shape.middles as u64) as usize;
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

    fn sync_front(&mut self, index: usize, upto: Seq, life: u32) {
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

    fn crash_front(&mut self, front: usize, crash: Crash) {
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

    fn start_front(&mut self, front: usize) {
        self.front_up[front] = true;
        let middles = self.shape.middles;
        for index in front * middles..(front + 1) * middles {
            let mut config = SenderConfig::new("uplink", "");
            config.batch_bytes = BATCH_BYTES;
            config.window_bytes = 2_000;
            config.window_batches = 6;
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

    fn run_uplink(&mut self, index: usize) {
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

    fn uplink_action(&mut self, index: usize, action: sender::Action) {
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
                match report {
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

    // Middles.

    fn start_middle(&mut self, index: usize) {
        let fault = self.shape.fault;
        let session = self.random.next_u64();
        let middle = &mut self.middles[index];
        if middle.running.is_some() {
            return;
        }
        let disk = middle.store.disk.clone();
        let joined = std::mem::take(&mut middle.store.joined);
        middle.store = MiddleStore::open(disk, fault);
        middle.store.joined = joined;
        let log = &middle.store.disk.log;
        let mut config = ReceiverConfig::new("receiver", "");
        config.window_bytes = 700;
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

    fn crash_middle(&mut self, index: usize, crash: Crash) {
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

    fn serve(&mut self, index: usize, client: Client, id: ConnectionId, bytes: &Bytes) {
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

    fn run_middle(&mut self, index: usize) {
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

    fn sync_middle(&mut self, index: usize, upto: Seq, life: u32) {
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

    fn publish(&mut self, index: usize, frame: &Bytes) {
        let mut to: Vec<_> = self.network.connections.iter().collect();
        to.retain(|(_, known)| known.middle == index && matches!(known.client, Client::Feed(_)));
        let mut to: Vec<_> = to.into_iter().map(|(id, _)| *id).collect();
        to.sort_unstable();
        for id in to {
            self.send(id, false, frame.clone());
        }
    }

    /// Notes what is durable in a middle now.
    fn reached(&mut self, index: usize) {
        let log = &self.middles[index].store.disk.log;
        for (seq, payload) in log.entries.iter().rev() {
            if *seq <= log.durable
                && let Some(message) = message_of(&payload[24..])
            {
                self.truth.reached.insert(message);
            }
        }
    }

    fn reclaim(&mut self, index: usize) {
        let names: Vec<String> = (0..self.shape.names).map(|name| format!("sink-{name}")).collect();
        self.middles[index].store.disk.reclaim(&names);
        self.soon(400_000, Event::Reclaim(index));
    }

    /// Starts whatever is down, and mends the network.
    pub(crate) fn heal(&mut self) {
        self.network.heal();
        for front in 0..self.shape.fronts {
            self.start_front(front);
        }
        for middle in 0..self.shape.middles {
            self.start_middle(middle);
        }
        self.heal_processes();
    }
}

impl Ring {
    fn bounds(&self) -> Bounds {
        let next = self.log.next();
        let oldest = self.log.above(self.cursor).first().map_or(next, |(seq, _)| *seq);
        Bounds { committed: self.cursor, oldest, next }
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
