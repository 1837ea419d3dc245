//! The reading end of the feed: everything, once, in order, whatever was missed on the way.
//!
//! It knows `position`, the last number yielded, and yields only what follows it without a gap.
//! Published records that do not follow, or for which the reader has no room, wait in a bounded
//! stash or are dropped: a fetch brings them later. The feed is never stalled. A fetch is made
//! when a gap shows, when the head is above the position though nothing came, when the feed is
//! silent, and at the start.
//!
//! A durable consumer (`Durable`) first opens a session, which gives it the position; a reader
//! without a cursor only asks for the head.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use forebay_wire::feed::{ConsumerState, Data, End, Feed, Fetch};
use forebay_wire::frame::FrameError;
use forebay_wire::records::RecordBatch;
use forebay_wire::uplink::{Ping, RefuseCode};
use forebay_wire::{QueueId, Seq};

use crate::config::{Start, SubscriberConfig};
use crate::machine::Random;
use crate::machine::connection::{Connection, Due, Timing};
pub use crate::machine::durable::{Declined, Request, RequestId};
use crate::machine::durable::{Durable, Told};
use crate::machine::following::Outstanding;
pub use crate::machine::following::{Action, Ending, Report};
use crate::machine::stash::Stash;
use crate::seam::{FeedEvent, Opened};

/// Most bytes asked for in one fetch.
const FETCH_BYTES_MAX: usize = 1024 * 1024;
/// How long a fetch or a request may go without an answer before it is made again.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// The reading end.
#[derive(Debug)]
pub struct Subscriber {
    start: Start,
    buffer_bytes: usize,
    random: Random,
    feed: Connection,
    fetch: Connection,
    durable: Option<Durable>,
    queue: Option<QueueId>,
    /// The position is known and the reader was told.
    started: bool,
    position: Seq,
    head: Seq,
    stash: Stash,
    buffered: usize,
    wanted: bool,
    outstanding: Option<Outstanding>,
    /// Records up to here were said to be gone; whether the session was confirmed since.
    gone: Option<(Seq, bool)>,
    ended: bool,
    actions: VecDeque<Action>,
}

impl Subscriber {
    /// A subscriber that will connect at once.
    #[must_use]
    pub fn new(config: &SubscriberConfig, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let nonce = random.next_nonzero();
        Self {
            start: config.start,
            buffer_bytes: config.buffer_bytes,
            feed: Connection::new(Timing::from(&config.feed)),
            fetch: Connection::new(Timing::from(&config.fetch)),
            durable: config.consumer.as_ref().map(|name| Durable::new(name, nonce)),
            random,
            queue: None,
            started: false,
            position: Seq::ZERO,
            head: Seq::ZERO,
            stash: Stash::default(),
            buffered: 0,
            wanted: false,
            outstanding: None,
            gone: None,
            ended: false,
            actions: VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The last number yielded.
    #[must_use]
    pub const fn position(&self) -> Seq {
        self.position
    }

    /// The last number the middle is known to have.
    #[must_use]
    pub const fn head(&self) -> Seq {
        self.head
    }

    /// Whether the feed and the fetch connection are up.
    #[must_use]
    pub const fn alive(&self) -> (bool, bool) {
        (self.feed.is_up(), self.fetch.is_up())
    }

    /// Whether it could go on as soon as the reader takes something.
    #[must_use]
    pub fn waits_for_room(&self) -> bool {
        self.wanted || !self.stash.batches.is_empty()
    }

    /// When to call [`Self::tick`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        if self.ended {
            return None;
        }
        let fetch = self.outstanding.map(|fetch| fetch.since + ANSWER_WITHIN);
        let request = self.durable.as_ref().and_then(Durable::oldest_sent);
        let request = request.filter(|_| self.fetch.is_up()).map(|sent| sent + ANSWER_WITHIN);
        let connections = [self.feed.deadline(), self.fetch.deadline()];
        connections.into_iter().flatten().chain(fetch).chain(request).min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration) {
        if self.ended {
            return;
        }
        while let Some(due) = self.feed.poll(now, &mut self.random) {
            match due {
                Due::Connect => self.actions.push_back(Action::ConnectFeed),
                Due::Ping => {}
                Due::Silent => {
                    self.actions.push_back(Action::Report(Report::FeedSilent));
                    self.actions.push_back(Action::DropFeed);
                }
            }
        }
        while let Some(due) = self.fetch.poll(now, &mut self.random) {
            match due {
                Due::Connect => self.actions.push_back(Action::ConnectFetch),
                Due::Ping => self.ping(),
                Due::Silent => {
                    self.outstanding = None;
                    self.actions.push_back(Action::Report(Report::FetchSilent));
                    self.actions.push_back(Action::DropFetch);
                }
            }
        }
        if self.outstanding.is_some_and(|fetch| now.saturating_sub(fetch.since) >= ANSWER_WITHIN) {
            self.outstanding = None;
            self.wanted = true;
        }
        if self.fetch.is_up()
            && let Some(durable) = &mut self.durable
        {
            let random = &mut self.random;
            let frames = durable.repeat(now, ANSWER_WITHIN, random);
            self.actions.extend(frames.into_iter().map(Action::Send));
        }
        self.want_more(now);
    }

