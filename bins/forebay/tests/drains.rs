//! Draining what is not a front's own doing: an orphaned ring into a middle that speaks only mutual
//! TLS, and the drain routes of a middle and of a storage tier.
//!
//! Real processes on loopback. A front's drain route is shown by `shutdown`, plain hand-over by
//! `hosts`.
#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use forebay_testkit::{
    Child, Port,
    certificates::{Authority, Validity},
};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(60);
const TOKEN: &str = "a token that only this test has";

fn forebay(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(arguments).env("FOREBAY_ADMIN_TOKEN", TOKEN);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn output(arguments: &[&str]) -> Output {
    forebay(arguments).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// A tier's process that says `ready` once it serves.
fn start(tier: &str, text: &str, ready: &str, dir: &Path) -> Child {
    let file = dir.join(format!("{tier}.toml"));
    fs::write(&file, text).unwrap();
    let mut command = forebay(&[tier, "--config", file.to_str().unwrap()]);
    let mut child = Child::spawn(tier, &mut command, dir).unwrap();
    child.wait_for(ready, DEADLINE).unwrap();
    child
}

fn ports<const N: usize>() -> [Port; N] {
    [(); N].map(|()| Port::free().unwrap())
}

/// A middle, by its four ports.
fn middle(dir: &Path, ports: &[Port; 4], tls: &str) -> Child {
    let [uplink, feed, fetch, admin] = ports.each_ref().map(Port::number);
    let path = dir.display();
    let text = format!(
        "uplink.listen = \"tcp://127.0.0.1:{uplink}\"\nfeed.listen = \"tcp://127.0.0.1:{feed}\"\n\
         fetch.listen = \"tcp://127.0.0.1:{fetch}\"\nadmin.address = \"127.0.0.1:{admin}\"\n\
         queue = {{ dir = \"{path}/middle\", capacity = \"16MiB\", durability = \"process\", \
         any_filesystem = true }}\nshutdown = {{ timeout = \"2s\", settle = \"0s\" }}\n{tls}"
    );
    start("middle", &text, "middle serves", dir)
}

#[test]
fn an_orphaned_ring_is_handed_over_by_mutual_tls() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    let [ingest, admin, nobody] = ports();
    let text = format!(
        "listen.address = \"127.0.0.1:{}\"\nack.level = \"process\"\n\
         queue = {{ dir = \"{path}/front\", capacity = \"4MiB\", any_filesystem = true }}\n\
         uplink.middle = \"tcp://127.0.0.1:{}\"\nadmin.address = \"127.0.0.1:{}\"\n",
        ingest.number(),
        nobody.number(),
        admin.number(),
    );
    let mut front = start("front", &text, "front ready", dir.path());
    let url = format!("ws://127.0.0.1:{}", ingest.number());
    let sim =
        ["sim", "--url", &url, "--devices", "5", "--rate", "2000", "--duration", "0.3", "--json"];
    let acked = json(&output(&sim))["acked"].as_u64().unwrap();
    assert!(acked > 0);
    front.kill().unwrap();

    let authority = Authority::new("installation").unwrap();
    authority.write(dir.path(), "ca").unwrap();
    for name in ["middle", "drain"] {
        let certificate =
            authority.issue(name, &["localhost", "127.0.0.1"], Validity::Now).unwrap();
        certificate.write(dir.path(), name).unwrap();
    }
    let file = |name: &str| format!("{path}/{name}");
    let tls = format!(
        "uplink.tls = {{ certificate = \"{}\", key = \"{}\", ca = \"{}\" }}\n",
        file("middle.pem"),
        file("middle.key"),
        file("ca.pem"),
    );
    let listens = ports();
    let middle = middle(dir.path(), &listens, &tls);
    let (ring, to) = (file("front/uplink-0"), format!("tcp://localhost:{}", listens[0].number()));
    let drain = |more: &[&str]| {
        let to = ["queue", "drain", &ring, "--to", &to, "--accept-process", "--json"];
        output(&[&to[..], more].concat())
    };
    let plain = drain(&["--timeout", "2s"]);
    assert_eq!(plain.status.code(), Some(75), "a middle behind TLS answered: {plain:?}");
    let files = [file("drain.pem"), file("drain.key"), file("ca.pem")];
    let [certificate, key, ca] = files.each_ref().map(String::as_str);
    let secured = drain(&["--certificate", certificate, "--key", key, "--ca", ca]);
    assert_eq!(secured.status.code(), Some(0), "{secured:?}\n{}", middle.log());
    let told = json(&secured);
    assert_eq!((&told["entries"], &told["complete"]), (&acked.into(), &true.into()));
    let admin = format!("127.0.0.1:{}", listens[3].number());
    let balance = json(&output(&["check", "--admin", &admin, "--json"]));
    assert_eq!((&balance["accepted"], &balance["balanced"]), (&acked.into(), &true.into()));
    let missing = drain(&["--certificate", certificate, "--key", "/none", "--ca", ca]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/none"), "{missing:?}");
}

/// Begins, looks at, and calls off a drain of the tier at `admin`.
fn drained_and_back(admin: &str) {
    let drain = |deed: &[&str]| output(&[&["drain"], deed, &["--admin", admin]].concat());
    let ready = || output(&["health", "--admin", admin]).status.code();
    assert_eq!(ready(), Some(0));
    assert_eq!(json(&drain(&["state", "--json"]))["phase"], "serving");
    let mut refused = forebay(&["drain", "start", "--admin", admin]);
    let refused = refused.env("FOREBAY_ADMIN_TOKEN", "another token, of that length").output();
    assert_eq!(refused.unwrap().status.code(), Some(77), "the token is asked for");
    assert_eq!(ready(), Some(0), "and without it nothing happens");
    let started = drain(&["start", "--wait", "20s", "--json"]);
    assert_eq!(started.status.code(), Some(0), "{started:?}");
    assert_eq!(json(&drain(&["state", "--json"]))["phase"], "drained");
    assert_eq!(ready(), Some(1), "not ready while it drains");
    assert_eq!(output(&["health", "--live", "--admin", admin]).status.code(), Some(0));
    assert_eq!(drain(&["cancel"]).status.code(), Some(0));
    assert_eq!(
        (ready(), &json(&drain(&["state", "--json"]))["phase"]),
        (Some(0), &"serving".into())
    );
}

#[test]
fn a_middle_and_a_storage_tier_are_drained_and_put_back_by_their_routes() {
    let dir = tempfile::tempdir().unwrap();
    let listens = ports();
    let _middle = middle(dir.path(), &listens, "");
    let [_, feed, fetch, middle_admin] = listens.each_ref().map(Port::number);
    let [http, admin] = ports();
    let path = dir.path().display();
    let text = format!(
        "http.address = \"127.0.0.1:{}\"\nadmin.address = \"127.0.0.1:{}\"\n\
         lake = {{ dir = \"{path}/lake\", dead_letters = \"{path}/dead\" }}\n\
         last.snapshot = \"{path}/last\"\nshutdown = {{ timeout = \"2s\", settle = \"0s\" }}\n\
         [[middles]]\nname = \"only\"\nfeed = \"tcp://127.0.0.1:{feed}\"\n\
         fetch = \"tcp://127.0.0.1:{fetch}\"\n",
        http.number(),
        admin.number(),
    );
    let _storage = start("storage", &text, "storage serves", dir.path());
    drained_and_back(&format!("127.0.0.1:{}", admin.number()));
    drained_and_back(&format!("127.0.0.1:{middle_admin}"));
}
