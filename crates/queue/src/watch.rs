//! Sleeping until a watermark has moved, and the barrier that makes not sleeping cheap.
//!
//! A [`Watch`] wakes threads and async tasks alike, all that are due at once: one wake-up a group.
//! [`Barrier`] is for producers, who look after each append whether somebody sleeps: they pay
//! nothing, because the one who is about to sleep makes all others pass a barrier first.

use std::sync::atomic::{AtomicU32, Ordering, compiler_fence, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use rustix::thread::{MembarrierCommand, futex};

/// Threads and tasks that wait for a number to be reached.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    threads: Threads,
    tasks: Tasks,
}

impl Watch {
    /// Wakes all sleeping threads, and the tasks that wait for `reached` or less. What they wait
    /// for must be visible before.
    pub(crate) fn notify(&self, reached: u64) {
        self.threads.notify();
        self.tasks.notify(reached);
    }

    /// Registers a task; the caller looks at its condition again afterwards.
    pub(crate) fn register(&self, wanted: u64, waker: &Waker) {
        self.tasks.register(wanted, waker);
    }

    /// Sleeps until `ready` says yes, looking at it after every notify; false if the time passed
    /// first.
    pub(crate) fn wait(&self, timeout: Duration, ready: impl FnMut() -> bool) -> bool {
        self.threads.wait(timeout, ready)
    }
}

/// Why [`Threads::doze`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The condition holds.
    Ready,
    /// Notified, or interrupted: look again.
    Perhaps,
    /// The deadline has passed.
    Late,
}

/// Threads that sleep until they are notified.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    generation: AtomicU32,
    sleepers: AtomicU32,
}

impl Threads {
    /// Wakes all of them. What they wait for must be visible before.
    pub(crate) fn notify(&self) {
        self.notify_up_to(i32::MAX as u32);
    }

    /// Wakes so many of them; each calls [`pass_on`](Self::pass_on), so that all get to know.
    pub(crate) fn notify_up_to(&self, count: u32) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.pass_on(count);
    }

    /// Wakes so many of those who sleep since before the last notify.
    pub(crate) fn pass_on(&self, count: u32) {
        // Either this sees the sleeper, or the sleeper, counted later, sees the new generation and
        // with it what was stored before it.
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // A private futex on memory of ours: the only error is a bad address.
            let _ = futex::wake(&self.generation, futex::Flags::PRIVATE, count);
        }
    }

    /// Sleeps until `ready` says yes, looking at it after every notify; false if the time passed
    /// first.
    pub(crate) fn wait(&self, timeout: Duration, mut ready: impl FnMut() -> bool) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            match self.doze(deadline, &mut ready) {
                Woken::Ready => return true,
                Woken::Late => return false,
                Woken::Perhaps => {}
            }
        }
    }

    /// Sleeps until the next notify, unless `ready` says yes.
    pub(crate) fn doze(
        &self,
        deadline: Option<Instant>,
        ready: &mut impl FnMut() -> bool,
    ) -> Woken {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let woken = self.doze_counted(deadline, ready);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        woken
    }

    fn doze_counted(&self, deadline: Option<Instant>, ready: &mut impl FnMut() -> bool) -> Woken {
        let generation = self.generation.load(Ordering::SeqCst);
        if ready() {
            return Woken::Ready;
        }
        let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if rest.is_some_and(|rest| rest.is_zero()) {
            return Woken::Late;
        }
        let rest = rest.and_then(|rest| rest.try_into().ok());
        // Woken, timed out, interrupted or already notified: the caller looks in every case.
        let _ = futex::wait(&self.generation, futex::Flags::PRIVATE, generation, rest.as_ref());
        Woken::Perhaps
    }
}

/// Tasks that wait for a number to be reached.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    wakers: Mutex<Vec<(u64, Waker)>>,
}

impl Tasks {
    /// Wakes those who wait for `reached` or less.
    pub(crate) fn notify(&self, reached: u64) {
        let due: Vec<Waker> = {
            let mut wakers = self.wakers();
            if wakers.is_empty() {
                return;
            }
            wakers
                .extract_if(.., |(wanted, _)| *wanted <= reached)
                .map(|(_, waker)| waker)
                .collect()
        };
        for waker in due {
            waker.wake();
        }
    }

    /// Registers a task; the caller looks at its condition again afterwards.
    pub(crate) fn register(&self, wanted: u64, waker: &Waker) {
        let mut wakers = self.wakers();
        match wakers.iter_mut().find(|(_, known)| known.will_wake(waker)) {
            Some((known, _)) => *known = wanted.min(*known),
            None => wakers.push((wanted, waker.clone())),
        }
    }

    fn wakers(&self) -> MutexGuard<'_, Vec<(u64, Waker)>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store-load barrier whose two sides cost different amounts.
///
/// One side stores, calls [`light`](Self::light), loads; the other stores, calls
/// [`heavy`](Self::heavy), loads: at least one of them sees the other's store. Where the kernel
/// has `membarrier`, light is free and heavy costs microseconds; elsewhere both are fences.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Barrier {
    asymmetric: bool,
}

impl Barrier {
    pub(crate) fn new() -> Self {
        let registered = rustix::thread::membarrier_query()
            .contains_command(MembarrierCommand::PrivateExpedited)
            && rustix::thread::membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok();
        Barrier { asymmetric: registered }
    }

    /// The side that runs all the time.
    #[inline]
    pub(crate) fn light(self) {
        if self.asymmetric {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }

    /// The side that is about to sleep.
    pub(crate) fn heavy(self) {
        fence(Ordering::SeqCst);
        if self.asymmetric {
            let done = rustix::thread::membarrier(MembarrierCommand::PrivateExpedited);
            // Registered above, so the kernel cannot refuse; sleeping without it could be for ever.
            done.expect("membarrier is registered");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::task::Wake;

    impl Threads {
        /// How many sleep, or are about to.
        pub(crate) fn sleeping(&self) -> u32 {
            self.sleepers.load(Ordering::SeqCst)
        }
    }

    struct Count(AtomicU64);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_task_is_woken_once_and_only_when_its_number_is_reached() {
        let watch = Watch::default();
        let count = Arc::new(Count(AtomicU64::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        watch.register(10, &waker);
        watch.register(12, &waker);
        watch.notify(9);
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        watch.notify(10);
        watch.notify(20);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_sleeping_thread_never_misses_the_notify() {
        let watch = Watch::default();
        let barrier = Barrier::new();
        let (reached, asleep) = (AtomicU64::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..=20_000 {
                    reached.store(number, Ordering::Release);
                    barrier.light();
                    if asleep.load(Ordering::Relaxed) == 1 && asleep.swap(0, Ordering::Relaxed) == 1
                    {
                        watch.notify(number);
                    }
                }
            });
            let mut seen = 0;
            while seen < 20_000 {
                let woken = watch.wait(Duration::from_secs(20), || {
                    if reached.load(Ordering::Acquire) > seen {
                        return true;
                    }
                    asleep.store(1, Ordering::Relaxed);
                    barrier.heavy();
                    reached.load(Ordering::Acquire) > seen
                });
                assert!(woken, "slept through {seen}");
                seen = reached.load(Ordering::Acquire);
            }
        });
    }

    #[test]
    fn a_wait_ends_with_its_deadline() {
        assert!(!Watch::default().wait(Duration::from_millis(5), || false));
    }
}
