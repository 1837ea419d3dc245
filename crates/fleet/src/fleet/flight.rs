//! What one device has in flight, and how long each message waited for its ack.
//!
//! A message's wait begins when it first leaves: one that is sent again after a cut keeps its
//! first time, because that is the wait a device lives through.

use std::{collections::VecDeque, time::Instant};

/// Messages of one session between sending and ack.
#[derive(Debug, Default)]
pub(super) struct Flight {
    acked: u64,
    sent: u64,
    batches: VecDeque<Batch>,
}

/// Messages that left together: those above the previous batch, up to `last`.
#[derive(Debug)]
struct Batch {
    last: u64,
    left: Instant,
}

impl Flight {
    /// Highest seq that ever left.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Highest seq acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    /// All up to `last` leave now for the first time.
    pub(super) fn sending(&mut self, last: u64, now: Instant) {
        if last > self.sent {
            self.sent = last;
            self.batches.push_back(Batch { last, left: now });
        }
    }

    /// All up to `ack` are acknowledged; tells the wait and the count of each group.
    ///
    /// An ack above what was sent is a fault of the front and is taken as one of all that was.
    pub(super) fn acknowledged(
        &mut self,
        ack: u64,
        now: Instant,
        mut wait: impl FnMut(std::time::Duration, u64),
    ) {
        let ack = ack.min(self.sent);
        while let Some(batch) = self.batches.front() {
            if self.acked >= ack {
                break;
            }
            let upto = batch.last.min(ack);
            wait(now.saturating_duration_since(batch.left), upto - self.acked);
            self.acked = upto;
            if batch.last == upto {
                self.batches.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_message_waits_from_its_first_sending_to_its_ack() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut flight = Flight::default();
        flight.sending(10, at(0));
        flight.sending(15, at(5));
        flight.sending(12, at(6)); // sent again
        let mut waits = Vec::new();
        let mut note = |wait: Duration, count| waits.push((wait.as_millis(), count));
        flight.acknowledged(4, at(10), &mut note);
        flight.acknowledged(4, at(11), &mut note);
        flight.acknowledged(12, at(20), &mut note);
        flight.acknowledged(99, at(30), &mut note);
        assert_eq!(waits, [(10, 4), (20, 6), (15, 2), (25, 3)]);
        assert_eq!((flight.acked(), flight.sent()), (15, 15));
    }
}
