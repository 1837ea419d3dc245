//! Whichever system call fails, a queue says so, and nothing acknowledged is lost.
//!
//! Method: a child makes a queue, appends, syncs, reads, commits, closes, opens it again; under ptrace the parent lets the nth call of its thread fail, for every n until
//! none is left, each with an error that the call may give. Then the parent opens what is there.
//! The child may end with an error; it may not panic, and not acknowledge what is not there.
//!
//! Left out: calls of the allocator and of threads (without memory or threads a Rust process ends),
//! and those that cannot fail. Cannot show: failures in the sync thread (the simulated cuts of the
//! queue have those of `msync`). x86-64 only: elsewhere it skips.
#![cfg(target_arch = "x86_64")]

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use forebay_queue::{Error, Options, Queue, Seq, testing};
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, gettid};

const DIR: &str = "FOREBAY_FAILING_DIR";
const PANICKED: i32 = 101;

/// Number, name, and what it may say, of the calls that are made to fail.
const CALLS: [(u64, &str, Errno); 15] = [
    (1, "write", Errno::EIO),
    (17, "pread64", Errno::EIO),
    (18, "pwrite64", Errno::ENOSPC),
    (26, "msync", Errno::EIO),
    (28, "madvise", Errno::EIO),
    (73, "flock", Errno::EWOULDBLOCK),
    (74, "fsync", Errno::EIO),
    (75, "fdatasync", Errno::EIO),
    (77, "ftruncate", Errno::EIO),
    (83, "mkdir", Errno::ENOSPC),
    (91, "fchmod", Errno::EPERM),
    (257, "openat", Errno::EMFILE),
    (285, "fallocate", Errno::ENOSPC),
    (316, "renameat2", Errno::EIO),
    (332, "statx", Errno::EIO),
];

fn options() -> Options {
    Options {
        capacity_bytes: 16 << 10,
        entry_bytes_max: 1024,
        any_filesystem: true,
        ..Options::default()
    }
}

/// The child: lives one life of a queue, and says what it was promised.
#[test]
#[ignore = "the child process of the tests here"]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let dir = Path::new(&dir);
    let mut said = OpenOptions::new().append(true).open(dir.join("said")).expect("made");
    // Traced before it is named: nobody may wait for a thread of another process that he does not trace.
    ptrace::traceme().expect("nobody else traces us");
    std::fs::write(dir.join("thread"), gettid().to_string()).expect("room");
    raise(Signal::SIGSTOP).expect("a signal to ourselves");
    let lived = live(&dir.join("queue"), &mut said);
    raise(Signal::SIGSTOP).expect("a signal to ourselves");
    if let Err(error) = lived {
        assert!(!error.to_string().is_empty());
    }
}

fn live(dir: &Path, said: &mut File) -> Result<(), Error> {
    Queue::create(dir, &options())?.close()?;
    let mut number = 0u8;
    for _ in 0..2 {
        let queue = testing::open_dir(dir, &options(), &[])?;
        let mut reader = queue.reader("r")?;
        for _ in 0..6 {
            number += 1;
            let seq = queue.append(0, &[number; 300])?;
            queue.wait_durable(seq, Duration::from_secs(5))?;
            // Told in one byte; a failing write tells nothing, and that is no promise either.
            let _ = said.write_all(&[number]);
        }
        let last = reader.peek(2, 1 << 20)?.last();
        reader.commit_durable(last.unwrap_or(Seq::NONE), Some(&[number]))?;
        testing::finish(&queue)?;
    }
    Ok(())
}

