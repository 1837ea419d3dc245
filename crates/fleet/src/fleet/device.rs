//! One simulated device: connect, send what is due, take acks, reconnect and send again.

use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use forebay_client::{Approach, Connection, ConnectionError};
use forebay_model::{Body, DeviceId, MessageId, SessionId};
use forebay_wire::device::{ClientFrame, Format, ServerFrame};
use tokio::{sync::watch, time::timeout};

use super::{Phase, Roaming, Shared, flight::Flight, pace::Pace};
use crate::{
    journal::SessionLog,
    latency::Latencies,
    script::{Voice, mix},
};

/// From the first packet to the welcome; a front that is killed meanwhile may leave it hanging.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// With messages in flight, this much silence means that the connection is dead.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// First and longest wait before a connection is tried again; jitter halves it at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// One device and its only session.
#[derive(Debug)]
pub(super) struct Device {
    shared: Arc<Shared>,
    waits: Arc<Latencies>,
    log: Arc<SessionLog>,
    id: DeviceId,
    session: SessionId,
    number: u32,
    voice: Voice,
    front: usize,
    roams: bool,
    flight: Flight,
    pace: Pace,
    /// Sessions opened so far.
    opened: u64,
}

/// Why a connection was left.
enum Left {
    /// Everything is acknowledged and the fleet is stopping.
    Done,
    /// It broke or was closed; connect again after this at least.
    Broken(Duration),
}

