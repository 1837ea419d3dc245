//! A load generator that costs little: one thread, epoll, frames that were built before.
//!
//! What is said is a [`Speech`]'s, so that the same generator drives our front and other people's
//! brokers. A message is acked once its connection's count of acked messages covers it. Latencies
//! are those of all messages, from the moment of sending, or from the moment at which a message was
//! due where a rate is kept: a generator that falls behind does not hide it.

mod connection;
pub mod front;
mod stream;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};
use rustls::ClientConfig;

use self::connection::Connection;
pub use self::stream::trusting_everybody;

/// Longest wait for a crowd to connect, and for its last acks.
const PATIENCE: Duration = Duration::from_secs(180);
/// Connections that are being opened at a time: within what a front takes at once.
const OPENING_MAX: usize = 256;
const READ_BYTES: usize = 256 * 1024;
const EVENTS: usize = 1024;

/// What connections say, and what is said to them.
pub trait Speech {
    /// What connection `number` says first.
    fn greeting(&self, number: usize) -> Vec<u8>;

    /// How many bytes of `input` answer the greeting; `None` if more must come.
    ///
    /// # Errors
    /// The server refuses.
    fn greeted(&self, input: &[u8]) -> Result<Option<usize>>;

    /// Appends message `index` of connection `number`; the first has index 0.
    fn message(&self, number: usize, index: u64, out: &mut Vec<u8>);

    /// Reads whole answers: how many bytes of `input` they are, and how many messages are acked by
    /// then, of which `acked` were before. What they ask for, such as a pong, is appended to `out`.
    ///
    /// # Errors
    /// The server refuses a message, or says what it should not.
    fn answers(&self, input: &[u8], acked: u64, out: &mut Vec<u8>) -> Result<(usize, u64)>;
}

/// Where to connect, and how.
#[derive(Clone)]
pub struct Target {
    /// The server.
    pub address: SocketAddr,
    /// The addresses to connect from, in turns; none: as the system likes.
    ///
    /// One has 28,000 ports. Once half of them are taken, the kernel looks through all of that half
    /// before it binds another: milliseconds each, in which a crowd answers no ping.
    pub sources: Vec<Ipv4Addr>,
    /// TLS, if it is spoken.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Target {
    /// Plain TCP from the usual address.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, sources: Vec::new(), tls: None }
    }
}

/// How fast messages are sent.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// As fast as acks come, with so many messages of each connection on their way.
    Window(u32),
    /// So many a second of all connections together, each in its turn.
    PerSecond(f64),
    /// So many of each connection, all at once.
    Each(u64),
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Flow {
    /// Messages that were sent and acked.
    pub messages: u64,
    /// From the first message to the last ack.
    pub seconds: f64,
    /// Microseconds from sending to ack.
    pub latency_us: Histogram<u64>,
}

impl Flow {
    /// Messages acked a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    /// Milliseconds within which this part (0.99) of the acks came.
    #[must_use]
    pub fn quantile_ms(&self, part: f64) -> f64 {
        self.latency_us.value_at_quantile(part) as f64 / 1e3
    }
}

/// Many connections of one process.
pub struct Crowd<'s, S: ?Sized> {
    speech: &'s S,
    target: Target,
    poll: Poll,
    events: Events,
    buffer: Box<[u8]>,
    connections: Vec<Connection>,
    epoch: Instant,
    latency_us: Histogram<u64>,
    acked: u64,
}

impl<'s, S: Speech + ?Sized> Crowd<'s, S> {
    /// Opens `count` connections, numbered from `first`, and greets.
    ///
    /// # Errors
    /// One is refused, or they are not all open in time.
    pub fn connect(speech: &'s S, target: &Target, first: usize, count: usize) -> Result<Self> {
        let mut crowd = Self {
            speech,
            target: target.clone(),
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            connections: Vec::with_capacity(count),
            epoch: Instant::now(),
            latency_us: empty(),
            acked: 0,
        };
        let mut greeted = 0;
        let end = Instant::now() + PATIENCE;
        while greeted < count {
            while crowd.connections.len() < count.min(greeted + OPENING_MAX) {
                let place = crowd.connections.len();
                let connection = crowd.open(place, first + place)?;
                crowd.connections.push(connection);
            }
            greeted += crowd.turn(Some(Duration::from_millis(100)), None)?;
            ensure!(Instant::now() < end, "only {greeted} of {count} connections are open");
        }
        Ok(crowd)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Messages that were acked since the crowd connected.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.connections.iter().map(Connection::acked).sum()
    }

