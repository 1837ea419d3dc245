//! One core: a thread with a current-thread runtime that owns a share of the connections.
//!
//! Nothing on the way of a message is shared between cores but the rings. The acceptor hands in
//! new connections; their handshakes and sessions are tasks of this thread, and a few tasks of its
//! own watch the rings, the clock and the rings' room for all of them.

mod time;

use std::{
    cell::RefCell,
    collections::VecDeque,
    net,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, mpsc, watch},
    task::{AbortHandle, JoinSet, LocalSet, spawn_local},
};

use forebay_access::unix_now_s;

use self::time::CoreTime;
use crate::{
    acks::AckQueue,
    control::{Control, Order},
    front::{Connections, Front, Phase},
    handshake,
    metrics::Local,
    rings::Ring,
    session::batch::Batch,
    socket::{Settings, buffer::SharedBuffer},
    tenancy::Tenure,
};

/// How often a core looks at the deadlines of its sessions. They are seconds long, and each look
/// touches every session.
const SWEEP: Duration = Duration::from_millis(250);

/// How often a session that found its ring full looks again.
const ROOM: Duration = Duration::from_millis(20);

/// What the sessions of a core share.
pub(crate) struct Core {
    /// What all cores share.
    pub front: Arc<Front>,
    /// This core's producers.
    pub rings: Vec<Ring>,
    /// The acks that wait for each of the rings.
    pub acks: Vec<AckQueue>,
    /// What one read of a socket is taken into.
    pub shared: SharedBuffer,
    /// What the codecs of its sockets are made of.
    pub codec: Settings,
    /// What the messages of one read are encoded into.
    pub batch: RefCell<Batch>,
    /// This core's share of the histograms.
    pub local: Local,
    time: CoreTime,
    sessions: RefCell<Vec<Option<Member>>>,
    free: RefCell<Vec<usize>>,
    waiting: RefCell<Vec<Arc<Control>>>,
    waits: Notify,
}

/// A session as its core looks after it.
struct Member {
    control: Arc<Control>,
    /// What it rests on, if on a credential.
    tenure: Option<Rc<Tenure>>,
}

/// A connection that the acceptor hands over; it counts until this is dropped.
pub(crate) struct Arrival {
    /// The connection, not blocking.
    pub stream: net::TcpStream,
    /// Where it comes from: a device, or the proxy before it.
    pub peer: net::SocketAddr,
    /// Its place in the counts.
    pub seat: Seat,
}

/// A connection's place in the counts of the front and of its core.
pub(crate) struct Seat {
    front: Connections,
    core: Arc<AtomicUsize>,
}

