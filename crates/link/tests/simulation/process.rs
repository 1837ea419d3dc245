//! A storage process: it follows one middle, announces a range, writes it, commits it.
//!
//! The store it writes to keeps the ranges it took by name (queue, start, end) and takes each
//! once: what a real store does with a deduplication token.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use forebay_link::machine::subscriber::{Action, Declined, Ending, Report, Request, Subscriber};
use forebay_link::{FeedEvent, Pending, QueueId, Seq, SubscriberConfig};
use forebay_wire::feed::Stored;

use crate::disk::message_of;
use crate::event::Event;
use crate::network::ConnectionId;
use crate::world::{Agent, Client, World};

/// A store that consumers of one name write to; it never fails and never forgets.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    taken: HashSet<(QueueId, Seq, Seq)>,
    /// How often each message was stored, with the queue it came by.
    pub(crate) rows: BTreeMap<u64, Vec<QueueId>>,
    /// The last number written of each queue, for the check of order.
    pub(crate) upto: BTreeMap<QueueId, Seq>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Idle,
    Announcing { id: u64, start: Seq, end: Seq },
    Writing { start: Seq, end: Seq },
    Committing { id: u64, end: Seq },
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) middle: usize,
    pub(crate) name: String,
    pub(crate) machine: Option<Subscriber>,
    feed: Option<ConnectionId>,
    fetch: Option<ConnectionId>,
    pub(crate) life: u32,
    inbox: VecDeque<FeedEvent>,
    queue: QueueId,
    received: VecDeque<(Seq, Vec<u8>)>,
    /// A range of an earlier life that must be written first, exactly.
    resume: Option<Pending>,
    stage: Stage,
    next_request: u64,
    pub(crate) fenced: bool,
}

impl Process {
    pub(crate) fn new(middle: usize, name: String) -> Self {
        Self {
            middle,
            name,
            machine: None,
            feed: None,
            fetch: None,
            life: 0,
            inbox: VecDeque::new(),
            queue: QueueId::new(0),
            received: VecDeque::new(),
            resume: None,
            stage: Stage::Idle,
            next_request: 0,
            fenced: false,
        }
    }

    fn forget(&mut self) {
        self.machine = None;
        self.inbox.clear();
        self.received.clear();
        self.resume = None;
        self.stage = Stage::Idle;
        self.life += 1;
    }
}

impl World {
    pub(crate) fn start_process(&mut self, index: usize) {
        let seed = self.random.next_u64();
        let buffer_bytes = 200 + self.random.below(2_000) as usize;
        let process = &mut self.processes[index];
        if process.machine.is_some() {
            return;
        }
        let mut config = SubscriberConfig::new("subscriber", "", "");
        config.consumer = Some(process.name.clone());
        config.buffer_bytes = buffer_bytes;
        process.fenced = false;
        process.machine = Some(Subscriber::new(&config, seed));
        let now = self.clock(Agent::Process(index));
        if let Some(machine) = &mut self.processes[index].machine {
            machine.tick(now);
        }
        self.run_process(index);
    }

    pub(crate) fn crash_process(&mut self, index: usize) {
        let process = &mut self.processes[index];
        if process.machine.is_none() {
            return;
        }
        process.forget();
        let gone = [process.feed.take(), process.fetch.take()];
        self.network.connections.retain(|id, _| !gone.contains(&Some(*id)));
        self.soon(3_000_000, Event::StartProcess(index));
    }

    /// Of each name at each middle, at least one process must be there in the end.
    pub(crate) fn heal_processes(&mut self) {
        for index in 0..self.processes.len() {
            let (middle, name) = (self.processes[index].middle, self.processes[index].name.clone());
            let alive = self.processes.iter().any(|process| {
                process.middle == middle && process.name == name && process.machine.is_some()
            });
            if !alive {
                self.start_process(index);
            }
        }
    }