    /// The SUB socket is there and subscribed.
    pub fn feed_connected(&mut self, now: Duration) {
        // What was published before the subscription took effect: the next head tells of it.
        self.feed.connected(now);
        self.stash.seen = Seq::ZERO;
    }

    /// The SUB socket is gone, or could not be built.
    pub fn feed_lost(&mut self, now: Duration) {
        self.feed.lost(now, &mut self.random);
    }

    /// The DEALER socket is there.
    pub fn fetch_connected(&mut self, now: Duration) {
        self.fetch.connected(now);
        self.outstanding = None;
        if let Some(durable) = &mut self.durable {
            let frame = durable.open(now, &mut self.random);
            self.actions.push_back(Action::Send(frame));
        } else {
            self.wanted = true;
            self.want_more(now);
        }
    }

    /// The DEALER socket is gone, or could not be built.
    pub fn fetch_lost(&mut self, now: Duration) {
        self.outstanding = None;
        self.fetch.lost(now, &mut self.random);
    }

    /// The reader took an event of so many bytes out of the buffer.
    pub fn taken(&mut self, now: Duration, bytes: usize) {
        self.buffered = self.buffered.saturating_sub(bytes);
        self.drain_stash();
        self.want_more(now);
    }

    /// Makes a request of the durable consumer about numbers of `queue`; it is repeated until it is
    /// answered. If the middle's queue is another it is declined: numbers of the one mean nothing
    /// in the other.
    pub fn request(&mut self, now: Duration, id: RequestId, queue: QueueId, request: Request) {
        let Some(durable) = &mut self.durable else {
            let declined = Declined::Unfit("a reader without a cursor commits nothing".to_owned());
            return self.actions.push_back(Action::Finished(id, Err(declined)));
        };
        let frame = durable.request(now, id, queue, request);
        if self.fetch.is_up() {
            self.actions.extend(frame.map(Action::Send));
        }
    }

    /// A frame has come over the SUB socket (without its topic).
    pub fn feed_frame(&mut self, now: Duration, bytes: &Bytes) {
        self.feed.heard(now);
        self.feed.settled();
        match Feed::decode(bytes) {
            Ok(Feed::Data(data)) if self.follows_queue(now, data.queue) => {
                self.head = self.head.max(data.records.last());
                self.stash.seen = data.records.last();
                self.published(bytes, &data);
            }
            Ok(Feed::Head(head)) if self.follows_queue(now, head.queue) => {
                self.head = self.head.max(head.head);
                // It comes after all that it counts, on the same connection.
                self.wanted |= head.head > self.position && self.stash.batches.is_empty();
            }
            Ok(_) => {}
            Err(error) => self.malformed(error),
        }
        self.want_more(now);
    }

