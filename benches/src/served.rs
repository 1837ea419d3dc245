//! A front in a process of its own, so that its memory, its CPU and its descriptors are its own.
//!
//! The process is this program again: a benchmark that serves fronts calls [`serve_if_asked`] first
//! of all.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use forebay_front::Config;
use forebay_ops::Shutdown;
use prometheus::Registry;

use crate::process;

const SERVE: &str = "serve-a-front";

/// A front that runs in a process of its own; killed when dropped.
pub struct Served {
    child: Child,
    address: SocketAddr,
}

/// Runs the front that the arguments name, if they do, until the standard input ends.
///
/// # Errors
/// It does not start.
pub fn serve_if_asked() -> Result<bool> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, word, config, cpu] = &arguments[..] else { return Ok(false) };
    if word != SERVE {
        return Ok(false);
    }
    if let Ok(cpu) = cpu.parse() {
        process::stay_on(cpu)?;
    }
    forebay_ops::logs::init_with(forebay_ops::logs::Format::Text, "error")?;
    let config: Config = serde_json::from_str(config)?;
    let front = forebay_front::start(config, &Registry::new(), &Shutdown::new())?;
    println!("{}", front.addresses().ingest);
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    front.stop();
    Ok(true)
}

impl Served {
    /// Starts a front; with a `cpu`, on that one alone.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(config: &Config, cpu: Option<usize>) -> Result<Self> {
        let cpu = cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string());
        let mut child = Command::new(std::env::current_exe()?)
            .args([SERVE, &serde_json::to_string(config)?, &cpu])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("no standard output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let address = line.trim().parse();
        let served = Self { child, address: address.context("the front did not start")? };
        Ok(served)
    }

    /// Where devices connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU seconds so far.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu_seconds(&self) -> Result<f64> {
        process::cpu_seconds(self.pid())
    }

    /// Private memory in bytes.
    ///
    /// # Errors
    /// It has ended.
    pub fn rss_anon(&self) -> Result<u64> {
        process::rss_anon(self.pid())
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// It fails, or does not end within ten seconds.
    pub fn stop(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let end = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the front ended with {status}");
                return Ok(());
            }
            ensure!(std::time::Instant::now() < end, "the front does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it.
    ///
    /// # Errors
    /// The system refused.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
