//! The end of a tier, and taking one out of service: the same steps, whoever asks.
//!
//! SIGTERM (from systemd, compose or Kubernetes alike) ends the process: settle, close, flush, exit
//! 0. `POST /v1/drain` on the admin port does the same without the end, for scale-in: it can be
//! looked at (`GET`) and called off (`DELETE`), and the SIGTERM that follows finds nothing to do.
//!
//! [`Machine`] decides and knows no tier; [`Drain`] runs it against a [`Tier`]. One setting bounds
//! all of it: `shutdown.timeout`.

mod machine;
mod message;
mod token;

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use machine::{Ending, Machine, Phase, Remains};
pub use message::{tell, tell_early};
pub use token::{TOKEN_VARIABLE, TokenError, TokenSource};

use crate::{Duration, Faults, Shutdown, Validate};

/// How often a tier that drains is looked at.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(20);
/// Somebody who has asked `/readyz` within this asks again: it is worth telling them first.
const WATCHED_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);

/// How a process ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownSettings {
    /// Longest time from SIGTERM to the end; what is left then stays on disk for the next start.
    /// Whoever kills must wait longer: systemd's TimeoutStopSec, compose's stop_grace_period,
    /// Kubernetes' terminationGracePeriodSeconds.
    pub timeout: Duration,
    /// How long it says that it is not ready, and still takes work, so that balancers notice. None:
    /// a tenth of the timeout if somebody has asked for its readiness within the last minute,
    /// nothing otherwise.
    pub settle: Option<Duration>,
    /// File that gets what is left as JSON. None: /dev/termination-log, where there is one.
    pub message: Option<PathBuf>,
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        // Below the 30 s after which Kubernetes kills a pod.
        Self { timeout: Duration::from_secs(25), settle: None, message: None }
    }
}

impl Validate for ShutdownSettings {
    fn validate(&self, faults: &mut Faults) {
        faults.check(!self.timeout.is_zero(), "timeout", "must be above zero");
        let settles = self.settle.is_none_or(|settle| settle.get() <= self.timeout.get() / 2);
        faults.check(settles, "settle", "must be at most half of shutdown.timeout");
    }
}

/// What a drain does with a tier. No call may wait.
pub trait Tier: Send + Sync + 'static {
    /// Takes nobody new, and sends those away that are there, one after another.
    fn close(&self);

    /// Takes work again: a drain was called off.
    fn open(&self);

    /// What it still has.
    fn remains(&self) -> Remains;
}

/// A tier's drain. Clones are the same one.
#[derive(Clone)]
pub struct Drain {
    inner: Arc<Inner>,
}

struct Inner {
    name: &'static str,
    settings: ShutdownSettings,
    shutdown: Shutdown,
    start: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    machine: Machine,
    tier: Option<Arc<dyn Tier>>,
    /// A thread steps the machine.
    stepping: bool,
    watched_at: Option<Instant>,
}

