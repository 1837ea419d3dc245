//! The uplink's sending end: what is sent, what is unacked, when to go back.
//!
//! An entry is committed in its queue only when the receiver's cumulative ack, which rests on
//! something durable there, has passed it (I10). Everything unacked is sent again in the next
//! session, from above what the receiver then says it has. Acks of anything not sent, and a
//! receiver that has numbers this queue has not given out yet, are refused: honouring either would
//! commit entries nobody has.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use forebay_wire::frame::{FrameError, Kind};
use forebay_wire::records::BatchBuilder;
use forebay_wire::uplink::{
    Hello, Level, Nack, NackCode, Ping, Refuse, RefuseCode, Standing, Uplink, Welcome,
};
use forebay_wire::{QueueId, Seq};

use crate::config::SenderConfig;
use crate::machine::Random;
use crate::machine::connection::{Connection, Due, Timing};
use crate::seam::Bounds;

/// What the machine wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Build a socket, in place of any other; then `connected` or `disconnected`.
    Connect,
    /// Drop the socket.
    Disconnect,
    /// Send a frame.
    Send(Bytes),
    /// All up to here are durable at the receiver: commit them.
    Commit(Seq),
    /// Something worth a log line or a counter.
    Report(Report),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A session is open.
    Welcomed {
        /// What the receiver has.
        durable: Seq,
        /// Where sending goes on: above this.
        after: Seq,
    },
    /// The receiver refused.
    Refused {
        /// Why, for the program.
        code: RefuseCode,
        /// Why, in words.
        reason: String,
    },
    /// The receiver's acks promise too little.
    LevelTooLow {
        /// What it offers.
        offered: Level,
    },
    /// The receiver has numbers this queue has not given out: the queue's directory is an old
    /// copy. Nothing is sent until a human decides.
    Ahead {
        /// What the receiver has.
        durable: Seq,
        /// What the next append here would get.
        next: Seq,
    },
    /// The receiver was silent too long.
    Silent,
    /// Went back.
    Rewound {
        /// Why.
        code: NackCode,
        /// From the last number sent.
        from: Seq,
        /// To above this number.
        to: Seq,
    },
    /// An ack of something never sent: ignored, and the session ended.
    AckBeyondSent {
        /// What was acked.
        durable: Seq,
        /// What was sent.
        sent: Seq,
    },
    /// A frame that made no sense.
    Malformed(FrameError),
}

#[derive(Debug, Clone, Copy)]
struct InFlight {
    last: Seq,
    bytes: usize,
}

#[derive(Debug)]
struct Session {
    id: u64,
    bounds: Bounds,
    /// Whether the receiver has answered hello.
    welcomed: bool,
    round: u16,
    /// Nothing at or below it is ever sent again in this session.
    durable: Seq,
    sent: Seq,
    /// The highest number sent in this session, whatever steps back came since.
    sent_max: Seq,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    credit: usize,
    paused_until: Duration,
}

/// The sending end of one queue.
#[derive(Debug)]
pub struct Sender {
    queue: QueueId,
    level: Level,
    partitions: u64,
    batch_bytes: usize,
    window_bytes: usize,
    window_batches: usize,
    random: Random,
    connection: Connection,
    session: Option<Session>,
    actions: VecDeque<Action>,
}

