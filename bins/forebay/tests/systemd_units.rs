//! The units in bins/systemd are what systemd takes, and fit what the program does.
//!
//! `systemd-analyze verify` ends with 0 on keys that it does not know: its stderr is what counts.
//! Cannot show: a service that runs; what Forebay tells systemd is proven in `shutdown.rs`.
#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::{fs, path::PathBuf, process::Command};

fn units() -> Vec<(PathBuf, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../systemd");
    let mut units: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    units.sort();
    units.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The value of the only line with this key.
fn value<'a>(unit: &'a str, key: &str) -> &'a str {
    let values: Vec<&str> =
        unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect();
    assert_eq!(values.len(), 1, "{key}: {values:?}");
    values[0]
}

#[test]
fn systemd_has_nothing_to_say_about_the_units() {
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        return forebay_testkit::skip("systemd-analyze is not installed");
    };
    assert!(version.status.success());
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in units() {
        // It looks for the program too, which is this build's.
        let text = text.replace("/usr/bin/forebay", env!("CARGO_BIN_EXE_forebay"));
        let copy = dir.path().join(path.file_name().unwrap());
        fs::write(&copy, text).unwrap();
        let verified = Command::new("systemd-analyze").arg("verify").arg(&copy).output().unwrap();
        let said = String::from_utf8_lossy(&verified.stderr);
        let about_us: Vec<&str> = said.lines().filter(|line| line.contains("forebay")).collect();
        assert!(about_us.is_empty(), "{}: {said}", path.display());
        assert!(verified.status.success(), "{}: {said}", path.display());
    }
}

#[test]
fn a_key_that_systemd_does_not_know_is_seen() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return forebay_testkit::skip("systemd-analyze is not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("forebay-wrong.service");
    let program = env!("CARGO_BIN_EXE_forebay");
    fs::write(&unit, format!("[Service]\nExecStart={program} front\nProtectSytem=strict\n"))
        .unwrap();
    let verified = Command::new("systemd-analyze").arg("verify").arg(&unit).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(said.lines().any(|line| line.contains("ProtectSytem")), "{said}");
}

#[test]
fn a_unit_waits_longer_than_the_tier_takes_to_end_and_starts_a_command_that_exists() {
    let timeout = forebay_ops::drain::ShutdownSettings::default().timeout.get().as_secs();
    let units = units();
    assert_eq!(units.len(), 4);
    for (path, unit) in units {
        let stop: u64 = value(&unit, "TimeoutStopSec").parse().unwrap();
        assert_eq!(stop, timeout + 5, "{}", path.display());
        assert_eq!(value(&unit, "Type"), "notify");
        let restarts_not_on = value(&unit, "RestartPreventExitStatus");
        assert_eq!(restarts_not_on, forebay_ops::EXIT_CONFIG.to_string());
        let mut command = value(&unit, "ExecStart").split(' ');
        assert_eq!(command.next(), Some("/usr/bin/forebay"));
        let mut help = Command::new(env!("CARGO_BIN_EXE_forebay"));
        let help = help.args(command.next()).arg("--help").output().unwrap();
        assert!(help.status.success(), "{help:?}");
        assert!(String::from_utf8_lossy(&help.stdout).contains("--config"), "{help:?}");
    }
}
