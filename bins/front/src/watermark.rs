//! How far the middle's durable acks have come in one ring, and who waits for it.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

use forebay_queue::Seq;

/// A seq that only grows. One forwarder advances it, one task a core waits for it.
#[derive(Debug, Default)]
pub(crate) struct Watermark {
    reached: AtomicU64,
    /// The lowest seq anybody waits for and every waker; few: one a core.
    waiting: Mutex<Vec<(Seq, Waker)>>,
}

impl Watermark {
    /// The highest seq reached.
    pub(crate) fn get(&self) -> Seq {
        Seq::from_u64(self.reached.load(Ordering::Acquire))
    }

    /// All entries up to `seq` are durable in the middle.
    pub(crate) fn advance(&self, seq: Seq) {
        if self.reached.fetch_max(seq.get(), Ordering::AcqRel) >= seq.get() {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Rarely more than one a core, so that a linear pass is the cheapest.
        waiting.retain(|(wanted, waker)| {
            let wait = *wanted > seq;
            if !wait {
                waker.wake_by_ref();
            }
            wait
        });
    }

    /// Whether `seq` is reached; if not, `waker` is woken once it is.
    pub(crate) fn poll(&self, seq: Seq, waker: &Waker) -> bool {
        if self.get() >= seq {
            return true;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.iter_mut().find(|(_, known)| known.will_wake(waker)) {
            Some((wanted, _)) => *wanted = seq.min(*wanted),
            None => waiting.push((seq, waker.clone())),
        }
        // Advanced between the look and the lock: nobody would wake us.
        self.get() >= seq
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_waiter_is_woken_once_its_seq_is_reached() {
        let (mark, count) = (Watermark::default(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let woken = || count.0.load(Ordering::Relaxed);
        assert!(!mark.poll(Seq::new(1, 5), &waker));
        mark.advance(Seq::new(1, 4));
        assert_eq!(woken(), 0);
        mark.advance(Seq::new(1, 7));
        assert_eq!((woken(), mark.get()), (1, Seq::new(1, 7)));
        mark.advance(Seq::new(1, 6));
        assert_eq!((woken(), mark.get()), (1, Seq::new(1, 7)));
        assert!(mark.poll(Seq::new(1, 5), &waker));
    }
}
