//! What the handle of a device and its connection task share.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use forebay_model::MessageId;
use forebay_wire::{device::Level, limits::MESSAGE_BYTES_MAX};
use futures_util::task::AtomicWaker;
use tokio::sync::{Notify, Semaphore};

use super::window::{Kept, Window};
use crate::{
    Error, Options, Rejection,
    observe::{Counters, add},
};

/// Rejections kept for `Device::rejections`; the counters and the observer know of all.
const REJECTIONS_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct State {
    pub(super) window: Window,
    /// What an ack promises, once there was a welcome.
    pub(super) level: Option<Level>,
    /// The front's limit; the default one before the first welcome.
    pub(super) message_bytes_max: usize,
    /// Set once, when the device cannot go on.
    pub(super) ended: Option<Error>,
    /// The last failure to connect, in words.
    pub(super) last_failure: Option<String>,
    pub(super) rejections: VecDeque<Rejection>,
}

pub(super) struct Shared {
    state: Mutex<State>,
    /// The connection task: there is something to send, or it shall end.
    pub(super) task: AtomicWaker,
    /// Places in the window; senders wait for one.
    pub(super) room: Semaphore,
    /// Something was acked, or the state changed otherwise.
    pub(super) progress: Notify,
    closing: AtomicBool,
    pub(super) counters: Counters,
    pub(super) options: Options,
}

impl Shared {
    pub(super) fn new(options: Options, first: MessageId) -> Self {
        let state = State {
            window: Window::new(first.get()),
            level: None,
            message_bytes_max: MESSAGE_BYTES_MAX,
            ended: None,
            last_failure: None,
            rejections: VecDeque::new(),
        };
        Self {
            state: Mutex::new(state),
            task: AtomicWaker::new(),
            room: Semaphore::new(options.window.clamp(1, Semaphore::MAX_PERMITS)),
            progress: Notify::new(),
            closing: AtomicBool::new(false),
            counters: Counters::default(),
            options,
        }
    }

    /// The state; a sender that panicked while it held it has changed nothing by halves.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the device: every call from now on gives this error.
    pub(super) fn end(&self, error: Error) {
        self.state().ended.get_or_insert(error);
        self.room.close();
        self.progress.notify_waiters();
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.task.wake();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Waits until `reached` gives something; asked again whenever the state has changed.
    pub(super) async fn wait<T>(&self, mut reached: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let changed = self.progress.notified();
            tokio::pin!(changed);
            // Before the look, so that a change after it is not missed.
            changed.as_mut().enable();
            if let Some(value) = reached(&mut self.state()) {
                return value;
            }
            changed.await;
        }
    }

    /// Counts and tells released messages; returns the place of the last but one in the spool.
    ///
    /// The spool keeps the last acked message: by it a restarted device knows its counter.
    pub(super) fn released(
        &self,
        first: u64,
        released: impl Iterator<Item = Kept>,
        spool_mark: &mut Option<forebay_queue::Seq>,
        now: Instant,
    ) -> (usize, Option<forebay_queue::Seq>) {
        let mut count = 0;
        let mut done = None;
        for kept in released {
            if let Some(observer) = &self.options.observer
                && let Ok(seq) = MessageId::new(first + count as u64)
            {
                observer.acked(seq, now.saturating_duration_since(kept.taken));
            }
            if kept.spooled.is_some() {
                done = std::mem::replace(spool_mark, kept.spooled);
            }
            count += 1;
        }
        add(&self.counters.acked, count);
        (count, done)
    }

    /// Keeps and tells a rejection.
    pub(super) fn rejected(&self, rejection: Rejection) {
        add(&self.counters.rejected, 1);
        if let Some(observer) = &self.options.observer {
            observer.rejected(&rejection);
        }
        let rejections = &mut self.state().rejections;
        if rejections.len() == REJECTIONS_MAX {
            rejections.pop_front();
        }
        rejections.push_back(rejection);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}
