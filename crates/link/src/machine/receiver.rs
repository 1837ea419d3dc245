//! The uplink's receiving end: many sources into one store.
//!
//! For each source it knows what was taken (`accepted`) and what of that is durable. A batch is
//! taken if it leaves no gap: `prev <= accepted < base`; what was taken before is cut off it; a
//! gap is answered by a nack, once for each time the source went back. An ack says only what the
//! store says is durable (I10); a batch of nothing but duplicates rests on the position marker
//! that the store appends for it. A source whose committed entries this store never got is joined
//! where it stands, and the loss is reported before anything is appended above it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use forebay_wire::frame::{FRAME_BYTES_TARGET, FrameError, origin};
use forebay_wire::uplink::{
    Batch, Hello, Nack, NackCode, Ping, Refuse, RefuseCode, Standing, Uplink, Welcome,
};
use forebay_wire::{QueueId, Seq};

use crate::config::ReceiverConfig;
use crate::error::{Fault, StoreError};
use crate::seam::{EntryStore, Joined};

/// Sources remembered at most: each costs about 200 bytes, and anybody who reaches the port can
/// invent them.
const SOURCES_MAX: usize = 10_000;
/// A source silent for so long no longer counts when credit is shared out, and gives way to
/// another when there are too many.
const SILENT_AFTER: Duration = Duration::from_secs(10);
/// When a source without room should come back at the earliest; it is called earlier if room
/// comes.
const FULL_RETRY_MS: u32 = 100;

/// What the machine wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<P> {
    /// Send a frame to a peer.
    Send(P, Bytes),
    /// Something worth a log line or a counter.
    Report(Report),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A source opened a session.
    Opened {
        /// The source.
        source: QueueId,
        /// What is durable of it.
        durable: Seq,
    },
    /// A source was joined above a loss.
    Joined(Joined),
    /// Records were taken.
    Taken {
        /// How many.
        entries: u32,
        /// How many had been taken before and were cut off.
        repeated: u32,
    },
    /// A source was sent back.
    Nacked {
        /// The source.
        source: QueueId,
        /// Why.
        code: NackCode,
    },
    /// A peer was refused.
    Refused {
        /// Its queue.
        source: QueueId,
        /// Why.
        code: RefuseCode,
        /// Why, in words.
        reason: String,
    },
    /// A frame that made no sense.
    Malformed(FrameError),
}

#[derive(Debug)]
struct Source<P> {
    peer: P,
    session: u64,
    /// The round for which a gap was answered already.
    nacked: Option<u16>,
    accepted: Seq,
    durable: Seq,
    heard: Duration,
    /// It was told that there is no credit, and waits for some.
    starved: bool,
    /// An ack is owed.
    ack_due: bool,
}

/// The receiving end. `P` addresses a peer: the socket's identity of it.
#[derive(Debug)]
pub struct Receiver<P> {
    partitions: u64,
    window_bytes: u64,
    credit_bytes_min: u64,
    sources: HashMap<QueueId, Source<P>>,
    /// Taken and not yet durable, in the order of the local numbers.
    pending: VecDeque<(Seq, QueueId, Seq)>,
    acks_due: Vec<QueueId>,
    active: u64,
    actions: VecDeque<Action<P>>,
}

