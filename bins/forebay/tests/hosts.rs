//! An installation over hosts of its own: three fronts, two middles, a storage tier and the devices,
//! each in a network namespace with an address and names like a pod's.
//!
//! Under load, one middle is killed and comes back under another address; then the other one's cable
//! is pulled, a front is scaled in meanwhile, which leaves a ring with acknowledged entries behind,
//! and that ring is handed over by `forebay queue drain --to`. The simulator's own comparison of what
//! was acknowledged with the lake must find nothing lost, invented, doubled or changed. Where devices
//! do not roam, each is pinned to one middle by its hash, and nothing may be out of order either:
//! not even when that middle falls silent, and is found again elsewhere.
//!
//! Cannot show: power cuts, and a network that is slow rather than cut. Root only.
#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use forebay_testkit::netns::{Host, Lan};
use forebay_testkit::{Child, http, or_skip, wait_until};
use serde_json::Value;

const FRONTS: u8 = 3;
const MIDDLES: u8 = 2;
const WITHIN: Duration = Duration::from_secs(60);
/// For the devices' last acks, the last files of the lake, and a busy machine.
const VERDICT_WITHIN: Duration = Duration::from_secs(150);
/// Entries that the front leaves behind at least: enough not to be an accident.
const ORPHANED_MIN: u64 = 20;

/// A host with the tier that runs on it.
struct Machine {
    name: String,
    host: Host,
    admin: u16,
    process: Option<Child>,
}

struct Installation {
    folder: tempfile::TempDir,
    fronts: Vec<Machine>,
    middles: Vec<Machine>,
    storage: Machine,
    devices: Host,
}

impl Machine {
    fn new(lan: &Lan, name: String, last: u8, admin: u16) -> Self {
        let host = lan.host(Ipv4Addr::new(10, 97, 0, last)).unwrap();
        Self { name, host, admin, process: None }
    }

    fn start(&mut self, tier: &str, folder: &Path) {
        let mut command = self.host.command(env!("CARGO_BIN_EXE_forebay"));
        command.args([tier, "--config"]).arg(folder.join(format!("{}.toml", self.name)));
        self.process = Some(Child::spawn(&self.name, &mut command, folder).unwrap());
    }

    /// What its admin port answers, if it does.
    fn ask(&self, path: &str) -> Option<String> {
        let address = (self.host.address(), self.admin).into();
        let ask = || http::get(address, path, Duration::from_secs(10));
        self.host.run(ask).unwrap().and_then(http::Answer::good).ok()
    }

    /// The sum of a metric over those of its lines that hold `label`; 0 while it does not answer.
    fn metric(&self, name: &str, label: &str) -> u64 {
        let text = self.ask("/metrics").unwrap_or_default();
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
    }

    fn wait_ready(&self) {
        let what = format!("{} is ready", self.name);
        wait_until(&what, WITHIN, || self.ask("/readyz").is_some());
    }
}

impl Installation {
    fn start(lan: &Lan) -> Self {
        let machine = |name: String, last, admin| Machine::new(lan, name, last, admin);
        let mut all = Self {
            folder: tempfile::tempdir().unwrap(),
            fronts: (1..=FRONTS).map(|n| machine(format!("front-{n}"), 10 + n, 7401)).collect(),
            middles: (1..=MIDDLES).map(|n| machine(format!("middle-{n}"), 20 + n, 7413)).collect(),
            storage: machine("storage".to_owned(), 30, 7421),
            devices: lan.host(Ipv4Addr::new(10, 97, 0, 40)).unwrap(),
        };
        all.tell_names(None);
        all.configure();
        let folder = all.folder.path().to_owned();
        all.middles.iter_mut().for_each(|middle| middle.start("middle", &folder));
        all.fronts.iter_mut().for_each(|front| front.start("front", &folder));
        all.storage.start("storage", &folder);
        all.middles.iter().chain(&all.fronts).for_each(Machine::wait_ready);
        all.storage.wait_ready();
        all
    }

