//! The serving end of fetches, and of what the middle keeps for its durable consumers.
//!
//! A session is granted by number, one above the newest, and is durable before it is granted: a
//! newer session fences every older one, whoever holds it, over restarts of either side (two
//! processes with one name cannot both write). A request of an older session is refused before
//! anything is looked at. Requests may come twice and late: a commit of what is committed is done
//! already, an announcement numbered below the newest one is ignored.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use forebay_wire::feed::{
    Answer, Commit, ConsumerState, End, Feed, Fetch, Open, Outcome, Pending, Prepare,
};
use forebay_wire::frame::{FrameError, Kind, origin};
use forebay_wire::records::BatchBuilder;
use forebay_wire::uplink::{Ping, Refuse, RefuseCode, Standing};
use forebay_wire::{QueueId, Seq};

use crate::config::ReplayConfig;
use crate::error::Fault;
use crate::seam::ReplayStore;

/// Names remembered at most; only those the store knows are.
const CONSUMERS_MAX: usize = 1_024;

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
    /// A fetch was answered.
    Fetched {
        /// Records sent.
        records: u64,
        /// Bytes sent.
        bytes: u64,
    },
    /// A session was granted.
    Granted {
        /// The consumer.
        consumer: String,
        /// The session.
        session: u64,
        /// Where it goes on: above this.
        committed: Seq,
    },
    /// A range was announced.
    Prepared,
    /// A commit is durable.
    Committed,
    /// A request of an older session was refused.
    Fenced {
        /// The consumer.
        consumer: String,
        /// The session that asked.
        session: u64,
        /// The newest session.
        newest: u64,
    },
    /// A frame that made no sense.
    Malformed(FrameError),
}

/// The serving end. `P` addresses a peer.
#[derive(Debug)]
pub struct Replay<P> {
    credit_bytes_max: usize,
    batch: BatchBuilder,
    /// The session and number of the newest announcement of each consumer.
    announced: HashMap<String, (u64, u64)>,
    actions: VecDeque<Action<P>>,
}

