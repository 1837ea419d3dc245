//! A running fleet: devices that connect, send at a pace, reconnect and resend, until told to stop.
//!
//! A few threads, each with its own single-threaded runtime, carry many devices each; what they
//! share with the caller are atomic counters, one histogram a thread, and the journal. The fleet
//! must cost little beside the tiers that it loads on the same machine.

mod device;
mod flight;
mod pace;

use std::{
    collections::HashMap,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use forebay_client::Tls;
use forebay_wire::device::Token;
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

use crate::{
    journal::{Journal, Totals},
    latency::{self, Latencies, Summary},
    script::{Script, mix},
};
use device::Device;

/// What a fleet does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// WebSocket addresses of the fronts, such as `ws://127.0.0.1:7400`; at least one.
    pub fronts: Vec<String>,
    /// How many devices.
    pub devices: u32,
    /// Messages a second of all together; `None`: as fast as acks come.
    pub rate: Option<f64>,
    /// Messages a device has unacknowledged at most; the front's credit may lower it.
    pub window: u32,
    /// Time over which the devices connect.
    pub ramp: Duration,
    /// Threads that carry the devices.
    pub threads: usize,
    /// Which devices go on to the next front whenever a connection ends.
    pub roaming: Roaming,
    /// The credential of each device, by its id; one under the empty id is that of all others.
    pub tokens: HashMap<String, Token<'static>>,
    /// TLS for `wss://`.
    pub tls: Option<Tls>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            fronts: vec!["ws://127.0.0.1:7400".to_owned()],
            devices: 100,
            rate: Some(1_000.0),
            window: 64,
            ramp: Duration::ZERO,
            // The tiers need the other cores more: a fleet that cannot keep up shows it in `sent`.
            threads: std::thread::available_parallelism().map_or(1, |n| n.get().div_ceil(2)),
            roaming: Roaming::None,
            tokens: HashMap::new(),
            tls: None,
        }
    }
}

/// Which devices change the front whenever a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roaming {
    /// None: each stays on its front.
    None,
    /// Every second one.
    Half,
}

/// What a fleet has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Devices with a session at the moment.
    pub connected: u64,
    /// Messages that left, each counted once.
    pub sent: u64,
    /// Messages acknowledged.
    pub acked: u64,
    /// Messages sent again.
    pub resent: u64,
    /// Messages refused for good.
    pub rejected: u64,
    /// Answers that asked to go back.
    pub nacked: u64,
    /// Sessions opened after the first of each device.
    pub reconnects: u64,
    /// Connections that could not be made.
    pub refused: u64,
}

/// Counters that all devices share.
#[derive(Debug, Default)]
struct Counters {
    connected: AtomicU64,
    sent: AtomicU64,
    acked: AtomicU64,
    resent: AtomicU64,
    rejected: AtomicU64,
    nacked: AtomicU64,
    reconnects: AtomicU64,
    refused: AtomicU64,
    /// CPU time of the threads that have ended.
    cpu_nanos: AtomicU64,
}

/// How many devices have ended: stopped, with everything acknowledged.
#[derive(Debug, Default)]
struct Ended {
    devices: Mutex<u32>,
    changed: Condvar,
}

impl Ended {
    fn one_more(&self) {
        *self.devices.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    fn wait(&self, devices: u32, limit: Duration) -> bool {
        let ended = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let (ended, _) = self
            .changed
            .wait_timeout_while(ended, limit, |ended| *ended < devices)
            .unwrap_or_else(PoisonError::into_inner);
        *ended >= devices
    }
}

/// What all devices share.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    script: Arc<Script>,
    journal: Arc<Journal>,
    counters: Counters,
    ended: Ended,
    stopping: AtomicBool,
    started: Instant,
}

/// A fleet under way. Dropped, it ends at once.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    latencies: Vec<Arc<Latencies>>,
    before: Option<Histogram<u64>>,
    phase: watch::Sender<Phase>,
    threads: Vec<JoinHandle<()>>,
}

/// What a fleet has done when it is over.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Ending {
    /// Sums over the journal.
    pub totals: Totals,
    /// CPU time of the fleet's threads: what to leave out of a measurement of the tiers.
    pub cpu_seconds: f64,
}

/// How far the fleet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// New messages are sent.
    Sending,
    /// Only what is not acknowledged yet.
    Draining,
    /// Nothing any more.
    Over,
}

