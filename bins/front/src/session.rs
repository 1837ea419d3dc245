//! One device connection: messages in, acks out.
//!
//! A session is one task with one poll function: what others want of it first, then the acks that
//! are due, then what the socket holds, then the answers. Each read of the socket is decoded,
//! encoded to canonical entries, appended at once and acked at once (`intake`); what is said to
//! the device is in `answers`. The rules about numbers and times are pure: [`sequence`], [`clock`],
//! [`bucket`].
//!
//! **Invariant**: an ack names only messages that, with all before them in the session, have
//! reached the configured level. It is sent from [`Control::reached`], which only the watch of the
//! ring advances, or the append itself where the level is reached by it.

mod answers;
pub(crate) mod batch;
pub(crate) mod bucket;
mod clock;
mod intake;
mod sequence;

use std::{
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use forebay_model::{SessionId, TenantId, Timestamp};
use forebay_queue::Seq;
use forebay_wire::device::{CloseCode, Format};

use self::{
    batch::Batch,
    bucket::Bucket,
    clock::{Clock, Due},
    sequence::{Mark, Sequence},
};
use crate::{
    addresses::Place,
    control::{Control, Order},
    core::{Core, Seat},
    front::Connections,
    registry::Listed,
    socket::{Broken, Socket},
    tenancy::{Admitted, Identity},
    tenants::Tenant,
};

/// Reads of the socket in one turn of the task; then the other sessions of the core have theirs.
const READS_A_TURN: usize = 8;

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The device protocol, in CBOR or JSON.
    Framed(Format),
    /// Every message is one opaque entry.
    Raw,
}

impl Mode {
    /// The mode that a handshake agreed on.
    pub(crate) fn of(format: Option<Format>) -> Self {
        format.map_or(Self::Raw, Self::Framed)
    }
}

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Waiting for the hello.
    Greeting,
    /// Taking messages.
    Open,
    /// A close frame is on its way; what still comes is thrown away.
    Closing,
    /// All is sent and our half of the stream is ended.
    Shut,
}

/// A batch for which the ring had no room.
struct Held {
    batch: Batch,
    from: Mark,
    received: Timestamp,
}

/// One device connection.
pub(crate) struct Session<S> {
    core: Rc<Core>,
    socket: S,
    control: Arc<Control>,
    /// Its place under the core's sweep.
    place: usize,
    identity: Identity,
    /// What holds for all devices of its tenant.
    tenant: Arc<Tenant>,
    /// It has not said who it is; the count of those.
    pending: Option<Connections>,
    /// Index of the device's ring.
    ring: usize,
    batch_bytes_max: usize,
    mode: Mode,
    stage: Stage,
    session: SessionId,
    sequence: Sequence,
    /// The highest number whose ack is on its way, in `control` or in the ack queue.
    noted: u64,
    /// The ring's seq of the last entry of this session.
    last: Seq,
    /// The highest number acked to the device.
    acked: u64,
    /// A duplicate came: ack again, even if nothing is new.
    ack_again: bool,
    /// Something waits to be flushed.
    dirty: bool,
    held: Option<Held>,
    /// Nacks for want of room since the last append.
    full_nacks: u32,
    /// What goes beyond the credit is nacked instead of slowed down.
    over_credit: bool,
    bucket: Option<Bucket>,
    listed: Listed,
    clock: Clock,
    _seated: Seated,
}

/// A connection's places in the counts, given back when it ends.
pub(crate) struct Seated {
    /// Of the front and the core.
    pub _seat: Seat,
    /// Of its address, where those are counted.
    pub _place: Option<Box<Place>>,
}

impl<S> Drop for Session<S> {
    fn drop(&mut self) {
        self.core.front.devices.leave(&self.identity, &self.control);
        self.core.front.metrics.connections.dec();
        self.core.remove(self.place);
        if let Some(pending) = &self.pending {
            pending.remove();
        }
    }
}

