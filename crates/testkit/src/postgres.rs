//! A real PostgreSQL server out of its Debian package, in a folder of the test's own.
//!
//! PostgreSQL refuses to run as root. As root it is started in a user namespace in which root is
//! called by another number: it keeps root's files in reach, and needs no account and no copy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::child::wait_until_stopped;
use crate::{Child, Port, cache, debian};

/// The packages that carry a server, the newest first known to work.
const PACKAGES: [&str; 2] = ["postgresql-15", "postgresql-17"];
/// Its user, who may do everything, and the password that is asked for.
pub const USER: &str = "forebay";
/// The password of [`USER`].
pub const PASSWORD: &str = "let it flow";
/// What the server says once it takes connections.
const READY: &str = "database system is ready to accept connections";
/// Longest time from start to readiness, recovery after a crash included.
const READY_TIME_MAX: Duration = Duration::from_secs(60);
/// Longest time of an orderly end.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);

/// A server that runs, or is down for a while; its files outlive both.
#[derive(Debug)]
pub struct Postgres {
    package: debian::Package,
    folder: PathBuf,
    port: Port,
    settings: Vec<String>,
    child: Option<Child>,
}

impl Postgres {
    /// Makes a database cluster in `folder` and starts a server on it, with further settings such
    /// as `"max_connections=20"`.
    ///
    /// # Errors
    /// The package cannot be had, or the server does not start; see [`crate::or_skip`].
    pub fn start(folder: &Path, settings: &[&str]) -> Result<Postgres> {
        let package = package()?;
        let mut server = Postgres {
            package,
            folder: folder.to_owned(),
            port: Port::free()?,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            child: None,
        };
        let password = folder.join("postgres.password");
        fs::create_dir_all(folder)?;
        fs::write(&password, PASSWORD)?;
        let mut initdb = server.command("initdb")?;
        initdb.args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"]);
        initdb.arg(format!("--username={USER}")).arg("--pwfile").arg(&password);
        cache::run(initdb.arg("-D").arg(server.data())).context("initdb")?;
        server.restart()?;
        Ok(server)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// How to connect to it, in the form of libpq.
    pub fn url(&self) -> String {
        let port = self.port();
        format!("host=127.0.0.1 port={port} user={USER} password='{PASSWORD}' dbname=postgres")
    }

    /// Where its files are.
    pub fn data(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    /// A client program of the same release, such as `psql`, set to connect to this server.
    ///
    /// # Errors
    /// The package that carries it cannot be had.
    pub fn client(&self, program: &str) -> Result<Command> {
        let name = self.package_name()?.replace("postgresql-", "postgresql-client-");
        let mut command = debian::package(&name)?.command(program)?;
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port().to_string());
        command.env("PGUSER", USER).env("PGPASSWORD", PASSWORD).env("PGDATABASE", "postgres");
        Ok(command)
    }

    fn package_name(&self) -> Result<&'static str> {
        let there = |name: &&&str| {
            let version = name.trim_start_matches("postgresql-");
            self.package.root().join("usr/lib/postgresql").join(version).exists()
        };
        PACKAGES.iter().find(there).copied().context("a package without a release")
    }

