//! A real ClickHouse with its real HTTP server, started, killed and started again on one folder.
//!
//! The engine comes from npm as one library (`@chdb/lib-linux-x64-gnu`, 178 MB, fetched once). A
//! Python process loads it and runs what `clickhouse-local` runs, with the HTTP interface opened;
//! killing that process is killing the server. It has users (`default` without a password,
//! `forebay` with [`PASSWORD`]) and a storage policy `tiered` with the volumes `default` and `cold`.
//!
//! It has no Keeper: replicated tables and `ON CLUSTER` cannot be tried here.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::{Child, Port, http, node};

/// What is fetched from npm; its name says which version of ClickHouse it is.
const PACKAGE: (&str, &str) = ("@chdb/lib-linux-x64-gnu", RELEASE);
/// The release that the tests run.
pub const RELEASE: &str = "26.7.3-stable.1";
/// The password of the user `forebay`.
pub const PASSWORD: &str = "secret";

const READY_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(10);

/// Ends when the process that started it is gone, so that a killed test leaves no server behind.
const LAUNCHER: &str = "
import ctypes, os, sys, threading, time
parent = os.getppid()
def watch():
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), 9)
threading.Thread(target=watch, daemon=True).start()
library = ctypes.CDLL(sys.argv[1])
arguments = [argument.encode() for argument in sys.argv[2:]]
library.chdb_query_cmdline.restype = ctypes.c_void_p
library.chdb_query_cmdline(len(arguments), (ctypes.c_char_p * (len(arguments) + 1))(*arguments))
";

/// A ClickHouse server on a folder of its own.
#[derive(Debug)]
pub struct ClickHouse {
    library: PathBuf,
    folder: PathBuf,
    data: PathBuf,
    port: Port,
    child: Option<Child>,
}

impl ClickHouse {
    /// Starts a server whose files lie below `folder`; it answers on return.
    ///
    /// # Errors
    /// The library cannot be had (see [`crate::or_skip`]) or the server does not start.
    pub fn start(folder: &Path) -> Result<Self> {
        Self::start_with_data(folder, &folder.join("clickhouse"))
    }

