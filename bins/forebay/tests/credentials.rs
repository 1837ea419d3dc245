//! Keys made by the command let devices and readers in over TLS, each as itself, and a revoked one
//! lets nobody in.
//!
//! Method: the real binary: `keys`, a node whose ports have a certificate of a private CA, `sim`,
//! `tail`, and the web page in Chromium. Not shown: what a tier does with each kind of credential
//! (its own tests).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use forebay_testkit::{
    Child, Port,
    certificates::{Authority, Validity},
    skip, wait_until,
};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(60);
/// Names of simulated devices: their series in turn.
const DEVICES: [&str; 2] = ["ambient_temperature-00000", "cpu_utilization-00001"];

fn forebay(dir: &Path, line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(line.split(' '))
        .current_dir(dir)
        .output()
        .unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_secret_is_shown_once_and_keys_are_listed_rotated_and_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let run = |line: &str| forebay(dir.path(), &format!("keys --file k.jsonl --json {line}"));
    let made = lines(&run("add --device pump --tenant acme --expires 90d")).remove(0);
    let token = made["token"].as_str().unwrap();
    let secret = token.split_once('.').unwrap().1;
    assert!(secret.len() >= 43, "256 bits");
    lines(&run("add --device pump --tenant acme"));
    let third = run("add --device pump --tenant acme");
    assert!(!third.status.success());
    assert!(String::from_utf8_lossy(&third.stderr).contains("2 live keys"));
    let listed = run("list");
    assert!(!String::from_utf8_lossy(&listed.stdout).contains(secret));
    let file = fs::read_to_string(dir.path().join("k.jsonl")).unwrap();
    assert!(!file.contains(secret) && file.contains(made["id"].as_str().unwrap()));
    lines(&run("rotate --device pump --tenant acme --grace 1h"));
    let states: Vec<_> =
        lines(&run("list")).iter().map(|key| key["state"].as_str().unwrap().to_owned()).collect();
    assert_eq!(states, ["revoked", "live", "live"]);
    assert_eq!(lines(&run("revoke --device pump --tenant acme")).len(), 2);
    assert!(!run("revoke fbk00").status.success());
    assert!(!run("add --device a/b").status.success());
}

/// A node that asks everybody for a key, over TLS.
struct Node {
    dir: tempfile::TempDir,
    child: Child,
    ports: Vec<Port>,
}

impl Node {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::new("node").unwrap();
        ca.write(dir.path(), "ca").unwrap();
        let server = ca.issue("node", &["localhost"], Validity::Now).unwrap();
        server.write(dir.path(), "node").unwrap();
        let ports: Vec<Port> = (0..8).map(|_| Port::free().unwrap()).collect();
        let port = |at: usize| ports[at].number();
        let (tls, auth) = ("certificate = \"node.pem\"", "auth.keys = \"k.jsonl\"");
        let config = format!(
            "[front]\nlisten.address = \"127.0.0.1:{}\"\nadmin.address = \"127.0.0.1:{}\"\n\
             ack.level = \"process\"\nqueue.dir = \"front\"\nqueue.capacity = \"4MiB\"\n\
             queue.any_filesystem = true\nuplink.middle = \"tcp://127.0.0.1:{middle}\"\n{auth}\n\
             tls.{tls}\ntls.key = \"node.key\"\n\
             [middle]\nuplink.listen = \"tcp://127.0.0.1:{middle}\"\n\
             feed.listen = \"tcp://127.0.0.1:{feed}\"\nfetch.listen = \"tcp://127.0.0.1:{fetch}\"\n\
             admin.address = \"127.0.0.1:{}\"\nqueue.dir = \"middle\"\nqueue.capacity = \"8MiB\"\n\
             queue.durability = \"process\"\nqueue.any_filesystem = true\n\
             [storage]\nhttp.address = \"127.0.0.1:{}\"\nadmin.address = \"127.0.0.1:{}\"\n\
             lake.dir = \"lake\"\nlake.dead_letters = \"dead\"\nlake.flush.outstanding = \"2MiB\"\n\
             last.snapshot = \"last.jsonl\"\n{auth}\nhttp.tls.{tls}\nhttp.tls.key = \"node.key\"\n\
             http.tiers = {{}}\n\
             [[storage.middles]]\nname = \"middle\"\nfeed = \"tcp://127.0.0.1:{feed}\"\n\
             fetch = \"tcp://127.0.0.1:{fetch}\"\n",
            port(0),
            port(1),
            port(5),
            port(6),
            port(7),
            middle = port(2),
            feed = port(3),
            fetch = port(4),
        );
        fs::write(dir.path().join("node.toml"), config).unwrap();
        // Read at the start; what is added later is followed.
        lines(&forebay(dir.path(), "keys --file k.jsonl --json add --reader first"));
        let mut run = Command::new(env!("CARGO_BIN_EXE_forebay"));
        run.args(["run", "--config", "node.toml"]).current_dir(dir.path());
        let mut child = Child::spawn("node", &mut run, dir.path()).unwrap();
        child.wait_for("front ready", DEADLINE).unwrap();
        Self { dir, child, ports }
    }

    fn forebay(&self, line: &str) -> Output {
        forebay(self.dir.path(), line)
    }

    /// Makes a key; returns the line with its token.
    fn key(&self, whose: &str) -> Value {
        lines(&self.forebay(&format!("keys --file k.jsonl --json add {whose}"))).remove(0)
    }

    /// What the simulated devices report.
    fn sim(&self, scheme: &str, more: &str) -> Value {
        let line = format!(
            "sim --url {scheme}://localhost:{} --devices 2 --rate 100 --duration 1 --json{more}",
            self.ports[0].number()
        );
        serde_json::from_slice(&self.forebay(&line).stdout).unwrap()
    }

    fn live(&self) -> String {
        format!("localhost:{}", self.ports[6].number())
    }
}

