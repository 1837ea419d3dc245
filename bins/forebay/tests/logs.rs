//! The logs of the real process: what its first lines tell, in which form, and that a device cannot
//! write lines of its own into them.
//!
//! What the lines look like for every hostile text, and that repeats are counted, is shown by the
//! tests of `forebay-ops`; here it is shown that the process writes its lines that way.
#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use forebay_testkit::{Child, Port, or_skip, python};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(60);

/// Ports of a node, and a configuration for it in `dir`.
fn configure(dir: &Path) -> Vec<Port> {
    let ports: Vec<Port> = (0..8).map(|_| Port::free().unwrap()).collect();
    let [ingest, front, uplink, feed, fetch, middle, http, storage] =
        [0, 1, 2, 3, 4, 5, 6, 7].map(|at: usize| ports[at].number());
    let path = dir.display();
    let any = "any_filesystem = true";
    let text = format!(
        "[front]\nlisten.address = \"127.0.0.1:{ingest}\"\nadmin.address = \"127.0.0.1:{front}\"\n\
         ack.level = \"process\"\nqueue = {{ dir = \"{path}/front\", capacity = \"4MiB\", {any} }}\n\
         uplink.middle = \"tcp://127.0.0.1:{uplink}\"\ndrain.spread = \"0s\"\n\
         shutdown = {{ timeout = \"10s\", settle = \"0s\" }}\n\
         [middle]\nuplink.listen = \"tcp://127.0.0.1:{uplink}\"\n\
         feed.listen = \"tcp://127.0.0.1:{feed}\"\nfetch.listen = \"tcp://127.0.0.1:{fetch}\"\n\
         admin.address = \"127.0.0.1:{middle}\"\n\
         queue = {{ dir = \"{path}/middle\", capacity = \"16MiB\", durability = \"process\", {any} }}\n\
         [storage]\nhttp.address = \"127.0.0.1:{http}\"\nadmin.address = \"127.0.0.1:{storage}\"\n\
         lake = {{ dir = \"{path}/lake\", dead_letters = \"{path}/dead\" }}\n\
         last.snapshot = \"{path}/last\"\n\
         [[storage.middles]]\nname = \"only\"\nfeed = \"tcp://127.0.0.1:{feed}\"\n\
         fetch = \"tcp://127.0.0.1:{fetch}\"\n"
    );
    fs::write(dir.join("node.toml"), text).unwrap();
    ports
}

fn node(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.arg("run").arg("--config").arg(dir.join("node.toml"));
    command.env("FOREBAY__FRONT__LIMITS__CONNECTIONS", "1000");
    command
}

fn lines(log: &str) -> Vec<Value> {
    let object =
        |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    log.lines().map(object).collect()
}

fn line<'a>(lines: &'a [Value], message: &str) -> &'a Value {
    let found = lines.iter().find(|line| line["message"] == message);
    found.unwrap_or_else(|| panic!("no line says {message:?}: {lines:#?}"))
}

#[test]
fn the_first_lines_tell_version_configuration_queue_listeners_and_peers() {
    let dir = tempfile::tempdir().unwrap();
    let ports = configure(dir.path());
    let mut child = Child::spawn("node", &mut node(dir.path()), dir.path()).unwrap();
    child.wait_for("front ready", DEADLINE).unwrap();
    let lines = lines(&child.log());
    let start = line(&lines, "starts");
    assert_eq!(start["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(start["config"], dir.path().join("node.toml").to_str().unwrap());
    assert_eq!(start["variables"], "FOREBAY__FRONT__LIMITS__CONNECTIONS");
    for queue in ["ring open", "log open"] {
        let open = line(&lines, queue);
        assert_eq!((&open["entries"], &open["corrupt"]), (&0.into(), &0.into()), "{open}");
        assert!(open["queue"].is_string() && open["path"].is_string(), "{open}");
    }
    let has = |message: &str, field: &str, port: &Port| {
        let told = line(&lines, message)[field].as_str().unwrap_or_default().to_owned();
        assert!(told.ends_with(&format!(":{}", port.number())), "{message}: {field} is {told}");
    };
    has("front ready", "ingest", &ports[0]);
    has("front ready", "middles", &ports[2]);
    has("middle serves", "uplink", &ports[2]);
    has("middle serves", "feed", &ports[3]);
    has("middle serves", "fetch", &ports[4]);
    has("storage serves", "http", &ports[6]);
    has("storage serves", "middles", &ports[3]);
    assert!(child.terminate(DEADLINE).unwrap().success());
}

#[test]
fn a_device_cannot_write_lines_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let ports = configure(dir.path());
    let mut command = node(dir.path());
    command.env("FOREBAY_LOG", "debug");
    let mut child = Child::spawn("node", &mut command, dir.path()).unwrap();
    child.wait_for("front ready", DEADLINE).unwrap();
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // A forged line in the id; then a close whose reason steers a terminal.
    let forged = "pump%0a%7b%22message%22%3a%22front%20ready%22%7d%1b%5b2J";
    for device in [forged, "pump-7"] {
        let mut socket = TcpStream::connect(("127.0.0.1", ports[0].number())).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(socket, "GET /v1/ingest/{device} HTTP/1.1\r\nHost: x\r\n{upgrade}").unwrap();
        if device == "pump-7" {
            let mut head = [0; 12];
            socket.read_exact(&mut head).unwrap();
            assert!(head.ends_with(b"101"), "{head:?}");
            let reason = b"\x03\xe8\x1b[2J\n{\"message\":\"all is lost\"}\x07\xc2\x9b";
            // Masked by zeros.
            let mut close = vec![0x88, 0x80 | reason.len() as u8, 0, 0, 0, 0];
            close.extend_from_slice(reason);
            socket.write_all(&close).unwrap();
        }
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).unwrap();
    }
    assert!(child.terminate(DEADLINE).unwrap().success());
    let log = child.log();
    assert!(!log.contains(|one: char| one != '\n' && one.is_control()), "{log:?}");
    let lines = lines(&log);
    let ready = lines.iter().filter(|line| line["message"] == "front ready").count();
    assert_eq!((ready, lines.iter().all(|line| line["level"].is_string())), (1, true));
    assert!(lines.iter().all(|line| line["message"] != "all is lost"));
}

#[test]
fn a_terminal_gets_text_and_a_pipe_gets_json() {
    let Some(python) = or_skip(python::venv(&[])) else { return };
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path());
    // A fault of the configuration would end it before its first line; this one comes after.
    fs::write(dir.path().join("front"), "a file where the ring's folder is to be").unwrap();
    let run = |code: &str| {
        let mut command = python.command();
        command.args(["-c", code, env!("CARGO_BIN_EXE_forebay"), "run", "--config"]);
        command.arg(dir.path().join("node.toml"));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let terminal = run("import pty, sys; pty.spawn(sys.argv[1:])");
    let first = terminal.lines().find(|line| line.contains("starts")).expect("a first line");
    assert!(first.contains("INFO") && first.contains("version="), "{terminal}");
    assert!(!terminal.contains("\"message\""), "{terminal}");
    let pipe = run("import subprocess, sys; \
         sys.stdout.buffer.write(subprocess.run(sys.argv[1:], stderr=subprocess.PIPE).stderr)");
    line(&lines(&pipe), "starts");
}