impl Seat {
    pub(crate) fn take(front: &Connections, core: &Arc<AtomicUsize>) -> Self {
        front.add();
        core.fetch_add(1, Ordering::AcqRel);
        Self { front: front.clone(), core: Arc::clone(core) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.front.remove();
        self.core.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Core {
    pub(crate) fn new(front: Arc<Front>) -> Self {
        let rings = front.rings.clone();
        Self {
            acks: rings.iter().map(|_| AckQueue::default()).collect(),
            local: Local::new(&front.metrics),
            time: CoreTime::new(front.now_ms()),
            codec: Settings::of(&front.config.limits),
            front,
            rings,
            shared: SharedBuffer::new(),
            batch: RefCell::default(),
            sessions: RefCell::default(),
            free: RefCell::default(),
            waiting: RefCell::default(),
            waits: Notify::new(),
        }
    }

    /// The time by which the deadlines of its sessions go, in milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.at(self.front.now_ms())
    }

    /// As [`Self::now_ms`], at `front_ms` of the front's clock.
    pub(crate) fn at(&self, front_ms: u64) -> u64 {
        self.time.at(front_ms)
    }

    /// Puts a session under the sweep; returns its place, for [`Self::remove`].
    pub(crate) fn add(&self, control: &Arc<Control>, tenure: Option<Rc<Tenure>>) -> usize {
        let mut sessions = self.sessions.borrow_mut();
        let member = Some(Member { control: Arc::clone(control), tenure });
        match self.free.borrow_mut().pop() {
            Some(place) => {
                sessions[place] = member;
                place
            }
            None => {
                sessions.push(member);
                sessions.len() - 1
            }
        }
    }

    /// Whether the session of `place` rests on a credential.
    pub(crate) fn rests(&self, place: usize) -> bool {
        self.sessions.borrow()[place].as_ref().is_some_and(|member| member.tenure.is_some())
    }

    /// The session of `place` rests on a credential from now on.
    pub(crate) fn rest_on(&self, place: usize, tenure: Option<Rc<Tenure>>) {
        if let Some(member) = &mut self.sessions.borrow_mut()[place] {
            member.tenure = tenure;
        }
    }

    /// The session of `place` has ended.
    pub(crate) fn remove(&self, place: usize) {
        self.sessions.borrow_mut()[place] = None;
        self.free.borrow_mut().push(place);
    }

    /// Wakes the session in a moment, to see whether its ring has room by then.
    pub(crate) fn wake_for_room(&self, control: &Arc<Control>) {
        self.waiting.borrow_mut().push(Arc::clone(control));
        self.waits.notify_one();
    }

    /// Wakes the sessions that wait for room, from time to time while there are any.
    async fn watch_room(&self) {
        loop {
            self.waits.notified().await;
            tokio::time::sleep(ROOM).await;
            let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
            waiting.iter().for_each(|control| control.wake());
        }
    }

    /// Looks at the deadlines of all sessions from time to time.
    async fn sweep(&self) {
        let mut turns = tokio::time::interval(SWEEP);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let policy = &self.front.policy;
        loop {
            turns.tick().await;
            let front_ms = self.front.now_ms();
            let away_ms = self.time.sweep(front_ms);
            if away_ms > 0 {
                tracing::warn!(
                    away_ms,
                    "a core had no CPU, or more to do than it can; its sessions' deadlines waited"
                );
            }
            let (now_ms, now_s) = (self.at(front_ms), unix_now_s());
            let generation = policy.generation();
            for member in self.sessions.borrow().iter().flatten() {
                member.control.sweep(now_ms);
                if let Some(tenure) = &member.tenure
                    && !policy.still_holds(tenure, generation, now_s)
                {
                    member.control.order(Order::Expired);
                }
            }
            self.local.flush();
        }
    }

    /// Tells every session to end, one after another over `spread`.
    async fn drain(&self, spread: Duration) {
        let control = |member: &Member| Arc::clone(&member.control);
        let sessions: Vec<_> = self.sessions.borrow().iter().flatten().map(control).collect();
        let start = Instant::now();
        let count = u32::try_from(sessions.len()).unwrap_or(u32::MAX).max(1);
        for (number, control) in (0..).zip(&sessions) {
            let due = start + spread / count * number;
            // A pause a millisecond or more long: a timer for each of 100,000 would not keep up.
            if due > Instant::now() + Duration::from_millis(1) {
                tokio::time::sleep_until(due.into()).await;
            }
            if self.front.is_running() {
                return;
            }
            control.order(Order::Drain);
        }
    }
}

/// Runs a core until the front stops.
pub(crate) async fn run(
    front: Arc<Front>,
    arrivals: mpsc::Receiver<Arrival>,
    phase: watch::Receiver<Phase>,
) {
    let core = Rc::new(Core::new(front));
    let tasks = LocalSet::new();
    tasks.run_until(serve(Rc::clone(&core), arrivals, phase)).await;
    core.local.flush();
}

async fn serve(
    core: Rc<Core>,
    arrivals: mpsc::Receiver<Arrival>,
    mut phase: watch::Receiver<Phase>,
) {
    for number in 0..core.rings.len() {
        let core = Rc::clone(&core);
        spawn_guarded(std::future::poll_fn(move |cx| {
            core.acks[number].poll_watch(&core.rings[number], &core, cx)
        }));
    }
    let sweeping = Rc::clone(&core);
    spawn_guarded(Box::pin(async move { sweeping.sweep().await }));
    let watching = Rc::clone(&core);
    spawn_guarded(Box::pin(async move { watching.watch_room().await }));
    let arriving = Rc::clone(&core);
    spawn_guarded(Box::pin(receive(arriving, arrivals)));
    // The sender lives as long as the front, so that an error says that the front is gone.
    while let Ok(now) = phase.wait_for(|phase| *phase != Phase::Running).await.map(|now| *now) {
        if now == Phase::Stopped {
            return;
        }
        let draining = Rc::clone(&core);
        let spread = core.front.config.drain.spread.get();
        spawn_guarded(Box::pin(async move { draining.drain(spread).await }));
        // A drain that is called off lets new devices in; those told to go come back by themselves.
        if phase.wait_for(|phase| *phase != Phase::Draining).await.is_err() {
            return;
        }
    }
}

/// Starts the handshakes of arriving connections, a bounded number at a time.
async fn receive(core: Rc<Core>, mut arrivals: mpsc::Receiver<Arrival>) {
    let settings = &core.front.config.handshake;
    let mut flying = JoinSet::new();
    let mut order: VecDeque<(Instant, AbortHandle)> = VecDeque::new();
    loop {
        // Finished ones behind a slow one stay until it is gone: the deadline bounds how many.
        while order.pop_front_if(|(_, handshake)| handshake.is_finished()).is_some() {}
        let crowded = flying.len() >= usize::from(settings.in_flight_max);
        let oldest = order.front().map_or_else(Instant::now, |(started, _)| *started);
        tokio::select! {
            biased;
            Some(ended) = flying.join_next(), if !flying.is_empty() => {
                if ended.is_err_and(|error| error.is_panic()) {
                    panicked();
                }
            }
            arrival = arrivals.recv(), if !crowded => {
                let Some(Arrival { stream, peer, seat }) = arrival else { break };
                let task = flying.spawn_local(handshake::run(Rc::clone(&core), stream, peer, seat));
                order.push_back((Instant::now(), task));
            }
            () = tokio::time::sleep_until((oldest + settings.crowded_deadline.get()).into()),
                if crowded =>
            {
                if let Some((_, handshake)) = order.pop_front() {
                    handshake.abort();
                    core.front.metrics.handshake("crowded_out");
                }
            }
        }
    }
    while flying.join_next().await.is_some() {}
}

/// Starts a task of this core; a panic in it ends the process, as one of a thread does.
///
/// Not an async block around `work`: the compiler keeps what is moved into one twice, and there is
/// one of these for every connection.
pub(crate) fn spawn_guarded(work: impl Future<Output = ()> + Unpin + 'static) {
    spawn_local(Guarded(work));
}

struct Guarded<F>(F);

impl<F: Future<Output = ()> + Unpin> Future for Guarded<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let work = Pin::new(&mut self.0);
        catch_unwind(AssertUnwindSafe(|| work.poll(cx))).unwrap_or_else(|_| panicked())
    }
}

/// A task has panicked; its message is printed already.
fn panicked() -> ! {
    tracing::error!("a task of the front panicked, the process ends");
    std::process::abort()
}
