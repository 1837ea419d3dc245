//! A link's thread: named, with a current-thread runtime, stopped by its handle.

use std::future::Future;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::error::Error;
use crate::seam::OnFailure;

/// Time since the link was started: what the machines count in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> Duration {
        self.0.elapsed()
    }

    /// Sleeps until `deadline` on this clock; for ever without one.
    pub(crate) async fn sleep_until(&self, deadline: Option<Duration>) {
        match deadline {
            Some(deadline) => tokio::time::sleep_until((self.0 + deadline).into()).await,
            None => std::future::pending().await,
        }
    }
}

/// Tells a thread to stop.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Whether it was told to.
    pub(crate) fn is_set(&self) -> bool {
        // A dropped handle stops the thread too.
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Resolves once it is told to.
    pub(crate) async fn set(&mut self) {
        while !self.is_set() {
            if self.0.changed().await.is_err() {
                return;
            }
        }
    }
}

/// A running thread.
#[derive(Debug)]
pub(crate) struct Thread {
    name: String,
    stop: watch::Sender<bool>,
    /// In a lock, so that a handle may be shared between threads.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl Thread {
    /// Starts a thread that runs `body` to its end; a fault goes to `on_failure`.
    pub(crate) fn spawn(
        name: &str,
        on_failure: OnFailure,
        body: impl FnOnce(Stop) -> Result<(), Error> + Send + 'static,
    ) -> Result<Self, Error> {
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = mpsc::channel();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let result = body(Stop(stopped));
                if let Err(error) = result {
                    tracing::error!(%error, "the link ended");
                    on_failure(error);
                }
                drop(end);
            })
            .map_err(|source| Error::Thread { thread: name.to_owned(), source })?;
        Ok(Self { name: name.to_owned(), stop, ended: Mutex::new(ended) })
    }

    /// Tells it to stop and waits for its end.
    pub(crate) fn stop(&self, deadline: Duration) -> Result<(), Error> {
        self.stop.send_replace(true);
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        match ended.recv_timeout(deadline) {
            Err(mpsc::RecvTimeoutError::Timeout) => {
                tracing::warn!(thread = self.name, "the thread did not end in time");
                Err(Error::Deadline { seconds: deadline.as_secs_f64() })
            }
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => Ok(()),
        }
    }
}

/// A runtime for the calling thread alone.
pub(crate) fn runtime(thread: &str) -> Result<Runtime, Error> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Thread { thread: thread.to_owned(), source })
}

/// Runs a future on a runtime of its own, and lets go of whatever it left behind: a name being
/// resolved must not hold up the end.
pub(crate) fn block_on<T>(
    thread: &str,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let runtime = runtime(thread)?;
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}