impl Drain {
    /// Of the tier `name` that is starting; nothing can be drained before [`Self::attach`].
    #[must_use]
    pub fn new(name: &'static str, settings: &ShutdownSettings, shutdown: &Shutdown) -> Self {
        let inner = Inner {
            name,
            settings: settings.clone(),
            shutdown: shutdown.clone(),
            start: Instant::now(),
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The tier serves from now on.
    pub fn attach(&self, tier: Arc<dyn Tier>) {
        self.lock().tier = Some(tier);
    }

    /// Lets go of the tier, which has ended.
    pub fn detach(&self) {
        self.lock().tier = None;
    }

    /// Where the tier is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.lock().machine.phase()
    }

    /// Somebody has asked whether the tier is ready.
    pub(crate) fn watched(&self) {
        self.lock().watched_at = Some(Instant::now());
    }

    /// Takes the tier out of service, as far as that is not done already.
    ///
    /// # Errors
    /// There is no tier yet, or the system gave no thread.
    pub fn begin(&self) -> Result<(), String> {
        let now = self.inner.start.elapsed();
        let mut state = self.lock();
        if state.tier.is_none() {
            return Err("the tier has not started yet".to_owned());
        }
        let settle = self.settle(&state);
        state.machine.begin(now, settle);
        self.step_on(&mut state).map_err(|error| error.to_string())
    }

    /// Puts the tier into service again.
    ///
    /// # Errors
    /// [`Ending`]: the process is to end.
    pub fn cancel(&self) -> Result<(), Ending> {
        let now = self.inner.start.elapsed();
        let mut state = self.lock();
        let was = state.machine.phase();
        state.machine.cancel(now)?;
        if was != Phase::Serving {
            let (tier, phase) = (self.inner.name, was.as_str());
            tracing::info!(tier, phase, "the drain is called off, the tier serves again");
        }
        if was >= Phase::Closing
            && let Some(tier) = &state.tier
        {
            tier.open();
        }
        drop(state);
        self.inner.changed.notify_all();
        Ok(())
    }

    /// Drains for the end of the process, within `timeout`; what is left. Blocks.
    #[must_use = "what is left belongs into the log"]
    pub fn end(&self, timeout: std::time::Duration) -> Remains {
        let now = self.inner.start.elapsed();
        let mut state = self.lock();
        // The process may have been not ready for a while, as other tiers of it were drained.
        let settled = self.inner.shutdown.since().unwrap_or_default();
        let settle = self.settle(&state).saturating_sub(settled);
        state.machine.end(now, timeout, settle);
        let Some(tier) = state.tier.clone() else { return Remains::default() };
        if let Err(error) = self.step_on(&mut state) {
            tracing::warn!(%error, "no thread for the drain: it is cut short");
            drop(state);
            tier.close();
            return tier.remains();
        }
        // Until the thread has let go of the tier too, which is about to end.
        while state.stepping {
            state = self.inner.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        tier.remains()
    }

    /// How it stands, as the admin port tells it.
    #[must_use]
    pub fn state(&self) -> Value {
        let now = self.inner.start.elapsed();
        let state = self.lock();
        let (machine, tier) = (state.machine.clone(), state.tier.clone());
        drop(state);
        let seconds = |time: std::time::Duration| (time.as_secs_f64() * 10.0).round() / 10.0;
        json!({
            "phase": machine.phase(),
            "for_seconds": seconds(now.saturating_sub(machine.since())),
            "ends_in_seconds": machine.deadline().map(|end| seconds(end.saturating_sub(now))),
            "remains": tier.map(|tier| tier.remains()),
        })
    }

    fn settle(&self, state: &State) -> std::time::Duration {
        let settings = &self.inner.settings;
        let is_watched = state.watched_at.is_some_and(|at| at.elapsed() < WATCHED_WITHIN);
        match settings.settle {
            Some(settle) => settle.get(),
            None if is_watched => settings.timeout.get() / 10,
            None => std::time::Duration::ZERO,
        }
    }

    /// Makes sure that a thread steps the machine until it serves again or the process ends.
    fn step_on(&self, state: &mut State) -> std::io::Result<()> {
        if state.stepping {
            self.inner.changed.notify_all();
            return Ok(());
        }
        let drain = self.clone();
        crate::thread::spawn("drain", move || drain.step_until_done())?;
        state.stepping = true;
        Ok(())
    }

    fn step_until_done(&self) {
        let mut state = self.lock();
        loop {
            let phase = state.machine.phase();
            let done = phase == Phase::Drained && state.machine.deadline().is_some();
            let Some(tier) = state.tier.clone().filter(|_| !done && phase != Phase::Serving) else {
                state.stepping = false;
                self.inner.changed.notify_all();
                return;
            };
            // What a tier counts may take its locks: ours is given back meanwhile.
            drop(state);
            let remains = tier.remains();
            state = self.lock();
            let now = self.inner.start.elapsed();
            if let Some(entered) = state.machine.step(now, &remains) {
                let Remains { connections, entries, bytes } = remains;
                let (name, phase) = (self.inner.name, entered.as_str());
                tracing::info!(
                    tier = name,
                    phase,
                    connections,
                    entries,
                    bytes,
                    "the drain goes on"
                );
                if entered == Phase::Closing {
                    // Under the lock: a cancel that comes now opens what was closed here.
                    tier.close();
                }
                continue;
            }
            let waited = self.inner.changed.wait_timeout(state, LOOK_EVERY);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Drain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drain").field("phase", &self.phase()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
