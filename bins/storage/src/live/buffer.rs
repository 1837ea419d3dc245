//! What one reader has not been sent yet, within a bound, and the exact count of what fell out.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use forebay_wire::live::{Missed, Mode, Position, ServerFrame};
use tokio::sync::Notify;

use super::frame::{Frame, encode};

/// How much one reader may leave unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferLimits {
    /// Events.
    pub events: usize,
    /// Bytes of events; the events of several readers share their bytes, so this counts high.
    pub bytes: usize,
}

/// A frame to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// A reader that has it may resume after this.
    pub at: Option<Position>,
    /// The frame as text.
    pub bytes: Bytes,
}

/// When a reading was made, to be compared within its series: time, message, place, session.
pub(super) type Order = (i64, u64, u16, u64);

/// The buffer of one reader.
#[derive(Debug)]
pub struct Buffer {
    mode: Mode,
    limits: BufferLimits,
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    bytes: usize,
    /// Events taken out at the front so far: the place of a series is counted from there.
    taken: u64,
    /// In `latest`, where the pending reading of a series is.
    pending: HashMap<Box<str>, (u64, Order)>,
    missed: Missed,
    /// What followed these is gone, nobody knows how much of it was wanted.
    lost: Vec<Position>,
    missed_ever: u64,
    closed: bool,
}

#[derive(Debug)]
struct Event {
    frame: Arc<Frame>,
    /// In `latest`, its series.
    series: Option<Box<str>>,
}

impl Buffer {
    /// An empty buffer.
    #[must_use]
    pub fn new(mode: Mode, limits: BufferLimits) -> Self {
        Self { mode, limits, state: Mutex::default(), filled: Notify::new() }
    }

    /// How a slow reader is treated.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event; the oldest fall out where there is no room, and are counted.
    ///
    /// Returns how many fell out.
    pub fn push(&self, frame: Arc<Frame>) -> u64 {
        self.add(self.lock(), Event { frame, series: None })
    }

    /// Adds the reading of a series, in place of an older one that waits; an older one than that
    /// is left out.
    ///
    /// Returns how many events of other series fell out for want of room.
    pub(super) fn replace(&self, series: &str, order: Order, frame: Arc<Frame>) -> u64 {
        let mut state = self.lock();
        let taken = state.taken;
        let place = state.taken + state.events.len() as u64;
        if let Some((waiting, newest)) = state.pending.get_mut(series) {
            if order <= *newest {
                return 0;
            }
            *newest = order;
            let index = (*waiting - taken) as usize;
            let event = &mut state.events[index];
            let before = event.frame.weight();
            let after = frame.weight();
            event.frame = frame;
            state.bytes = state.bytes + after - before;
            return 0;
        }
        state.pending.insert(series.into(), (place, order));
        self.add(state, Event { frame, series: Some(series.into()) })
    }

    fn add(&self, mut state: MutexGuard<'_, State>, event: Event) -> u64 {
        let weight = event.frame.weight();
        let mut fallen = 0;
        while !state.events.is_empty()
            && (state.events.len() >= self.limits.events
                || state.bytes + weight > self.limits.bytes)
        {
            let Some(oldest) = state.take() else { break };
            state.miss(oldest.frame.at);
            fallen += 1;
        }
        state.bytes += weight;
        state.events.push_back(event);
        drop(state);
        self.filled.notify_one();
        fallen
    }

    /// Says that what followed `after` is gone, nobody knows how much of it was wanted.
    pub(super) fn lose(&self, after: Position) {
        self.lock().lost.push(after);
        self.filled.notify_one();
    }

    /// Moves up to `limit` frames to `out`, in order: what was missed first.
    pub fn take(&self, limit: usize, out: &mut Vec<Outgoing>) {
        let mut state = self.lock();
        for after in std::mem::take(&mut state.lost) {
            out.push(Outgoing { at: None, bytes: encode(&ServerFrame::lost(after)) });
        }
        if state.missed.count.is_some_and(|count| count > 0) {
            let missed = std::mem::take(&mut state.missed);
            out.push(Outgoing { at: missed.to, bytes: encode(&ServerFrame::Missed(missed)) });
        }
        let mut frames = Vec::new();
        while out.len() + frames.len() < limit {
            let Some(event) = state.take() else { break };
            frames.push(event.frame);
        }
        // Encoding is done without the lock: the thread that follows the feed never waits for it.
        drop(state);
        out.extend(
            frames.iter().map(|frame| Outgoing { at: Some(frame.at), bytes: frame.bytes() }),
        );
    }

