//! Hands each message to the readers that want it.
//!
//! One lock orders everything: a message is taken up into the last values and handed out under it,
//! and a reader registers under it. So a reader's snapshot ends exactly where its events begin.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use forebay_model::{Body, Message};
use forebay_wire::{
    QueueId, Seq,
    live::{LastValue, Mode, Position},
};

use super::{Buffer, BufferLimits, EventFilter, Frame};
use crate::{
    last::LastValues,
    registry::{Current, Listed, describe_last, listed},
};

/// One reader.
#[derive(Debug)]
pub struct Client {
    filter: EventFilter,
    buffer: Buffer,
    /// Events up to here the reader has already, one a queue.
    known: Vec<Position>,
}

impl Client {
    /// What it has not been sent yet.
    #[must_use]
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    fn knows(&self, at: Position) -> bool {
        self.known.iter().any(|known| known.queue == at.queue && at.seq <= known.seq)
    }
}

/// A registered reader; dropped, it is no longer served.
#[derive(Debug)]
pub struct Registered {
    /// The reader.
    pub client: Arc<Client>,
    /// The last values it asked for, as of the moment from which it gets events.
    pub snapshot: Option<Vec<LastValue<'static>>>,
    /// That moment.
    pub at: Vec<Position>,
    hub: Arc<Hub>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        state.clients.retain(|client| !Arc::ptr_eq(client, &self.client));
        state.awaiting.retain(|(client, _)| !Arc::ptr_eq(client, &self.client));
    }
}

/// All readers of this process.
#[derive(Debug)]
pub struct Hub {
    last: Arc<LastValues>,
    limits: BufferLimits,
    registry: Current,
    state: Mutex<State>,
    /// Told when a queue was heard of.
    heard: Condvar,
    events: AtomicU64,
    missed: AtomicU64,
}

/// What is known of a queue that a reader comes back with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// A middle has it.
    Here,
    /// No middle has it.
    Nowhere,
    /// A middle has not been heard of yet since the start of this process: it may have it.
    Unknown,
}

#[derive(Debug, Default)]
struct State {
    clients: Vec<Arc<Client>>,
    /// The last entry handed out, and the middle's name, by queue.
    positions: BTreeMap<QueueId, (Seq, String)>,
    /// The middles that are followed, heard of or not.
    followed: BTreeSet<String>,
    /// Readers that came back with a position in a queue that may be an unheard middle's.
    awaiting: Vec<(Arc<Client>, Position)>,
    closed: bool,
}

impl State {
    fn reach(&mut self, middle: &str, at: Position) {
        if let Some((seq, _)) = self.positions.get_mut(&at.queue) {
            *seq = at.seq;
            return;
        }
        // A middle has one queue at a time: positions in an old one lead nowhere.
        self.positions.retain(|_, (_, name)| name != middle);
        self.positions.insert(at.queue, (at.seq, middle.to_owned()));
        let all_heard = self.all_heard();
        self.awaiting.retain(|(client, known)| {
            let found = known.queue == at.queue;
            if (found && known.seq < at.seq) || (!found && all_heard) {
                client.buffer.lose(*known);
            }
            !found && !all_heard
        });
    }

    fn all_heard(&self) -> bool {
        let heard = |middle: &String| self.positions.values().any(|(_, name)| name == middle);
        self.followed.iter().all(heard)
    }

    fn whereabouts(&self, queue: QueueId) -> Whereabouts {
        match self.positions.contains_key(&queue) {
            true => Whereabouts::Here,
            false if self.all_heard() => Whereabouts::Nowhere,
            false => Whereabouts::Unknown,
        }
    }
}

/// A message with its place and its canonical bytes.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Its place in the middle's queue.
    pub seq: Seq,
    /// Its canonical form.
    pub canonical: &'a [u8],
    /// The message.
    pub message: Message<'a>,
}