    /// A frame has come over the DEALER socket.
    pub fn fetch_frame(&mut self, now: Duration, bytes: &Bytes) {
        self.fetch.heard(now);
        match Feed::decode(bytes) {
            Ok(Feed::Records(data)) => self.fetched(now, bytes, &data),
            Ok(Feed::End(end)) => self.fetch_ended(now, &end),
            Ok(Feed::Answer(answer)) => {
                self.fetch.settled();
                let Some(durable) = &mut self.durable else { return };
                let queue = answer.queue;
                let told = durable.answer(now, answer, &mut self.random);
                self.told(now, queue, told);
            }
            Ok(Feed::Pong(pong)) => {
                self.head = self.head.max(pong.durable);
                // A feed that is down must not hold the reader up.
                self.wanted |= !self.feed.is_up() && pong.durable > self.position;
            }
            Ok(Feed::Refuse(refuse)) => {
                if refuse.code == RefuseCode::Version {
                    let (oldest, newest) = refuse.versions;
                    let reason = refuse.reason;
                    self.end(Ending::Refused(format!(
                        "{reason} (versions {oldest} to {newest} are)"
                    )));
                }
            }
            Ok(_) => {}
            Err(error) => self.malformed(error),
        }
        self.want_more(now);
    }

    fn malformed(&mut self, error: FrameError) {
        if let FrameError::Version { .. } = error {
            return self.end(Ending::Refused(format!("the middle speaks another: {error}")));
        }
        self.actions.push_back(Action::Report(Report::Malformed(error)));
    }

    fn end(&mut self, ending: Ending) {
        self.ended = true;
        self.actions.push_back(Action::DropFeed);
        self.actions.push_back(Action::DropFetch);
        self.actions.push_back(Action::End(ending));
    }

    fn ping(&mut self) {
        let queue = self.queue.unwrap_or(QueueId::new(0));
        let frame = Ping { queue, session: 0, round: 0, sent: self.position }.encode();
        self.actions.push_back(Action::Send(frame));
    }

    /// Whether published frames of `queue` are those followed; if it is another one, the fetch
    /// connection is asked, whose answers are certain.
    fn follows_queue(&mut self, now: Duration, queue: QueueId) -> bool {
        if !self.started {
            return false;
        }
        if self.queue == Some(queue) {
            return true;
        }
        if let Some(durable) = &mut self.durable {
            if self.fetch.is_up() && !durable.is_opening() {
                let frame = durable.open(now, &mut self.random);
                self.actions.push_back(Action::Send(frame));
            }
        } else {
            self.wanted = true;
        }
        false
    }

    /// What the durable consumer's machine made of an answer.
    fn told(&mut self, now: Duration, queue: QueueId, told: Vec<Told>) {
        for told in told {
            match told {
                Told::Send(frame) => self.actions.push_back(Action::Send(frame)),
                Told::Granted(state) => {
                    if self.queue != Some(queue) || !self.started {
                        let ConsumerState { committed: after, pending, tally, .. } = state;
                        self.begin(Opened { queue, after, pending, tally });
                    }
                    self.gone = self.gone.map(|(upto, _)| (upto, true));
                    self.wanted = true;
                    self.want_more(now);
                }
                Told::Finished(id, result) => {
                    self.actions.push_back(Action::Finished(id, result));
                }
                Told::Fenced => return self.end(Ending::Fenced),
                Told::Unknown => {
                    let reason = "the middle does not know this consumer".to_owned();
                    return self.end(Ending::Refused(reason));
                }
            }
        }
    }

    fn begin(&mut self, opened: Opened) {
        if self.started {
            self.actions.push_back(Action::Report(Report::QueueChanged { queue: opened.queue }));
        }
        self.queue = Some(opened.queue);
        self.started = true;
        self.position = opened.after;
        self.head = opened.after;
        self.stash = Stash::default();
        self.outstanding = None;
        self.actions.push_back(Action::Yield(FeedEvent::Opened(opened)));
    }

    fn published(&mut self, bytes: &Bytes, data: &Data<'_>) {
        if data.records.last() <= self.position {
            return;
        }
        let gap = data.prev > self.position;
        if gap && self.stash.batches.is_empty() {
            let (position, prev) = (self.position, data.prev);
            self.actions.push_back(Action::Report(Report::Gap { position, prev }));
        }
        let batch = RecordBatch::of(data.queue, &data.records, bytes);
        if gap || !self.deliver(batch.clone()) {
            self.stash.push(data.prev, batch, self.buffer_bytes / 2);
        }
        self.drain_stash();
        self.wanted |= self.stash.begins_above(self.position);
    }

