//! NATS JetStream: one stream in files, each message published with a reply that is its ack.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use forebay_benches::load::{Speech, front::Devices};
use forebay_testkit::{Child, Port, debian};
use serde_json::{Value, json};

use crate::broker::{Broker, MESSAGE_BYTES};

const SUBJECT: &str = "messages";
const STREAM: &str = "MESSAGES";
const READY_TIME_MAX: Duration = Duration::from_secs(30);

struct JetStream {
    package: debian::Package,
    folder: PathBuf,
    port: Port,
    child: Option<Child>,
    speech: Publishes,
}

struct Publishes {
    payloads: Vec<Vec<u8>>,
}

pub(crate) fn jetstream(folder: &Path, _: bool) -> Result<Box<dyn Broker>> {
    let devices = Devices::new("peer", MESSAGE_BYTES);
    let mut server = JetStream {
        package: debian::package("nats-server")?,
        folder: folder.to_owned(),
        port: Port::free()?,
        child: None,
        speech: Publishes { payloads: (0..64).map(|number| devices.payload(number)).collect() },
    };
    server.restart()?;
    let made = server.ask(
        &format!("$JS.API.STREAM.CREATE.{STREAM}"),
        &json!({
            "name": STREAM, "subjects": [SUBJECT], "storage": "file", "retention": "limits",
            "discard": "old", "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 0,
            "max_msg_size": -1, "num_replicas": 1,
        })
        .to_string(),
    )?;
    ensure!(made.get("error").is_none(), "no stream: {made}");
    Ok(Box::new(server))
}

impl JetStream {
    fn restart(&mut self) -> Result<()> {
        let settings = self.folder.join("nats.conf");
        let store = self.folder.join("jetstream");
        std::fs::write(
            &settings,
            format!(
                "listen: \"127.0.0.1:{}\"\njetstream {{ store_dir: \"{}\", max_file_store: 20GB }}\n",
                self.port.number(),
                store.display()
            ),
        )?;
        let mut command = self.package.command("nats-server")?;
        command.arg("-c").arg(&settings);
        let mut child = Child::spawn("nats-server", &mut command, &self.folder)?;
        let end = Instant::now() + READY_TIME_MAX;
        while self.ask("$JS.API.INFO", "").is_err() {
            ensure!(child.ended()?.is_none(), "NATS ended:\n{}", child.log());
            ensure!(Instant::now() < end, "NATS is not ready:\n{}", child.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child = Some(child);
        Ok(())
    }

    /// Asks the server itself, and waits for the answer.
    fn ask(&self, subject: &str, body: &str) -> Result<Value> {
        let mut stream = TcpStream::connect(self.address())?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let length = body.len();
        write!(
            stream,
            "CONNECT {{\"verbose\":false}}\r\nSUB _INBOX.ask 1\r\nPUB {subject} _INBOX.ask {length}\r\n{body}\r\n"
        )?;
        let mut input = Vec::new();
        let mut bytes = [0; 4096];
        loop {
            let count = stream.read(&mut bytes)?;
            ensure!(count > 0, "NATS ended the connection");
            input.extend_from_slice(&bytes[..count]);
            let Some(at) = input.windows(4).position(|part| part == b"MSG ") else { continue };
            if let Some((payload, _)) = message(&input, at)? {
                return Ok(serde_json::from_slice(payload)?);
            }
        }
    }
}

impl Broker for JetStream {
    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port.number()).into()
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::pid)
    }

    fn speech(&self) -> &dyn Speech {
        &self.speech
    }

    fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
        }
        Ok(())
    }

    fn stored_after_restart(&mut self) -> Result<u64> {
        self.restart()?;
        let info = self.ask(&format!("$JS.API.STREAM.INFO.{STREAM}"), "")?;
        self.kill()?;
        match info["error"]["code"].as_u64() {
            // The stream itself is gone.
            Some(404) => Ok(0),
            Some(code) => bail!("NATS answers {code}: {info}"),
            None => info["state"]["messages"].as_u64().context("a count"),
        }
    }
}

/// The payload of the message whose head begins at `at`, and where it ends; `None` if more must
/// come.
fn message(input: &[u8], at: usize) -> Result<Option<(&[u8], usize)>> {
    let Some(length) = input[at..].windows(2).position(|end| end == b"\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&input[at..at + length])?;
    let bytes: usize = head.rsplit(' ').next().context("a head with a length")?.parse()?;
    let from = at + length + 2;
    Ok(input.get(from..from + bytes).zip(Some(from + bytes + 2)).filter(|(_, e)| *e <= input.len()))
}

impl Speech for Publishes {
    fn greeting(&self, number: usize) -> Vec<u8> {
        format!("CONNECT {{\"verbose\":false}}\r\nSUB _INBOX.{number} 1\r\nPING\r\n").into_bytes()
    }

    fn greeted(&self, input: &[u8]) -> Result<Option<usize>> {
        let pong = b"PONG\r\n";
        Ok(input.windows(pong.len()).position(|part| part == pong).map(|at| at + pong.len()))
    }

    fn message(&self, number: usize, _: u64, out: &mut Vec<u8>) {
        let payload = &self.payloads[number % self.payloads.len()];
        // Neither fails into a vector.
        let _ = write!(out, "PUB {SUBJECT} _INBOX.{number} {}\r\n", payload.len());
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    fn answers(&self, input: &[u8], mut acked: u64, out: &mut Vec<u8>) -> Result<(usize, u64)> {
        let mut used = 0;
        while used < input.len() {
            let rest = &input[used..];
            if rest.starts_with(b"MSG ") {
                let Some((payload, next)) = message(input, used)? else { break };
                let is_ack = payload.windows(6).any(|part| part == b"\"seq\":");
                ensure!(is_ack, "NATS answers {}", String::from_utf8_lossy(payload));
                (used, acked) = (next, acked + 1);
                continue;
            }
            let Some(length) = rest.windows(2).position(|end| end == b"\r\n") else { break };
            match &rest[..length] {
                b"PING" => out.extend_from_slice(b"PONG\r\n"),
                line if line.starts_with(b"-ERR") => {
                    bail!("NATS says {}", String::from_utf8_lossy(line))
                }
                _ => {}
            }
            used += length + 2;
        }
        Ok((used, acked))
    }
}
