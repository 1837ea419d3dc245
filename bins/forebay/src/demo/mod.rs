//! `forebay demo`: all tiers, simulated devices, live clients, and a proof at the end.
//!
//! The proof is not the tiers' own count: the demo stops sending, waits for every ack, lets the
//! tiers drain, ends them, rereads the Parquet files, and compares sets of (device, session, seq,
//! index) and the values recomputed from the series, of this run's sessions only.

mod chaos;
mod gauges;
mod live;
mod options;
mod place;
mod ports;
mod settings;
mod tiers;
mod verdict;
mod view;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use forebay_fleet::{
    checker::{Checker, lake},
    fleet::{Fleet, Plan, Progress, Roaming},
    journal::Journal,
    script::Script,
};
use forebay_ops::{Shutdown, logs};
use forebay_wire::live::Subscription;

use crate::{descriptors, sim};
use chaos::Chaos;
use gauges::Gauges;
use live::LiveClients;
use options::Durability;
pub(crate) use options::Options;
use place::Place;
use settings::Settings;
use tiers::{NAMES, Tiers};
use verdict::Outcome;
use view::{Sample, View};

/// How long the end waits for the acks, and then for the queues to be empty.
const DRAIN_WITHIN: Duration = Duration::from_secs(60);
/// Longest time over which the devices connect.
const RAMP_MAX: Duration = Duration::from_secs(2);

