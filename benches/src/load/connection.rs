//! One connection of a crowd: what is unread, unsent and unacked.

use std::{collections::VecDeque, io};

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use mio::net::TcpStream;

use super::{Speech, Target, stream::Stream};

/// A connection.
pub(super) struct Connection {
    number: usize,
    stream: Stream,
    greeted: bool,
    /// What came and is no whole answer yet.
    input: Vec<u8>,
    /// What the kernel has not taken yet.
    output: Vec<u8>,
    sent: u64,
    acked: u64,
    /// When each unacked message was sent or due.
    times_us: VecDeque<u64>,
}

impl Connection {
    /// Connects and greets.
    pub(super) fn open(
        speech: &(impl Speech + ?Sized),
        target: &Target,
        number: usize,
    ) -> Result<Self> {
        let mut connection = Self {
            number,
            stream: Stream::connect(target, number)?,
            greeted: false,
            input: Vec::new(),
            output: speech.greeting(number),
            sent: 0,
            acked: 0,
            times_us: VecDeque::new(),
        };
        connection.flush()?;
        Ok(connection)
    }

    pub(super) fn source(&mut self) -> &mut TcpStream {
        self.stream.source()
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }

    pub(super) fn is_greeted(&self) -> bool {
        self.greeted
    }

    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.sent - self.acked
    }

    /// Whether all that was sent is acked.
    pub(super) fn is_quiet(&self) -> bool {
        self.sent == self.acked
    }

    /// Sends `count` messages in one write, as of `at_us`.
    pub(super) fn send(
        &mut self,
        speech: &(impl Speech + ?Sized),
        count: u64,
        at_us: u64,
    ) -> Result<()> {
        for _ in 0..count {
            speech.message(self.number, self.sent, &mut self.output);
            self.sent += 1;
            self.times_us.push_back(at_us);
        }
        self.flush()
    }

    /// Notes how long the `count` messages acked last have waited.
    pub(super) fn record(&mut self, count: u64, now_us: u64, into: &mut Histogram<u64>) {
        for _ in 0..count {
            let Some(at_us) = self.times_us.pop_front() else { return };
            into.saturating_record(now_us.saturating_sub(at_us).max(1));
        }
    }

    /// Reads and answers all that has come, and sends what waits; returns how many messages are
    /// acked that were not before.
    pub(super) fn serve(
        &mut self,
        speech: &(impl Speech + ?Sized),
        buffer: &mut [u8],
    ) -> Result<u64> {
        let before = self.acked;
        loop {
            let count = match self.stream.read(buffer) {
                Ok(0) => bail!("the server ended connection {}", self.number),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context(format!("connection {}", self.number)),
            };
            if self.input.is_empty() {
                let used = self.take(speech, &buffer[..count])?;
                self.input.extend_from_slice(&buffer[used..count]);
            } else {
                let mut input = std::mem::take(&mut self.input);
                input.extend_from_slice(&buffer[..count]);
                let used = self.take(speech, &input)?;
                // A buffer that is empty again keeps no memory: most connections are idle.
                if used < input.len() {
                    input.drain(..used);
                    self.input = input;
                }
            }
            if count < buffer.len() && self.stream.ends_with_a_short_read() {
                break;
            }
        }
        self.flush()?;
        Ok(self.acked - before)
    }

    fn take(&mut self, speech: &(impl Speech + ?Sized), input: &[u8]) -> Result<usize> {
        let mut used = 0;
        if !self.greeted {
            let Some(answer) = speech.greeted(input)? else { return Ok(0) };
            self.greeted = true;
            used = answer;
        }
        let (more, acked) = speech.answers(&input[used..], self.acked, &mut self.output)?;
        if acked > self.sent {
            bail!("{acked} messages acked of {} sent", self.sent);
        }
        self.acked = acked;
        Ok(used + more)
    }

    fn flush(&mut self) -> Result<()> {
        match self.stream.write(&self.output) {
            Ok(count) if count == self.output.len() && count <= 4096 => self.output.clear(),
            Ok(count) if count == self.output.len() => self.output = Vec::new(),
            Ok(count) => drop(self.output.drain(..count)),
            Err(error) => return Err(error).context(format!("connection {}", self.number)),
        }
        Ok(())
    }
}