impl Sender {
    /// A sender for `queue` that will connect at once.
    #[must_use]
    pub fn new(config: &SenderConfig, queue: QueueId, seed: u64) -> Self {
        Self {
            queue,
            level: config.level,
            partitions: config.partitions,
            batch_bytes: config.batch_bytes,
            window_bytes: config.window_bytes,
            window_batches: config.window_batches,
            random: Random::new(seed),
            connection: Connection::new(Timing::from(&config.connect)),
            session: None,
            actions: VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Self::tick`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let paused = self.session.as_ref().map(|session| session.paused_until);
        let paused = paused.filter(|until| !until.is_zero());
        self.connection.deadline().into_iter().chain(paused).min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration) {
        while let Some(due) = self.connection.poll(now, &mut self.random) {
            match due {
                Due::Connect => self.actions.push_back(Action::Connect),
                Due::Ping => self.ping(),
                Due::Silent => {
                    self.session = None;
                    self.actions.push_back(Action::Report(Report::Silent));
                    self.actions.push_back(Action::Disconnect);
                }
            }
        }
        if let Some(session) = &mut self.session
            && now >= session.paused_until
        {
            session.paused_until = Duration::ZERO;
        }
    }

    /// A socket was built; `bounds` is where the queue stands now.
    pub fn connected(&mut self, now: Duration, bounds: Bounds) {
        self.connection.connected(now);
        let id = self.random.next_nonzero();
        let hello = Hello {
            queue: self.queue,
            session: id,
            committed: bounds.committed,
            oldest: bounds.oldest,
            next: bounds.next,
            level: self.level,
            partitions: self.partitions,
        };
        self.actions.push_back(Action::Send(hello.encode()));
        self.session = Some(Session {
            id,
            bounds,
            welcomed: false,
            round: 0,
            durable: Seq::ZERO,
            sent: Seq::ZERO,
            sent_max: Seq::ZERO,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            credit: 0,
            paused_until: Duration::ZERO,
        });
    }

    /// The socket is gone, or none could be built.
    pub fn disconnected(&mut self, now: Duration) {
        self.session = None;
        self.connection.lost(now, &mut self.random);
    }

    /// A frame has come.
    pub fn frame(&mut self, now: Duration, bytes: &[u8]) {
        match Uplink::decode(bytes) {
            Ok(Uplink::Welcome(welcome)) => self.welcome(now, &welcome),
            Ok(Uplink::Ack(standing) | Uplink::Pong(standing)) => {
                self.standing(now, &standing);
            }
            Ok(Uplink::Nack(nack)) => self.nack(now, &nack),
            Ok(Uplink::Refuse(refuse)) => self.refuse(now, &refuse),
            Ok(Uplink::Hello(_)) => self.unexpected(Kind::Hello),
            Ok(Uplink::Batch(_)) => self.unexpected(Kind::Batch),
            Ok(Uplink::Ping(_)) => self.unexpected(Kind::Ping),
            Err(FrameError::Version { version }) => {
                let reason = format!("the receiver speaks version {version}");
                self.give_up(now, Duration::ZERO, RefuseCode::Version, reason);
            }
            Err(error) => self.actions.push_back(Action::Report(Report::Malformed(error))),
        }
    }

    /// Above which number a batch may be sent now; `None` if the window is closed.
    #[must_use]
    pub fn wants(&self) -> Option<Seq> {
        let session = self.session.as_ref()?;
        let window = session.credit.min(self.window_bytes);
        let open = session.welcomed
            && session.credit > 0
            && session.paused_until.is_zero()
            && session.in_flight.len() < self.window_batches
            && (session.in_flight.is_empty()
                || session.in_flight_bytes + self.batch_bytes <= window);
        open.then_some(session.sent)
    }

    /// Sends what was packed above the number that [`Self::wants`] gave; an empty batch is
    /// ignored.
    pub fn batch(&mut self, batch: &mut BatchBuilder) {
        let Some(session) = &mut self.session else {
            return batch.clear();
        };
        if batch.is_empty() || batch.first() <= session.sent {
            return batch.clear();
        }
        let (prev, last) = (session.sent, batch.last());
        let frame = batch.finish(Kind::Batch, session.round, self.queue, session.id, prev);
        session.sent = last;
        session.sent_max = session.sent_max.max(last);
        session.in_flight.push_back(InFlight { last, bytes: frame.len() });
        session.in_flight_bytes += frame.len();
        self.actions.push_back(Action::Send(frame));
    }

    /// Bytes sent and unacked, and the credit given.
    #[must_use]
    pub fn window(&self) -> (usize, usize) {
        self.session.as_ref().map_or((0, 0), |session| (session.in_flight_bytes, session.credit))
    }

    /// Whether a session is open.
    #[must_use]
    pub fn is_welcomed(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.welcomed)
    }

    fn ping(&mut self) {
        if let Some(session) = &self.session
            && session.welcomed
        {
            let (id, round, sent) = (session.id, session.round, session.sent);
            let ping = Ping { queue: self.queue, session: id, round, sent };
            self.actions.push_back(Action::Send(ping.encode()));
        }
    }

    /// The session a frame of `queue` and `session` belongs to, if it is the one that is open.
    fn own(&mut self, queue: QueueId, session: u64) -> Option<&mut Session> {
        let own_queue = self.queue == queue;
        self.session.as_mut().filter(|own| own_queue && own.id == session)
    }

    fn welcome(&mut self, now: Duration, welcome: &Welcome) {
        let Welcome { standing, level } = *welcome;
        let required = self.level;
        let Some(session) = self.own(standing.queue, standing.session) else { return };
        if session.welcomed {
            return;
        }
        let Bounds { committed, next, .. } = session.bounds;
        if level < required {
            let report = Report::LevelTooLow { offered: level };
            return self.hold(now, Duration::ZERO, report);
        }
        if standing.durable >= next {
            let report = Report::Ahead { durable: standing.durable, next };
            return self.hold(now, Duration::ZERO, report);
        }
        session.welcomed = true;
        session.durable = standing.durable.max(committed);
        (session.sent, session.sent_max) = (session.durable, session.durable);
        session.credit = standing.credit as usize;
        let after = session.sent;
        self.connection.heard(now);
        self.connection.settled();
        let durable = standing.durable;
        self.actions.push_back(Action::Report(Report::Welcomed { durable, after }));
        if durable > committed {
            self.actions.push_back(Action::Commit(durable));
        }
    }

    /// Takes an ack; returns whether it was one of this session and sound.
    fn standing(&mut self, now: Duration, standing: &Standing) -> bool {
        let Some(session) = self.own(standing.queue, standing.session) else { return false };
        if !session.welcomed {
            return false;
        }
        // What an earlier session sent may become durable only now: it was numbered below `next`.
        if standing.durable > session.sent_max && standing.durable >= session.bounds.next {
            let (durable, sent) = (standing.durable, session.sent_max);
            self.hold(now, Duration::ZERO, Report::AckBeyondSent { durable, sent });
            return false;
        }
        session.credit = standing.credit as usize;
        let mut commit = None;
        if standing.durable > session.durable {
            session.durable = standing.durable;
            // After a step back an ack may cover what is about to be sent again.
            session.sent = session.sent.max(standing.durable);
            commit = Some(standing.durable);
            while let Some(oldest) = session.in_flight.front()
                && oldest.last <= standing.durable
            {
                session.in_flight_bytes -= oldest.bytes;
                session.in_flight.pop_front();
            }
        }
        self.connection.heard(now);
        self.actions.extend(commit.map(Action::Commit));
        true
    }

    fn nack(&mut self, now: Duration, nack: &Nack) {
        if !self.standing(now, &nack.standing) {
            return;
        }
        let Some(session) = &mut self.session else { return };
        if nack.round != session.round {
            return;
        }
        let (from, to) = (session.sent, session.durable);
        session.round = session.round.wrapping_add(1);
        session.sent = to;
        session.in_flight.clear();
        session.in_flight_bytes = 0;
        if nack.retry_ms > 0 {
            // Whatever it names: a receiver that has room says so earlier or later by an ack.
            session.paused_until = now + Duration::from_millis(u64::from(nack.retry_ms.min(1_000)));
        }
        self.actions.push_back(Action::Report(Report::Rewound { code: nack.code, from, to }));
    }

    fn refuse(&mut self, now: Duration, refuse: &Refuse<'_>) {
        let own_queue = self.queue == refuse.queue;
        let Some(session) = &self.session else { return };
        if !own_queue || session.id != refuse.session {
            return;
        }
        if refuse.code == RefuseCode::Session {
            // The receiver was restarted behind an address that stayed: greet it anew.
            self.actions.push_back(Action::Disconnect);
            return self.disconnected(now);
        }
        let reason = if refuse.code == RefuseCode::Version {
            let (oldest, newest) = refuse.versions;
            format!("{} (it reads versions {oldest} to {newest})", refuse.reason)
        } else {
            refuse.reason.to_owned()
        };
        let pause = Duration::from_millis(u64::from(refuse.retry_ms));
        self.give_up(now, pause, refuse.code, reason);
    }

    fn give_up(&mut self, now: Duration, pause: Duration, code: RefuseCode, reason: String) {
        self.hold(now, pause, Report::Refused { code, reason });
    }

    /// Ends the session for a reason that will not go away quickly.
    fn hold(&mut self, now: Duration, pause: Duration, report: Report) {
        self.session = None;
        self.connection.refused(now, pause);
        self.actions.push_back(Action::Report(report));
        self.actions.push_back(Action::Disconnect);
    }

    fn unexpected(&mut self, kind: Kind) {
        let error = FrameError::Unexpected { kind };
        self.actions.push_back(Action::Report(Report::Malformed(error)));
    }
}