    /// Starts it on the files it had; it must be down.
    ///
    /// # Errors
    /// It does not come up; the error shows the end of its log.
    pub fn restart(&mut self) -> Result<()> {
        let end = Instant::now() + READY_TIME_MAX;
        loop {
            let mut command = self.command("postgres")?;
            command.arg("-D").arg(self.data());
            command.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
            command.args(["-c", &format!("port={}", self.port()), "-c", "log_timezone=UTC"]);
            for setting in &self.settings {
                command.args(["-c", setting]);
            }
            let mut child = Child::spawn("postgres-server", &mut command, &self.folder)?;
            let before = child.log().matches(READY).count();
            // One that finds processes of a killed predecessor still ending refuses: try again.
            while child.ended()?.is_none() {
                if child.log().matches(READY).count() > before {
                    self.child = Some(child);
                    return Ok(());
                }
                if Instant::now() > end {
                    bail!("PostgreSQL is not ready in {READY_TIME_MAX:?}:\n{}", child.log());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            if Instant::now() > end {
                bail!("PostgreSQL does not start:\n{}", child.log());
            }
        }
    }

    /// Kills it with all its processes (SIGKILL), as the end of its container would.
    ///
    /// # Errors
    /// The system refused.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        // Stopped first, so that it starts no further process meanwhile.
        child.pause()?;
        self.signal_children(child.pid(), Signal::KILL);
        child.kill()?;
        Ok(())
    }

    /// Lets it hang (SIGSTOP): connections stay open and are not answered.
    ///
    /// # Errors
    /// The system refused.
    pub fn pause(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        child.pause()?;
        let pid = child.pid();
        self.signal_children(pid, Signal::STOP);
        children(pid).into_iter().for_each(|child| wait_until_stopped(child.cast_unsigned()));
        Ok(())
    }

    /// Ends a [`Self::pause`].
    ///
    /// # Errors
    /// The system refused.
    pub fn resume(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        let pid = child.pid();
        child.signal(Signal::CONT)?;
        self.signal_children(pid, Signal::CONT);
        Ok(())
    }

    /// Ends it in order, connections included.
    ///
    /// # Errors
    /// It did not end, and was killed.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.signal(Signal::INT)?;
        let end = Instant::now() + STOP_TIME_MAX;
        while child.ended()?.is_none() {
            if Instant::now() > end {
                self.signal_children(child.pid(), Signal::KILL);
                bail!("PostgreSQL did not end in {STOP_TIME_MAX:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// A program of the package, as somebody who is not root.
    fn command(&self, program: &str) -> Result<Command> {
        let command = self.package.command(program)?;
        if !rustix::process::geteuid().is_root() {
            return Ok(command);
        }
        let mut shielded = Command::new("unshare");
        shielded.args(["--user", "--map-user=1000"]).arg(command.get_program());
        for (name, value) in command.get_envs() {
            shielded.env(name, value.unwrap_or_default());
        }
        Ok(shielded)
    }

    /// Each child of the server is the leader of a group of its own, so they are looked up.
    fn signal_children(&self, parent: u32, signal: Signal) {
        for pid in children(parent) {
            if let Some(pid) = Pid::from_raw(pid) {
                // It may have ended since; then there is nothing to do.
                let _ = kill_process(pid, signal);
            }
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn package() -> Result<debian::Package> {
    let mut refused = None;
    for name in PACKAGES {
        match debian::package(name) {
            Ok(package) => return Ok(package),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.context("no package of PostgreSQL is known")?)
}

fn children(parent: u32) -> Vec<i32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // After the name, which may hold anything: state, parent.
            let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
            after.split(' ').nth(1).and_then(|field| field.parse().ok()) == Some(parent)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_comes_back_on_its_files_after_a_kill_and_asks_for_a_password() {
        let folder = tempfile::tempdir().unwrap();
        let Some(mut server) = crate::or_skip(Postgres::start(folder.path(), &[])) else { return };
        let psql = |server: &Postgres, sql: &str| {
            let mut psql = server.client("psql").unwrap();
            cache::run(psql.args(["-q", "-t", "-A", "-c", sql]))
        };
        psql(&server, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)").unwrap();
        server.kill().unwrap();
        assert!(psql(&server, "SELECT n FROM kept").is_err());
        server.restart().unwrap();
        assert_eq!(psql(&server, "SELECT n FROM kept").unwrap().trim(), "7");
        let mut stranger = server.client("psql").unwrap();
        let stranger = stranger.env("PGPASSWORD", "wrong").args(["-c", "SELECT 1"]);
        assert!(cache::run(stranger).unwrap_err().to_string().contains("password"));
        server.stop().unwrap();
    }
}
