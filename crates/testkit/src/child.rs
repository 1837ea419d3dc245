//! A process under test: started, watched, killed, and never left behind.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How much of the log is shown when a test fails.
const TAIL_LINES: usize = 40;

/// Between two looks at a process that is to end.
const PAUSE: Duration = Duration::from_millis(5);

/// Longest wait for a process to notice that it is stopped.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);

/// A running process whose stdout and stderr go to a file.
///
/// Dropped, it is killed by its pid; if the test is failing then, the end of its log is printed.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: std::process::Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Child {
    /// Starts `command`; its output is added to `NAME.log` in `folder`, so that the log of one that
    /// is started again goes on.
    ///
    /// # Errors
    /// The log cannot be opened or the program cannot be started.
    pub fn spawn(name: &str, command: &mut Command, folder: &Path) -> Result<Child> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("open {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let process = command.spawn().with_context(|| format!("start {command:?}"))?;
        Ok(Child { name: name.to_owned(), process, log, ended: None })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// All that it has said so far.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until it has said `text`.
    ///
    /// # Errors
    /// It ended before, or `deadline` passed; the error shows the end of its log.
    pub fn wait_for(&mut self, text: &str, deadline: Duration) -> Result<()> {
        let end = Instant::now() + deadline;
        loop {
            // In this order: what it said last before it ended counts.
            let ended = self.ended()?;
            if self.log().contains(text) {
                return Ok(());
            }
            if let Some(status) = ended {
                bail!("{} ended ({status}) without `{text}`:\n{}", self.name, self.tail());
            }
            if Instant::now() >= end {
                bail!("{} did not say `{text}` in {deadline:?}:\n{}", self.name, self.tail());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Its exit status if it has ended.
    ///
    /// # Errors
    /// The system does not know the process.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.process.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Sends a signal; nothing happens if it has ended.
    ///
    /// # Errors
    /// The system refused.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // Not yet waited for, so the pid is still its own.
        if self.ended()?.is_none() {
            kill_process(Pid::from_child(&self.process), signal)?;
        }
        Ok(())
    }

    /// Lets it hang (SIGSTOP) until [`Self::resume`]; on return it does nothing any more.
    ///
    /// # Errors
    /// The system refused.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::STOP)?;
        wait_until_stopped(self.pid());
        Ok(())
    }

    /// Ends a [`Self::pause`].
    ///
    /// # Errors
    /// The system refused.
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills it as a power cut of the process would (SIGKILL), and waits until it is gone.
    ///
    /// # Errors
    /// The system refused.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        let status = self.process.wait()?;
        self.ended = Some(status);
        Ok(status)
    }

    /// Asks it to end (SIGTERM) and waits for that.
    ///
    /// # Errors
    /// It did not end within `deadline`: it is killed, and the error shows the end of its log.
    pub fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(deadline)
    }

    /// Waits for its end, which something else brings about.
    ///
    /// # Errors
    /// As for [`Child::terminate`].
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                self.kill()?;
                bail!("{} did not end in {deadline:?}:\n{}", self.name, self.tail());
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.kill();
        if std::thread::panicking() {
            let tail = self.tail();
            let _ =
                writeln!(std::io::stderr(), "--- end of the log of {}:\n{tail}\n---", self.name);
        }
    }
}

/// Waits, not for ever, until every thread of a process that was sent SIGSTOP has stopped: on a busy
/// machine each goes on until it is its turn to notice.
pub(crate) fn wait_until_stopped(pid: u32) {
    let end = Instant::now() + STOP_TIME_MAX;
    let is_stopped = |thread: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // After the name, which may hold anything.
        stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
    };
    while let Ok(mut threads) = std::fs::read_dir(format!("/proc/{pid}/task")) {
        if threads.all(|thread| thread.is_ok_and(is_stopped)) || Instant::now() > end {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn shell(script: &str, folder: &Path) -> Child {
        let mut child =
            Child::spawn("sh", Command::new("sh").args(["-c", script]), folder).unwrap();
        child.wait_for("started", DEADLINE).unwrap();
        child
    }

    #[test]
    fn sigterm_ends_it_and_its_log_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = shell(
            "trap 'echo ended; exit 7' TERM; echo started; while :; do sleep 0.01; done",
            folder.path(),
        );
        assert!(child.ended().unwrap().is_none());
        assert_eq!(child.terminate(DEADLINE).unwrap().code(), Some(7));
        assert_eq!(child.log(), "started\nended\n");
    }

    #[test]
    fn one_that_ignores_sigterm_is_killed_at_the_deadline_and_its_log_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let mut child =
            shell("trap '' TERM; echo started; while :; do sleep 0.01; done", folder.path());
        let error = child.terminate(Duration::from_millis(50)).unwrap_err().to_string();
        assert!(error.contains("did not end in 50ms:\nstarted"), "{error}");
        assert_eq!(child.ended().unwrap().unwrap().signal(), Some(Signal::KILL.as_raw()));
    }

    #[test]
    fn one_that_ends_early_is_told_apart_from_one_that_is_slow() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = shell("echo started; exit 3", folder.path());
        let error = child.wait_for("ready", DEADLINE).unwrap_err().to_string();
        assert!(error.contains("without `ready`") && error.contains("started"), "{error}");
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let child = shell("echo started; while :; do sleep 0.01; done", folder.path());
        let pid = child.pid();
        drop(child);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
