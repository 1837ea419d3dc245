//! Which acks are due once a ring has reached a seq: one ordered queue a ring and core.
//!
//! A session appends many messages at once and leaves one mark here. One task watches the ring for
//! the oldest mark; when it is reached, everything up to the ring's watermark is handed out and
//! each session concerned is woken once. So a group commit costs one wake-up of this task, however
//! many sessions and messages took part in it.

use std::{
    cell::RefCell,
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use forebay_queue::Seq;

use crate::{control::Control, core::Core, rings::Ring};

/// Messages of one session that are safe once the ring has reached `seq`.
struct Mark {
    seq: Seq,
    control: Arc<Control>,
    /// The highest message number that is then safe, with all below it.
    upto: u64,
    /// When they were appended.
    since: Instant,
}

/// The marks of one core in one ring, in the order of appending.
#[derive(Default)]
pub(crate) struct AckQueue {
    marks: RefCell<VecDeque<Mark>>,
    /// The watching task, while there is no mark.
    idle: RefCell<Option<Waker>>,
}

impl AckQueue {
    /// The messages of `control` up to `upto` are safe once the ring has reached `seq`.
    ///
    /// A `seq` below one that was put here before is served with that one: later, never earlier.
    pub(crate) fn put(&self, seq: Seq, control: &Arc<Control>, upto: u64, since: Instant) {
        let mark = Mark { seq, control: Arc::clone(control), upto, since };
        self.marks.borrow_mut().push_back(mark);
        if let Some(waker) = self.idle.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Hands out what `reached` covers; returns the oldest seq that is left.
    fn hand_out(&self, reached: Seq, core: &Core) -> Option<Seq> {
        let mut marks = self.marks.borrow_mut();
        let now = Instant::now();
        while let Some(mark) = marks.front() {
            if mark.seq > reached {
                return Some(mark.seq);
            }
            mark.control.reach(mark.upto);
            mark.control.wake();
            core.local.ack(now.duration_since(mark.since));
            marks.pop_front();
        }
        None
    }

    /// Watches `ring` for as long as the core runs.
    ///
    /// A failed sync ends the process from here: no ack follows it.
    pub(crate) fn poll_watch(&self, ring: &Ring, core: &Core, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(oldest) = self.hand_out(ring.reached(), core) else {
                let mut idle = self.idle.borrow_mut();
                if !idle.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    *idle = Some(cx.waker().clone());
                }
                return Poll::Pending;
            };
            match ring.poll_reached(oldest, cx.waker()) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(error) => core.front.fail(&error),
            }
        }
    }
}