impl Hub {
    /// A hub without readers, over the last values it keeps up; events are described by the
    /// registry in force when they come.
    #[must_use]
    pub fn new(last: Arc<LastValues>, limits: BufferLimits, registry: Current) -> Arc<Self> {
        Arc::new(Self {
            last,
            limits,
            registry,
            state: Mutex::default(),
            heard: Condvar::new(),
            events: AtomicU64::new(0),
            missed: AtomicU64::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of devices.
    #[must_use]
    pub fn registry(&self) -> &Current {
        &self.registry
    }

    /// The last values.
    #[must_use]
    pub fn last(&self) -> &Arc<LastValues> {
        &self.last
    }

    /// Takes up messages of a middle, in order, and hands them out; `upto` is the last entry the
    /// batch covers, with or without a message.
    pub fn publish(&self, middle: &str, upto: Position, entries: &[Entry<'_>]) {
        let mut state = self.lock();
        state.reach(middle, upto);
        self.last.apply(middle, upto, entries.iter().map(|entry| &entry.message));
        if state.clients.is_empty() {
            drop(state);
            // Whoever comes back and asks where its queue is counts as a reader only later.
            return self.heard.notify_all();
        }
        let mut missed = 0;
        let mut sheet = Sheet::default();
        let registry = self.registry.get();
        for entry in entries {
            let at = Position { queue: upto.queue, seq: entry.seq };
            sheet.clear(listed(&registry, &entry.message.tenant, &entry.message.device));
            for client in &state.clients {
                if !client.knows(at) {
                    missed += sheet.hand(client, at, entry);
                }
            }
        }
        drop(state);
        self.heard.notify_all();
        self.events.fetch_add(entries.len() as u64, Ordering::Relaxed);
        self.missed.fetch_add(missed, Ordering::Relaxed);
    }

    /// Notes that the feed of a middle stands at a position, without any message.
    pub fn reached(&self, middle: &str, at: Position) {
        let mut state = self.lock();
        state.reach(middle, at);
        self.last.advance(middle, at);
        drop(state);
        self.heard.notify_all();
    }

    /// Notes that a middle is followed: its queue is heard of sooner or later.
    pub fn follow(&self, middle: &str) {
        self.lock().followed.insert(middle.to_owned());
    }

    /// What is known of a queue, once something is or `timeout` has passed. Blocks.
    #[must_use]
    pub fn whereabouts(&self, queue: QueueId, timeout: Duration) -> Whereabouts {
        let unknown = |state: &mut State| state.whereabouts(queue) == Whereabouts::Unknown;
        let waited = self.heard.wait_timeout_while(self.lock(), timeout, unknown);
        waited.unwrap_or_else(PoisonError::into_inner).0.whereabouts(queue)
    }

    /// The last entry of a queue that was handed out.
    #[must_use]
    pub fn position(&self, queue: QueueId) -> Option<Seq> {
        self.lock().positions.get(&queue).map(|(seq, _)| *seq)
    }

    /// The name of the middle that has a queue.
    #[must_use]
    pub fn middle(&self, queue: QueueId) -> Option<String> {
        self.lock().positions.get(&queue).map(|(_, name)| name.clone())
    }

    /// Registers a reader that has all events up to `known`.
    ///
    /// Returns `None` if the hub is ahead of one of these positions: the reader has to catch up
    /// first. With `snapshot`, what it wants of the last values comes along. Should a middle turn
    /// up that is ahead of a position by then, or none that has its queue, the reader is told.
    #[must_use]
    pub fn register(
        self: &Arc<Self>,
        filter: &EventFilter,
        mode: Mode,
        known: &[Position],
        snapshot: bool,
    ) -> Option<Registered> {
        let mut state = self.lock();
        let ahead = |known: &Position| {
            state.positions.get(&known.queue).is_some_and(|(position, _)| *position > known.seq)
        };
        if known.iter().any(ahead) {
            return None;
        }
        let at: Vec<Position> =
            state.positions.iter().map(|(&queue, &(seq, _))| Position { queue, seq }).collect();
        let snapshot = snapshot.then(|| {
            let registry = self.registry.get();
            let wants = |tenant: &str, device: &str, key: &str| {
                let listed = registry.get(tenant, device);
                filter.wants_key(key)
                    && filter.wants_device(tenant, device, listed.map(|device| &**device))
            };
            let mut values = self.last.select(usize::MAX, &wants).0;
            describe_last(&mut values, &registry);
            values
        });
        let client = Arc::new(Client {
            filter: filter.clone(),
            buffer: Buffer::new(mode, self.limits),
            known: known.to_vec(),
        });
        if state.closed {
            client.buffer.close();
        }
        for known in known {
            if state.whereabouts(known.queue) == Whereabouts::Unknown {
                state.awaiting.push((client.clone(), *known));
            }
        }
        state.clients.push(client.clone());
        drop(state);
        Some(Registered { client, snapshot, at, hub: self.clone() })
    }

    /// Closes all buffers: readers are sent what waits and then told to come back.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for client in &state.clients {
            client.buffer.close();
        }
    }

    /// As [`Self::close`], one reader after another with `pause` between them, so that they do not
    /// all come back at once; until [`Self::open`]. Blocks.
    pub fn close_paced(&self, pause: Duration) {
        let clients = {
            let mut state = self.lock();
            state.closed = true;
            state.clients.clone()
        };
        for client in clients {
            if !self.lock().closed {
                return;
            }
            client.buffer.close();
            std::thread::sleep(pause);
        }
    }

    /// Takes readers again.
    pub fn open(&self) {
        self.lock().closed = false;
    }

    /// Readers now.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.lock().clients.len()
    }

    /// Events taken up while there were readers, and events that fell out of a reader's buffer.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.events.load(Ordering::Relaxed), self.missed.load(Ordering::Relaxed))
    }
}

