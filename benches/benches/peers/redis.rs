//! Redis Streams: `XADD` to one stream, with the append-only file synced once a second or before
//! every answer.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context as _, Result, bail};
use forebay_benches::load::{Speech, front::Devices};
use forebay_testkit::Redis;

use crate::broker::{Broker, MESSAGE_BYTES};

const STREAM: &str = "messages";

struct Streams {
    server: Redis,
    speech: Commands,
}

struct Commands {
    /// One command for each different message.
    templates: Vec<Vec<u8>>,
}

pub(crate) fn everysec(folder: &Path, _: bool) -> Result<Box<dyn Broker>> {
    start(folder, "everysec")
}

pub(crate) fn always(folder: &Path, _: bool) -> Result<Box<dyn Broker>> {
    start(folder, "always")
}

fn start(folder: &Path, sync: &str) -> Result<Box<dyn Broker>> {
    let server = Redis::start(folder, &["--appendonly", "yes", "--appendfsync", sync])?;
    let devices = Devices::new("peer", MESSAGE_BYTES);
    let template = |number| {
        let payload = devices.payload(number);
        let mut command =
            format!("*5\r\n$4\r\nXADD\r\n${}\r\n{STREAM}\r\n$1\r\n*\r\n$1\r\nd\r\n", STREAM.len())
                .into_bytes();
        command.extend(format!("${}\r\n", payload.len()).bytes());
        command.extend(payload);
        command.extend(b"\r\n");
        command
    };
    Ok(Box::new(Streams {
        server,
        speech: Commands { templates: (0..64).map(template).collect() },
    }))
}

impl Broker for Streams {
    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.server.port()).into()
    }

    fn pid(&self) -> u32 {
        self.server.pid().unwrap_or(0)
    }

    fn speech(&self) -> &dyn Speech {
        &self.speech
    }

    fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    fn stored_after_restart(&mut self) -> Result<u64> {
        self.server.restart()?;
        let answer = self.server.ask(&format!("XLEN {STREAM}"))?;
        let count = answer.strip_prefix(':').context("XLEN gives a number")?.parse()?;
        self.server.stop()?;
        Ok(count)
    }
}

/// The end of the line that begins at `from`, without its end.
fn line(input: &[u8], from: usize) -> Option<usize> {
    input[from..].windows(2).position(|end| end == b"\r\n").map(|length| from + length)
}

impl Speech for Commands {
    fn greeting(&self, _: usize) -> Vec<u8> {
        b"*1\r\n$4\r\nPING\r\n".to_vec()
    }

    fn greeted(&self, input: &[u8]) -> Result<Option<usize>> {
        Ok(line(input, 0).map(|end| end + 2))
    }

    fn message(&self, number: usize, _: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.templates[number % self.templates.len()]);
    }

    fn answers(&self, input: &[u8], mut acked: u64, _: &mut Vec<u8>) -> Result<(usize, u64)> {
        let mut used = 0;
        while let Some(end) = line(input, used) {
            let head = &input[used..end];
            let [b'$', length @ ..] = head else {
                bail!("Redis answers {}", String::from_utf8_lossy(head));
            };
            let length: usize = std::str::from_utf8(length)?.parse()?;
            let next = end + 2 + length + 2;
            if next > input.len() {
                break;
            }
            (used, acked) = (next, acked + 1);
        }
        Ok((used, acked))
    }
}
