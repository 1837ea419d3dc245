//! A real VictoriaMetrics server out of its Debian package, in a folder of the test's own.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{Child, Port, debian};

/// Longest time from start to readiness.
const READY_TIME_MAX: Duration = Duration::from_secs(60);
/// Longest time of an orderly end.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);
/// Longest wait for a part of an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// A server that runs, or is down for a while; its files outlive both.
#[derive(Debug)]
pub struct Victoria {
    package: debian::Package,
    folder: PathBuf,
    port: Port,
    flags: Vec<String>,
    child: Option<Child>,
}

impl Victoria {
    /// Starts a server with its files in `folder` and further flags, such as
    /// `"-dedup.minScrapeInterval=1ms"`.
    ///
    /// # Errors
    /// The package cannot be had, or the server does not start; see [`crate::or_skip`].
    pub fn start(folder: &Path, flags: &[&str]) -> Result<Victoria> {
        let mut server = Victoria {
            package: debian::package("victoria-metrics")?,
            folder: folder.to_owned(),
            port: Port::free()?,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            child: None,
        };
        server.restart()?;
        Ok(server)
    }

    /// Where it listens: `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// Replaces the flags that [`Self::start`] was given, from the next start on.
    pub fn set_flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    }

    /// Its process while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::pid)
    }

    /// Starts it on the files it had; it must be down.
    ///
    /// # Errors
    /// It does not come up.
    pub fn restart(&mut self) -> Result<()> {
        let mut command = self.package.command("victoria-metrics")?;
        command.arg("-storageDataPath").arg(self.folder.join("victoria"));
        command.arg(format!("-httpListenAddr={}", self.address())).args(&self.flags);
        let mut child = Child::spawn("victoria-server", &mut command, &self.folder)?;
        let end = Instant::now() + READY_TIME_MAX;
        while self.get("/health").is_err() {
            ensure!(child.ended()?.is_none(), "VictoriaMetrics ended:\n{}", child.log());
            ensure!(Instant::now() < end, "VictoriaMetrics is not ready:\n{}", child.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child = Some(child);
        Ok(())
    }

    /// Kills it (SIGKILL), as the end of its container would.
    ///
    /// # Errors
    /// The system refused.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
        }
        Ok(())
    }

    /// Lets it hang (SIGSTOP), or go on (SIGCONT).
    ///
    /// # Errors
    /// The system refused.
    pub fn set_paused(&mut self, paused: bool) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        if paused { child.pause() } else { child.resume() }
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// It did not end, and was killed.
    pub fn stop(&mut self) -> Result<()> {
        self.child.take().map_or(Ok(()), |mut child| child.terminate(STOP_TIME_MAX).map(drop))
    }

    /// The body that a GET of `path` is answered with.
    ///
    /// # Errors
    /// It is not answered with 200 or 204.
    pub fn get(&self, path: &str) -> Result<String> {
        self.request(&format!("GET {path}"), &[])
    }

    /// The body that a POST of `body` to `path` is answered with.
    ///
    /// # Errors
    /// It is not answered with 200 or 204.
    pub fn post(&self, path: &str, body: &[u8]) -> Result<String> {
        self.request(&format!("POST {path}"), body)
    }

    fn request(&self, what: &str, body: &[u8]) -> Result<String> {
        let address = self.address();
        let mut stream = TcpStream::connect(&address)?;
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        // HTTP/1.0: the answer ends with the connection, and comes in one piece.
        let length = body.len();
        write!(stream, "{what} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n")?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a head")?;
        if !head.contains(" 200 ") && !head.contains(" 204 ") {
            bail!("{what}: {}: {body}", head.lines().next().unwrap_or_default());
        }
        Ok(body.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn victoria_keeps_over_an_orderly_restart_what_it_was_sent() {
        let folder = tempfile::tempdir().unwrap();
        let flags = ["-retentionPeriod=100y"];
        let Some(mut server) = crate::or_skip(Victoria::start(folder.path(), &flags)) else {
            return;
        };
        let sample = br#"{"metric":{"__name__":"kept"},"values":[7],"timestamps":[1700000000000]}"#;
        server.post("/api/v1/import", sample).unwrap();
        server.stop().unwrap();
        assert!(server.get("/health").is_err());
        server.restart().unwrap();
        assert!(server.get("/api/v1/export?match[]=kept").unwrap().contains("1700000000000"));
        server.kill().unwrap();
    }
}
