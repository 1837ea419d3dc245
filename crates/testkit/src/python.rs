//! Python peers in a virtual environment of their own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cache;

/// A virtual environment with packages from PyPI.
#[derive(Debug, Clone)]
pub struct Venv {
    folder: PathBuf,
}

/// The environment that holds these packages (`"pyzmq==27.1.0"`), made on first use.
///
/// # Errors
/// There is no `python3`, or a package cannot be had; see [`crate::or_skip`].
pub fn venv(packages: &[&str]) -> Result<Venv> {
    let version = cache::run(Command::new("python3").arg("--version")).context("no python3")?;
    let key = format!("{}\n{}", version.trim(), packages.join("\n"));
    let folder = cache::folder("python", &key, |folder| {
        cache::run(Command::new("python3").args(["-m", "venv"]).arg(folder))
            .context("python3 cannot make a virtual environment")?;
        if !packages.is_empty() {
            let mut pip = Command::new(folder.join("bin/python"));
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
            cache::run(pip.args(packages)).context("PyPI")?;
        }
        Ok(())
    })?;
    Ok(Venv { folder })
}

impl Venv {
    /// Its interpreter, ready for arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.folder.join("bin/python"));
        // A test wants to see a line when it is written.
        command.env("PYTHONUNBUFFERED", "1");
        command
    }

    /// A program that one of the packages brings, ready for arguments.
    pub fn program(&self, name: &str) -> Command {
        Command::new(self.folder.join("bin").join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_from_pypi_can_be_imported() {
        let Some(venv) = crate::or_skip(venv(&["websockets==15.0.1"])) else { return };
        let mut python = venv.command();
        python.args(["-c", "import websockets; print(websockets.__version__)"]);
        assert_eq!(cache::run(&mut python).unwrap().trim(), "15.0.1");
    }
}