/// The frames made of one message so far, each shared by the readers that want just it.
#[derive(Debug, Default)]
struct Sheet {
    listed: Listed,
    picked: Vec<u16>,
    whole: Option<Arc<Frame>>,
    parts: Vec<(Vec<u16>, Arc<Frame>)>,
    series: String,
}

impl Sheet {
    fn clear(&mut self, listed: Listed) {
        self.listed = listed;
        self.whole = None;
        self.parts.clear();
    }

    /// Puts the message into a reader's buffer if it wants it; returns how many events fell out.
    fn hand(&mut self, client: &Client, at: Position, entry: &Entry<'_>) -> u64 {
        let device = self.listed.as_ref().and_then(Option::as_deref);
        if !client.filter.pick(&entry.message, device, &mut self.picked) {
            return 0;
        }
        let readings = match &entry.message.body {
            Body::Readings(readings) => readings.as_slice(),
            Body::Opaque { .. } => &[],
        };
        if client.buffer.mode() == Mode::Every || readings.is_empty() {
            let frame = if self.picked.len() == readings.len() {
                let listed = &self.listed;
                self.whole
                    .get_or_insert_with(|| Frame::new(at, entry.canonical, None, listed.clone()))
                    .clone()
            } else {
                let picked = std::mem::take(&mut self.picked);
                let frame = self.part(at, entry, &picked);
                self.picked = picked;
                frame
            };
            return client.buffer.push(frame);
        }
        let picked = std::mem::take(&mut self.picked);
        let mut fallen = 0;
        for &place in &picked {
            let reading = &readings[usize::from(place)];
            let message = &entry.message;
            let time = reading.time.unwrap_or(message.received);
            let order = (time.micros(), message.seq.get(), place, message.session.get());
            let frame = self.part(at, entry, &[place]);
            self.series.clear();
            for part in [&message.tenant, "\n", &message.device, "\n", &reading.key] {
                self.series.push_str(part);
            }
            fallen += client.buffer.replace(&self.series, order, frame);
        }
        self.picked = picked;
        fallen
    }

    fn part(&mut self, at: Position, entry: &Entry<'_>, picked: &[u16]) -> Arc<Frame> {
        if let Some((_, frame)) = self.parts.iter().find(|(places, _)| places == picked) {
            return frame.clone();
        }
        let frame = Frame::new(at, entry.canonical, Some(picked), self.listed.clone());
        self.parts.push((picked.to_vec(), frame.clone()));
        frame
    }
}
