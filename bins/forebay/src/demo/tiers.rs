//! The tiers of a demo: all in this process, or each in one of its own.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use forebay_ops::{Shutdown, config};
use prometheus::Registry;

use super::settings::Settings;
use crate::{process::Process, scrape};

/// How long the tiers may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How often something is looked at that cannot be waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long each tier may take to end.
const END_WITHIN: Duration = Duration::from_secs(20);

/// The names of the tiers, in the order in which data flows.
pub(super) const NAMES: [&str; 3] = ["front", "middle", "storage"];

/// All tiers of a demo.
pub(super) enum Tiers {
    /// In this process.
    Inside(Box<Inside>),
    /// Each in a process of its own, in the order of [`NAMES`].
    Children(Vec<Process>),
}

/// Tiers in this process.
pub(super) struct Inside {
    shutdown: Shutdown,
    front: forebay_front::Running,
    middle: forebay_middle::Running,
    storage: forebay_storage::Running,
}

/// Where the tiers show their figures, in the order of [`NAMES`].
pub(super) type Admins = [SocketAddr; 3];

impl Tiers {
    /// Starts all tiers in this process.
    pub(super) fn inside(settings: &Settings) -> Result<Self> {
        let shutdown = Shutdown::new();
        let middle =
            forebay_middle::start(settings.middle.clone(), &Registry::new(), shutdown.clone())
                .context("cannot start the middle")?;
        let storage =
            forebay_storage::start(settings.storage.clone(), &Registry::new(), shutdown.clone())
                .context("cannot start the storage tier")?;
        let front = forebay_front::start(settings.front.clone(), &Registry::new(), &shutdown)
            .context("cannot start the front")?;
        Ok(Self::Inside(Box::new(Inside { shutdown, front, middle, storage })))
    }

    /// Starts each tier as a process of this executable, with its configuration and its log in
    /// the demo's folder.
    pub(super) fn children(settings: &Settings, place: &Path) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this executable")?;
        let texts = [
            config::to_toml(&settings.front)?,
            config::to_toml(&settings.middle)?,
            config::to_toml(&settings.storage)?,
        ];
        let mut children = Vec::new();
        for (name, text) in NAMES.into_iter().zip(texts) {
            let file = place.join(format!("{name}.toml"));
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
            let mut child = Process {
                name: name.to_owned(),
                program: program.clone(),
                arguments: vec![
                    name.into(),
                    "--with-parent".into(),
                    "--config".into(),
                    file.into_os_string(),
                ],
                log: place.join(format!("{name}.log")),
                child: None,
            };
            child.start().with_context(|| format!("cannot start the {name}"))?;
            children.push(child);
        }
        Ok(Self::Children(children))
    }

    /// Waits until every tier says that it is ready.
    pub(super) fn wait_ready(&mut self, admins: Admins) -> Result<()> {
        let end = Instant::now() + READY_WITHIN;
        for (place, admin) in admins.into_iter().enumerate() {
            while !scrape::is_ready(admin) {
                if let Some(fault) = self.fault()? {
                    bail!("{fault}");
                }
                if Instant::now() >= end {
                    bail!("the {} is not ready after {READY_WITHIN:?}", NAMES[place]);
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
        Ok(())
    }

    /// Whether a tier ended that was neither killed nor asked to.
    pub(super) fn fault(&mut self) -> Result<Option<String>> {
        let Self::Children(children) = self else { return Ok(None) };
        for child in children {
            if let Some(status) = child.ended()? {
                let log = child.log.display();
                return Ok(Some(format!(
                    "the {} ended by itself: {status}; see {log}",
                    child.name
                )));
            }
        }
        Ok(None)
    }

    /// The processes, where there are any.
    pub(super) fn processes(&mut self) -> &mut [Process] {
        match self {
            Self::Inside(_) => &mut [],
            Self::Children(children) => children,
        }
    }

    /// Ends all tiers in the order in which they need each other: the storage tier still commits
    /// at the middle. Tells what did not end as it should.
    pub(super) fn end(self) -> Result<Vec<String>> {
        match self {
            Self::Inside(inside) => inside.end(),
            Self::Children(mut children) => {
                let mut faults = Vec::new();
                for place in [0, 2, 1] {
                    let child = &mut children[place];
                    match child.terminate(END_WITHIN)? {
                        Some(status) if status.success() => {}
                        Some(status) => {
                            faults.push(format!("the {} ended with {status}", child.name))
                        }
                        None => faults.push(format!("the {} had to be killed", child.name)),
                    }
                }
                Ok(faults)
            }
        }
    }
}

impl Inside {
    fn end(self) -> Result<Vec<String>> {
        self.shutdown.begin("the demo is over");
        let mut faults = Vec::new();
        let front = self.front.drain(END_WITHIN);
        if !front.is_complete() {
            faults.push(format!("the front still held {} entries", front.entries));
        }
        let storage = self.storage.drain(END_WITHIN);
        if !storage.is_complete() {
            faults.push(format!("the storage tier still held {storage:?}"));
        }
        let middle = self.middle.drain(END_WITHIN).context("the middle cannot end")?;
        for (consumer, bytes) in middle.consumers_behind {
            faults.push(format!("{consumer} still had {bytes} bytes to read at the middle"));
        }
        Ok(faults)
    }
}
