//! One sink at work: its two threads, and how they end.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use forebay_link::{QueueId, Tally};
use forebay_ops::{Shutdown, thread};

use super::{
    DeadLetters, Encoded, Limits, RangeBuffer, Sink, SinkStatus, held::HeldBack, reader::Reader,
    writer::Writer,
};
use crate::{feed::Consumer, registry::Current};

/// What a task needs besides its sink and its consumer.
pub struct SinkTaskConfig {
    /// Name of the consumer, in logs and thread names.
    pub name: String,
    /// When a range is closed.
    pub limits: Limits,
    /// What is known of devices.
    pub registry: Current,
    /// Where entries that are none are kept.
    pub dead_letters: PathBuf,
    /// Told after a range is acked, before queries lose sight of its rows in the buffer.
    pub stored: Box<dyn FnMut(&Encoded) + Send>,
}

/// A sink at work. Its threads end soon after this is dropped, and leave what they have not stored to
/// the middle; [`Self::drain`] waits for them.
#[derive(Debug)]
pub struct SinkTask {
    buffer: Arc<RangeBuffer>,
    status: Arc<SinkStatus>,
    stop: Arc<Stop>,
    hold: Arc<Hold>,
    drain: Shutdown,
    threads: Vec<JoinHandle<()>>,
}

impl SinkTask {
    /// Starts the two threads. `shutdown` says that the process is to end: ranges are closed early
    /// from then on. [`Self::drain`] ends them.
    ///
    /// # Errors
    /// The system gave no thread.
    pub fn start<C: Consumer, S: Sink>(
        config: SinkTaskConfig,
        consumer: Arc<C>,
        sink: S,
        shutdown: Shutdown,
    ) -> io::Result<Self> {
        let SinkTaskConfig { name, limits, registry, dead_letters, stored } = config;
        let buffer = Arc::new(RangeBuffer::new(limits, registry));
        let status = Arc::new(SinkStatus::default());
        let stop = Arc::new(Stop::default());
        let hold = Arc::new(Hold::default());
        let drain = Shutdown::new();
        let reader = Reader {
            name: name.clone(),
            consumer: consumer.clone(),
            buffer: buffer.clone(),
            status: status.clone(),
            dead_letters: DeadLetters::new(&dead_letters, &name),
            shutdown,
            hold: hold.clone(),
            drain: drain.clone(),
            stop: stop.clone(),
            passed_over: forebay_link::Seq::ZERO,
        };
        let writer = Writer {
            name: name.clone(),
            consumer,
            sink,
            buffer: buffer.clone(),
            status: status.clone(),
            stop: stop.clone(),
            stored,
            held_back: HeldBack::default(),
            dead_letters: DeadLetters::new(&dead_letters, &name),
            refused_in_a_row: 0,
            range: Tally::default(),
            accounts: None,
        };
        // Dropped, and the one thread ended by it, if there is no other.
        let mut task = Self { buffer, status, stop, hold, drain, threads: Vec::new() };
        task.threads.push(thread::spawn(format!("{name}-read"), move || reader.run())?);
        task.threads.push(thread::spawn(format!("{name}-write"), move || writer.run())?);
        Ok(task)
    }

    /// The rows that are not stored yet.
    #[must_use]
    pub fn buffer(&self) -> Arc<RangeBuffer> {
        self.buffer.clone()
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> Arc<SinkStatus> {
        self.status.clone()
    }

    /// What stops it for a while.
    #[must_use]
    pub fn hold(&self) -> Arc<Hold> {
        self.hold.clone()
    }

    /// Begins a drain: what the middle has by now is read, all of it is stored, and then it ends.
    pub fn begin_drain(&self) {
        self.drain.begin("drain of a sink");
    }

    /// Drains, at most until `deadline`; then stops.
    ///
    /// Returns how many entries it had read and leaves behind, those included that the store acked
    /// and that are held back: all are still at the middle.
    pub fn drain(mut self, deadline: Instant) -> u64 {
        self.begin_drain();
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            let left = deadline.saturating_duration_since(Instant::now());
            // Set by the writer when it ends, and the reader has ended before it or ends by it.
            if left.is_zero() || self.stop.wait(left.min(Duration::from_millis(100))) {
                break;
            }
        }
        self.stop.set();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.buffer.held().0 + self.status.held()
    }
}

impl Drop for SinkTask {
    fn drop(&mut self) {
        self.stop.set();
    }
}

/// Stops a sink for a while: what the middle has at that moment is still read and stored.
#[derive(Debug, Default)]
pub struct Hold {
    held: AtomicBool,
    reached: AtomicBool,
}

impl Hold {
    /// Reads what the middle has by now, and no more.
    pub fn set(&self) {
        self.held.store(true, Ordering::Release);
    }

    /// Goes on.
    pub fn release(&self) {
        self.held.store(false, Ordering::Release);
        self.reached.store(false, Ordering::Release);
    }

    /// Whether it is to stop.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Whether all that the middle had was read.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.reached.load(Ordering::Acquire)
    }

    pub(super) fn reach(&self) {
        self.reached.store(true, Ordering::Release);
    }
}

/// Ends both threads; also what they know of the middle's queue in common.
#[derive(Debug, Default)]
pub(super) struct Stop {
    state: Mutex<(bool, Option<(QueueId, Tally)>)>,
    changed: Condvar,
}

impl Stop {
    pub(super) fn set(&self) {
        self.lock().0 = true;
        self.changed.notify_all();
    }

    pub(super) fn is_set(&self) -> bool {
        self.lock().0
    }

    /// Waits, at most `limit`; says whether to stop.
    pub(super) fn wait(&self, limit: Duration) -> bool {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, limit, |state| !state.0);
        waited.unwrap_or_else(PoisonError::into_inner).0.0
    }

    /// The queue the middle has now, and what was accounted for there when it was opened.
    pub(super) fn queue(&self) -> Option<(QueueId, Tally)> {
        self.lock().1
    }

    pub(super) fn set_queue(&self, queue: QueueId, tally: Tally) {
        self.lock().1 = Some((queue, tally));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (bool, Option<(QueueId, Tally)>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