impl Fleet {
    /// Starts the devices of a plan and notes in the journal what they send.
    ///
    /// Session numbers are random, so that runs into the same store can be told apart.
    ///
    /// # Errors
    /// A thread or a runtime cannot be had.
    ///
    /// # Panics
    /// If the plan has no front or no device.
    pub fn start(plan: Plan, script: Arc<Script>, journal: Arc<Journal>) -> std::io::Result<Self> {
        assert!(!plan.fronts.is_empty() && plan.devices > 0, "a fleet needs a front and a device");
        let threads_wanted = plan.threads.clamp(1, plan.devices as usize);
        let (phase, watched) = watch::channel(Phase::Sending);
        let shared = Arc::new(Shared {
            plan,
            script,
            journal,
            counters: Counters::default(),
            ended: Ended::default(),
            stopping: AtomicBool::new(false),
            started: Instant::now(),
        });
        let run = rand::random::<u64>();
        let mut latencies = Vec::new();
        let mut threads = Vec::new();
        for thread in 0..threads_wanted {
            let waits = Arc::new(Latencies::default());
            latencies.push(Arc::clone(&waits));
            let numbers =
                (0..shared.plan.devices).filter(move |n| *n as usize % threads_wanted == thread);
            let devices: Vec<Device> = numbers
                .map(|number| {
                    let session =
                        mix(run ^ mix(u64::from(number))) & forebay_model::SAFE_INTEGER_MAX;
                    Device::new(&shared, &waits, number, session)
                })
                .collect();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (watched, ours) = (watched.clone(), Arc::clone(&shared));
            threads.push(std::thread::Builder::new().name(format!("fleet-{thread}")).spawn(
                move || {
                    runtime.block_on(carry(devices, watched));
                    let spent = clock_gettime(ClockId::ThreadCPUTime);
                    let nanos = spent.tv_sec as u64 * 1_000_000_000 + spent.tv_nsec as u64;
                    ours.counters.cpu_nanos.fetch_add(nanos, Ordering::Relaxed);
                },
            )?);
        }
        Ok(Self { shared, latencies, before: None, phase, threads })
    }

    /// What has been done so far.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let counters = &self.shared.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Progress {
            connected: get(&counters.connected),
            sent: get(&counters.sent),
            acked: get(&counters.acked),
            resent: get(&counters.resent),
            rejected: get(&counters.rejected),
            nacked: get(&counters.nacked),
            reconnects: get(&counters.reconnects),
            refused: get(&counters.refused),
        }
    }

    /// Ack latencies since the start.
    #[must_use]
    pub fn latency(&self) -> Summary {
        latency::summary(self.latencies.iter().map(Arc::as_ref))
    }

    /// Ack latencies since the last call of this.
    #[must_use]
    pub fn latency_since(&mut self) -> Summary {
        latency::summary_since(self.latencies.iter().map(Arc::as_ref), &mut self.before)
    }

    /// Stops new messages; what is not acknowledged is still sent again.
    pub fn stop_sending(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.phase.send_if_modified(|phase| {
            let modified = *phase == Phase::Sending;
            if modified {
                *phase = Phase::Draining;
            }
            modified
        });
    }

    /// Waits until every message is acknowledged; says whether that came within the time.
    pub fn wait_acked(&self, limit: Duration) -> bool {
        self.shared.ended.wait(self.shared.plan.devices, limit)
    }

    /// Ends all devices at once; the journal is final then.
    pub fn end(mut self) -> Ending {
        self.over();
        let nanos = self.shared.counters.cpu_nanos.load(Ordering::Relaxed);
        Ending {
            totals: self.shared.journal.totals(),
            cpu_seconds: Duration::from_nanos(nanos).as_secs_f64(),
        }
    }

    fn over(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.phase.send_replace(Phase::Over);
        for thread in self.threads.drain(..) {
            // A panic there was reported by the thread itself; the journal still holds.
            let _ = thread.join();
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.over();
    }
}

/// Runs the devices of one thread until all have ended or the fleet is over.
async fn carry(devices: Vec<Device>, mut phase: watch::Receiver<Phase>) {
    let mut tasks = tokio::task::JoinSet::new();
    for device in devices {
        let watched = phase.clone();
        tasks.spawn(device.run(watched));
    }
    let all = async { while tasks.join_next().await.is_some() {} };
    tokio::select! {
        () = all => {}
        _ = phase.wait_for(|phase| *phase == Phase::Over) => {}
    }
    // What is left is cancelled with the runtime.
}
