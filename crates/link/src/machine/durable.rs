//! What a durable consumer asks of the middle: its session, its announcements, its commits.
//!
//! A session is claimed by number, one above the newest that the middle names; whoever claims
//! later fences the earlier. Once granted, it is asked for again after each reconnect, and a
//! fence is final: this process must stop. Every request is repeated until it is answered, over
//! reconnects; repeating one is harmless.

use std::time::Duration;

use bytes::Bytes;
use forebay_wire::feed::{Answer, Commit, ConsumerState, Open, Outcome, Prepare, Tally};
use forebay_wire::{QueueId, Seq};

use crate::machine::Random;

/// Names a request between its maker and its answer.
pub type RequestId = u64;

/// What a durable consumer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Announce a range.
    Prepare {
        /// Its first number.
        start: Seq,
        /// Its last number.
        end: Seq,
        /// How it will be written.
        plan: Vec<u8>,
    },
    /// All up to a number are safe.
    Commit {
        /// That number.
        upto: Seq,
        /// What has become of all up to it.
        tally: Option<Tally>,
    },
}

/// Why a request will never be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Declined {
    /// It does not fit what the middle has, in these words.
    Unfit(String),
    /// It is about numbers of another queue than the one that the middle has, which is this.
    OtherQueue(QueueId),
}

/// What follows from an answer.
#[derive(Debug)]
pub(super) enum Told {
    /// Send this.
    Send(Bytes),
    /// The session is held.
    Granted(ConsumerState),
    /// A request is done, or refused.
    Finished(RequestId, Result<(), Declined>),
    /// A newer session has taken over.
    Fenced,
    /// There is no such consumer.
    Unknown,
}

#[derive(Debug)]
struct Asked {
    id: RequestId,
    queue: QueueId,
    number: u64,
    request: Request,
    sent: Duration,
}

/// The state of one consumer's session.
#[derive(Debug)]
pub(super) struct Durable {
    name: String,
    nonce: u64,
    /// The session held, or claimed; 0 before.
    session: u64,
    /// A session was granted once: a fence is final from then on.
    granted: bool,
    /// An open awaits its answer: its number, the session it names, and when it was sent.
    opening: Option<(u64, u64, Duration)>,
    /// Numbers grow within this process, so that late copies are known as such.
    number: u64,
    asked: Vec<Asked>,
}

impl Durable {
    pub(super) fn new(name: &str, nonce: u64) -> Self {
        Self {
            name: name.to_owned(),
            nonce,
            session: 0,
            granted: false,
            opening: None,
            number: 0,
            asked: Vec::new(),
        }
    }

    pub(super) const fn is_opening(&self) -> bool {
        self.opening.is_some()
    }

    /// When the request that waits longest was sent.
    pub(super) fn oldest_sent(&self) -> Option<Duration> {
        let opening = self.opening.map(|(_, _, sent)| sent);
        if opening.is_some() {
            return opening;
        }
        self.asked.iter().map(|asked| asked.sent).min()
    }

    /// Asks for the session: the one held, or, without one, which is the newest.
    pub(super) fn open(&mut self, now: Duration, random: &mut Random) -> Bytes {
        let session = if self.granted { self.session } else { 0 };
        self.claim(now, session, random)
    }

    fn claim(&mut self, now: Duration, session: u64, random: &mut Random) -> Bytes {
        let number = random.next_nonzero();
        self.opening = Some((number, session, now));
        Open { request: number, session, nonce: self.nonce, consumer: &self.name }.encode()
    }

    /// Keeps a request about numbers of `queue` and, if the session is held, gives its frame.
    pub(super) fn request(
        &mut self,
        now: Duration,
        id: RequestId,
        queue: QueueId,
        request: Request,
    ) -> Option<Bytes> {
        self.number += 1;
        let asked = Asked { id, queue, number: self.number, request, sent: now };
        let frame = (self.granted && self.opening.is_none()).then(|| self.frame(&asked));
        self.asked.push(asked);
        frame
    }

    fn frame(&self, asked: &Asked) -> Bytes {
        let (request, session, consumer) = (asked.number, self.session, self.name.as_str());
        let queue = asked.queue;
        match &asked.request {
            Request::Prepare { start, end, plan } => {
                let (start, end) = (*start, *end);
                Prepare { queue, request, session, start, end, plan, consumer }.encode()
            }
            Request::Commit { upto, tally } => {
                let (upto, tally) = (*upto, *tally);
                Commit { queue, request, session, upto, tally, consumer }.encode()
            }
        }
    }

    /// Frames that have waited too long for an answer.
    pub(super) fn repeat(
        &mut self,
        now: Duration,
        within: Duration,
        random: &mut Random,
    ) -> Vec<Bytes> {
        let late = |sent: Duration| now.saturating_sub(sent) >= within;
        if let Some((_, session, sent)) = self.opening {
            return if late(sent) { vec![self.claim(now, session, random)] } else { Vec::new() };
        }
        if !self.granted {
            return Vec::new();
        }
        for asked in self.asked.iter_mut().filter(|asked| late(asked.sent)) {
            asked.sent = now;
        }
        let due = self.asked.iter().filter(|asked| asked.sent == now);
        due.map(|asked| self.frame(asked)).collect()
    }

    /// Takes an answer.
    pub(super) fn answer(
        &mut self,
        now: Duration,
        answer: Answer,
        random: &mut Random,
    ) -> Vec<Told> {
        if let Some((number, session, _)) = self.opening {
            if answer.request == number {
                return self.opened(now, answer, session, random);
            }
            return Vec::new();
        }
        let Some(at) = self.asked.iter().position(|asked| asked.number == answer.request) else {
            return Vec::new();
        };
        match answer.outcome {
            Outcome::Done => {
                let asked = self.asked.swap_remove(at);
                vec![Told::Finished(asked.id, Ok(()))]
            }
            Outcome::Refused => {
                let asked = self.asked.swap_remove(at);
                let declined = if answer.queue == asked.queue {
                    Declined::Unfit(format!(
                        "{:?} does not fit what the middle has: committed {}",
                        asked.request, answer.state.committed
                    ))
                } else {
                    Declined::OtherQueue(answer.queue)
                };
                vec![Told::Finished(asked.id, Err(declined))]
            }
            // The middle lost what it knew of this session: claim one anew.
            Outcome::State => vec![Told::Send(self.open(now, random))],
            Outcome::Fenced => vec![Told::Fenced],
            Outcome::Unknown => vec![Told::Unknown],
        }
    }

    fn opened(
        &mut self,
        now: Duration,
        answer: Answer,
        claimed: u64,
        random: &mut Random,
    ) -> Vec<Told> {
        self.opening = None;
        let newest = answer.state.session;
        match answer.outcome {
            Outcome::Done if claimed != 0 => {
                self.session = claimed;
                self.granted = true;
                let mut told = vec![Told::Granted(answer.state)];
                for asked in &mut self.asked {
                    asked.sent = now;
                }
                told.extend(self.asked.iter().map(|asked| Told::Send(self.frame(asked))));
                told
            }
            Outcome::Fenced if self.granted => vec![Told::Fenced],
            // Somebody else claimed in between, or the newest is known only now.
            Outcome::Done | Outcome::State | Outcome::Fenced | Outcome::Refused => {
                vec![Told::Send(self.claim(now, newest.saturating_add(1), random))]
            }
            Outcome::Unknown => vec![Told::Unknown],
        }
    }
}
