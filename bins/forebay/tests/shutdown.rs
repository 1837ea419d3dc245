//! The end of a process as systemd, compose and Kubernetes bring it about: SIGTERM, and for a
//! scale-in the drain route before it.
//!
//! Real processes on loopback. Cannot show: what a service manager does with the answers; what it
//! is told (NOTIFY_SOCKET, exit code, termination message) is checked.
#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use forebay_testkit::{Child, Port};
use rustix::process::Signal;

const DEADLINE: Duration = Duration::from_secs(60);
const TOKEN: &str = "a token that only this test has";

fn forebay(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn output(arguments: &[&str]) -> Output {
    forebay(arguments).env("FOREBAY_ADMIN_TOKEN", TOKEN).output().unwrap()
}

/// A front whose middle does not exist, so that what it takes stays in its ring.
struct Front {
    child: Child,
    ingest: String,
    admin: String,
    dir: tempfile::TempDir,
    told: UnixDatagram,
}

impl Front {
    fn start(timeout: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [ingest, admin, middle] = [(); 3].map(|()| Port::free().unwrap());
        let path = dir.path().display();
        let text = format!(
            "listen.address = \"127.0.0.1:{}\"\nack.level = \"process\"\n\
             queue = {{ dir = \"{path}/front\", capacity = \"4MiB\", any_filesystem = true }}\n\
             uplink.middle = \"tcp://127.0.0.1:{}\"\nadmin.address = \"127.0.0.1:{}\"\n\
             drain.spread = \"0s\"\n\
             shutdown = {{ timeout = \"{timeout}\", settle = \"0s\", message = \"{path}/message\" }}\n",
            ingest.number(),
            middle.number(),
            admin.number(),
        );
        fs::write(dir.path().join("front.toml"), text).unwrap();
        let told = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        told.set_read_timeout(Some(DEADLINE)).unwrap();
        let config = dir.path().join("front.toml");
        let mut command = forebay(&["front", "--config", config.to_str().unwrap()]);
        command.env("NOTIFY_SOCKET", dir.path().join("notify")).env("FOREBAY_ADMIN_TOKEN", TOKEN);
        let child = Child::spawn("front", &mut command, dir.path()).unwrap();
        let ingest = format!("ws://127.0.0.1:{}", ingest.number());
        let front =
            Self { child, ingest, admin: format!("127.0.0.1:{}", admin.number()), dir, told };
        front.wait_told("READY=1");
        front
    }

    /// Waits until the service manager is told a word.
    fn wait_told(&self, word: &str) {
        loop {
            let mut told = [0; 512];
            let length = self.told.recv(&mut told).unwrap();
            if String::from_utf8_lossy(&told[..length]).contains(word) {
                return;
            }
        }
    }

    /// Sends it some hundred messages; how many were acked.
    fn fill(&self) -> u64 {
        let sim = output(&[
            "sim",
            "--url",
            &self.ingest,
            "--devices",
            "5",
            "--rate",
            "2000",
            "--duration",
            "0.2",
            "--json",
        ]);
        let report: serde_json::Value = serde_json::from_slice(&sim.stdout).unwrap();
        report["acked"].as_u64().unwrap()
    }

    fn message(&self) -> serde_json::Value {
        read(&self.dir.path().join("message"))
    }
}

fn read(path: &Path) -> serde_json::Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn sigterm_ends_a_front_in_time_with_what_is_left_in_its_termination_message() {
    let mut front = Front::start("2s");
    let acked = front.fill();
    assert!(acked > 0);
    let began = Instant::now();
    front.child.signal(Signal::TERM).unwrap();
    front.wait_told("STOPPING=1");
    let status = front.child.wait(DEADLINE).unwrap();
    assert_eq!(status.code(), Some(0), "{}", front.child.log());
    assert!(began.elapsed() >= Duration::from_secs(2), "it waited for the middle");
    let message = front.message();
    assert_eq!(message["ended"], "with something left");
    assert_eq!(message["left"]["front"]["entries"], acked, "{message}");
    assert_eq!(message["left"]["front"]["connections"], 0, "{message}");
}

#[test]
fn an_idle_front_ends_at_once_and_says_that_nothing_is_left() {
    let mut front = Front::start("20s");
    let began = Instant::now();
    assert_eq!(front.child.terminate(DEADLINE).unwrap().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(front.message()["ended"], "drained");
}

/// The ring is so large that no disk has made it before the signal comes; what it writes until then
/// is given back. Cannot show: a disk so slow that one step of 16 MiB takes long.
#[test]
fn sigterm_while_a_ring_is_made_ends_the_process_and_leaves_nothing_of_it() {
    for tier in ["front", "middle", "run"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display();
        let [one, two, three, four] = [(); 4].map(|()| Port::free().unwrap().number());
        let middle = format!(
            "queue = {{ dir = \"{path}/queue\", capacity = \"2GiB\", any_filesystem = true }}\n\
             uplink.listen = \"tcp://127.0.0.1:{one}\"\nfeed.listen = \"tcp://127.0.0.1:{two}\"\n\
             fetch.listen = \"tcp://127.0.0.1:{three}\"\nadmin.address = \"127.0.0.1:{four}\"\n\
             shutdown.message = \"{path}/message\"\n"
        );
        let (text, ring) = match tier {
            "front" => (
                format!(
                    "queue = {{ dir = \"{path}/queue\", capacity = \"2GiB\", any_filesystem = true }}\n\
                     listen.address = \"127.0.0.1:{one}\"\nadmin.address = \"127.0.0.1:{four}\"\n\
                     uplink.middle = \"tcp://127.0.0.1:{two}\"\n\
                     shutdown.message = \"{path}/message\"\n"
                ),
                "queue/uplink-0",
            ),
            "middle" => (middle, "queue/log"),
            _ => (format!("[middle]\n{middle}"), "queue/log"),
        };
        let config = dir.path().join("tier.toml");
        fs::write(&config, text).unwrap();
        let mut command = forebay(&[tier, "--config", config.to_str().unwrap()]);
        let mut child = Child::spawn(tier, command.current_dir(dir.path()), dir.path()).unwrap();
        let ring = dir.path().join(ring);
        let end = Instant::now() + DEADLINE;
        while !ring.join("ring.new").exists() {
            assert!(child.ended().unwrap().is_none() && Instant::now() < end, "{}", child.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        let status = child.terminate(DEADLINE).unwrap();
        assert_eq!(status.code(), Some(0), "{tier}: {}", child.log());
        assert!(child.log().contains("ended before it served"), "{tier}: {}", child.log());
        assert_eq!(fs::read_dir(&ring).unwrap().count(), 0, "{tier}: {}", child.log());
        assert_eq!(read(&dir.path().join("message"))["ended"], "before it served", "{tier}");
    }
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let mut front = Front::start("50s");
    assert!(front.fill() > 0);
    front.child.signal(Signal::TERM).unwrap();
    front.wait_told("STOPPING=1");
    let began = Instant::now();
    front.child.signal(Signal::TERM).unwrap();
    let status = front.child.wait(DEADLINE).unwrap();
    assert_eq!(status.code(), Some(128 + 15), "{}", front.child.log());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_drain_is_begun_waited_for_and_called_off_from_the_command_line() {
    let front = Front::start("20s");
    let health = |live: bool| {
        let mut arguments = vec!["health", "--admin", &front.admin];
        arguments.extend(live.then_some("--live"));
        output(&arguments).status.code()
    };
    assert_eq!((health(false), health(true)), (Some(0), Some(0)));
    assert!(front.fill() > 0);
    let drain = |deed: &[&str]| output(&[&["drain"], deed, &["--admin", &front.admin]].concat());
    let waited = drain(&["start", "--wait", "500ms", "--json"]);
    assert_eq!(waited.status.code(), Some(75), "the middle is away: {waited:?}");
    assert_eq!((health(false), health(true)), (Some(1), Some(0)), "not ready, and alive");
    let state = drain(&["state", "--json"]);
    let state: serde_json::Value = serde_json::from_slice(&state.stdout).unwrap();
    assert_eq!(state["phase"], "flushing", "{state}");
    assert!(state["remains"]["entries"].as_u64().unwrap() > 0, "{state}");
    assert_eq!(drain(&["cancel"]).status.code(), Some(0));
    assert_eq!(health(false), Some(0), "it serves again");
    let mut refused = forebay(&["drain", "start", "--admin", &front.admin]);
    let refused = refused.env("FOREBAY_ADMIN_TOKEN", "another token, of that length").output();
    assert_eq!(refused.unwrap().status.code(), Some(77), "the token is asked for");
}
