//! The real storage binary, following a log behind real sockets.

use std::{ffi::OsStr, fs, net::SocketAddr, path::Path, process::Command};

use forebay_testkit::{Child, http};

use crate::common::{DEADLINE, Served};

/// Starts it on its own folder, without a lake and without a live feed: only the store named in
/// `section`, in TOML.
pub(crate) fn storage(name: &str, folder: &Path, served: &Served, section: &str) -> Child {
    let lake = format!("enabled = false\ndead_letters = {:?}\n", folder.join("dead"));
    start(name, folder, served, &format!("[lake]\n{lake}{section}"), None)
}

/// Starts it with these sections, beside those that are the same for all, and with a fault that was
/// planted for the tests.
pub(crate) fn start(
    name: &str,
    folder: &Path,
    served: &Served,
    sections: &str,
    fault: Option<&str>,
) -> Child {
    let fault = fault.map(|fault| ("FOREBAY_PLANTED_FAULT", OsStr::new(fault)));
    start_with(name, folder, served, sections, fault.as_slice())
}

/// The same with these variables in its environment.
pub(crate) fn start_with(
    name: &str,
    folder: &Path,
    served: &Served,
    sections: &str,
    variables: &[(&str, &OsStr)],
) -> Child {
    fs::create_dir_all(folder).unwrap();
    let config = format!(
        "[[middles]]\nfeed = \"{}\"\nfetch = \"{}\"\n[live]\nenabled = false\n\
         [http]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n{sections}",
        served.publisher.endpoint(),
        served.replay.endpoint(),
    );
    let path = folder.join(format!("{name}.toml"));
    fs::write(&path, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-storage"));
    command.arg("--config").arg(path).envs(variables.iter().copied());
    Child::spawn(name, &mut command, folder).unwrap()
}

/// What one of its metrics without labels is now.
pub(crate) fn metric(process: &mut Child, name: &str) -> u64 {
    process.wait_for("storage serves", DEADLINE).unwrap();
    let log = process.log();
    let line = log.lines().find(|line| line.contains("storage serves")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let address: SocketAddr = line["admin"].as_str().unwrap().parse().unwrap();
    let text = http::get(address, "/metrics", DEADLINE).unwrap().good().unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}