    /// Waits until there may be something to take, or the buffer is closed.
    pub async fn filled(&self) {
        // A permit is kept if it was filled before: no wake-up is lost.
        self.filled.notified().await;
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().events.is_empty()
    }

    /// How many events this reader missed in all.
    #[must_use]
    pub fn missed_ever(&self) -> u64 {
        self.lock().missed_ever
    }

    /// Tells the reader that no event comes any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

impl State {
    fn take(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.taken += 1;
        self.bytes -= event.frame.weight();
        if let Some(series) = &event.series {
            self.pending.remove(series);
        }
        Some(event)
    }

    fn miss(&mut self, at: Position) {
        self.missed.count = Some(self.missed.count.unwrap_or(0) + 1);
        self.missed.from.get_or_insert(at);
        self.missed.to = Some(at);
        self.missed_ever += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_wire::{QueueId, Seq};

    fn at(number: u64) -> Position {
        Position { queue: QueueId::new(1), seq: Seq::from_parts(1, number) }
    }

    fn bytes(number: u64) -> Bytes {
        Bytes::from(number.to_string())
    }

    fn frame(number: u64) -> Arc<Frame> {
        Frame::ready(at(number), bytes(number))
    }

    fn taken(buffer: &Buffer, limit: usize) -> Vec<Bytes> {
        let mut out = Vec::new();
        buffer.take(limit, &mut out);
        out.into_iter().map(|outgoing| outgoing.bytes).collect()
    }

    fn missed(frame: &Bytes) -> Option<Missed> {
        let text = std::str::from_utf8(frame).expect("text");
        match ServerFrame::decode(text) {
            Ok(ServerFrame::Missed(missed)) => Some(missed),
            _ => None,
        }
    }

    #[test]
    fn a_slow_reader_is_told_exactly_what_fell_out() {
        let buffer = Buffer::new(Mode::Every, BufferLimits { events: 4, bytes: 1 << 20 });
        let fallen: u64 = (1..=10).map(|number| buffer.push(frame(number))).sum();
        assert_eq!(fallen, 6);
        let out = taken(&buffer, 100);
        let told = missed(&out[0]).expect("missed comes first");
        assert_eq!(told, Missed { count: Some(6), from: Some(at(1)), to: Some(at(6)) });
        assert_eq!(out[1..], [bytes(7), bytes(8), bytes(9), bytes(10)]);
        // Told once.
        buffer.push(frame(11));
        assert_eq!(taken(&buffer, 100), [bytes(11)]);
        assert_eq!(buffer.missed_ever(), 6);
    }

    #[test]
    fn bytes_bound_the_buffer_too() {
        let buffer = Buffer::new(Mode::Every, BufferLimits { events: 100, bytes: 10 });
        buffer.push(Frame::ready(at(1), Bytes::from_static(b"123456")));
        assert_eq!(buffer.push(Frame::ready(at(2), Bytes::from_static(b"12345"))), 1);
        // One that is larger than the bound still passes, alone.
        assert_eq!(buffer.push(Frame::ready(at(3), Bytes::from(vec![0; 50]))), 1);
        let out = taken(&buffer, 100);
        assert_eq!((missed(&out[0]).and_then(|told| told.count), out.len()), (Some(2), 2));
    }

    #[test]
    fn latest_keeps_the_newest_of_each_series_by_time_not_by_arrival() {
        let buffer = Buffer::new(Mode::Latest, BufferLimits { events: 100, bytes: 1 << 20 });
        buffer.replace("a", (10, 1, 0, 1), frame(1));
        buffer.replace("b", (10, 1, 0, 1), frame(2));
        buffer.replace("a", (30, 3, 0, 1), frame(3));
        buffer.replace("a", (20, 2, 0, 1), frame(4));
        assert_eq!(taken(&buffer, 1), [bytes(3)]);
        buffer.replace("b", (11, 2, 0, 1), frame(5));
        buffer.replace("a", (31, 4, 0, 1), frame(6));
        assert_eq!(taken(&buffer, 100), [bytes(5), bytes(6)]);
        assert_eq!(buffer.missed_ever(), 0);
    }
}