impl Device {
    /// A device that has not connected yet.
    pub(super) fn new(
        shared: &Arc<Shared>,
        waits: &Arc<Latencies>,
        number: u32,
        session: u64,
    ) -> Self {
        let plan = &shared.plan;
        let name = shared.script.device_name(number);
        let voice = shared.script.voice(number, session);
        let log = shared.journal.open(number, &name, session, shared.script.rows(voice));
        let share = f64::from(number) / f64::from(plan.devices);
        let rate = plan.rate.map(|rate| rate / f64::from(plan.devices));
        // Devices take turns: each begins at its share of the interval after its own connect.
        let interval = rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate));
        let start = shared.started + plan.ramp.mul_f64(share) + interval.mul_f64(share);
        Self {
            shared: Arc::clone(shared),
            waits: Arc::clone(waits),
            log,
            id: DeviceId::new(&name).expect("series names are made of the characters of an id"),
            session: SessionId::new(session).expect("drawn within the bounds of a session"),
            number,
            voice,
            front: number as usize % plan.fronts.len(),
            roams: plan.roaming == Roaming::Half && number % 2 == 1,
            flight: Flight::default(),
            pace: Pace::new(rate, start),
            opened: 0,
        }
    }

    /// Lives until the fleet stops and everything is acknowledged.
    pub(super) async fn run(mut self, mut phase: watch::Receiver<Phase>) {
        let share = f64::from(self.number) / f64::from(self.shared.plan.devices);
        let begin = self.shared.started + self.shared.plan.ramp.mul_f64(share);
        tokio::select! {
            () = tokio::time::sleep_until(begin.into()) => {}
            _ = phase.wait_for(|phase| *phase != Phase::Sending) => {}
        }
        let mut failures = 0_u32;
        while !self.is_done() {
            let wait = match self.connect().await {
                Ok(connection) => {
                    failures = 0;
                    self.shared.counters.connected.fetch_add(1, Ordering::Relaxed);
                    let left = self.converse(connection, &mut phase).await;
                    self.shared.counters.connected.fetch_sub(1, Ordering::Relaxed);
                    match left {
                        Left::Done => break,
                        Left::Broken(wait) => wait,
                    }
                }
                Err(_) => {
                    self.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
                    failures += 1;
                    Duration::ZERO
                }
            };
            tokio::time::sleep(wait.max(self.backoff(failures))).await;
            if self.roams && self.shared.plan.fronts.len() > 1 {
                self.front = (self.front + 1) % self.shared.plan.fronts.len();
                self.log.roamed();
            }
        }
        self.shared.ended.one_more();
    }

    fn is_done(&self) -> bool {
        self.shared.stopping.load(Ordering::Acquire) && self.flight.acked() == self.flight.sent()
    }

    fn backoff(&self, failures: u32) -> Duration {
        let longest = (BACKOFF.0 * 2_u32.saturating_pow(failures.min(8))).min(BACKOFF.1);
        // Spread by device and try, the same in every run.
        let spread = mix(u64::from(self.number) << 32 | u64::from(failures) ^ self.opened << 16);
        longest.mul_f64(0.5 + (spread % 1024) as f64 / 2048.0)
    }

    async fn connect(&mut self) -> Result<Connection, ConnectionError> {
        let plan = &self.shared.plan;
        let url = &plan.fronts[self.front];
        let next = message(self.flight.acked() + 1);
        let token = plan.tokens.get(self.id.as_str()).or_else(|| plan.tokens.get(""));
        let by = Approach { token: token.cloned(), tls: plan.tls.clone(), ..Approach::default() };
        let open = Connection::open_by(&by, url, &self.id, Format::Cbor, self.session, next);
        let connection =
            timeout(CONNECT_WITHIN, open).await.map_err(|_| ConnectionError::Timeout)??;
        if self.opened > 0 {
            self.shared.counters.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        self.opened += 1;
        Ok(connection)
    }

    /// Speaks over one connection until it ends.
    async fn converse(
        &mut self,
        mut connection: Connection,
        phase: &mut watch::Receiver<Phase>,
    ) -> Left {
        let welcome = connection.welcome();
        let mut credit = u64::from(welcome.credit);
        // What another connection was told may be more than what this front knows.
        if let Some(acked) = welcome.acked {
            self.acknowledged(acked.get());
        }
        let mut next = self.flight.acked() + 1;
        let mut hold: Option<Instant> = None;
        loop {
            if self.is_done() {
                connection.close().await;
                return Left::Done;
            }
            let now = Instant::now();
            if hold.is_none_or(|until| now >= until) {
                hold = None;
                match self.send_due(&mut connection, &mut next, credit, now).await {
                    Ok(()) => {}
                    Err(_) => return Left::Broken(Duration::ZERO),
                }
            }
            let wake = self.wake(next, credit, hold, now);
            let frame = tokio::select! {
                biased;
                frame = connection.receive() => frame,
                () = tokio::time::sleep_until(wake.into()) => {
                    if next > self.flight.acked() + 1 && wake >= now + SILENCE_MAX {
                        return Left::Broken(Duration::ZERO);
                    }
                    continue;
                }
                _ = phase.changed() => continue,
            };
            let mut frame = match frame {
                Ok(frame) => frame,
                Err(error) => return Left::Broken(error.retry_after().unwrap_or_default()),
            };
            // Everything that is there already, before the next sending.
            loop {
                match self.answer(frame, &mut next, &mut credit) {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(wait) => hold = Some(Instant::now() + wait),
                }
                match connection.try_receive() {
                    Ok(Some(more)) => frame = more,
                    Ok(None) => break,
                    Err(error) => return Left::Broken(error.retry_after().unwrap_or_default()),
                }
            }
        }
    }

    /// Sends what the window and the pace allow; what was sent before a break goes without pace.
    async fn send_due(
        &mut self,
        connection: &mut Connection,
        next: &mut u64,
        credit: u64,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        let window = credit.min(u64::from(self.shared.plan.window)).max(1);
        let room = (self.flight.acked() + window + 1).saturating_sub(*next);
        let again = (self.flight.sent() + 1).saturating_sub(*next).min(room);
        let fresh = if again < room && !self.shared.stopping.load(Ordering::Acquire) {
            self.pace.take(room - again, now)
        } else {
            0
        };
        let last = *next + again + fresh - 1;
        if last < *next {
            return Ok(());
        }
        let script = Arc::clone(&self.shared.script);
        let counters = &self.shared.counters;
        counters.resent.fetch_add(again, Ordering::Relaxed);
        counters.sent.fetch_add(fresh, Ordering::Relaxed);
        self.log.sending(last);
        self.flight.sending(last, now);
        let mut frame =
            ClientFrame::Data { seq: message(*next), body: Body::Readings(Vec::with_capacity(2)) };
        for number in *next..=last {
            if let ClientFrame::Data { seq, body: Body::Readings(readings) } = &mut frame {
                *seq = message(number);
                script.readings(self.voice, number, readings);
            }
            connection.feed(&frame).await?;
        }
        *next = last + 1;
        connection.flush().await
    }

    /// When to look again if nothing comes: at the next due message, after a hold, or after so
    /// long a silence that the connection must be dead.
    fn wake(&self, next: u64, credit: u64, hold: Option<Instant>, now: Instant) -> Instant {
        let silence = now + SILENCE_MAX;
        if let Some(until) = hold {
            return until;
        }
        let window = credit.min(u64::from(self.shared.plan.window)).max(1);
        let open = next <= self.flight.acked() + window;
        if open && !self.shared.stopping.load(Ordering::Acquire) {
            return self.pace.next().map_or(silence, |due| due.max(now));
        }
        silence
    }

    /// Takes one answer; breaks with a time during which nothing is to be sent.
    fn answer(
        &mut self,
        frame: ServerFrame<'_>,
        next: &mut u64,
        credit: &mut u64,
    ) -> ControlFlow<Duration> {
        match frame {
            ServerFrame::Ack { ack, credit: changed } => {
                self.acknowledged(ack.get());
                // A front may know of more than this connection has sent.
                *next = (*next).max(self.flight.acked() + 1);
                if let Some(changed) = changed {
                    *credit = u64::from(changed);
                }
            }
            ServerFrame::Nack { nack, retry_ms, expect, .. } => {
                self.shared.counters.nacked.fetch_add(1, Ordering::Relaxed);
                let back = expect.unwrap_or(nack).get().max(self.flight.acked() + 1);
                *next = (*next).min(back);
                return ControlFlow::Break(Duration::from_millis(retry_ms.into()));
            }
            ServerFrame::Reject { seq, .. } => {
                self.log.rejected_one(seq.get());
                self.shared.counters.rejected.fetch_add(1, Ordering::Relaxed);
            }
            ServerFrame::Welcome { .. } => {}
        }
        ControlFlow::Continue(())
    }

    fn acknowledged(&mut self, ack: u64) {
        let before = self.flight.acked();
        let waits = &self.waits;
        self.flight.acknowledged(ack, Instant::now(), |wait, count| waits.record(wait, count));
        let after = self.flight.acked();
        if after > before {
            self.log.acknowledged(after);
            self.shared.counters.acked.fetch_add(after - before, Ordering::Relaxed);
        }
    }
}

fn message(seq: u64) -> MessageId {
    MessageId::new(seq).expect("a session counts from 1, and never to 2^53")
}