/// A demo under way.
struct Demo<'o> {
    options: &'o Options,
    durability: Durability,
    seed: u64,
    settings: Settings,
    tiers: Tiers,
    script: Arc<Script>,
    journal: Arc<Journal>,
    live: LiveClients,
    chaos: Option<Chaos>,
    faults: Vec<String>,
    view: View,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    // What the tiers have to say would tear the view apart; warnings and errors still come.
    logs::init_with(logs::Format::Text, "error").context("cannot set up the logs")?;
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let sockets_a_device = if options.chaos { 1 } else { 2 };
    descriptors::make_room(u64::from(options.devices) * sockets_a_device)?;
    let place = Place::new(options.dir.as_deref())?;
    let mut view = View::new();
    let (durability, warning) = place.durability(options.durability)?;
    if let Some(warning) = warning {
        view.say(&warning);
    }
    let seed = options.seed.unwrap_or_else(|| rand::random::<u32>().into());
    let series = sim::series(options.data.as_deref())?;
    let settings = Settings::new(&place, durability)?;
    let mut tiers = if options.chaos {
        Tiers::children(&settings, place.path())?
    } else {
        Tiers::inside(&settings)?
    };
    tiers.wait_ready(settings.admins)?;
    view.say(&format!(
        "devices connect to ws://{}, live feed and REST on http://{}, data in {}, seed {seed}",
        settings.ingest,
        settings.http,
        place.path().display(),
    ));
    let followed = (0..options.live)
        .map(|client| {
            // A kind of device each: its key and not the padding, as a dashboard would.
            let series = &series[client as usize % series.len()];
            let prefix = Some(format!("{}-", series.name()));
            let keys = vec![series.name().to_owned()];
            Subscription { prefix, keys, ..Subscription::default() }
        })
        .collect();
    let live = LiveClients::start(&format!("ws://{}", settings.http), followed)
        .context("cannot start the live clients")?;
    let demo = Demo {
        options,
        durability,
        seed,
        script: Arc::new(Script::new(series, options.payload_bytes as usize, seed)),
        journal: Arc::new(Journal::default()),
        live,
        chaos: options.chaos.then(|| Chaos::new(seed, NAMES.len())),
        faults: Vec::new(),
        settings,
        tiers,
        view,
    };
    let outcome = demo.play(&shutdown)?;
    if options.json {
        println!("{}", serde_json::to_string(&outcome)?);
    } else {
        println!("{outcome}");
    }
    if outcome.ok {
        place.remove();
    } else {
        eprintln!("the data stays in {}", place.path().display());
    }
    let failed = options.check && !outcome.ok;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Demo<'_> {
    /// From the first message to the comparison.
    fn play(mut self, shutdown: &Shutdown) -> Result<Outcome> {
        let plan = Plan {
            fronts: vec![format!("ws://{}", self.settings.ingest)],
            devices: self.options.devices,
            rate: self.options.rate.0,
            window: self.options.window,
            ramp: Duration::from_millis(u64::from(self.options.devices)).min(RAMP_MAX),
            roaming: Roaming::None,
            ..Plan::default()
        };
        let mut fleet = Fleet::start(plan, Arc::clone(&self.script), Arc::clone(&self.journal))
            .context("cannot start the devices")?;
        let started = Instant::now();
        self.watch(&mut fleet, shutdown, started)?;
        let (seconds, during) = (started.elapsed().as_secs_f64(), fleet.progress());
        if let Some(chaos) = &mut self.chaos {
            chaos.heal(self.tiers.processes())?;
        }
        self.view.say("sending has stopped; waiting for the acks, then for the queues");
        fleet.stop_sending();
        if !fleet.wait_acked(DRAIN_WITHIN) {
            self.faults.push(format!("acks were still missing after {DRAIN_WITHIN:?}"));
        }
        let (progress, latency) = (fleet.progress(), fleet.latency());
        fleet.end();
        let undrained = self.wait_drained()?;
        let (live_events, live_missed) = (self.live.events(), self.live.missed());
        let (live_uncounted, live_repeated) = (self.live.uncounted(), self.live.repeated());
        let seen = self.live.end();
        self.faults.extend(self.tiers.fault()?);
        self.faults.extend(self.tiers.end()?);

        let began = Instant::now();
        let records = self.journal.records();
        let mut checker = Checker::new(&self.script, &records);
        let files =
            lake::read(&self.settings.lake, &mut checker).context("cannot reread the lake")?;
        let live_unstored = seen.unstored(&checker);
        let mut outcome = Outcome {
            verdict: checker.finish(),
            unacked: progress.sent.saturating_sub(progress.acked),
            undrained,
            messages_per_second: during.acked as f64 / seconds,
            seconds,
            devices: self.options.devices,
            resent: progress.resent,
            reconnects: progress.reconnects,
            kills: self.chaos.as_ref().map_or(0, Chaos::kills),
            durability: self.durability.as_str(),
            live_events,
            live_missed,
            live_uncounted,
            live_repeated,
            live_unstored,
            files: files as u64,
            reread_seconds: began.elapsed().as_secs_f64(),
            seed: self.seed,
            faults: self.faults,
            ..Outcome::default()
        };
        outcome.set_latency(latency);
        outcome.ok = outcome.is_clean();
        Ok(outcome)
    }

    /// Shows a sample a second, and kills what is due, until the time or the user ends it.
    fn watch(&mut self, fleet: &mut Fleet, shutdown: &Shutdown, started: Instant) -> Result<()> {
        let end = match self.options.seconds {
            Some(seconds) => {
                Some(started + Duration::try_from_secs_f64(seconds).context("--seconds")?)
            }
            None => None,
        };
        let mut gauges = Gauges::new(self.settings.admins);
        let mut next_sample = started + Duration::from_secs(1);
        let mut before = (fleet.progress(), self.live.events());
        loop {
            let kill = self.chaos.as_ref().map(Chaos::due);
            let until = [Some(next_sample), kill, end].into_iter().flatten().min();
            let until = until.unwrap_or(next_sample);
            if shutdown.wait_timeout(until.saturating_duration_since(Instant::now())) {
                return Ok(());
            }
            let now = Instant::now();
            if end.is_some_and(|end| now >= end) {
                return Ok(());
            }
            if let Some(chaos) = &mut self.chaos {
                self.faults.extend(self.tiers.fault()?);
                chaos.step(self.tiers.processes(), now)?;
            }
            if now >= next_sample {
                next_sample += Duration::from_secs(1);
                let sample = self.sample(fleet, &mut gauges, &mut before, started.elapsed());
                self.view.show(&sample);
            }
        }
    }

    fn sample(
        &self,
        fleet: &mut Fleet,
        gauges: &mut Gauges,
        before: &mut (Progress, u64),
        elapsed: Duration,
    ) -> Sample {
        let (now, waits) = (fleet.progress(), fleet.latency_since());
        let events = self.live.events();
        let (then, events_then) = std::mem::replace(before, (now, events));
        gauges.look();
        Sample {
            elapsed,
            connected: now.connected,
            devices: self.options.devices.into(),
            sent_per_second: now.sent - then.sent,
            acked_per_second: now.acked - then.acked,
            p50_us: waits.p50_us,
            p99_us: waits.p99_us,
            in_flight: now.sent.saturating_sub(now.acked),
            queues: gauges.queues(),
            acked: now.acked,
            stored: gauges.stored(),
            live_clients: self.live.connected(),
            live_per_second: events - events_then,
            kills: self.chaos.as_ref().map_or(0, Chaos::kills),
        }
    }

    /// Waits until nothing is left in the front and in the middle; tells how much was left.
    fn wait_drained(&mut self) -> Result<u64> {
        let end = Instant::now() + DRAIN_WITHIN;
        let mut gauges = Gauges::new(self.settings.admins);
        loop {
            gauges.look();
            let left = gauges.left();
            if left == Some(0) {
                return Ok(0);
            }
            if let Some(fault) = self.tiers.fault()? {
                self.faults.push(fault);
                return Ok(left.unwrap_or(1));
            }
            if Instant::now() >= end {
                let held = gauges.queues();
                self.faults.push(format!("not drained after {DRAIN_WITHIN:?}: {held:?}"));
                return Ok(left.unwrap_or(1));
            }
            std::thread::sleep(gauges::LOOK_EVERY);
        }
    }
}
