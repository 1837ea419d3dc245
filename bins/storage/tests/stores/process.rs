//! The real storage binary, following a log behind real sockets.

use std::{fs, path::Path, process::Command};

use forebay_testkit::Child;

use crate::common::Served;

/// Starts it on its own folder, without a lake and without a live feed: only the store named in
/// `section`, in TOML.
pub(crate) fn storage(name: &str, folder: &Path, served: &Served, section: &str) -> Child {
    fs::create_dir_all(folder).unwrap();
    let config = format!(
        "[[middles]]\nfeed = \"{}\"\nfetch = \"{}\"\n\
         [http]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [lake]\nenabled = false\ndead_letters = \"{}\"\n[live]\nenabled = false\n{section}",
        served.publisher.endpoint(),
        served.replay.endpoint(),
        folder.join("dead").display(),
    );
    let path = folder.join(format!("{name}.toml"));
    fs::write(&path, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-storage"));
    Child::spawn(name, command.arg("--config").arg(path), folder).unwrap()
}
