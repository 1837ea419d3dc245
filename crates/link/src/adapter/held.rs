//! How much of what was handed to a socket it still holds.
//!
//! A PUB takes whatever it is given into queues of its own, one for each subscriber, and says
//! nothing of them. But each frame in them is a reference to the same bytes: when the last one is
//! let go of, the frame has left for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

/// Counts the bytes of frames that are still referred to.
#[derive(Debug, Clone, Default)]
pub(super) struct Held(Arc<State>);

#[derive(Debug, Default)]
struct State {
    bytes: AtomicUsize,
    less: Notify,
}

/// A frame that is counted until it is dropped.
struct Counted {
    frame: Bytes,
    held: Held,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.held.0.bytes.fetch_sub(self.frame.len(), Ordering::AcqRel);
        self.held.0.less.notify_one();
    }
}

impl Held {
    /// The same bytes, counted for as long as anybody refers to them.
    pub(super) fn count(&self, frame: Bytes) -> Bytes {
        self.0.bytes.fetch_add(frame.len(), Ordering::AcqRel);
        Bytes::from_owner(Counted { frame, held: self.clone() })
    }

    /// Waits until at most `bytes` are held, or `longest` has passed.
    pub(super) async fn at_most(&self, bytes: usize, longest: Duration) {
        let enough = async {
            while self.0.bytes.load(Ordering::Acquire) > bytes {
                self.0.less.notified().await;
            }
        };
        let _late = tokio::time::timeout(longest, enough).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Never waited for when all is well.
    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_frame_counts_until_nobody_refers_to_it() {
        let held = Held::default();
        let frame = held.count(Bytes::from(vec![7; 100]));
        assert_eq!(frame, [7; 100].as_slice());
        let (copy, part) = (frame.clone(), frame.slice(10..20));
        assert!(held.at_most(100, LONG).now_or_never().is_some(), "no more than that is held");
        drop((frame, copy));
        assert!(held.at_most(99, LONG).now_or_never().is_none(), "a part of it holds all of it");
        held.at_most(99, Duration::from_millis(1)).await;
        let waiting = tokio::spawn({
            let held = held.clone();
            async move {
                held.at_most(0, 2 * LONG).await;
            }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(part);
        tokio::time::timeout(LONG, waiting).await.expect("it is woken").expect("no panic");
    }
}