    fn fetched(&mut self, now: Duration, bytes: &Bytes, data: &Data<'_>) {
        if !self.started || self.queue != Some(data.queue) {
            return;
        }
        if let Some(fetch) = &mut self.outstanding
            && fetch.session == data.session
        {
            fetch.since = now;
        }
        if data.records.last() <= self.position || data.prev > self.position {
            return;
        }
        let batch = RecordBatch::of(data.queue, &data.records, bytes);
        let records = batch.count();
        let delivered = self.deliver(batch);
        let report = if delivered { Report::Fetched { records } } else { Report::Dropped };
        self.actions.push_back(Action::Report(report));
        self.drain_stash();
    }

    fn fetch_ended(&mut self, now: Duration, end: &End) {
        if self.outstanding.is_none_or(|fetch| fetch.session != end.session) {
            return;
        }
        self.outstanding = None;
        self.fetch.settled();
        if self.queue != Some(end.queue) {
            if let Some(durable) = &mut self.durable {
                if !durable.is_opening() {
                    self.actions.push_back(Action::Send(durable.open(now, &mut self.random)));
                }
                return;
            }
            let after = match (self.queue, self.start) {
                (None, Start::Head) => end.head,
                (None, Start::After(seq)) => seq,
                // All of another log than before is new.
                (None, Start::Oldest) | (Some(_), _) => Seq::ZERO,
            };
            self.begin(Opened { queue: end.queue, after, pending: None, tally: None });
            self.head = self.head.max(end.head);
            self.wanted = true;
            return;
        }
        self.head = self.head.max(end.head);
        if end.resume > self.position && end.after == self.position {
            if self.position == Seq::ZERO {
                // Nothing was promised below the oldest there is.
                self.position = end.resume;
                self.wanted = true;
                return;
            }
            if let Some(durable) = &mut self.durable
                && self.gone.is_none_or(|(upto, confirmed)| upto < end.resume || !confirmed)
            {
                // Nothing is reclaimed before its consumer committed it: if this one has not,
                // another has, and this session is fenced without knowing it. Ask.
                if !durable.is_opening() {
                    let frame = durable.open(now, &mut self.random);
                    self.actions.push_back(Action::Send(frame));
                    self.gone = Some((end.resume, false));
                }
                return;
            }
            self.gone = None;
            let resume = end.resume;
            let after = std::mem::replace(&mut self.position, resume);
            self.actions.push_back(Action::Yield(FeedEvent::Missed { after, resume }));
            self.drain_stash();
            self.wanted = true;
        }
        let published = self.feed.is_up() && self.stash.is_ahead_of_feed(self.position);
        self.wanted |=
            (end.head > self.position && !published) || self.stash.begins_above(self.position);
    }

    /// Yields what of `batch` is above the position, which it must reach; `false` if the reader
    /// has no room.
    fn deliver(&mut self, mut batch: RecordBatch) -> bool {
        if !batch.keep_after(self.position) {
            return true;
        }
        let bytes = batch.bytes_len();
        if self.buffered > 0 && self.buffered + bytes > self.buffer_bytes {
            return false;
        }
        self.buffered += bytes;
        self.gone = None;
        self.position = batch.last();
        self.head = self.head.max(self.position);
        self.actions.push_back(Action::Yield(FeedEvent::Batch(batch)));
        true
    }

    fn drain_stash(&mut self) {
        while let Some((prev, batch)) = self.stash.batches.front() {
            if batch.last() > self.position
                && (*prev > self.position || !self.deliver(batch.clone()))
            {
                break;
            }
            self.stash.pop();
        }
    }

    fn want_more(&mut self, now: Duration) {
        let opening = !self.started && self.durable.is_some();
        let busy = opening || self.outstanding.is_some() || !self.fetch.is_up();
        if self.ended || !self.wanted || busy {
            return;
        }
        if self.started && self.stash.holds_next(self.position) {
            // What comes next is here, and waits only for room.
            self.wanted = false;
            return;
        }
        let room = self.buffer_bytes.saturating_sub(self.buffered);
        if self.started && room < self.buffer_bytes / 4 && self.buffered > 0 {
            return;
        }
        let credit = if self.started { room.clamp(1, FETCH_BYTES_MAX) as u32 } else { 0 };
        let session = self.random.next_nonzero();
        let queue = self.queue.unwrap_or(QueueId::new(0));
        let fetch = Fetch { queue, session, after: self.position, credit };
        self.actions.push_back(Action::Send(fetch.encode()));
        self.outstanding = Some(Outstanding { session, since: now });
        self.wanted = false;
    }
}
