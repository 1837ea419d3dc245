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

#[cfg(test)]
mod tests {
    use std::{
        io,
        process::Command,
        sync::atomic::{AtomicBool, Ordering},
    };

    use forebay_queue::{
        Options,
        testing::{self, Backing, Mapping, Pace},
    };
    use prometheus::Registry;
    use tokio::sync::watch;

    use forebay_access::Gate;

    use super::*;
    use crate::{
        addresses::AddressCounts,
        config::{Config, Level},
        devices::Devices,
        front::{Connections, Front, Phase},
        metrics::FrontMetrics,
        tenancy::Policy,
        tenants::Tenants,
    };

    /// Memory whose syncs fail once it is told so.
    struct Failing {
        map: Mapping,
        fails: AtomicBool,
    }

    impl Backing for Failing {
        fn len_bytes(&self) -> usize {
            self.map.len_bytes()
        }
        fn store(&self, offset: usize, bytes: &[u8]) {
            self.map.store(offset, bytes);
        }
        fn view(&self, offset: usize, len: usize) -> &[u8] {
            self.map.view(offset, len)
        }
        fn sync(&self, _offset: usize, _len: usize) -> io::Result<()> {
            let fails = self.fails.load(Ordering::Relaxed);
            if fails { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
        }
    }

    fn core_over(queue: forebay_queue::Queue) -> Core {
        Core::new(Arc::new(Front {
            config: Config::default(),
            rings: vec![Ring::of(queue, Level::Disk)],
            devices: Devices::new(),
            policy: Policy::of(Gate::default()),
            tenants: Tenants::new(&Config::default(), 1),
            addresses: AddressCounts::new(0),
            pending: Connections::default(),
            edge: None,
            metrics: FrontMetrics::new(&Registry::new()).expect("a fresh registry"),
            connections: Connections::default(),
            phase: watch::Sender::new(Phase::Running),
            started: Instant::now(),
        }))
    }

    /// The watch ends the process, so it is watched from outside.
    #[test]
    fn a_failed_sync_ends_the_process_without_another_ack() {
        let child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "acks::tests::a_child_whose_second_sync_fails"])
            .args(["--ignored", "--nocapture"])
            .output()
            .expect("a child");
        let (out, error) =
            (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
        assert_eq!(child.status.code(), Some(1), "{out}{error}");
        assert!(out.contains("acked 1") && !out.contains("still alive"), "{out}");
        assert!(error.contains("fatal: the front's ring failed"), "{error}");
    }

    #[test]
    #[ignore = "the child of the test above"]
    fn a_child_whose_second_sync_fails() {
        const CAPACITY: u64 = 1 << 20;
        let bytes = usize::try_from(testing::file_bytes(CAPACITY)).expect("small");
        let map = Mapping::anonymous(bytes).expect("memory");
        let memory = Arc::new(Failing { map, fails: AtomicBool::new(false) });
        memory.store(0, &testing::fresh(7, CAPACITY));
        let options = Options { entry_bytes_max: 1024, ..Options::default() };
        let queue = testing::open(Arc::clone(&memory) as Arc<dyn Backing>, &options, &[]);
        let queue = queue.expect("a queue");
        let core = core_over(queue.clone());
        let (control, mut pace) = (Arc::new(Control::new()), Pace::default());
        let mut cx = Context::from_waker(Waker::noop());
        let append = |number| {
            let seq = core.rings[0].append(1, &[b"entry"]).expect("room");
            core.acks[0].put(seq, &control, number, Instant::now());
        };
        append(1);
        assert!(core.acks[0].poll_watch(&core.rings[0], &core, &mut cx).is_pending());
        assert_eq!(control.reached(), 0, "not synced yet");
        testing::step(&queue, &mut pace, Instant::now()).expect("synced");
        assert!(core.acks[0].poll_watch(&core.rings[0], &core, &mut cx).is_pending());
        assert_eq!(control.reached(), 1);
        println!("acked 1");
        append(2);
        assert!(core.acks[0].poll_watch(&core.rings[0], &core, &mut cx).is_pending());
        memory.fails.store(true, Ordering::Relaxed);
        let failed = testing::step(&queue, &mut pace, Instant::now());
        assert!(failed.is_err() && control.reached() == 1);
        let _ = core.acks[0].poll_watch(&core.rings[0], &core, &mut cx);
        println!("still alive, acked {}", control.reached());
    }
}
