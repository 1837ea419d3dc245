//! One reader's frames in their order, whatever carries them: `subscribed`, a snapshot or what it
//! missed while it was away, then events.

use std::{collections::VecDeque, sync::Arc};

use forebay_wire::{
    limits::SNAPSHOT_VALUES_MAX,
    live::{Position, ServerFrame, Snapshot, Subscribed, Subscription},
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};

use super::{
    BadSubscription, EventFilter, Hub, Outgoing, Registered, Resume, ResumeError, frame::encode,
};
use crate::feed::Middle;

/// Frames handed out at a time: one flush of a socket each.
const FRAMES_MAX: usize = 256;
/// Frames read ahead for a reader that is brought back.
const RESUME_AHEAD: usize = 256;

/// What readers are served from.
#[derive(Debug, Clone)]
pub struct LiveFeed {
    /// Who hands out events.
    pub hub: Arc<Hub>,
    /// Whose logs can be read again.
    pub middles: Vec<Middle>,
    /// How many readers may be brought back at a time.
    pub resumes: Arc<Semaphore>,
}

/// Why a reader gets no more frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReaderEnd {
    /// This process ends: come back, or go to another.
    Draining,
    /// It cannot be brought back now; the sentence says why.
    Failed(String),
}

/// One reader.
#[derive(Debug)]
pub struct Reader {
    ready: VecDeque<Outgoing>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Resuming(mpsc::Receiver<Outgoing>, JoinHandle<Result<Registered, String>>),
    Live(Registered),
    Ended(ReaderEnd),
}

impl Reader {
    /// Takes a subscription.
    ///
    /// # Errors
    /// [`BadSubscription`]: tell its author.
    pub fn subscribe(
        feed: &LiveFeed,
        subscription: &Subscription,
    ) -> Result<Self, BadSubscription> {
        let filter = EventFilter::new(subscription, !feed.hub.registry().get().is_empty())?;
        let mode = subscription.mode;
        if subscription.from.is_empty() {
            let registered = feed
                .hub
                .register(&filter, mode, &[], subscription.snapshot)
                .expect("a reader that has no position is behind none");
            let mut ready = VecDeque::new();
            let subscribed = Subscribed { mode, from: registered.at.clone() };
            ready.push_back(outgoing(&ServerFrame::Subscribed(subscribed)));
            if let Some(values) = &registered.snapshot {
                snapshot(values, &registered.at, &mut ready);
            }
            return Ok(Self { ready, stage: Stage::Live(registered) });
        }
        if subscription.snapshot {
            let reason = "snapshot and from exclude each other: who resumes has the values";
            return Err(BadSubscription(reason.to_owned()));
        }
        let from = subscription.from.clone();
        let subscribed = Subscribed { mode, from: from.clone() };
        let ready = VecDeque::from([outgoing(&ServerFrame::Subscribed(subscribed))]);
        let (out, frames) = mpsc::channel(RESUME_AHEAD);
        let (hub, middles) = (feed.hub.clone(), feed.middles.clone());
        let resumes = feed.resumes.clone();
        let joined = tokio::spawn(async move {
            let _permit = resumes.acquire_owned().await.map_err(|error| error.to_string())?;
            let resume = Resume { hub, middles, filter, mode, out };
            let work = tokio::task::spawn_blocking(move || resume.run(&from));
            let result: Result<_, ResumeError> = work.await.map_err(|error| error.to_string())?;
            result.map_err(|error| error.to_string())
        });
        Ok(Self { ready, stage: Stage::Resuming(frames, joined) })
    }

    /// The next frames; waits until there are some. Safe to drop and to call again.
    ///
    /// # Errors
    /// [`ReaderEnd`]: no more will come.
    pub async fn next(&mut self) -> Result<Vec<Outgoing>, ReaderEnd> {
        if !self.ready.is_empty() {
            let count = self.ready.len().min(FRAMES_MAX);
            return Ok(self.ready.drain(..count).collect());
        }
        loop {
            match &mut self.stage {
                Stage::Ended(end) => return Err(end.clone()),
                Stage::Resuming(frames, joined) => {
                    let mut out = Vec::new();
                    if frames.recv_many(&mut out, FRAMES_MAX).await > 0 {
                        return Ok(out);
                    }
                    self.stage = match joined.await {
                        Ok(Ok(registered)) => Stage::Live(registered),
                        Ok(Err(reason)) => Stage::Ended(ReaderEnd::Failed(reason)),
                        Err(error) => Stage::Ended(ReaderEnd::Failed(error.to_string())),
                    };
                }
                Stage::Live(registered) => {
                    let buffer = registered.client.buffer();
                    let mut out = Vec::new();
                    // Looked at before the frames: one put in before the end is still sent.
                    let closed = buffer.is_closed();
                    buffer.take(FRAMES_MAX, &mut out);
                    if !out.is_empty() {
                        return Ok(out);
                    }
                    if closed {
                        self.stage = Stage::Ended(ReaderEnd::Draining);
                        continue;
                    }
                    buffer.filled().await;
                }
            }
        }
    }
}

fn outgoing(frame: &ServerFrame<'_>) -> Outgoing {
    Outgoing { at: None, bytes: encode(frame) }
}

/// Puts a snapshot into as many parts as it takes, at least one.
fn snapshot(
    values: &[forebay_wire::live::LastValue<'static>],
    at: &[Position],
    ready: &mut VecDeque<Outgoing>,
) {
    let mut parts = values.chunks(SNAPSHOT_VALUES_MAX).peekable();
    loop {
        let values = parts.next().unwrap_or_default().to_vec();
        let done = parts.peek().is_none();
        let part = Snapshot { values, at: at.to_vec(), done };
        ready.push_back(outgoing(&ServerFrame::Snapshot(part)));
        if done {
            return;
        }
    }
}
