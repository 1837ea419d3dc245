//! A network of a test's own: hosts in network namespaces, joined by one switch. Root only.
//!
//! Nothing of it touches the machine's own network. A host's cable can be pulled, which swallows
//! packets without a word to either end, and its address can change, as a container's does.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use rustix::fd::AsFd as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cache;

/// Names of our namespaces: this, the process's id, a number.
const PREFIX: &str = "forebay";

/// A switch without hosts; removed, with what is left of it, when the last host is dropped.
#[derive(Debug, Clone)]
pub struct Lan {
    switch: Arc<Namespace>,
}

/// One host: a namespace with a cable to the switch, and loopback. Removed when dropped; processes
/// that still run in it keep what they have.
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
    switch: Arc<Namespace>,
    port: String,
    address: Ipv4Addr,
    /// What `/etc/hosts` is for commands in it.
    names: PathBuf,
}

#[derive(Debug)]
struct Namespace {
    name: String,
}

impl Lan {
    /// Makes the switch.
    ///
    /// # Errors
    /// Not root, or the system has no network namespaces; see [`crate::or_skip`].
    pub fn new() -> Result<Lan> {
        ensure!(rustix::process::geteuid().is_root(), "only root can make network namespaces");
        remove_leftovers();
        let switch = Namespace::new()?;
        switch.ip("link add switch type bridge")?;
        switch.ip("link set switch up")?;
        Ok(Lan { switch: Arc::new(switch) })
    }

    /// Joins a host with this address; all are in one network of 24 bits.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn host(&self, address: Ipv4Addr) -> Result<Host> {
        let namespace = Namespace::new()?;
        // At most 15 bytes: names of interfaces are short.
        let port = format!("port{}", namespace.name.rsplit('-').next().unwrap_or_default());
        self.switch
            .ip(&format!("link add {port} type veth peer name eth0 netns {}", namespace.name))?;
        self.switch.ip(&format!("link set {port} master switch"))?;
        self.switch.ip(&format!("link set {port} up"))?;
        namespace.ip("link set lo up")?;
        namespace.ip(&format!("address add {address}/24 dev eth0"))?;
        namespace.ip("link set eth0 up")?;
        let names = Path::new("/etc/netns").join(&namespace.name).join("hosts");
        Ok(Host { namespace, switch: Arc::clone(&self.switch), port, address, names })
    }
}

impl Host {
    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A program, to be started on this host.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace.name]).arg(program);
        command
    }

    /// Runs `work` on a thread of this host; threads that it starts are on this host too.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    ///
    /// # Panics
    /// If `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = Path::new("/run/netns").join(&self.namespace.name);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .context("enter the network namespace")?;
                Ok(work())
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Pulls its cable: whatever is sent to or from it is swallowed.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn unplug(&self) -> Result<()> {
        self.switch.ip(&format!("link set {} down", self.port))
    }

    /// Puts its cable back.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn plug(&self) -> Result<()> {
        self.switch.ip(&format!("link set {} up", self.port))
    }

    /// Gives it another address; connections of the old one are not told.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn move_to(&mut self, address: Ipv4Addr) -> Result<()> {
        self.namespace.ip("address flush dev eth0")?;
        self.namespace.ip(&format!("address add {address}/24 dev eth0"))?;
        self.address = address;
        Ok(())
    }

    /// What `/etc/hosts` is from now on for commands on this host, those that run included if
    /// they were started after the first call: `names` are pairs of a name and its address.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_names(&self, names: &[(&str, Ipv4Addr)]) -> Result<()> {
        let lines = names.iter().map(|(name, address)| format!("{address} {name}\n"));
        let text: String = std::iter::once("127.0.0.1 localhost\n".into()).chain(lines).collect();
        if let Some(folder) = self.names.parent() {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        // Written over, never replaced: running commands have this very file mounted.
        fs::write(&self.names, text).with_context(|| format!("write {}", self.names.display()))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(folder) = self.names.parent() {
            let _ = fs::remove_dir_all(folder);
        }
        // The namespace goes, and with it its end of the cable.
        let _ = self.switch.ip(&format!("link del {}", self.port));
    }
}

impl Namespace {
    fn new() -> Result<Namespace> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{number}", std::process::id());
        cache::run(Command::new("ip").args(["netns", "add", &name]))
            .context("network namespaces, and `ip` of iproute2")?;
        Ok(Namespace { name })
    }

    fn ip(&self, what: &str) -> Result<()> {
        let words = what.split(' ');
        cache::run(Command::new("ip").args(["-n", &self.name]).args(words)).map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = cache::run(Command::new("ip").args(["netns", "del", &self.name]));
    }
}

/// Removes what processes left that were killed.
fn remove_leftovers() {
    let Ok(names) = cache::run(Command::new("ip").args(["netns", "list"])) else { return };
    for name in names.lines().filter_map(|line| line.split(' ').next()) {
        let Some(pid) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1)) else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            let _ = cache::run(Command::new("ip").args(["netns", "del", name]));
            let _ = fs::remove_dir_all(Path::new("/etc/netns").join(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    fn at(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, last)
    }

    #[test]
    fn hosts_reach_each_other_and_a_pulled_cable_swallows_without_a_word() {
        let Some(lan) = crate::or_skip(Lan::new()) else { return };
        let (one, mut two) = (lan.host(at(1)).unwrap(), lan.host(at(2)).unwrap());
        let listener = two.run(|| TcpListener::bind((at(2), 7_000))).unwrap().unwrap();
        let connect = |to: Ipv4Addr, time: Duration| {
            one.run(|| TcpStream::connect_timeout(&(to, 7_000).into(), time)).unwrap()
        };
        // A bridge on a busy machine may take a moment; what is swallowed never comes.
        let (patience, moment) = (Duration::from_secs(10), Duration::from_millis(300));
        let stream = connect(at(2), patience).unwrap();
        two.unplug().unwrap();
        assert_eq!(connect(at(2), moment).unwrap_err().kind(), ErrorKind::TimedOut);
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert_eq!((&stream).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        two.move_to(at(3)).unwrap();
        two.plug().unwrap();
        let moved = two.run(|| TcpListener::bind((at(3), 7_000))).unwrap().unwrap();
        connect(at(3), patience).unwrap();
        drop((listener, moved));
        assert_eq!(two.address(), at(3));
    }

    #[test]
    fn names_change_under_a_running_command() {
        let Some(lan) = crate::or_skip(Lan::new()) else { return };
        let host = lan.host(at(1)).unwrap();
        host.set_names(&[("middle.test", at(7))]).unwrap();
        let mut shell = host.command("sh");
        shell.args(["-c", "getent hosts middle.test; echo; read line; getent hosts middle.test"]);
        shell.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let mut said = shell.stdout.take().unwrap();
        let mut first = Vec::new();
        while !first.ends_with(b"\n\n") {
            let mut byte = [0];
            assert_eq!(said.read(&mut byte).unwrap(), 1);
            first.push(byte[0]);
        }
        host.set_names(&[("middle.test", at(8))]).unwrap();
        drop(shell.stdin.take());
        let mut second = String::new();
        said.read_to_string(&mut second).unwrap();
        shell.wait().unwrap();
        let first = String::from_utf8(first).unwrap();
        assert!(first.starts_with("10.99.0.7 "), "{first}");
        assert!(second.starts_with("10.99.0.8 "), "{second}");
    }
}
