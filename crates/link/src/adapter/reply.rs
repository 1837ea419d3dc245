//! One answer, handed from the link's thread to whoever waits for it: a task or a thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::error::Error;

#[derive(Debug, Default)]
struct State {
    answer: Option<Result<(), Error>>,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Slot {
    state: Mutex<State>,
    answered: Condvar,
}

impl Slot {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The giving end; dropped without an answer, it says that the link was stopped.
#[derive(Debug)]
pub(super) struct Answering(Arc<Slot>);

/// The waiting end.
#[derive(Debug)]
pub(super) struct Awaited(Arc<Slot>);

/// Makes both ends.
pub(super) fn reply() -> (Answering, Awaited) {
    let slot = Arc::new(Slot::default());
    (Answering(Arc::clone(&slot)), Awaited(slot))
}

impl Answering {
    pub(super) fn answer(self, answer: Result<(), Error>) {
        self.give(answer);
    }

    fn give(&self, answer: Result<(), Error>) {
        let mut state = self.0.lock();
        if state.answer.is_none() {
            state.answer = Some(answer);
        }
        let waker = state.waker.take();
        drop(state);
        self.0.answered.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        // Without effect if it was answered: the first answer stays, or was taken.
        self.give(Err(Error::Stopped));
    }
}

impl Awaited {
    /// Blocks for the answer.
    pub(super) fn wait(self, timeout: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + timeout;
        let mut state = self.0.lock();
        loop {
            if let Some(answer) = state.answer.take() {
                return answer;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Deadline { seconds: timeout.as_secs_f64() });
            }
            let waited = self.0.answered.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Future for Awaited {
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.lock();
        match state.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
