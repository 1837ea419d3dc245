//! A topology in simulated time: fronts, middles, consumers, and what happens to them.
//!
//! One seed gives one history. Every step is an event at a time; the machines are polled after
//! each event that touches them, and what they want done becomes events.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use forebay_link::Seq;
use forebay_link::machine::Random;
use forebay_link::machine::publisher::Publisher;
use forebay_link::machine::receiver::Receiver;
use forebay_link::machine::replay::Replay;
use forebay_link::machine::sender::Sender;

use crate::disk::{Log, MiddleDisk};
use crate::event::{Event, Queued};
use crate::fault::Fault;
use crate::network::{ConnectionId, Delivery, Network};
use crate::process::{Process, Sink};
use crate::store::MiddleStore;

/// Length at which batches close: small, so that a few entries make several.
pub(crate) const BATCH_BYTES: usize = 64 + 3 * 40;

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
    pub(crate) cursor_durable: Seq,
    pub(crate) machine: Option<Sender>,
    pub(crate) connection: Option<ConnectionId>,
    pub(crate) life: u32,
}

#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) receiver: Receiver<ConnectionId>,
    pub(crate) replay: Replay<ConnectionId>,
    pub(crate) publisher: Publisher,
}

#[derive(Debug)]
pub(crate) struct Middle {
    pub(crate) store: MiddleStore,
    pub(crate) running: Option<Running>,
    pub(crate) life: u32,
    pub(crate) synced: Seq,
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

/// The partition maps: how many of the middles each end knows of, from when it starts.
#[derive(Debug)]
pub(crate) struct Maps {
    pub(crate) fronts: Vec<usize>,
    pub(crate) middles: Vec<usize>,
    /// Sessions refused because the two differ.
    pub(crate) refused: u64,
}

impl Maps {
    fn new(shape: Shape) -> Self {
        let all = shape.middles;
        Self { fronts: vec![all; shape.fronts], middles: vec![all; shape.middles], refused: 0 }
    }

    /// The number both ends compare, for the link to this middle.
    pub(crate) fn hash(known: usize, middle: usize) -> u64 {
        const NAMES: [&str; 2] = ["0", "1"];
        forebay_wire::partition::map_hash(NAMES.into_iter().take(known), NAMES[middle])
    }
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
    pub(crate) front_up: Vec<bool>,
    pub(crate) middles: Vec<Middle>,
    pub(crate) processes: Vec<Process>,
    pub(crate) sinks: BTreeMap<(usize, String), Sink>,
    ticks: BTreeMap<Agent, Duration>,
    clocks: BTreeMap<Agent, Duration>,
    pub(crate) truth: Truth,
    pub(crate) maps: Maps,
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
            maps: Maps::new(shape),
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

    pub(crate) fn queue_id(&mut self) -> u64 {
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

    pub(crate) fn poll(&mut self, agent: Agent) {
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
    pub(crate) fn break_connection(&mut self, id: ConnectionId, told_of_thousand: u64) {
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
