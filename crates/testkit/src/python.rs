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

/// As [`venv`], in Python 2.7, for programs that nobody carries over; `python2.7` must be in the
/// path, or be one of pyenv's.
///
/// # Errors
/// As for [`venv`].
pub fn venv_of_python_2(packages: &[&str]) -> Result<Venv> {
    let pyenv = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pyenv/versions"));
    let versions = pyenv.and_then(|folder| std::fs::read_dir(folder).ok());
    let versions = versions.into_iter().flatten().flatten().map(|version| version.path());
    let mut of_pyenv = versions.map(|version| version.join("bin/python2.7"));
    let python = of_pyenv.find(|path| path.exists());
    let python = python.unwrap_or_else(|| "python2.7".into());
    // Python 2 says its version on the standard error.
    cache::run(Command::new(&python).arg("--version")).context("no python2.7")?;
    let key = format!("Python 2.7\n{}", packages.join("\n"));
    let folder = cache::folder("python", &key, |folder| {
        let maker = folder.join("maker");
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--target"]).arg(&maker);
        cache::run(pip.arg("virtualenv==20.15.1")).context("PyPI")?;
        let mut make = Command::new(&python);
        make.env("PYTHONPATH", &maker).args(["-m", "virtualenv", "--quiet"]).arg(folder);
        cache::run(&mut make).context("virtualenv")?;
        let mut pip = Command::new(folder.join("bin/python"));
        cache::run(pip.args(["-m", "pip", "install", "--quiet"]).args(packages)).context("PyPI")?;
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
