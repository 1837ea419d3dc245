//! A real Redis server out of its Debian package, in a folder of the test's own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::{Child, Port, debian};

/// Longest time from start to readiness, loading included.
const READY_TIME_MAX: Duration = Duration::from_secs(30);
/// Longest time of an orderly end.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);
/// Longest wait for an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// A server that runs, or is down for a while; its files outlive both.
#[derive(Debug)]
pub struct Redis {
    package: debian::Package,
    folder: PathBuf,
    port: Port,
    settings: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    /// Starts a server with its files in `folder` and further settings, such as
    /// `["--appendonly", "yes"]`. It takes no snapshots of its own.
    ///
    /// # Errors
    /// The package cannot be had, or the server does not start; see [`crate::or_skip`].
    pub fn start(folder: &Path, settings: &[&str]) -> Result<Redis> {
        let mut server = Redis {
            package: debian::package("redis-server")?,
            folder: folder.to_owned(),
            port: Port::free()?,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            child: None,
        };
        server.restart()?;
        Ok(server)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Its process while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::pid)
    }

    /// How to connect to it without a password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// A program of the package, such as `redis-cli` or `redis-benchmark`.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn program(&self, name: &str) -> Result<Command> {
        self.package.command(name)
    }

    /// Starts it on the files it had; it must be down.
    ///
    /// # Errors
    /// It does not come up.
    pub fn restart(&mut self) -> Result<()> {
        let mut command = self.package.command("redis-server")?;
        command.args(["--bind", "127.0.0.1", "--port", &self.port().to_string(), "--save", ""]);
        command.arg("--dir").arg(&self.folder).args(&self.settings);
        let mut child = Child::spawn("redis-server", &mut command, &self.folder)?;
        let end = Instant::now() + READY_TIME_MAX;
        while self.ask("PING").is_err() {
            ensure!(child.ended()?.is_none(), "Redis ended:\n{}", child.log());
            ensure!(Instant::now() < end, "Redis is not ready:\n{}", child.log());
            std::thread::sleep(Duration::from_millis(5));
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

    /// The first line of the answer to a command without arguments that hold blanks.
    ///
    /// # Errors
    /// There is no answer, or it is an error other than that a password is missing.
    pub fn ask(&self, command: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port()))?;
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        write!(stream, "{command}\r\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        if line.is_empty() || (line.starts_with('-') && !line.starts_with("-NOAUTH")) {
            bail!("Redis answers {command} with {line:?}");
        }
        Ok(line.trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_comes_back_after_a_kill_with_what_its_settings_keep() {
        let folder = tempfile::tempdir().unwrap();
        let settings = ["--appendonly", "yes", "--appendfsync", "always"];
        let Some(mut server) = crate::or_skip(Redis::start(folder.path(), &settings)) else {
            return;
        };
        assert_eq!(server.ask("SET kept 7").unwrap(), "+OK");
        server.kill().unwrap();
        assert!(server.ask("PING").is_err());
        server.restart().unwrap();
        assert_eq!(server.ask("INCR kept").unwrap(), ":8");
        server.stop().unwrap();
    }
}