#[test]
fn devices_and_readers_with_keys_meet_over_tls_and_a_revoked_key_ends_it() {
    let mut node = Node::start();
    let keys = DEVICES.map(|device| node.key(&format!("--device {device}")).to_string());
    fs::write(node.dir.path().join("devices"), keys.join("\n")).unwrap();
    let reader = node.key("--reader dashboard")["token"].as_str().unwrap().to_owned();
    fs::write(node.dir.path().join("reader"), &reader).unwrap();
    let with_keys = " --ca ca.pem --key-file devices";
    let acked = |report: &Value| report["acked"].as_u64().unwrap();
    // The files of keys are followed, not read at once.
    let mut report = Value::Null;
    wait_until("both devices are let in", DEADLINE, || {
        report = node.sim("wss", with_keys);
        acked(&report) > 50 && report["unacked"] == 0
    });
    assert_eq!(acked(&node.sim("ws", with_keys)), 0, "without TLS nobody answers");
    assert_eq!(acked(&node.sim("wss", " --ca ca.pem")), 0, "without keys nobody is let in");
    assert_eq!(acked(&node.sim("wss", " --ca ca.pem --key-file reader")), 0, "readers only read");

    let tail = |more: &str| {
        let url = format!("wss://{}", node.live());
        node.forebay(&format!("tail --url {url} --snapshot --count 2 --ca ca.pem{more}"))
    };
    let seen = tail(" --key-file reader");
    let text = String::from_utf8_lossy(&seen.stdout).into_owned();
    assert!(seen.status.success() && DEVICES.iter().all(|device| text.contains(device)), "{text}");
    assert!(!tail("").status.success(), "a reader without a key");
    page_shows_what_a_reader_may_see(&node, &reader);

    for device in DEVICES {
        lines(&node.forebay(&format!("keys --file k.jsonl --json revoke --device {device}")));
    }
    wait_until("nobody is let in any more", DEADLINE, || acked(&node.sim("wss", with_keys)) == 0);
    let status = node.child.terminate(DEADLINE).unwrap();
    assert_eq!(status.code(), Some(0), "{}", node.child.log());
    let log = node.child.log();
    assert!(!log.contains(reader.split_once('.').unwrap().1), "a secret is in the log");
}

/// The web page sends its token as a subprotocol entry, and asks for one where it has none.
fn page_shows_what_a_reader_may_see(node: &Node, reader: &str) {
    let page = |hash: &str| {
        let profile = tempfile::tempdir().unwrap();
        Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-sync"])
            .args(["--disable-component-update", "--ignore-certificate-errors"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(["--virtual-time-budget=8000", "--dump-dom"])
            .arg(format!("https://{}/{hash}", node.live()))
            .output()
    };
    let shown = match page(&format!("#token={reader}")) {
        Ok(shown) => String::from_utf8_lossy(&shown.stdout).into_owned(),
        Err(error) => return skip(format!("no chromium: {error}")),
    };
    for device in DEVICES {
        assert!(shown.contains(&format!("<td>{device}</td>")), "{shown}");
    }
    assert!(shown.contains("id=\"entry\" hidden"), "no token is asked for: {shown}");
    assert!(!shown.contains(reader), "the token is nowhere on the page");
    let shown = String::from_utf8_lossy(&page("").unwrap().stdout).into_owned();
    assert!(shown.contains("<form id=\"entry\"><p>"), "a token is asked for: {shown}");
    assert!(!DEVICES.iter().any(|device| shown.contains(device)), "{shown}");
}
