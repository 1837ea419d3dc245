//! The real binary as three fronts, a middle and a storage tier, each to be killed and restarted.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use forebay_testkit::{Child, Port, wait_until};

use super::scrape;

pub(crate) const FRONTS: usize = 3;
/// Fronts, then the middle, then the storage tier.
pub(crate) const NAMES: [&str; FRONTS + 2] = ["front-0", "front-1", "front-2", "middle", "storage"];
pub(crate) const MIDDLE: usize = FRONTS;
pub(crate) const STORAGE: usize = FRONTS + 1;

const READY_WITHIN: Duration = Duration::from_secs(30);
const DRAINED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const ENTRIES: &str = "forebay_front_queue_entries";
const LAG: &str = "forebay_middle_consumer_lag_bytes";
const END_WITHIN: Duration = Duration::from_secs(30);

/// All tiers; those that are killed at the moment have no child.
pub(crate) struct Tiers {
    folder: PathBuf,
    children: Vec<Option<Child>>,
    admins: Vec<Port>,
    ingests: Vec<Port>,
    http: Port,
    planted_fault: Option<&'static str>,
}

impl Tiers {
    /// Writes a configuration for each and starts them all.
    pub(crate) fn start(folder: &Path, planted_fault: Option<&'static str>) -> Result<Self> {
        let ports = |count| (0..count).map(|_| Port::free()).collect::<Result<Vec<Port>>>();
        let (admins, ingests, links) = (ports(NAMES.len())?, ports(FRONTS)?, ports(3)?);
        let http = Port::free()?;
        let durability = durability(folder)?;
        let any = durability == "process";
        let [uplink, feed, fetch] = [0, 1, 2].map(|at: usize| links[at].number());
        let dir = folder.display();
        for (number, ingest) in ingests.iter().enumerate() {
            // Small rings: a storm laps them many times.
            let text = format!(
                "[listen]\naddress = \"127.0.0.1:{}\"\n[admin]\naddress = \"127.0.0.1:{}\"\n\
                 [ack]\nlevel = \"{durability}\"\n\
                 [queue]\ndir = \"{dir}/front-{number}\"\ncapacity = \"4MiB\"\nany_filesystem = {any}\n\
                 [uplink]\nmiddle = \"tcp://127.0.0.1:{uplink}\"\n",
                ingest.number(),
                admins[number].number(),
            );
            fs::write(folder.join(format!("front-{number}.toml")), text)?;
        }
        let text = format!(
            "[uplink]\nlisten = \"tcp://127.0.0.1:{uplink}\"\n\
             [feed]\nlisten = \"tcp://127.0.0.1:{feed}\"\n\
             [fetch]\nlisten = \"tcp://127.0.0.1:{fetch}\"\n\
             [admin]\naddress = \"127.0.0.1:{}\"\n\
             [queue]\ndir = \"{dir}/middle\"\ncapacity = \"16MiB\"\ndurability = \"{durability}\"\n\
             any_filesystem = {any}\n[dedup]\nsnapshot_every = \"1s\"\n",
            admins[MIDDLE].number(),
        );
        fs::write(folder.join("middle.toml"), text)?;
        let text = format!(
            "[[middles]]\nname = \"middle\"\nfeed = \"tcp://127.0.0.1:{feed}\"\n\
             fetch = \"tcp://127.0.0.1:{fetch}\"\n\
             [http]\naddress = \"127.0.0.1:{}\"\n[admin]\naddress = \"127.0.0.1:{}\"\n\
             [lake]\ndir = \"{dir}/lake\"\ndead_letters = \"{dir}/dead-letters\"\n\
             [lake.flush]\nage = \"500ms\"\nrows = 5000\n[last]\nsnapshot = \"{dir}/last.jsonl\"\n\
             snapshot_every = \"2s\"\n",
            http.number(),
            admins[STORAGE].number(),
        );
        fs::write(folder.join("storage.toml"), text)?;
        let mut tiers = Self {
            folder: folder.to_owned(),
            children: NAMES.map(|_| None).into(),
            admins,
            ingests,
            http,
            planted_fault,
        };
        for at in 0..NAMES.len() {
            tiers.restart(at)?;
        }
        for (at, name) in NAMES.into_iter().enumerate() {
            let admin = tiers.admin(at);
            wait_until(&format!("{name} is ready"), READY_WITHIN, || scrape::is_ready(admin));
        }
        Ok(tiers)
    }