    /// The same with its tables at `data`, which may be on another file system.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with_data(folder: &Path, data: &Path) -> Result<Self> {
        let (name, version) = PACKAGE;
        let library = node::packages(&[&format!("{name}@{version}")])?.package(name);
        let library = library.join("libchdb.so");
        fs::create_dir_all(data)?;
        let port = Port::free()?;
        let (folder, data) = (folder.to_owned(), data.to_owned());
        write_configuration(&folder, &data)?;
        let mut server = Self { library, folder, data, port, child: None };
        server.restart()?;
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port.number()).into()
    }

    /// Its address as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::pid)
    }

    /// Starts it again after [`Self::kill`], on the same files; it answers on return.
    ///
    /// # Errors
    /// It does not start; the error shows what it said.
    pub fn restart(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_ready()
    }

    /// As [`Self::restart`], without waiting until it answers.
    ///
    /// # Errors
    /// There is no `python3`.
    pub fn launch(&mut self) -> Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        let mut command = Command::new("python3");
        command.args(["-c", LAUNCHER]).arg(&self.library).arg("clickhouse");
        command.arg(format!("--config-file={}", self.folder.join("clickhouse.xml").display()));
        command.arg(format!("--http_port={}", self.port.number()));
        command.arg("--listen_host=127.0.0.1");
        command.arg(format!("--path={}", self.data.display()));
        // The query that never ends keeps it running.
        command.args([
            "--query",
            "SYSTEM START LISTEN HTTP; SELECT sleepEachRow(1) FROM numbers(86400) \
             SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0 \
             FORMAT Null",
        ]);
        self.child = Some(Child::spawn("clickhouse", &mut command, &self.folder)?);
        Ok(())
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// It ended, or did not answer in time; the error shows what it said.
    pub fn wait_ready(&mut self) -> Result<()> {
        let address = self.address();
        let child = self.child.as_mut().context("it was not started")?;
        let end = Instant::now() + READY_WITHIN;
        loop {
            let answer = http::get(address, "/ping", Duration::from_secs(1));
            if answer.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            if let Some(status) = child.ended()? {
                bail!("ClickHouse ended with {status}:\n{}", child.log());
            }
            if Instant::now() >= end {
                bail!("ClickHouse did not answer in {READY_WITHIN:?}:\n{}", child.log());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Kills it with SIGKILL; nothing happens if it does not run.
    ///
    /// # Errors
    /// The system refused.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
        }
        Ok(())
    }

    /// Stops it where it is (SIGSTOP): it accepts connections and never answers.
    ///
    /// # Errors
    /// The system refused.
    pub fn pause(&mut self) -> Result<()> {
        self.child.as_mut().map_or(Ok(()), |child| child.signal(Signal::STOP))
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// The system refused.
    pub fn resume(&mut self) -> Result<()> {
        self.child.as_mut().map_or(Ok(()), |child| child.signal(Signal::CONT))
    }

    /// Runs a statement as `default` and returns what it answers, without the last line feed.
    ///
    /// # Errors
    /// It is away, or refused the statement; the error shows its words.
    pub fn query(&self, sql: &str) -> Result<String> {
        // Reading its own writes must not depend on what a statement happens to be.
        let answer =
            http::request(self.address(), "POST", "/", &[], sql.as_bytes(), ANSWER_WITHIN)?;
        let text = answer.good().with_context(|| format!("statement {sql:?}"))?;
        Ok(text.trim_end_matches('\n').to_owned())
    }

    /// Its version.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub fn version(&self) -> Result<String> {
        self.query("SELECT version()")
    }
}

fn write_configuration(folder: &Path, data: &Path) -> Result<()> {
    let users = folder.join("clickhouse-users.xml");
    let cold = data.join("cold-disk");
    fs::create_dir_all(&cold)?;
    fs::write(
        folder.join("clickhouse.xml"),
        format!(
            "<clickhouse><users_config>{}</users_config><storage_configuration>\
             <disks><cold><type>local</type><path>{}/</path></cold></disks>\
             <policies><tiered><volumes><default><disk>default</disk></default>\
             <cold><disk>cold</disk></cold></volumes></tiered></policies>\
             </storage_configuration></clickhouse>\n",
            users.display(),
            cold.display()
        ),
    )?;
    let user = |name: &str, password: &str| {
        format!(
            "<{name}><password>{password}</password><networks><ip>::/0</ip></networks>\
             <profile>default</profile><quota>default</quota></{name}>"
        )
    };
    let users_text = format!(
        "<clickhouse><profiles><default/></profiles><quotas><default/></quotas>\
         <users>{}{}</users></clickhouse>\n",
        user("default", ""),
        user("forebay", PASSWORD)
    );
    fs::write(users, users_text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clickhouse_killed_and_started_again_has_what_it_had() {
        let folder = tempfile::tempdir().unwrap();
        let Some(mut server) = crate::or_skip(ClickHouse::start(folder.path())) else { return };
        assert!(server.version().unwrap().starts_with("26.7."));
        server.query("CREATE TABLE kept (n UInt8) ENGINE = MergeTree ORDER BY n").unwrap();
        server.query("INSERT INTO kept VALUES (1), (2)").unwrap();
        server.kill().unwrap();
        assert!(server.query("SELECT 1").is_err());
        server.restart().unwrap();
        assert_eq!(server.query("SELECT sum(n) FROM kept").unwrap(), "3");
        let policy = "SELECT groupArray(volume_name) FROM system.storage_policies \
                      WHERE policy_name = 'tiered'";
        assert_eq!(server.query(policy).unwrap(), "['default','cold']");
    }
}
