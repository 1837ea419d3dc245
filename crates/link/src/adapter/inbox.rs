//! Between the subscriber's thread and its reader: events one way, requests the other.
//!
//! Bounded by the machine: it yields no batch beyond the configured bytes, and a caller waits for
//! each of its requests.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use forebay_wire::QueueId;
use tokio::sync::Notify;

use crate::adapter::reply::{Answering, Awaited, reply};
use crate::error::Error;
use crate::machine::subscriber::{Ending, Request};
use crate::seam::FeedEvent;

#[derive(Debug)]
struct State {
    events: VecDeque<FeedEvent>,
    /// Bytes of batches the reader took since the thread last looked.
    taken_bytes: usize,
    /// The thread is woken once so many were taken.
    heard_at_bytes: usize,
    /// The queue that the reader was last told of.
    queue: QueueId,
    requests: Vec<(QueueId, Request, Answering)>,
    ended: Option<Ending>,
    stopped: bool,
    reader: Option<Waker>,
}

/// What the thread and the reader share.
#[derive(Debug)]
pub(super) struct Inbox {
    consumer: String,
    state: Mutex<State>,
    arrived: Condvar,
    /// The thread has something to look at.
    pub(super) notify: Notify,
}

impl Inbox {
    pub(super) fn new(consumer: &str) -> Self {
        let state = State {
            events: VecDeque::new(),
            taken_bytes: 0,
            heard_at_bytes: 1,
            queue: QueueId::new(0),
            requests: Vec::new(),
            ended: None,
            stopped: false,
            reader: None,
        };
        Self {
            consumer: consumer.to_owned(),
            state: Mutex::new(state),
            arrived: Condvar::new(),
            notify: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The thread's side.

    pub(super) fn put(&self, event: FeedEvent) {
        let mut state = self.lock();
        state.events.push_back(event);
        self.wake(state);
    }

    /// Ends it: the reader sees what is left, then why.
    pub(super) fn end(&self, ending: Option<Ending>) {
        let mut state = self.lock();
        state.stopped = ending.is_none();
        state.ended = state.ended.take().or(ending);
        state.requests.clear();
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let reader = state.reader.take();
        drop(state);
        self.arrived.notify_all();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Bytes taken and requests made since the last call. The thread is woken for more once
    /// `heard_at_bytes` were taken: for each batch would cost more than the batch.
    pub(super) fn collect(
        &self,
        heard_at_bytes: usize,
    ) -> (usize, Vec<(QueueId, Request, Answering)>) {
        let mut state = self.lock();
        state.heard_at_bytes = heard_at_bytes;
        (std::mem::take(&mut state.taken_bytes), std::mem::take(&mut state.requests))
    }

    // The reader's side.

    fn take(&self, state: &mut State) -> Option<Result<FeedEvent, Error>> {
        if let Some(event) = state.events.pop_front() {
            match &event {
                FeedEvent::Batch(batch) => {
                    state.taken_bytes += batch.bytes_len();
                    if state.taken_bytes >= state.heard_at_bytes {
                        self.notify.notify_one();
                    }
                }
                FeedEvent::Opened(opened) => state.queue = opened.queue,
                FeedEvent::Missed { .. } => {}
            }
            return Some(Ok(event));
        }
        self.over(state).map(Err)
    }

    fn over(&self, state: &State) -> Option<Error> {
        let consumer = || self.consumer.clone();
        match &state.ended {
            Some(Ending::Fenced) => Some(Error::Fenced { consumer: consumer() }),
            Some(Ending::Refused(reason)) => {
                Some(Error::Refused { consumer: consumer(), reason: reason.clone() })
            }
            None => state.stopped.then_some(Error::Stopped),
        }
    }

    pub(super) fn next(&self, timeout: Duration) -> Result<Option<FeedEvent>, Error> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if let Some(taken) = self.take(&mut state) {
                return taken.map(Some);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let waited = self.arrived.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Result<FeedEvent, Error>> {
        let mut state = self.lock();
        match self.take(&mut state) {
            Some(taken) => Poll::Ready(taken),
            None => {
                state.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Makes a request about numbers of `queue`: without one, of the queue that was last read of.
    pub(super) fn request(&self, queue: Option<QueueId>, request: Request) -> Awaited {
        let (answering, awaited) = reply();
        let mut state = self.lock();
        if let Some(error) = self.over(&state) {
            answering.answer(Err(error));
            return awaited;
        }
        let queue = queue.unwrap_or(state.queue);
        state.requests.push((queue, request, answering));
        drop(state);
        self.notify.notify_one();
        awaited
    }
}