    /// Sends for `time` and waits until all is acked.
    ///
    /// # Errors
    /// A message is refused, a connection ends, or acks are missing for long.
    pub fn flow(&mut self, pace: Pace, time: Duration) -> Result<Flow> {
        self.latency_us.reset();
        let before = self.acked();
        let started = Instant::now();
        let end = started + time;
        let mut due = 0_u64;
        let window = match pace {
            Pace::Window(window) => Some((u64::from(window), end)),
            Pace::PerSecond(_) | Pace::Each(_) => None,
        };
        let first = match pace {
            Pace::Window(window) => u64::from(window),
            Pace::Each(count) => count,
            Pace::PerSecond(_) => 0,
        };
        for place in 0..self.connections.len() {
            let now_us = self.now_us();
            self.connections[place].send(self.speech, first, now_us)?;
        }
        loop {
            if let Pace::PerSecond(rate) = pace {
                due = self.send_due(started, end, rate, due)?;
            }
            let now = Instant::now();
            let over = now >= end || matches!(pace, Pace::Each(_));
            if over && self.connections.iter().all(Connection::is_quiet) {
                break;
            }
            ensure!(now < end + PATIENCE, "acks are missing long after the end");
            // Never asleep: a sleep is a millisecond at least, which would make twenty messages
            // late, and to wake this process would cost the server more than its answer does.
            self.turn(Some(Duration::ZERO), window)?;
        }
        Ok(Flow {
            messages: self.acked() - before,
            seconds: started.elapsed().as_secs_f64(),
            latency_us: self.latency_us.clone(),
        })
    }

    /// Sends what is due by now; returns the number of the next.
    fn send_due(&mut self, started: Instant, end: Instant, rate: f64, from: u64) -> Result<u64> {
        let passed = end.min(Instant::now()).saturating_duration_since(started).as_secs_f64();
        let upto = (passed * rate) as u64;
        for number in from..upto {
            let at = started + Duration::from_secs_f64(number as f64 / rate);
            let due_us = micros(at.saturating_duration_since(self.epoch));
            let place = number as usize % self.connections.len();
            self.connections[place].send(self.speech, 1, due_us)?;
        }
        Ok(upto)
    }

    /// Says nothing for `time` but what it is asked for.
    ///
    /// # Errors
    /// A connection ends.
    pub fn idle(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.turn(Some(left), None)?;
        }
        Ok(())
    }

    /// Opens a connection, greets and ends it, again and again with all of the crowd's places;
    /// returns how many greetings were answered, and the seconds it took.
    ///
    /// # Errors
    /// One is refused.
    pub fn storm(&mut self, time: Duration) -> Result<(u64, f64)> {
        let started = Instant::now();
        let mut count = 0;
        while started.elapsed() < time {
            self.poll.poll(&mut self.events, Some(Duration::from_millis(100)))?;
            let places: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
            for place in places {
                let was = self.connections[place].is_greeted();
                self.connections[place].serve(self.speech, &mut self.buffer)?;
                if was || self.connections[place].is_greeted() {
                    count += u64::from(!was);
                    let number = self.connections[place].number();
                    self.connections[place] = self.open(place, number)?;
                }
            }
        }
        Ok((count, started.elapsed().as_secs_f64()))
    }

    /// Ends what `place` has and lets it begin anew, as [`Self::storm`] does with all.
    ///
    /// # Errors
    /// No connection can be opened.
    pub fn reopen_all(&mut self) -> Result<()> {
        for place in 0..self.connections.len() {
            let number = self.connections[place].number();
            self.connections[place] = self.open(place, number)?;
        }
        Ok(())
    }

    fn open(&self, place: usize, number: usize) -> Result<Connection> {
        let mut connection = Connection::open(self.speech, &self.target, number)
            .with_context(|| format!("connection {number} to {}", self.target.address))?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(connection.source(), Token(place), interest)?;
        Ok(connection)
    }

    /// Waits for what comes and serves it; with a `window` and its end, sends on as acks come.
    /// Returns how many have been greeted in this turn.
    fn turn(&mut self, wait: Option<Duration>, window: Option<(u64, Instant)>) -> Result<usize> {
        match self.poll.poll(&mut self.events, wait) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(0),
            other => other?,
        }
        let mut greeted = 0;
        let window = window.filter(|(_, end)| Instant::now() < *end).map(|(window, _)| window);
        for event in &self.events {
            let Some(connection) = self.connections.get_mut(event.token().0) else {
                bail!("an event of no connection");
            };
            let was = connection.is_greeted();
            let acked = connection.serve(self.speech, &mut self.buffer)?;
            greeted += usize::from(!was && connection.is_greeted());
            if acked > 0 {
                let now_us = micros(self.epoch.elapsed());
                connection.record(acked, now_us, &mut self.latency_us);
                self.acked += acked;
                if let Some(window) = window {
                    let more = window.saturating_sub(connection.in_flight());
                    connection.send(self.speech, more, now_us)?;
                }
            }
        }
        Ok(greeted)
    }

    fn now_us(&self) -> u64 {
        micros(self.epoch.elapsed())
    }
}

/// An empty histogram of microseconds up to a minute.
fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("constant bounds that the crate accepts")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
