//! One tier as a process of its own: started, killed, started again, ended.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use forebay_ops::config;
use rustix::process::{Pid, Signal, kill_process};

/// How often a child that was asked to end is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A tier's process. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process {
    /// What it is called in words.
    pub(crate) name: String,
    /// The executable.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) arguments: Vec<OsString>,
    /// Where its log goes; appended to at each start.
    pub(crate) log: PathBuf,
    /// The process, while there is one.
    pub(crate) child: Option<Child>,
}

impl Process {
    /// Starts it, unless it runs.
    ///
    /// What it is to do stands in its arguments and its configuration file alone: settings in our
    /// own environment may be meant for another kind of process.
    ///
    /// It gets a process group of its own: Ctrl-C on a terminal is for whoever started it.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(config::PREFIX.as_bytes()) {
                command.env_remove(name);
            }
        }
        let child = command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Kills it with SIGKILL and waits until it is gone. False if it did not run.
    pub(crate) fn kill(&mut self) -> io::Result<bool> {
        let Some(mut child) = self.child.take() else { return Ok(false) };
        child.kill()?;
        child.wait()?;
        Ok(true)
    }

    /// How it ended, if it ended by itself.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Asks it to end with SIGTERM and waits so long; `None` if it had to be killed.
    pub(crate) fn terminate(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let Some(child) = &self.child else { return Ok(None) };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended already.
            let _ = kill_process(pid, Signal::TERM);
        }
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.kill()?;
        Ok(None)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