    pub(crate) fn process_connected(
        &mut self,
        client: Client,
        index: usize,
        connection: Option<ConnectionId>,
        now: Duration,
    ) {
        let process = &mut self.processes[index];
        let Some(machine) = &mut process.machine else { return };
        match (client, connection) {
            (Client::Feed(_), Some(_)) => {
                process.feed = connection;
                machine.feed_connected(now);
            }
            (Client::Feed(_), None) => machine.feed_lost(now),
            (_, Some(_)) => {
                process.fetch = connection;
                machine.fetch_connected(now);
            }
            (_, None) => machine.fetch_lost(now),
        }
        self.run_process(index);
    }

    pub(crate) fn process_lost(&mut self, client: Client, index: usize, id: ConnectionId) {
        let now = self.clock(Agent::Process(index));
        let process = &mut self.processes[index];
        let Some(machine) = &mut process.machine else { return };
        match client {
            Client::Feed(_) if process.feed == Some(id) => {
                process.feed = None;
                machine.feed_lost(now);
            }
            Client::Fetch(_) if process.fetch == Some(id) => {
                process.fetch = None;
                machine.fetch_lost(now);
            }
            _ => return,
        }
        self.run_process(index);
    }

    pub(crate) fn process_frame(
        &mut self,
        client: Client,
        index: usize,
        id: ConnectionId,
        bytes: &Bytes,
    ) {
        let now = self.clock(Agent::Process(index));
        let process = &mut self.processes[index];
        let Some(machine) = &mut process.machine else { return };
        match client {
            Client::Feed(_) if process.feed == Some(id) => machine.feed_frame(now, bytes),
            Client::Fetch(_) if process.fetch == Some(id) => machine.fetch_frame(now, bytes),
            _ => return,
        }
        self.run_process(index);
    }

    pub(crate) fn run_process(&mut self, index: usize) {
        while let Some(machine) = &mut self.processes[index].machine
            && let Some(action) = machine.next_action()
        {
            self.process_action(index, action);
        }
        let machine = self.processes[index].machine.as_ref();
        let deadline = machine.and_then(Subscriber::deadline);
        self.tick_at(Agent::Process(index), deadline);
    }

    fn process_action(&mut self, index: usize, action: Action) {
        let process = &mut self.processes[index];
        let life = process.life;
        match action {
            Action::ConnectFeed => self.connect_soon(Client::Feed(index), life),
            Action::ConnectFetch => self.connect_soon(Client::Fetch(index), life),
            Action::DropFeed => {
                if let Some(id) = process.feed.take() {
                    self.network.connections.remove(&id);
                }
            }
            Action::DropFetch => {
                if let Some(id) = process.fetch.take() {
                    self.network.connections.remove(&id);
                }
            }
            Action::Send(frame) => {
                if let Some(id) = process.fetch {
                    self.send(id, true, frame);
                }
            }
            Action::Yield(event) => {
                process.inbox.push_back(event);
                self.soon(3_000, Event::Take { process: index, life });
            }
            Action::Finished(id, result) => self.finished(index, id, result),
            Action::End(Ending::Fenced) => {
                process.forget();
                process.fenced = true;
            }
            Action::End(Ending::Refused(reason)) => {
                self.fail(format!("process {index} refused: {reason}"));
            }
            Action::Report(Report::Malformed(error)) => {
                self.fail(format!("process {index}: {error}"));
            }
            Action::Report(_) => {}
        }
    }

    /// The process takes one event.
    pub(crate) fn take(&mut self, index: usize, life: u32) {
        let now = self.clock(Agent::Process(index));
        let process = &mut self.processes[index];
        if process.life != life {
            return;
        }
        let Some(event) = process.inbox.pop_front() else { return };
        match event {
            FeedEvent::Opened(opened) => {
                process.queue = opened.queue;
                process.received.clear();
                process.resume = opened.pending;
                process.stage = Stage::Idle;
            }
            FeedEvent::Batch(batch) => {
                let last = process.received.back().map(|(seq, _)| *seq);
                if last.is_some_and(|last| !batch.first().follows(last)) {
                    let first = batch.first();
                    self.fail(format!("process {index}: {first} does not follow {last:?}"));
                    return;
                }
                let records = batch.iter().map(|record| (record.seq, record.payload.to_vec()));
                process.received.extend(records);
                if let Some(machine) = &mut process.machine {
                    machine.taken(now, batch.bytes_len());
                }
            }
            missed => self.fail(format!("process {index}, a durable consumer: {missed:?}")),
        }
        self.work(index);
        self.run_process(index);
    }