impl<P: Clone> Replay<P> {
    /// A server that has seen no request.
    #[must_use]
    pub fn new(config: &ReplayConfig) -> Self {
        Self {
            credit_bytes_max: config.credit_bytes_max,
            batch: BatchBuilder::new(config.batch_bytes),
            announced: HashMap::new(),
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
        peer: &P,
        bytes: &[u8],
        store: &mut impl ReplayStore,
    ) -> Result<(), Fault> {
        match Feed::decode(bytes) {
            Ok(Feed::Fetch(fetch)) => self.fetch(peer, &fetch, store),
            Ok(Feed::Open(open)) => self.open(peer, &open, store),
            Ok(Feed::Prepare(prepare)) => self.prepare(peer, &prepare, store),
            Ok(Feed::Commit(commit)) => self.commit(peer, &commit, store),
            Ok(Feed::Ping(ping)) => {
                self.pong(peer, &ping, store);
                Ok(())
            }
            Ok(_) => {
                let error = FrameError::Unexpected { kind: Kind::Data };
                self.actions.push_back(Action::Report(Report::Malformed(error)));
                Ok(())
            }
            Err(error) => {
                if let (FrameError::Version { version }, Some((queue, session))) =
                    (error, origin(bytes))
                {
                    let reason = format!("version {version} is not read here");
                    let refuse = Refuse::new(queue, session, RefuseCode::Version, &reason);
                    self.send(peer, refuse.encode());
                }
                self.actions.push_back(Action::Report(Report::Malformed(error)));
                Ok(())
            }
        }
    }

    fn send(&mut self, peer: &P, frame: Bytes) {
        self.actions.push_back(Action::Send(peer.clone(), frame));
    }

    fn pong(&mut self, peer: &P, ping: &Ping, store: &mut impl ReplayStore) {
        let (queue, session, durable) = (store.queue(), ping.session, store.head());
        self.send(peer, Standing { queue, session, durable, credit: 0 }.encode_pong());
    }

    fn fetch(
        &mut self,
        peer: &P,
        fetch: &Fetch,
        store: &mut impl ReplayStore,
    ) -> Result<(), Fault> {
        let (queue, session) = (store.queue(), fetch.session);
        let head = store.head();
        let mut end = End { queue, session, after: fetch.after, head, resume: Seq::ZERO };
        let credit = (fetch.credit as usize).min(self.credit_bytes_max);
        let any_queue = fetch.queue == QueueId::new(0);
        if credit == 0 || (!any_queue && fetch.queue != queue) {
            // Only the head was asked for, or numbers of another log: the answer names this one.
            self.send(peer, end.encode());
            return Ok(());
        }
        let (mut after, mut bytes, mut records) = (fetch.after, 0, 0);
        while bytes < credit {
            store.fill(after, &mut self.batch)?;
            if self.batch.is_empty() {
                // A reader that got all there was must not ask again, though the log may grow.
                end.head = after;
                break;
            }
            let (first, last) = (self.batch.first(), self.batch.last());
            if !first.follows(after) {
                self.batch.clear();
                if after == fetch.after {
                    end.resume = Seq::new(first.get() - 1);
                }
                break;
            }
            records += u64::from(self.batch.count());
            let frame = self.batch.finish(Kind::Records, 0, queue, session, after);
            bytes += frame.len();
            after = last;
            end.head = end.head.max(after);
            self.send(peer, frame);
        }
        self.send(peer, end.encode());
        let bytes = bytes as u64;
        self.actions.push_back(Action::Report(Report::Fetched { records, bytes }));
        Ok(())
    }

    fn answer(
        &mut self,
        peer: &P,
        store: &impl ReplayStore,
        request: u64,
        outcome: Outcome,
        state: ConsumerState,
    ) {
        let answer = Answer { queue: store.queue(), request, outcome, state };
        self.send(peer, answer.encode());
    }

    fn open(
        &mut self,
        peer: &P,
        open: &Open<'_>,
        store: &mut impl ReplayStore,
    ) -> Result<(), Fault> {
        let Some(mut state) = store.consumer(open.consumer)? else {
            let state = ConsumerState::default();
            self.answer(peer, store, open.request, Outcome::Unknown, state);
            return Ok(());
        };
        let newest = state.session;
        let own = open.session == newest && open.nonce == state.nonce;
        let outcome = if open.session == 0 || open.session > newest.saturating_add(1) {
            // Asked only, or holds a session of a life of this store that was lost.
            Outcome::State
        } else if own {
            Outcome::Done
        } else if open.session <= newest {
            self.fenced(open.consumer, open.session, newest);
            Outcome::Fenced
        } else {
            (state.session, state.nonce) = (open.session, open.nonce);
            store.record(open.consumer, &state)?;
            let (consumer, session) = (open.consumer.to_owned(), open.session);
            let committed = state.committed;
            self.actions.push_back(Action::Report(Report::Granted {
                consumer,
                session,
                committed,
            }));
            Outcome::Done
        };
        self.answer(peer, store, open.request, outcome, state);
        Ok(())
    }

    fn prepare(
        &mut self,
        peer: &P,
        prepare: &Prepare<'_>,
        store: &mut impl ReplayStore,
    ) -> Result<(), Fault> {
        let Some(mut state) =
            self.held(peer, prepare.consumer, prepare.session, prepare.request, store)?
        else {
            return Ok(());
        };
        let newest = self.announced.get(prepare.consumer).copied();
        if newest.is_some_and(|newest| newest > (prepare.session, prepare.request)) {
            // It comes late, after its successor: whoever sent it has long had its answer.
            return Ok(());
        }
        let other_log = prepare.queue != store.queue();
        let outcome = if other_log || prepare.end <= state.committed || prepare.end > store.head() {
            Outcome::Refused
        } else {
            let plan = prepare.plan.to_vec();
            let pending = Some(Pending { start: prepare.start, end: prepare.end, plan });
            if state.pending != pending {
                state.pending = pending;
                store.record(prepare.consumer, &state)?;
            }
            if self.announced.len() < CONSUMERS_MAX || newest.is_some() {
                let latest = (prepare.session, prepare.request);
                self.announced.insert(prepare.consumer.to_owned(), latest);
            }
            self.actions.push_back(Action::Report(Report::Prepared));
            Outcome::Done
        };
        self.answer(peer, store, prepare.request, outcome, state);
        Ok(())
    }

    fn commit(
        &mut self,
        peer: &P,
        commit: &Commit<'_>,
        store: &mut impl ReplayStore,
    ) -> Result<(), Fault> {
        let Some(mut state) =
            self.held(peer, commit.consumer, commit.session, commit.request, store)?
        else {
            return Ok(());
        };
        let outcome = if commit.queue != store.queue() {
            Outcome::Refused
        } else if commit.upto <= state.committed {
            Outcome::Done
        } else if commit.upto > store.head() {
            Outcome::Refused
        } else {
            state.committed = commit.upto;
            state.tally = commit.tally;
            if state.pending.as_ref().is_some_and(|pending| pending.end <= commit.upto) {
                state.pending = None;
            }
            store.record(commit.consumer, &state)?;
            self.actions.push_back(Action::Report(Report::Committed));
            Outcome::Done
        };
        self.answer(peer, store, commit.request, outcome, state);
        Ok(())
    }

    /// The state of a consumer if `session` is its newest; otherwise the request is answered.
    fn held(
        &mut self,
        peer: &P,
        consumer: &str,
        session: u64,
        request: u64,
        store: &mut impl ReplayStore,
    ) -> Result<Option<ConsumerState>, Fault> {
        let Some(state) = store.consumer(consumer)? else {
            self.answer(peer, store, request, Outcome::Unknown, ConsumerState::default());
            return Ok(None);
        };
        if session == state.session {
            return Ok(Some(state));
        }
        // Above the newest: granted in a life of this store that was lost. The holder opens anew.
        let outcome = if session < state.session { Outcome::Fenced } else { Outcome::State };
        if outcome == Outcome::Fenced {
            self.fenced(consumer, session, state.session);
        }
        self.answer(peer, store, request, outcome, state);
        Ok(None)
    }

    fn fenced(&mut self, consumer: &str, session: u64, newest: u64) {
        let consumer = consumer.to_owned();
        self.actions.push_back(Action::Report(Report::Fenced { consumer, session, newest }));
    }
}