    /// Gives every host every name. A front that is `gone` has its successor's address for devices.
    fn tell_names(&self, gone: Option<&str>) {
        let machines = self.fronts.iter().chain(&self.middles).chain([&self.storage]);
        let successor = self.fronts[0].host.address();
        let names: Vec<(&str, Ipv4Addr)> = machines
            .map(|one| {
                let is_gone = gone == Some(one.name.as_str());
                (one.name.as_str(), if is_gone { successor } else { one.host.address() })
            })
            .collect();
        let machines = self.fronts.iter().chain(&self.middles).chain([&self.storage]);
        machines.for_each(|machine| machine.host.set_names(&names).unwrap());
        self.devices.set_names(&names).unwrap();
    }

    fn configure(&self) {
        let folder = self.folder.path().display();
        // Machines are killed here, not cut off: the level is not what is tried.
        let queue = |name: &str, capacity: &str| {
            format!(
                "[queue]\ndir = \"{folder}/{name}\"\ncapacity = \"{capacity}\"\n\
                 durability = \"process\"\nany_filesystem = true\n"
            )
        };
        let write = |name: &str, text: String| {
            fs::write(self.folder.path().join(format!("{name}.toml")), text).unwrap();
        };
        for front in &self.fronts {
            let text = format!(
                "[listen]\naddress = \"0.0.0.0:7400\"\nallow_anonymous = true\n\
                 [admin]\naddress = \"0.0.0.0:7401\"\n[ack]\nlevel = \"process\"\n{}\
                 [uplink.partitions]\nmiddle-1 = \"tcp://middle-1:7410\"\n\
                 middle-2 = \"tcp://middle-2:7410\"\n\
                 [drain]\nspread = \"100ms\"\n[shutdown]\ntimeout = \"2s\"\n",
                queue(&front.name, "4MiB"),
            );
            write(&front.name, text);
        }
        for middle in &self.middles {
            let name = &middle.name;
            let text = format!(
                "[uplink]\nlisten = \"tcp://{name}:7410\"\npartition = \"{name}\"\n\
                 partitions = [\"middle-1\", \"middle-2\"]\n\
                 [feed]\nlisten = \"tcp://{name}:7411\"\n[fetch]\nlisten = \"tcp://{name}:7412\"\n\
                 [admin]\naddress = \"0.0.0.0:7413\"\n{}",
                queue(name, "8MiB"),
            );
            write(name, text);
        }
        let middles: String = self
            .middles
            .iter()
            .map(|Machine { name, .. }| {
                format!(
                    "[[middles]]\nname = \"{name}\"\nfeed = \"tcp://{name}:7411\"\n\
                     fetch = \"tcp://{name}:7412\"\n"
                )
            })
            .collect();
        let text = format!(
            "{middles}[admin]\naddress = \"0.0.0.0:7421\"\n[lake]\ndir = \"{folder}/lake\"\n\
             dead_letters = \"{folder}/dead-letters\"\n[lake.flush]\nage = \"500ms\"\n\
             [last]\nsnapshot = \"{folder}/last.jsonl\"\n",
        );
        write(&self.storage.name, text);
    }

    /// Devices that send for so many seconds and then compare what was acknowledged with the lake.
    fn send(&self, seconds: &str, how: &[&str]) -> Child {
        let mut sim = self.devices.command(env!("CARGO_BIN_EXE_forebay"));
        sim.args(["sim", "--devices", "60", "--rate", "600", "--duration", seconds]).args(how);
        for front in &self.fronts {
            sim.args(["--url", &format!("ws://{}:7400", front.name)]);
        }
        sim.arg("--verify").arg(self.folder.path().join("lake"));
        Child::spawn("devices", &mut sim, self.folder.path()).unwrap()
    }

    /// A middle is killed, if it was not cut off before, and comes back on its disk under another
    /// address.
    fn move_middle(&mut self, at: usize) {
        let middle = &mut self.middles[at];
        middle.process.take().unwrap().kill().unwrap();
        middle.host.move_to(Ipv4Addr::new(10, 97, 0, 50)).unwrap();
        middle.host.plug().unwrap();
        self.tell_names(None);
        let folder = self.folder.path().to_owned();
        self.middles[at].start("middle", &folder);
        self.middles[at].wait_ready();
        let partition = format!("partition=\"{}\"", self.middles[at].name);
        for front in &self.fronts {
            wait_until("a front finds the middle at its new address", WITHIN, || {
                front.metric("forebay_front_uplink_connected", &partition) == 1
            });
        }
    }