/// Lets the `nth` call fail; says which it was and how the child ended, or `None` if it made fewer.
fn fail(nth: u64, dir: &Path) -> Option<(&'static str, i32)> {
    File::create(dir.join("said")).expect("a file");
    let mut child = Command::new(std::env::current_exe().expect("this test"));
    child.args(["child", "--exact", "--ignored"]).env(DIR, dir);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    let thread = traced_thread(&dir.join("thread"));
    // Not the child's first thread: a test runs on a thread of its own.
    let wait = || waitpid(thread, Some(WaitPidFlag::__WALL)).expect("our child's thread");
    assert_eq!(wait(), WaitStatus::Stopped(thread, Signal::SIGSTOP), "stops before it works");
    ptrace::setoptions(
        thread,
        ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL,
    )
    .expect("stopped");
    let (mut seen, mut failed, mut entering) = (0, None, true);
    let mut signal = None;
    loop {
        ptrace::syscall(thread, signal.take()).expect("stopped");
        match wait() {
            WaitStatus::PtraceSyscall(_) => {
                let mut registers = ptrace::getregs(thread).expect("stopped");
                if entering {
                    let call = CALLS.iter().find(|call| call.0 == registers.orig_rax);
                    seen += u64::from(call.is_some());
                    if let Some(call) = call
                        && seen == nth
                        && failed.is_none()
                    {
                        failed = Some(*call);
                        // No such call: the kernel does nothing.
                        registers.orig_rax = u64::MAX;
                        ptrace::setregs(thread, registers).expect("stopped");
                    }
                } else if let Some((_, _, errno)) = failed
                    && registers.orig_rax == u64::MAX
                {
                    registers.rax = (-(errno as i64)) as u64;
                    ptrace::setregs(thread, registers).expect("stopped");
                }
                entering = !entering;
            }
            // Its work is done: what comes now is the harness.
            WaitStatus::Stopped(_, Signal::SIGSTOP) => {
                ptrace::detach(thread, None).expect("stopped");
                break;
            }
            WaitStatus::Stopped(_, other) => signal = Some(other),
            ended => panic!("call {nth}, {failed:?}: {ended:?}"),
        }
    }
    let status = child.wait().expect("ours");
    failed.map(|(_, name, _)| (name, status.code().unwrap_or(-1)))
}

/// The thread of the child that runs the work, once it has said which it is.
fn traced_thread(path: &Path) -> Pid {
    let started = Instant::now();
    loop {
        let said = std::fs::read_to_string(path).ok().and_then(|text| text.parse().ok());
        if let Some(thread) = said {
            return Pid::from_raw(thread);
        }
        assert!(started.elapsed() < Duration::from_secs(20), "the child does not come up");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn whichever_call_fails_the_queue_says_so_and_keeps_what_it_acknowledged() {
    let mut names = std::collections::BTreeMap::<_, u32>::new();
    for nth in 1.. {
        let home = tempfile::tempdir().expect("directory");
        let Some((name, code)) = fail(nth, home.path()) else { break };
        assert_eq!(code, 0, "call {nth}, {name}: the child panicked ({PANICKED}) or died");
        *names.entry(name).or_default() += 1;
        let mut said = Vec::new();
        File::open(home.path().join("said")).expect("made").read_to_end(&mut said).expect("read");
        let queue = match Queue::open(home.path().join("queue"), &options()) {
            Err(Error::Missing { .. }) if said.is_empty() => continue,
            other => other.unwrap_or_else(|error| panic!("call {nth}, {name}: {error}")),
        };
        assert_eq!(queue.recovery().corrupt_ranges, 0, "call {nth}, {name}");
        let mut tail = queue.tail(Some(Seq::NONE));
        let batch = tail.read(100, 1 << 20).expect("open");
        let stored: Vec<u8> = batch.iter().map(|entry| entry.payload[0]).collect();
        // Two of each six may have been committed; one number may not have been told.
        let committed = said.last().map_or(0, |last| (last + 1) / 6 * 2);
        let owed = said.iter().filter(|number| **number > committed);
        let missing: Vec<_> = owed.filter(|number| !stored.contains(number)).collect();
        assert!(missing.is_empty(), "call {nth}, {name}: {missing:?} acknowledged, not there");
    }
    println!("made to fail: {names:?}");
    let least = [
        "fallocate",
        "fdatasync",
        "flock",
        "fsync",
        "madvise",
        "msync",
        "openat",
        "pwrite64",
        "renameat2",
    ];
    for name in least {
        assert!(names.contains_key(name), "{name} was never made to fail");
    }
}