impl<P: Clone> Receiver<P> {
    /// A receiver without sources.
    #[must_use]
    pub fn new(config: &ReceiverConfig) -> Self {
        let window_bytes = config.window_bytes.min(u32::MAX as usize) as u64;
        Self {
            partitions: config.partitions,
            window_bytes,
            credit_bytes_min: (FRAME_BYTES_TARGET as u64).min(window_bytes),
            sources: HashMap::new(),
            pending: VecDeque::new(),
            acks_due: Vec::new(),
            active: 1,
            actions: VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<Action<P>> {
        self.actions.pop_front()
    }

    /// Takes a frame of `peer`.
    ///
    /// # Errors
    /// The store failed.
    pub fn frame(
        &mut self,
        now: Duration,
        peer: &P,
        bytes: &[u8],
        store: &mut impl EntryStore,
    ) -> Result<(), Fault> {
        match Uplink::decode(bytes) {
            Ok(Uplink::Hello(hello)) => return self.hello(now, peer, &hello, store),
            Ok(Uplink::Batch(batch)) => return self.batch(now, peer, &batch, store),
            Ok(Uplink::Ping(ping)) => self.ping(now, peer, &ping, store),
            Ok(_) => self.malformed(peer, bytes, None),
            Err(error) => self.malformed(peer, bytes, Some(error)),
        }
        Ok(())
    }

    /// Acks what has become durable.
    pub fn settle(&mut self, store: &mut impl EntryStore) {
        let durable = if self.pending.is_empty() { Seq::ZERO } else { store.durable() };
        while let Some(&(local, id, seq)) = self.pending.front()
            && local <= durable
        {
            self.pending.pop_front();
            if let Some(source) = self.sources.get_mut(&id) {
                source.durable = source.durable.max(seq);
                owe(&mut self.acks_due, id, source);
            }
        }
        if self.acks_due.is_empty() {
            return;
        }
        let credit = self.credit(store);
        for id in std::mem::take(&mut self.acks_due) {
            let Some(source) = self.sources.get_mut(&id) else { continue };
            source.ack_due = false;
            let standing = stand(id, source, credit);
            self.actions.push_back(Action::Send(source.peer.clone(), standing.encode_ack()));
        }
    }

    /// The lowest local number an ack waits for.
    #[must_use]
    pub fn awaits(&self) -> Option<Seq> {
        self.pending.front().map(|&(local, _, _)| local)
    }

    /// Whether a source waits for credit: tick often then.
    #[must_use]
    pub fn is_starving(&self) -> bool {
        self.sources.values().any(|source| source.starved)
    }

    /// Sources known.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    /// Time has passed: call at least every second, and every 20 ms while sources starve.
    pub fn tick(&mut self, now: Duration, store: &mut impl EntryStore) {
        let heard = |source: &&Source<P>| now.saturating_sub(source.heard) < SILENT_AFTER;
        self.active = self.sources.values().filter(heard).count().max(1) as u64;
        if self.is_starving() && self.credit(store) > 0 {
            for (id, source) in &mut self.sources {
                if source.starved {
                    owe(&mut self.acks_due, *id, source);
                }
            }
        }
        self.settle(store);
    }

    /// Bytes each source may have unacked: half of the room, shared by the active ones, but at
    /// least a batch while there is room for one. However many sources there are, some must go on;
    /// what does not fit in the end is sent back.
    fn credit(&self, store: &impl EntryStore) -> u32 {
        let room = store.room_bytes();
        if room < self.credit_bytes_min {
            return 0;
        }
        let share = room / (2 * self.active);
        let credit = share.clamp(self.credit_bytes_min, self.window_bytes);
        u32::try_from(credit).unwrap_or(u32::MAX)
    }

    fn hello(
        &mut self,
        now: Duration,
        peer: &P,
        hello: &Hello,
        store: &mut impl EntryStore,
    ) -> Result<(), Fault> {
        let id = hello.queue;
        if hello.partitions != self.partitions {
            let reason = format!(
                "partition map {:016x} here, {:016x} there",
                self.partitions, hello.partitions
            );
            self.refuse(peer, id, hello.session, RefuseCode::Partitions, &reason);
            return Ok(());
        }
        if store.level() < hello.level {
            let (offered, required) = (store.level().as_str(), hello.level.as_str());
            let reason = format!("acks mean {offered} here, {required} is required");
            self.refuse(peer, id, hello.session, RefuseCode::Level, &reason);
            return Ok(());
        }
        if hello.committed >= hello.next || hello.oldest > hello.next || hello.session == 0 {
            let reason = "hello with impossible bounds";
            self.refuse(peer, id, hello.session, RefuseCode::Malformed, reason);
            return Ok(());
        }
        if !self.sources.contains_key(&id) {
            if !self.make_room(now) {
                let reason = "too many sources";
                self.refuse(peer, id, hello.session, RefuseCode::Other, reason);
                return Ok(());
            }
            let durable = store.position(id)?;
            let source = Source {
                peer: peer.clone(),
                session: 0,
                nacked: None,
                accepted: durable,
                durable,
                heard: now,
                starved: false,
                ack_due: false,
            };
            self.sources.insert(id, source);
            self.active += 1;
        }
        let credit = self.credit(store);
        let Some(source) = self.sources.get_mut(&id) else { return Ok(()) };
        source.peer = peer.clone();
        source.heard = now;
        if source.session != hello.session {
            source.session = hello.session;
            source.nacked = None;
            let durable = source.durable;
            self.actions.push_back(Action::Report(Report::Opened { source: id, durable }));
        }
        if source.accepted < hello.committed {
            let (after, committed) = (source.accepted, hello.committed);
            // Epochs begin at 1: what is known of nothing can be counted from there.
            let same_epoch = after.epoch().max(1) == committed.epoch();
            let lost = same_epoch.then(|| committed.counter() - after.counter());
            let joined = Joined { source: id, after, committed, lost };
            store.joined(&joined);
            source.accepted = committed;
            self.actions.push_back(Action::Report(Report::Joined(joined)));
        }
        let standing = stand(id, source, credit);
        let welcome = Welcome { standing, level: store.level() };
        self.actions.push_back(Action::Send(peer.clone(), welcome.encode()));
        Ok(())
    }

    fn batch(
        &mut self,
        now: Duration,
        peer: &P,
        batch: &Batch<'_>,
        store: &mut impl EntryStore,
    ) -> Result<(), Fault> {
        let id = batch.queue;
        let Some(source) = self.sources.get_mut(&id).filter(|own| own.session == batch.session)
        else {
            self.refuse(peer, id, batch.session, RefuseCode::Session, "no such session");
            return Ok(());
        };
        source.heard = now;
        if batch.prev > source.accepted {
            if source.nacked != Some(batch.round) {
                source.nacked = Some(batch.round);
                self.nack(id, batch.round, NackCode::Gap, store);
            }
            return Ok(());
        }
        let Some(records) = batch.records.after(source.accepted) else {
            let repeated = batch.records.count();
            if batch.records.last() <= source.durable {
                owe(&mut self.acks_due, id, source);
            }
            self.actions.push_back(Action::Report(Report::Taken { entries: 0, repeated }));
            return Ok(());
        };
        match store.append(id, &records) {
            Ok(local) => {
                source.accepted = records.last();
                self.pending.push_back((local, id, records.last()));
                let entries = records.count();
                let repeated = batch.records.count() - entries;
                self.actions.push_back(Action::Report(Report::Taken { entries, repeated }));
                Ok(())
            }
            Err(StoreError::Full) => {
                source.nacked = Some(batch.round);
                self.nack(id, batch.round, NackCode::Full, store);
                Ok(())
            }
            Err(StoreError::Fatal(fault)) => Err(fault),
        }
    }

    fn ping(&mut self, now: Duration, peer: &P, ping: &Ping, store: &mut impl EntryStore) {
        let id = ping.queue;
        let credit = self.credit(store);
        let Some(source) = self.sources.get_mut(&id).filter(|own| own.session == ping.session)
        else {
            return self.refuse(peer, id, ping.session, RefuseCode::Session, "no such session");
        };
        source.heard = now;
        if ping.sent > source.accepted {
            source.nacked = Some(ping.round);
            return self.nack(id, ping.round, NackCode::Gap, store);
        }
        let pong = stand(id, source, credit).encode_pong();
        self.actions.push_back(Action::Send(source.peer.clone(), pong));
    }

    fn nack(&mut self, id: QueueId, round: u16, code: NackCode, store: &mut impl EntryStore) {
        let credit = if code == NackCode::Full { 0 } else { self.credit(store) };
        let Some(source) = self.sources.get_mut(&id) else { return };
        let retry_ms = if code == NackCode::Full { FULL_RETRY_MS } else { 0 };
        let standing = stand(id, source, credit);
        let frame = Nack { standing, round, code, retry_ms }.encode();
        self.actions.push_back(Action::Send(source.peer.clone(), frame));
        self.actions.push_back(Action::Report(Report::Nacked { source: id, code }));
    }

    fn refuse(&mut self, peer: &P, id: QueueId, session: u64, code: RefuseCode, reason: &str) {
        let frame = Refuse::new(id, session, code, reason).encode();
        self.actions.push_back(Action::Send(peer.clone(), frame));
        let reason = reason.to_owned();
        self.actions.push_back(Action::Report(Report::Refused { source: id, code, reason }));
    }

    /// Answers what can be answered: a frame of another version deserves a word, noise does not.
    fn malformed(&mut self, peer: &P, bytes: &[u8], error: Option<FrameError>) {
        if let (Some(FrameError::Version { version }), Some((id, session))) = (error, origin(bytes))
        {
            let reason = format!("version {version} is not read here");
            return self.refuse(peer, id, session, RefuseCode::Version, &reason);
        }
        if let Some(error) = error {
            self.actions.push_back(Action::Report(Report::Malformed(error)));
        }
    }

    /// Forgets silent sources if there are too many; returns whether there is room for one more.
    fn make_room(&mut self, now: Duration) -> bool {
        if self.sources.len() >= SOURCES_MAX {
            let pending = &self.pending;
            self.sources.retain(|id, source| {
                now.saturating_sub(source.heard) < SILENT_AFTER
                    || pending.iter().any(|(_, waiting, _)| waiting == id)
            });
        }
        self.sources.len() < SOURCES_MAX
    }
}

fn owe<P>(acks_due: &mut Vec<QueueId>, id: QueueId, source: &mut Source<P>) {
    if !source.ack_due {
        source.ack_due = true;
        acks_due.push(id);
    }
}

fn stand<P>(queue: QueueId, source: &mut Source<P>, credit: u32) -> Standing {
    source.starved = credit == 0;
    Standing { queue, session: source.session, durable: source.durable, credit }
}
