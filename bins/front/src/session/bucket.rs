//! How fast a device or a tenant may send: a token bucket.

/// Messages a device may send now, and how fast more become allowed.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// In millionths of a message.
    tokens: u64,
    burst: u64,
    /// Millionths a millisecond.
    refill: u64,
    at_ms: u64,
}

/// Parts of a message.
const WHOLE: u64 = 1_000_000;

impl Bucket {
    /// A full bucket; `None` if there is no limit.
    /// 0 messages a second are without limit, a burst of 0 is one second's worth.
    pub(crate) fn new(messages_per_second: u32, burst: u32, now_ms: u64) -> Option<Self> {
        if messages_per_second == 0 {
            return None;
        }
        let burst = u64::from(if burst == 0 { messages_per_second } else { burst }) * WHOLE;
        let refill = u64::from(messages_per_second) * (WHOLE / 1000);
        Some(Self { tokens: burst, burst, refill, at_ms: now_ms })
    }

    /// Adds what the time since the last call allows.
    pub(crate) fn refill(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.at_ms);
        self.at_ms = now_ms;
        let more = passed.saturating_mul(self.refill);
        self.tokens = self.tokens.saturating_add(more).min(self.burst);
    }

    /// Takes one message; `Err` holds the milliseconds until half a burst is allowed again.
    pub(crate) fn take(&mut self) -> Result<(), u32> {
        if self.tokens >= WHOLE {
            self.tokens -= WHOLE;
            return Ok(());
        }
        let wanted = (self.burst / 2).max(WHOLE) - self.tokens;
        Err(u32::try_from(wanted.div_ceil(self.refill)).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        let mut bucket = Bucket::new(10, 4, 1000).expect("limited");
        assert!((0..4).all(|_| bucket.take().is_ok()));
        assert_eq!(bucket.take(), Err(200));
        bucket.refill(1100);
        assert_eq!((bucket.take(), bucket.take()), (Ok(()), Err(200)));
        bucket.refill(60_000);
        assert!((0..4).all(|_| bucket.take().is_ok()));
        assert!(bucket.take().is_err());
        assert!(Bucket::new(0, 9, 0).is_none());
    }
}
