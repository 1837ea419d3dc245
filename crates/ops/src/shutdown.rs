//! The end of a process on request: the first signal drains, the second ends at once.
//!
//! Both are safe: what was acknowledged is already durable. Draining only leaves less behind for
//! the next start.

use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Whether this process is to end. Clones share one state, which changes from running to draining.
#[derive(Clone)]
pub struct Shutdown {
    state: Arc<State>,
}

struct State {
    draining: Mutex<Draining>,
    changed: Condvar,
    seen_by_tasks: watch::Sender<bool>,
}

#[derive(Default)]
struct Draining {
    reason: Option<String>,
    since: Option<Instant>,
    hooks: Vec<Box<dyn FnOnce() + Send>>,
}

impl Shutdown {
    /// A shutdown that only [`Shutdown::begin`] triggers: for tests, and programs that embed a tier.
    pub fn new() -> Shutdown {
        let state = State {
            draining: Mutex::default(),
            changed: Condvar::new(),
            seen_by_tasks: watch::Sender::new(false),
        };
        Shutdown { state: Arc::new(state) }
    }

    /// A shutdown that SIGTERM or SIGINT triggers too.
    ///
    /// The second signal ends the process at once with exit code 128 + its number, as a shell would
    /// report it. The signals are received on a thread of their own: a busy runtime delays nothing.
    ///
    /// # Errors
    /// The system refused the handlers or the thread.
    pub fn on_signals() -> io::Result<Shutdown> {
        let shutdown = Shutdown::new();
        let (installed, report) = std::sync::mpsc::sync_channel(1);
        let told = shutdown.clone();
        crate::thread::spawn_async("signals", move || async move {
            let signals = signal(SignalKind::terminate())
                .and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)));
            let (mut terminate, mut interrupt) = match signals {
                Ok(signals) => signals,
                Err(error) => {
                    let _ = installed.send(Err(error));
                    return;
                }
            };
            let _ = installed.send(Ok(()));
            loop {
                let (name, number) = tokio::select! {
                    _ = terminate.recv() => ("SIGTERM", 15),
                    _ = interrupt.recv() => ("SIGINT", 2),
                };
                if told.is_draining() {
                    tracing::warn!(signal = name, "ending at once, the next start recovers");
                    std::process::exit(128 + number);
                }
                tracing::info!(signal = name, "draining");
                told.begin(name);
            }
        })?;
        report.recv().map_err(|_| io::Error::other("the signal thread ended early"))??;
        Ok(shutdown)
    }

    /// Starts the drain; `reason` goes to `/readyz`. Later calls change nothing.
    pub fn begin(&self, reason: &str) {
        let hooks = {
            let mut draining = self.lock();
            if draining.reason.is_some() {
                return;
            }
            draining.reason = Some(reason.to_owned());
            draining.since = Some(Instant::now());
            std::mem::take(&mut draining.hooks)
        };
        self.state.changed.notify_all();
        self.state.seen_by_tasks.send_replace(true);
        for hook in hooks {
            hook();
        }
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        *self.state.seen_by_tasks.borrow() || self.lock().reason.is_some()
    }

    /// For long work that asks between its steps: `Break` once the drain has begun.
    pub fn goes_on(&self) -> ControlFlow<()> {
        if self.is_draining() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Why the drain has begun, if it has.
    pub fn reason(&self) -> Option<String> {
        self.lock().reason.clone()
    }

    /// How long ago the drain has begun, if it has.
    pub fn since(&self) -> Option<Duration> {
        self.lock().since.map(|since| since.elapsed())
    }

    /// Calls `hook` once the drain begins, on the thread that begins it; at once if it has begun.
    ///
    /// For loops that wait on something else than this: wake them here. The hook must not block.
    pub fn on_drain(&self, hook: impl FnOnce() + Send + 'static) {
        {
            let mut draining = self.lock();
            if draining.reason.is_none() {
                draining.hooks.push(Box::new(hook));
                return;
            }
        }
        hook();
    }

    /// Blocks this thread until the drain begins.
    pub fn wait(&self) {
        let mut draining = self.lock();
        while draining.reason.is_none() {
            draining = self.state.changed.wait(draining).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Blocks this thread until the drain begins or `limit` has passed; says whether it has begun.
    pub fn wait_timeout(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut draining = self.lock();
        while draining.reason.is_none() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let (guard, _) = self
                .state
                .changed
                .wait_timeout(draining, left)
                .unwrap_or_else(PoisonError::into_inner);
            draining = guard;
        }
        true
    }

    /// Is ready once the drain begins; on any runtime, and safe to drop and to call again.
    pub async fn draining(&self) {
        // The sender lives in `self`, so waiting can only end by the value.
        let _ = self.state.seen_by_tasks.subscribe().wait_for(|draining| *draining).await;
    }

    fn lock(&self) -> MutexGuard<'_, Draining> {
        self.state.draining.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown::new()
    }
}

impl std::fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shutdown").field("reason", &self.reason()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Long enough for any scheduler; nothing waits for it when all is well.
    const DEADLINE: Duration = Duration::from_secs(20);

    #[test]
    fn a_drain_wakes_threads_tasks_and_hooks_once() {
        let shutdown = Shutdown::new();
        let hooked = Arc::new(AtomicUsize::new(0));
        let hook = || {
            let hooked = Arc::clone(&hooked);
            move || {
                hooked.fetch_add(1, Ordering::SeqCst);
            }
        };
        shutdown.on_drain(hook());
        let (blocking, task) = (shutdown.clone(), shutdown.clone());
        let thread = std::thread::spawn(move || blocking.wait());
        let asynchronous = crate::thread::spawn_async("test", move || async move {
            tokio::time::timeout(DEADLINE, task.draining()).await.is_ok()
        })
        .unwrap();
        assert!(!shutdown.is_draining());
        assert!(!shutdown.wait_timeout(Duration::from_millis(1)));
        shutdown.begin("test");
        shutdown.begin("again");
        thread.join().unwrap();
        assert!(asynchronous.join().unwrap(), "the task is woken");
        assert!(shutdown.wait_timeout(Duration::ZERO));
        assert_eq!(shutdown.reason().as_deref(), Some("test"));
        shutdown.on_drain(hook());
        assert_eq!(hooked.load(Ordering::SeqCst), 2, "once each, a late one at once");
    }

    #[test]
    fn waiting_after_the_drain_has_begun_returns_at_once() {
        let shutdown = Shutdown::new();
        assert!(shutdown.goes_on().is_continue());
        shutdown.begin("test");
        assert!(shutdown.goes_on().is_break());
        shutdown.wait();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            shutdown.draining().await;
            shutdown.draining().await;
        });
    }
}
