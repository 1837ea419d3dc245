//! `forebay run`, `sim`, `tail` and `config` against one another, as they are typed.
#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

#[path = "../src/scrape.rs"]
mod scrape;

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use forebay_testkit::{Child, Port, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);

fn forebay(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn output(arguments: &[&str]) -> Output {
    forebay(arguments).output().unwrap()
}

/// A configuration of all tiers below `dir`: its ports for devices and for readers, and its text.
fn node(dir: &Path, ports: &[Port]) -> String {
    let port = |at: usize| ports[at].number();
    let dir = dir.display();
    format!(
        "[front]\nlisten.address = \"127.0.0.1:{}\"\nadmin.address = \"127.0.0.1:{}\"\n\
         ack.level = \"process\"\nqueue.dir = \"{dir}/front\"\nqueue.capacity = \"4MiB\"\n\
         queue.any_filesystem = true\nuplink.middle = \"tcp://127.0.0.1:{}\"\n\
         [middle]\nuplink.listen = \"tcp://127.0.0.1:{}\"\nfeed.listen = \"tcp://127.0.0.1:{}\"\n\
         fetch.listen = \"tcp://127.0.0.1:{}\"\nadmin.address = \"127.0.0.1:{}\"\n\
         queue.dir = \"{dir}/middle\"\nqueue.capacity = \"8MiB\"\nqueue.durability = \"process\"\n\
         queue.any_filesystem = true\n\
         [storage]\nhttp.address = \"127.0.0.1:{}\"\nadmin.address = \"127.0.0.1:{}\"\n\
         lake.dir = \"{dir}/lake\"\nlake.dead_letters = \"{dir}/dead\"\nlake.flush.age = \"500ms\"\n\
         lake.flush.outstanding = \"2MiB\"\nlast.snapshot = \"{dir}/last.jsonl\"\n\
         [[storage.middles]]\nname = \"middle\"\nfeed = \"tcp://127.0.0.1:{}\"\n\
         fetch = \"tcp://127.0.0.1:{}\"\n",
        port(0),
        port(1),
        port(2),
        port(2),
        port(3),
        port(4),
        port(5),
        port(6),
        port(7),
        port(3),
        port(4),
    )
}

#[test]
fn devices_reach_the_lake_and_the_terminal_through_a_node_that_drains() {
    let dir = tempfile::tempdir().unwrap();
    let ports: Vec<Port> = (0..8).map(|_| Port::free().unwrap()).collect();
    let config = dir.path().join("node.toml");
    fs::write(&config, node(dir.path(), &ports)).unwrap();
    let config = config.to_str().unwrap();
    assert!(output(&["config", "check", config]).status.success());
    assert!(output(&["config", "check", "--config", config]).status.success());

    let mut run =
        Child::spawn("node", &mut forebay(&["run", "--config", config]), dir.path()).unwrap();
    run.wait_for("front ready", DEADLINE).unwrap();
    let live = format!("ws://127.0.0.1:{}", ports[6].number());
    let tail =
        forebay(&["tail", "--url", &live, "--prefix", "nyc_taxi-", "--json", "--count", "20"])
            .spawn()
            .unwrap();
    let front = format!("ws://127.0.0.1:{}", ports[0].number());
    let lake = dir.path().join("lake");
    let sim = output(&[
        "sim",
        "--url",
        &front,
        "--devices",
        "30",
        "--rate",
        "3000",
        "--duration",
        "2",
        "--ramp",
        "0.2",
        "--payload-bytes",
        "128",
        "--window",
        "32",
        "--json",
        "--verify",
        lake.to_str().unwrap(),
    ]);
    assert!(sim.status.success(), "{sim:?}");
    let report: serde_json::Value = serde_json::from_slice(&sim.stdout).unwrap();
    assert!(report["acked"].as_u64().unwrap() > 3_000, "{report}");
    assert_eq!((report["unacked"].as_u64(), report["refused"].as_u64()), (Some(0), Some(0)));
    assert_eq!(report["verify"]["lost"], 0, "{report}");
    assert_eq!(report["verify"]["stored"], report["acked"]);
    for key in ["ack_p50_us", "ack_p99_us", "ack_p999_us"] {
        assert!(report[key].as_u64().unwrap() > 0, "{key}: {report}");
    }

    let tail = tail.wait_with_output().unwrap();
    assert!(tail.status.success(), "{tail:?}");
    let lines = String::from_utf8(tail.stdout).unwrap();
    assert!(lines.lines().count() >= 20, "{lines}");
    for line in lines.lines() {
        let frame: serde_json::Value = serde_json::from_str(line).unwrap();
        let device = frame["event"]["device"].as_str().unwrap_or("nyc_taxi-missed");
        assert!(device.starts_with("nyc_taxi-"), "{line}");
    }
    let status = run.terminate(DEADLINE).unwrap();
    assert_eq!(status.code(), Some(0), "{}", run.log());
}

#[test]
fn a_simulator_without_a_front_says_so_by_its_exit_code_and_ends() {
    let port = Port::free().unwrap();
    let front = format!("ws://127.0.0.1:{}", port.number());
    let sim = output(&["sim", "--url", &front, "--devices", "3", "--duration", "0.5", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&sim.stdout).unwrap();
    assert_eq!(report["acked"], 0, "{report}");
    assert!(report["refused"].as_u64().unwrap() >= 3, "{report}");
    assert_eq!(sim.status.code(), Some(1), "{sim:?}");
}

/// A front once said that it held what the middle had acked, and drained until its deadline, when
/// nothing had been appended since it was opened: the queue's last number is then of a new epoch,
/// which no ack names.
#[test]
fn a_front_without_new_messages_holds_nothing_and_ends_soon() {
    let dir = tempfile::tempdir().unwrap();
    let ports: Vec<Port> = (0..8).map(|_| Port::free().unwrap()).collect();
    let config = dir.path().join("node.toml");
    fs::write(&config, node(dir.path(), &ports)).unwrap();
    let config = config.to_str().unwrap();
    let start = || {
        let mut command = forebay(&["run", "--config", config]);
        let mut node = Child::spawn("node", &mut command, dir.path()).unwrap();
        let admin = ([127, 0, 0, 1], ports[1].number()).into();
        wait_until("the front is ready", DEADLINE, || scrape::is_ready(admin));
        let held = move || {
            scrape::metrics(admin).and_then(|page| page.sum("forebay_front_queue_entries", &[]))
        };
        assert!(node.ended().unwrap().is_none());
        (node, held)
    };
    let front = format!("ws://127.0.0.1:{}", ports[0].number());
    let (mut node, _) = start();
    let sim =
        output(&["sim", "--url", &front, "--devices", "3", "--rate", "900", "--duration", "0.3"]);
    assert!(sim.status.success(), "{sim:?}");
    node.kill().unwrap();
    let (mut node, held) = start();
    wait_until("nothing is held", DEADLINE, || held() == Some(0.0));
    let began = Instant::now();
    assert_eq!(node.terminate(DEADLINE).unwrap().code(), Some(0), "{}", node.log());
    let took = began.elapsed();
    assert!(took < Duration::from_secs(15), "the drain took {took:?}: {}", node.log());
}

#[test]
fn the_tiers_are_seen_at_a_glance_and_one_message_is_found_in_them() {
    let dir = tempfile::tempdir().unwrap();
    let ports: Vec<Port> = (0..8).map(|_| Port::free().unwrap()).collect();
    let config = dir.path().join("node.toml");
    fs::write(&config, node(dir.path(), &ports)).unwrap();
    let config = config.to_str().unwrap();
    let mut run =
        Child::spawn("node", &mut forebay(&["run", "--config", config]), dir.path()).unwrap();
    run.wait_for("front ready", DEADLINE).unwrap();
    let front = format!("ws://127.0.0.1:{}", ports[0].number());
    let sim =
        output(&["sim", "--url", &front, "--devices", "5", "--rate", "500", "--duration", "1"]);
    assert!(sim.status.success(), "{sim:?}");

    let top = output(&["top", "--config", config, "--once", "--every", "200ms", "--json"]);
    assert_eq!(top.status.code(), Some(0), "{top:?}");
    let top: serde_json::Value = serde_json::from_slice(&top.stdout).unwrap();
    assert!(top["tiers"]["front"]["front"]["ack_p99_us"].as_u64().unwrap() > 0, "{top}");
    assert_eq!(top["tiers"]["middle"]["middle"]["fronts"], 1.0, "{top}");
    assert_eq!(top["tiers"]["storage"]["storage"]["sinks"][0]["state"], "running", "{top}");
    let words = output(&["top", "--config", config, "--once", "--every", "10ms"]);
    let words = String::from_utf8(words.stdout).unwrap();
    assert!(words.contains("sink=lake") && words.contains("0 devices"), "{words}");

    // The last message in the middle's log, whose checkpoint may be a moment behind.
    let log = dir.path().join("middle");
    let mut last = None;
    wait_until("a message is in the log", DEADLINE, || {
        let dump = output(&["queue", "dump", log.to_str().unwrap(), "--json"]);
        let text = String::from_utf8(dump.stdout).unwrap();
        last = text.lines().rfind(|line| line.contains("\"device\":")).map(str::to_owned);
        last.is_some()
    });
    let last: serde_json::Value = serde_json::from_str(&last.unwrap()).unwrap();
    let (session, seq) = (last["session"].to_string(), last["seq"].to_string());
    let device = last["device"].as_str().unwrap();
    let find = |seq: &str| {
        let found = output(&[
            "where",
            "--config",
            config,
            "--device",
            device,
            "--session",
            &session,
            "--seq",
            seq,
            "--json",
        ]);
        let told: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
        (found.status.code(), told)
    };
    wait_until("the lake has it", DEADLINE, || {
        let (code, told) = find(&seq);
        assert_eq!((code, &told["found"]), (Some(0), &true.into()), "{told}");
        told["tiers"]["middle"]["message"]["committed_by"]["lake"] == true
    });
    let (code, told) = find("999999");
    assert_eq!((code, &told["found"]), (Some(1), &false.into()), "{told}");
    assert_eq!(told["tiers"]["middle"]["oldest"]["consumer lake"], 0.0, "nothing waits: {told}");
    assert_eq!(run.terminate(DEADLINE).unwrap().code(), Some(0), "{}", run.log());
}

#[test]
fn a_bad_configuration_is_refused_with_all_its_faults() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.toml");
    fs::write(&file, "[front]\nack.credit = 0\n[middle]\nuplnk.listen = \"x\"\n").unwrap();
    let file = file.to_str().unwrap();
    for arguments in
        [["config", "check", file], ["config", "print", file], ["run", "--config", file]]
    {
        let output = output(&arguments);
        assert_eq!(output.status.code(), Some(78), "{arguments:?}: {output:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("middle.uplnk") && stderr.contains("uplink"), "{stderr}");
        assert!(stderr.contains("front.ack.credit"), "{stderr}");
    }
}

#[test]
fn the_printed_configuration_of_each_tier_can_be_read_again() {
    let dir = tempfile::tempdir().unwrap();
    for tier in ["node", "front", "middle", "storage"] {
        let printed = output(&["config", "print", "--tier", tier]);
        assert!(printed.status.success(), "{printed:?}");
        let file = dir.path().join(tier);
        fs::write(&file, &printed.stdout).unwrap();
        let again = output(&["config", "print", "--tier", tier, file.to_str().unwrap()]);
        assert_eq!(again.stdout, printed.stdout, "{tier}: {again:?}");
    }
    let version = output(&["version"]);
    assert!(String::from_utf8_lossy(&version.stdout).contains("forebay.v1.cbor"));
    let version: serde_json::Value =
        serde_json::from_slice(&output(&["version", "--json"]).stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(version["device_protocols"][0], "forebay.v1.cbor");
    assert!(version["between_tiers"]["writes"].is_u64() && version["target"].is_string());
}

#[test]
fn a_shell_completes_commands_and_options() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("forebay.bash");
    fs::write(&file, output(&["completions", "bash"]).stdout).unwrap();
    let complete = |words: &str, at: usize| {
        let script = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD={at}; \
             _forebay forebay \"${{COMP_WORDS[{at}]}}\" \"${{COMP_WORDS[{at}-1]}}\"; \
             echo \"${{COMPREPLY[@]}}\"",
            file.display()
        );
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("forebay que", 1), "queue");
    assert_eq!(complete("forebay queue ver", 2), "verify");
    assert_eq!(complete("forebay check --adm", 2), "--admin");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = output(&["completions", shell]);
        assert!(script.status.success() && script.stdout.len() > 10_000, "{shell}");
    }
}

#[test]
fn a_tier_ends_when_the_demo_that_started_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = forebay(&[
        "demo",
        "--chaos",
        "--devices",
        "5",
        "--rate",
        "50",
        "--durability",
        "process",
        "--dir",
    ]);
    command.arg(dir.path());
    let mut demo = Child::spawn("demo", &mut command, dir.path()).unwrap();
    demo.wait_for("devices connect", DEADLINE).unwrap();
    let children = || {
        fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&*dir.path().to_string_lossy())
        })
    };
    assert!(children());
    demo.kill().unwrap();
    wait_until("the children are gone", DEADLINE, || !children());
}
