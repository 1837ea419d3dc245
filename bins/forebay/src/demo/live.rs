//! Clients that follow the live feed, and what they have seen: nothing of it may be unstored.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use forebay_client::{Live, LiveItem, LiveOptions};
use forebay_fleet::checker::Checker;
use forebay_wire::live::Subscription;
use tokio::sync::oneshot;

/// A client that was connected comes back by itself; before, it tries so long at a time.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// And so long after that it tries again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Clients under way, all on one thread. Dropped, they end.
#[derive(Debug)]
pub(super) struct LiveClients {
    shared: Arc<Shared>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    connected: AtomicU64,
    events: AtomicU64,
    missed: AtomicU64,
    uncounted: AtomicU64,
    repeated: AtomicU64,
    seen: Mutex<Seen>,
}

/// Every event that was shown.
#[derive(Debug, Default)]
pub(super) struct Seen {
    sessions: HashMap<u64, (String, Vec<u64>)>,
}

impl LiveClients {
    /// Starts a client for each subscription.
    pub(super) fn start(url: &str, subscriptions: Vec<Subscription>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        let (ours, url) = (Arc::clone(&shared), url.to_owned());
        let work = async move {
            for subscription in subscriptions {
                tokio::spawn(follow(url.clone(), subscription, Arc::clone(&ours)));
            }
            // An error says that the other end was dropped, which ends the clients too.
            let _ = ended.await;
        };
        let thread = std::thread::Builder::new()
            .name("live-clients".to_owned())
            .spawn(move || runtime.block_on(work))?;
        Ok(Self { shared, end: Some(end), thread: Some(thread) })
    }

    /// Clients that have been connected.
    pub(super) fn connected(&self) -> u64 {
        self.shared.connected.load(Ordering::Relaxed)
    }

    /// Events shown so far.
    pub(super) fn events(&self) -> u64 {
        self.shared.events.load(Ordering::Relaxed)
    }

    /// Events that the feed says were left out, because a client was too slow.
    pub(super) fn missed(&self) -> u64 {
        self.shared.missed.load(Ordering::Relaxed)
    }

    /// How often the feed said that events are no longer held, so that nobody can count them.
    pub(super) fn uncounted(&self) -> u64 {
        self.shared.uncounted.load(Ordering::Relaxed)
    }

    /// Events that a client was shown again: a place in the feed not behind its last one.
    pub(super) fn repeated(&self) -> u64 {
        self.shared.repeated.load(Ordering::Relaxed)
    }

    /// Ends the clients and tells what they have seen.
    pub(super) fn end(mut self) -> Seen {
        self.stop();
        std::mem::take(&mut *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn stop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

impl Drop for LiveClients {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Seen {
    /// How many of the events are not stored.
    pub(super) fn unstored(&self, checker: &Checker<'_>) -> u64 {
        let missing = |(session, (device, seqs)): (&u64, &(String, Vec<u64>))| {
            seqs.iter().filter(|seq| !checker.is_stored(device, *session, **seq)).count() as u64
        };
        self.sessions.iter().map(missing).sum()
    }
}

/// Follows one subscription for as long as the runtime lives.
async fn follow(url: String, subscription: Subscription, shared: Arc<Shared>) {
    let mut places = HashMap::new();
    loop {
        let options = LiveOptions { connect_time_max: CONNECT_WITHIN, ..LiveOptions::default() };
        let Ok(mut live) = Live::connect(&url, subscription.clone(), options).await else {
            tokio::time::sleep(AGAIN_AFTER).await;
            continue;
        };
        shared.connected.fetch_add(1, Ordering::Relaxed);
        while let Some(Ok(item)) = live.next().await {
            match item {
                LiveItem::Event(event) => {
                    shared.events.fetch_add(1, Ordering::Relaxed);
                    let event = *event;
                    let before = places.insert(event.at.queue, event.at.seq);
                    if before.is_some_and(|before| event.at.seq <= before) {
                        shared.repeated.fetch_add(1, Ordering::Relaxed);
                    }
                    let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
                    let (_, seqs) = seen
                        .sessions
                        .entry(event.session.get())
                        .or_insert_with(|| (event.device.into_owned(), Vec::new()));
                    seqs.push(event.seq.get());
                }
                LiveItem::Missed(missed) => {
                    let (counter, by) = match missed.count {
                        Some(count) => (&shared.missed, count),
                        None => (&shared.uncounted, 1),
                    };
                    counter.fetch_add(by, Ordering::Relaxed);
                }
                LiveItem::Snapshot(_) => {}
            }
        }
        shared.connected.fetch_sub(1, Ordering::Relaxed);
    }
}