    /// How many entries a middle took since its start.
    fn taken(&self, middle: usize) -> u64 {
        self.middles[middle].metric("forebay_middle_entries_total", "")
    }

    /// Waits for the verdict of the devices.
    fn assert_clean(mut devices: Child) {
        let status = devices.wait(VERDICT_WITHIN).unwrap();
        let log = devices.log();
        assert!(status.success(), "{log}");
        assert!(log.contains("lost 0, invented 0, duplicated 0, wrong 0, out of order 0"), "{log}");
    }

    /// Hands what a front left for one middle over to it; how many entries that were.
    fn drain(&self, front: usize, middle: usize) -> u64 {
        let (front, middle) = (&self.fronts[front], &self.middles[middle].name);
        let ring = self.folder.path().join(&front.name).join(format!("uplink-{middle}"));
        let mut drain = front.host.command(env!("CARGO_BIN_EXE_forebay"));
        drain.args(["queue", "drain", "--json", "--accept-process"]).arg(ring);
        drain.args(["--to", &format!("tcp://{middle}:7410"), "--partition", "middle-1,middle-2"]);
        let output = drain.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["bytes_left"], 0, "{said}");
        said["entries"].as_u64().unwrap()
    }
}

#[test]
fn nothing_is_lost_when_a_middle_moves_and_a_front_is_scaled_in_while_the_other_is_cut_off() {
    let Some(lan) = or_skip(Lan::new()) else { return };
    let mut all = Installation::start(&lan);
    let devices = all.send("15", &["--roam"]);
    for front in &all.fronts {
        wait_until("messages flow", WITHIN, || {
            front.metric("forebay_front_messages_total", "") > 50
        });
    }
    all.move_middle(1);

    all.middles[0].host.unplug().unwrap();
    let last = usize::from(FRONTS) - 1;
    wait_until("the front holds entries for the middle that is away", WITHIN, || {
        let held = all.fronts[last].metric("forebay_front_queue_entries", "middle-1");
        held >= ORPHANED_MIN
    });
    let mut front = all.fronts[last].process.take().unwrap();
    front.terminate(Duration::from_secs(30)).unwrap();
    all.tell_names(Some(&all.fronts[last].name));
    all.middles[0].host.plug().unwrap();

    let orphaned = all.drain(last, 0);
    println!("{orphaned} entries were left for one middle, {} for the other", all.drain(last, 1));
    assert!(orphaned >= ORPHANED_MIN, "only {orphaned} were left behind");
    assert_eq!(all.drain(last, 0), 0, "what was handed over is there again");

    Installation::assert_clean(devices);
}

#[test]
fn devices_keep_their_middle_and_their_order_when_it_falls_silent_and_comes_back_elsewhere() {
    let Some(lan) = or_skip(Lan::new()) else { return };
    let mut all = Installation::start(&lan);
    let devices = all.send("15", &[]);
    wait_until("both middles take entries", WITHIN, || (0..2).all(|at| all.taken(at) > 200));

    // Nothing is closed, and nothing answers.
    all.middles[1].host.unplug().unwrap();
    let (unplugged, before) = (Instant::now(), all.taken(0));
    wait_until("all fronts notice", WITHIN, || {
        let connected = "forebay_front_uplink_connected";
        all.fronts.iter().all(|front| front.metric(connected, "partition=\"middle-2\"") == 0)
    });
    println!("noticed by all fronts after {:?}", unplugged.elapsed());
    wait_until("the devices of the other go on", WITHIN, || all.taken(0) > before + 500);
    let held =
        all.fronts.iter().map(|front| front.metric("forebay_front_queue_entries", "middle-2"));
    let held: u64 = held.sum();
    assert!(held > 200, "what is for the one that is away waits for it: {held}");
    all.move_middle(1);
    wait_until("it takes what waited", WITHIN, || all.taken(1) >= held);
    Installation::assert_clean(devices);
}