impl<S: Socket> Session<S> {
    /// A connection whose handshake is done.
    pub(crate) fn new(
        core: Rc<Core>,
        socket: S,
        admitted: Admitted,
        mode: Mode,
        seated: Seated,
    ) -> Self {
        let control = Arc::new(Control::new());
        let front = Arc::clone(&core.front);
        let (identity, tenure, pending) = match admitted {
            Admitted::Known(identity, tenure) => (identity, tenure, None),
            Admitted::Pending(device) => {
                let pending = front.pending.clone();
                pending.add();
                (Identity { tenant: TenantId::single(), device }, None, Some(pending))
            }
        };
        let place = core.add(&control, tenure);
        front.metrics.connections.inc();
        let now_ms = core.now_ms();
        let ring = identity.partition(core.rings.len());
        let raw = mode == Mode::Raw;
        if raw {
            front.devices.take_over(&identity, &control);
        }
        if !front.is_running() {
            control.order(Order::Drain);
        }
        Self {
            batch_bytes_max: core.rings[ring].batch_bytes_max(),
            ring,
            tenant: front.tenants.get(&identity.tenant, front.now_ms()),
            pending,
            core,
            socket,
            control,
            place,
            identity,
            mode,
            stage: if raw { Stage::Open } else { Stage::Greeting },
            // A raw connection numbers its messages itself, in a session nobody else knows.
            session: SessionId::new(rand::random::<u64>() >> 11).expect("53 bits"),
            sequence: Sequence::new(1),
            noted: 0,
            last: Seq::NONE,
            acked: 0,
            ack_again: false,
            dirty: false,
            held: None,
            full_nacks: 0,
            over_credit: false,
            listed: Listed::default(),
            bucket: Bucket::new(
                front.config.rate.messages_per_second,
                front.config.rate.burst,
                front.now_ms(),
            ),
            clock: Clock::new(&front.config.limits, raw, now_ms),
            _seated: seated,
        }
    }