    pub(crate) fn fronts(&self) -> Vec<String> {
        self.ingests.iter().map(|port| format!("ws://127.0.0.1:{}", port.number())).collect()
    }

    pub(crate) fn live(&self) -> String {
        format!("ws://127.0.0.1:{}", self.http.number())
    }

    pub(crate) fn lake(&self) -> PathBuf {
        self.folder.join("lake")
    }

    /// Kills a tier with SIGKILL; false if it is away already.
    pub(crate) fn kill(&mut self, at: usize) -> Result<bool> {
        let Some(mut child) = self.children[at].take() else { return Ok(false) };
        if let Some(status) = child.ended()? {
            bail!("{} ended by itself with {status}:\n{}", NAMES[at], child.log());
        }
        child.kill()?;
        Ok(true)
    }

    /// Starts a tier that is away.
    pub(crate) fn restart(&mut self, at: usize) -> Result<()> {
        if self.children[at].is_some() {
            return Ok(());
        }
        let name = NAMES[at];
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.arg(name.split('-').next().unwrap_or(name)).arg("--config");
        command.arg(self.folder.join(format!("{name}.toml")));
        if let Some(fault) = self.planted_fault {
            command.env("FOREBAY_PLANTED_FAULT", fault);
        }
        self.children[at] = Some(Child::spawn(name, &mut command, &self.folder)?);
        Ok(())
    }

    fn admin(&self, at: usize) -> SocketAddr {
        ([127, 0, 0, 1], self.admins[at].number()).into()
    }

    /// Waits until the fronts hold nothing that the middle has not, and the middle nothing that
    /// the lake has not.
    pub(crate) fn wait_drained(&self) {
        let end = Instant::now() + DRAINED_WITHIN;
        loop {
            let held: Vec<Option<f64>> = (0..=MIDDLE)
                .map(|at| {
                    let name = if at == MIDDLE { LAG } else { ENTRIES };
                    scrape::metrics(self.admin(at))?.sum(name, &[])
                })
                .collect();
            if held.iter().all(|held| *held == Some(0.0)) {
                return;
            }
            if Instant::now() >= end {
                // Not an error: a panic prints the end of every log.
                panic!("after {DRAINED_WITHIN:?} {NAMES:?} still hold {held:?}");
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// What `forebay check` says of all tiers, and its exit code.
    pub(crate) fn check(&self) -> Result<(serde_json::Value, Option<i32>)> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.args(["check", "--json", "--wait", "20s"]);
        for at in 0..NAMES.len() {
            command.arg("--admin").arg(self.admin(at).to_string());
        }
        let output = command.output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        let balance = serde_json::from_slice(&output.stdout).with_context(|| told.into_owned())?;
        Ok((balance, output.status.code()))
    }

    /// Ends every tier with SIGTERM, in the order in which they need each other.
    pub(crate) fn end(mut self) -> Result<()> {
        for at in (0..FRONTS).chain([STORAGE, MIDDLE]) {
            let mut child = self.children[at].take().context("a tier is away at the end")?;
            let status = child.terminate(END_WITHIN)?;
            ensure!(status.success(), "{} ended with {status}:\n{}", NAMES[at], child.log());
        }
        Ok(())
    }
}

/// `disk` where the folder's file system can keep that, else `process`.
fn durability(folder: &Path) -> Result<&'static str> {
    let probe = folder.join("probe");
    let options =
        forebay_queue::Options { capacity_bytes: 1 << 20, ..forebay_queue::Options::default() };
    match forebay_queue::Queue::create(&probe, &options) {
        Ok(_) => Ok("disk"),
        Err(forebay_queue::Error::Filesystem { .. }) => Ok("process"),
        Err(error) => Err(error.into()),
    }
}
