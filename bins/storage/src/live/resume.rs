//! Brings a reader that was away back to the live feed, without a gap and without a repeat.
//!
//! It reads the middle's log from the reader's last event on, as fast as the reader takes it, until
//! it has caught up with the hub; only then does the reader join, from exactly that entry on.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use forebay_link::{Error, FeedEvent, RecordBatch, Start};
use forebay_wire::{
    entry,
    feed::Stored,
    live::{Mode, Position, ServerFrame},
};
use tokio::sync::mpsc;

use super::{
    EventFilter, Hub, Outgoing, Registered, Whereabouts,
    frame::{encode, event},
};
use crate::{
    feed::{Middle, Source},
    registry::listed,
};

/// Longest wait for an event: how soon a reader that has gone is noticed.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// Longest wait for the middles of a process that has just started. One that is away for longer
/// does not keep a reader from the others: it is told later what it has missed of that one.
const MIDDLES_WAIT_MAX: Duration = Duration::from_secs(5);

/// Why a reader could not be brought back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// It has gone; so is the work.
    #[error("the reader has gone")]
    Gone,
    /// The middle's log cannot be read.
    #[error("cannot read the middle's log: {0}")]
    Feed(#[from] Error),
}

/// One reader on its way back.
pub struct Resume {
    /// Where it joins.
    pub hub: Arc<Hub>,
    /// The middles whose logs can be read.
    pub middles: Vec<Middle>,
    /// What it wants.
    pub filter: EventFilter,
    /// How it wants it once it has joined.
    pub mode: Mode,
    /// Where its frames go.
    pub out: mpsc::Sender<Outgoing>,
}

struct Log {
    known: Position,
    source: Arc<dyn Source>,
}

impl Resume {
    /// Sends what follows `from`, one position a queue, and registers the reader where that ends.
    ///
    /// Blocks as long as it takes; a reader that reads nothing holds it up and nobody else.
    ///
    /// # Errors
    /// [`ResumeError`]: close the reader.
    pub fn run(&self, from: &[Position]) -> Result<Registered, ResumeError> {
        let mut logs: Vec<Log> = Vec::new();
        let mut known: Vec<Position> = Vec::new();
        let until = Instant::now() + MIDDLES_WAIT_MAX;
        for &position in from {
            let left = until.saturating_duration_since(Instant::now());
            match self.hub.whereabouts(position.queue, left) {
                // Its middle has another one now.
                Whereabouts::Nowhere => self.missed(position)?,
                Whereabouts::Here | Whereabouts::Unknown => known.push(position),
            }
        }
        loop {
            if let Some(joined) = self.hub.register(&self.filter, self.mode, &known, false) {
                return Ok(joined);
            }
            if self.out.is_closed() {
                return Err(ResumeError::Gone);
            }
            let behind =
                |at: &Position| self.hub.position(at.queue).is_some_and(|seq| seq > at.seq);
            for at in known.iter().copied().filter(behind).collect::<Vec<_>>() {
                let place = match logs.iter().position(|log| log.known.queue == at.queue) {
                    Some(place) => place,
                    None => {
                        let Some(source) = self.open(at)? else { continue };
                        logs.push(Log { known: at, source });
                        logs.len() - 1
                    }
                };
                self.read(&mut logs[place])?;
                let reached = logs[place].known;
                known
                    .iter_mut()
                    .filter(|at| at.queue == reached.queue)
                    .for_each(|at| *at = reached);
            }
        }
    }

    fn open(&self, at: Position) -> Result<Option<Arc<dyn Source>>, ResumeError> {
        let name = self.hub.middle(at.queue);
        let middle = self.middles.iter().find(|middle| Some(&middle.name) == name.as_ref());
        Ok(match middle {
            Some(middle) => Some((middle.open)(Start::After(at.seq), "live-resume")?),
            None => None,
        })
    }

    fn read(&self, log: &mut Log) -> Result<(), ResumeError> {
        match log.source.next(WAIT_MAX)? {
            Some(FeedEvent::Batch(batch)) if batch.queue() == log.known.queue => {
                self.send_batch(log.known, &batch)?;
                log.known.seq = log.known.seq.max(batch.last());
            }
            Some(FeedEvent::Missed { resume, .. }) => {
                self.missed(log.known)?;
                log.known.seq = log.known.seq.max(resume);
            }
            Some(FeedEvent::Opened(opened)) if opened.queue != log.known.queue => {
                self.missed(log.known)?;
                // Whatever the hub reached of the old queue, no more of it can be had.
                if let Some(seq) = self.hub.position(log.known.queue) {
                    log.known.seq = seq;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn send_batch(&self, known: Position, batch: &RecordBatch) -> Result<(), ResumeError> {
        let mut picked = Vec::new();
        let registry = self.hub.registry().get();
        for record in batch.iter().filter(|record| record.seq > known.seq) {
            let Some(stored) = Stored::decode(record.payload) else { continue };
            let Ok(message) = entry::decode(stored.entry) else { continue };
            let listed = listed(&registry, &message.tenant, &message.device);
            let device = listed.as_ref().and_then(Option::as_deref);
            if !self.filter.pick(&message, device, &mut picked) {
                continue;
            }
            let at = Position { queue: batch.queue(), seq: record.seq };
            let event = event(at, &message, Some(&picked), &listed);
            self.send(Some(at), &ServerFrame::Event(event))?;
        }
        Ok(())
    }

    /// Says that what followed a position is gone, nobody knows how much of it was wanted.
    fn missed(&self, after: Position) -> Result<(), ResumeError> {
        self.send(None, &ServerFrame::lost(after))
    }

    fn send(&self, at: Option<Position>, frame: &ServerFrame<'_>) -> Result<(), ResumeError> {
        let outgoing = Outgoing { at, bytes: encode(frame) };
        self.out.blocking_send(outgoing).map_err(|_| ResumeError::Gone)
    }
}