    /// Serves the device until the connection has ended.
    pub(crate) fn run(mut self) -> impl Future<Output = ()> + Unpin
    where
        S: Unpin,
    {
        std::future::poll_fn(move |cx| {
            self.control.register(cx.waker());
            let ended = self.poll(cx);
            self.socket.end_turn();
            ended
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Deadlines go by the core's time; what a device may send goes by the front's clock, as a
        // device sends whether the core is there or not.
        let front_ms = self.core.front.now_ms();
        let now_ms = self.core.at(front_ms);
        self.obey(now_ms);
        if self.watch_clock(now_ms) {
            return Poll::Ready(());
        }
        for _ in 0..READS_A_TURN {
            self.send_ack();
            if self.stage == Stage::Closing || self.stage == Stage::Shut {
                return self.poll_close(cx);
            }
            if self.dirty {
                match self.socket.poll_flush(cx) {
                    Poll::Ready(Ok(())) => {
                        self.dirty = false;
                        self.clock.flushed(true, now_ms);
                    }
                    Poll::Ready(Err(broken)) => self.break_off(broken),
                    Poll::Pending => {
                        // A device that does not read its answers is not read either.
                        self.clock.flushed(false, now_ms);
                        return self.rest(now_ms);
                    }
                }
            }
            if self.control.ordered().is_some() || !self.may_read(now_ms) {
                return self.rest(now_ms);
            }
            if !self.drain(front_ms) {
                match self.socket.poll_fill(cx) {
                    Poll::Ready(Ok(())) => self.clock.hear(now_ms),
                    Poll::Ready(Err(broken)) => self.break_off(broken),
                    Poll::Pending if self.owes_nothing() => return self.rest(now_ms),
                    Poll::Pending => {}
                }
            }
        }
        cx.waker().wake_by_ref();
        self.rest(now_ms)
    }

    /// Whether there is nothing to say to the device at the moment.
    fn owes_nothing(&self) -> bool {
        !self.dirty
            && self.control.reached() <= self.acked
            && !self.ack_again
            && matches!(self.stage, Stage::Greeting | Stage::Open)
    }

    /// Pending, to be woken when the next deadline has come.
    fn rest(&self, now_ms: u64) -> Poll<()> {
        let (_, next) = self.clock.due(now_ms);
        self.control.check_at(next);
        Poll::Pending
    }

    /// Does what others have asked for.
    fn obey(&mut self, now_ms: u64) {
        if matches!(self.stage, Stage::Closing | Stage::Shut) {
            return;
        }
        match self.control.ordered() {
            None => {}
            Some(Order::Expired) => {
                self.close(CloseCode::Unauthenticated, "the credential expired or was revoked");
            }
            Some(Order::Replaced) => self.close(CloseCode::Replaced, "a newer connection speaks"),
            Some(Order::Drain) => {
                self.clock.drain(now_ms);
                if self.control.reached() >= self.noted {
                    self.send_ack();
                    self.close_with_retry(CloseCode::Restart);
                }
            }
        }
    }

    /// Does what the time has come for; true if the connection is to be dropped.
    fn watch_clock(&mut self, now_ms: u64) -> bool {
        match self.clock.due(now_ms).0 {
            None => {}
            Some(Due::Hello) => self.close(CloseCode::HelloTimeout, "no hello in time"),
            Some(Due::Silent) => self.close(CloseCode::Policy, "silent for too long"),
            Some(Due::Drained) => self.close_with_retry(CloseCode::Restart),
            Some(Due::Paused) => self.give_up_waiting(now_ms),
            Some(Due::Ping) => {
                self.clock.ping();
                let sent = self.socket.ping();
                self.sent(sent);
            }
            Some(Due::Stalled) => {
                self.core.front.metrics.gone.inc();
                return true;
            }
            Some(Due::Lingered) => return true,
        }
        false
    }

    /// Whether the socket may be read: there is room in the ring and in the credit.
    fn may_read(&mut self, now_ms: u64) -> bool {
        if self.held.is_some() && !self.append_held() {
            self.core.wake_for_room(&self.control);
            self.pause(now_ms);
            return false;
        }
        let credit = u64::from(self.core.front.config.ack.credit);
        let unacked = self.sequence.expected() - 1 - self.control.reached().min(self.noted);
        if unacked <= credit {
            self.over_credit = false;
        } else if !self.over_credit {
            // The ack that makes room wakes this session.
            self.pause(now_ms);
            return false;
        }
        self.clock.resume(now_ms);
        true
    }

    fn pause(&mut self, now_ms: u64) {
        if !self.clock.pause(now_ms) {
            self.core.front.metrics.pauses.inc();
        }
    }

    /// Flushes the close frame, ends our half, and waits for the device to end its own.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now_ms = self.core.now_ms();
        self.clock.close(now_ms);
        if self.stage == Stage::Closing {
            match self.socket.poll_flush(cx) {
                Poll::Pending => return self.rest(now_ms),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {
                    self.socket.shut_write();
                    self.stage = Stage::Shut;
                }
            }
        }
        match self.socket.poll_discard(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => self.rest(now_ms),
        }
    }

    /// The socket is of no more use, or its peer is told why it is not.
    fn break_off(&mut self, broken: Broken) {
        match broken {
            Broken::Gone => {
                if matches!(self.stage, Stage::Greeting | Stage::Open) {
                    self.core.front.metrics.gone.inc();
                }
                self.stage = Stage::Shut;
            }
            Broken::Protocol => self.close(CloseCode::Protocol, "not the WebSocket protocol"),
            Broken::NotUtf8 => self.close(CloseCode::NotUtf8, "a text message is not UTF-8"),
            Broken::TooBig => {
                let max = self.core.front.config.limits.message.get();
                self.close(CloseCode::TooLarge, &format!("a message has at most {max} bytes"));
            }
        }
    }
}
