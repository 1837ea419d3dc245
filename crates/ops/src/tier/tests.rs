//! A tier's process as its supervisor sees it: exit codes, signals, output, and death by panic.
//!
//! Each test starts this test binary again as a child that runs only [`child`], in the role that a
//! variable names. What it cannot show is a release build, where a panic aborts by itself.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::*;
use crate::{Faults, Validate};

const ROLE: &str = "FOREBAY_OPS_TEST_ROLE";

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    depth: u32,
    width: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config { depth: 3, width: 4 }
    }
}

impl Validate for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.check(self.depth > 0, "depth", "must be above 0");
    }
}

/// Not a test: what the children of the tests run.
#[test]
#[ignore = "runs only as the child of another test"]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    // So that a test that waits for an end which does not come fails instead of hanging.
    std::thread::spawn(|| {
        std::thread::sleep(std::time::Duration::from_secs(60));
        std::process::exit(99);
    });
    let file = std::env::var_os("FOREBAY_OPS_TEST_FILE").map(PathBuf::from);
    let args = TierArgs { config: file, print_config: role == "print" };
    let code = run_to_code("forebay-test", &args, |_: Config, _, shutdown| match role.as_str() {
        "drain" => {
            eprintln!("started");
            shutdown.wait();
            Ok(())
        }
        "hang" => {
            eprintln!("started");
            shutdown.wait();
            eprintln!("draining for ever");
            loop {
                std::thread::park();
            }
        }
        "panic in a thread" => {
            let thread = thread::spawn("doomed", || panic!("planted"))?;
            thread.join().map_err(|_| "the panic was survived")?;
            Ok(())
        }
        "panic in a task" => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
            runtime.block_on(async {
                let _ = tokio::spawn(async { panic!("planted") }).await;
            });
            Ok(())
        }
        "fatal" => crate::fatal("the sync failed"),
        "error" => Err("the port is taken".into()),
        other => panic!("no such role: {other}"),
    });
    std::process::exit(i32::from(code));
}

fn start(role: &str, set: &[(&str, &str)]) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tier::tests::child", "--ignored", "--nocapture", "--quiet"]);
    command.env_remove("FOREBAY_LOG").env_remove("RUST_LOG").env("RUST_BACKTRACE", "0");
    command.env(ROLE, role).envs(set.iter().copied());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Exit status, stdout and stderr of a child that ends by itself.
fn ended(child: Child) -> (std::process::ExitStatus, String, String) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status, text(output.stdout), text(output.stderr))
}

/// Reads lines until one holds `text`, which the child must say before it ends.
fn until(lines: &mut BufReader<ChildStderr>, text: &str) {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "the child ended without: {text}");
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn the_first_signal_drains_and_ends_with_0() {
    for which in [Signal::TERM, Signal::INT] {
        let mut child = start("drain", &[]);
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        until(&mut lines, "started");
        signal(&child, which);
        until(&mut lines, "draining");
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn the_second_signal_ends_at_once_with_128_and_its_number() {
    let mut child = start("hang", &[]);
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    until(&mut lines, "started");
    signal(&child, Signal::TERM);
    until(&mut lines, "draining for ever");
    signal(&child, Signal::TERM);
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143), "{rest}");
}

#[test]
fn a_faulty_configuration_ends_with_78_and_every_fault() {
    let set = [("FOREBAY__DEPTH", "0"), ("FOREBAY__WIDHT", "1"), ("FOREBAY__WIDTH", "wide")];
    let (status, _, stderr) = ended(start("drain", &set));
    assert_eq!(status.code(), Some(78));
    for line in ["3 faults", "depth: must be", "did you mean `width`", "width: invalid type"] {
        assert!(stderr.contains(line), "{line} is not in {stderr}");
    }
}

#[test]
fn a_file_that_is_not_there_ends_with_78() {
    let (status, _, stderr) = ended(start("drain", &[("FOREBAY_OPS_TEST_FILE", "no/file.toml")]));
    assert_eq!(status.code(), Some(78));
    assert!(stderr.contains("no/file.toml"), "{stderr}");
}

#[test]
fn print_config_shows_what_is_in_effect_and_ends_with_0() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tier.toml");
    std::fs::write(&file, "depth = 9\n").unwrap();
    let set = [("FOREBAY_OPS_TEST_FILE", file.to_str().unwrap())];
    let (status, stdout, _) = ended(start("print", &set));
    assert_eq!(status.code(), Some(0));
    assert!(stdout.contains("depth = 9\nwidth = 4\n"), "{stdout}");
}

#[test]
fn a_panic_in_a_named_thread_or_a_task_ends_the_process() {
    for role in ["panic in a thread", "panic in a task"] {
        let (status, _, stderr) = ended(start(role, &[]));
        assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{role}: {stderr}");
        assert!(stderr.contains("planted"), "{stderr}");
    }
}

#[test]
fn a_fatal_error_and_an_error_of_the_tier_end_with_1_and_say_why() {
    for (role, reason) in [("fatal", "the sync failed"), ("error", "the port is taken")] {
        let (status, _, stderr) = ended(start(role, &[]));
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(reason), "{stderr}");
    }
}

#[test]
fn logs_are_one_json_object_a_line_where_there_is_no_terminal() {
    let (_, _, stderr) = ended(start("error", &[]));
    let line = stderr.lines().find(|line| line.contains("the port is taken")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["level"], "ERROR");
    assert_eq!(line["message"], "ended by an error");
    assert_eq!(line["tier"], "forebay-test");
}

#[test]
fn a_wrong_log_filter_ends_with_78() {
    let (status, _, stderr) = ended(start("drain", &[("FOREBAY_LOG", "forebay=loudest")]));
    assert_eq!(status.code(), Some(78));
    assert!(stderr.contains("FOREBAY_LOG"), "{stderr}");
}

#[test]
fn the_command_line_takes_its_options_and_refuses_others_with_78() {
    let parse = |line: &[&str]| {
        let line = std::iter::once("forebay-test").chain(line.iter().copied());
        parse("forebay-test", "1.2.3", "A test", line.map(OsString::from))
    };
    let args = parse(&["--config", "tier.toml", "--print-config"]).unwrap();
    assert_eq!(args.config.as_deref(), Some(Path::new("tier.toml")));
    assert!(args.print_config);
    assert_eq!(parse(&["--version"]).unwrap_err(), 0);
    assert_eq!(parse(&["--help"]).unwrap_err(), 0);
    assert_eq!(parse(&["--confg", "x"]).unwrap_err(), 78);
}