    /// Announces the next range, or writes the one that an earlier life left.
    fn work(&mut self, index: usize) {
        let now = self.clock(Agent::Process(index));
        let count = 1 + self.random.below(8) as usize;
        let process = &mut self.processes[index];
        let (Stage::Idle, Some(machine)) = (&process.stage, &mut process.machine) else { return };
        let life = process.life;
        if let Some(pending) = &process.resume {
            if process.received.back().is_some_and(|(last, _)| *last >= pending.end) {
                let (start, end) = (pending.start, pending.end);
                process.resume = None;
                process.stage = Stage::Writing { start, end };
                self.soon(30_000, Event::Written { process: index, life });
            }
            return;
        }
        let range = process.received.iter().take(count).map(|(seq, _)| *seq);
        let (Some(start), Some(end)) = (range.clone().next(), range.clone().next_back()) else {
            return;
        };
        process.next_request += 1;
        let id = process.next_request;
        process.stage = Stage::Announcing { id, start, end };
        let plan = count.to_le_bytes().to_vec();
        machine.request(now, id, process.queue, Request::Prepare { start, end, plan });
    }

    fn finished(&mut self, index: usize, finished: u64, result: Result<(), Declined>) {
        let process = &mut self.processes[index];
        let life = process.life;
        match (process.stage.clone(), result) {
            (Stage::Announcing { id, start, end }, Ok(())) if id == finished => {
                process.stage = Stage::Writing { start, end };
                self.soon(30_000, Event::Written { process: index, life });
            }
            (Stage::Committing { id, end }, Ok(())) if id == finished => {
                process.received.retain(|(seq, _)| *seq > end);
                process.stage = Stage::Idle;
                self.work(index);
            }
            (Stage::Announcing { id, .. } | Stage::Committing { id, .. }, Err(_))
                if id == finished =>
            {
                // The middle's log has changed under it: the opening of the other one follows.
                process.stage = Stage::Idle;
            }
            _ => {}
        }
    }

    /// The store has taken the range: whoever sent it, and even if the sender is gone since.
    pub(crate) fn written(&mut self, index: usize, life: u32) {
        let now = self.clock(Agent::Process(index));
        let process = &mut self.processes[index];
        let Stage::Writing { start, end } = process.stage else { return };
        if process.life != life {
            return;
        }
        let key = (process.middle, process.name.clone());
        let sink = self.sinks.get_mut(&key).expect("every consumer has its store");
        let mut wrong = None;
        if sink.taken.insert((process.queue, start, end)) {
            let range = process.received.iter().filter(|(seq, _)| (start..=end).contains(seq));
            for (_, payload) in range {
                let stored = Stored::decode(payload).expect("every entry has its prefix");
                if let Some(message) = message_of(stored.entry) {
                    sink.rows.entry(message).or_default().push(process.queue);
                }
            }
            let upto = sink.upto.entry(process.queue).or_default();
            if start <= *upto {
                wrong = Some(format!("process {index}: {start} written after {upto}"));
            }
            *upto = (*upto).max(end);
        }
        process.next_request += 1;
        let id = process.next_request;
        process.stage = Stage::Committing { id, end };
        if let Some(machine) = &mut process.machine {
            machine.request(now, id, process.queue, Request::Commit { upto: end, tally: None });
        }
        if let Some(wrong) = wrong {
            self.fail(wrong);
        }
        self.run_process(index);
    }
}
