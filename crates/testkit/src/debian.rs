//! Real servers out of Debian packages, unpacked and run without installing and without root.
//!
//! `apt` works on state folders of its own: what it downloads for an install, with dependencies
//! that this machine lacks, is unpacked into a folder. No package script runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::cache;

/// An unpacked package with those of its dependencies that this machine lacks.
#[derive(Debug, Clone)]
pub struct Package {
    root: PathBuf,
}

/// The package of this name, downloaded and unpacked on first use.
///
/// # Errors
/// This is no Debian, or the package cannot be had; see [`crate::or_skip`].
pub fn package(name: &str) -> Result<Package> {
    let release = fs::read_to_string("/etc/os-release").context("no /etc/os-release")?;
    let release = release.lines().find(|line| line.starts_with("VERSION_CODENAME="));
    let release = release.context("this is no Debian: it has no VERSION_CODENAME")?;
    let root = cache::folder("debian", &format!("{release}\n{name}"), |root| fill(name, root))?;
    Ok(Package { root })
}

/// One package of another release of Debian, without its dependencies: for programs that need none.
///
/// # Errors
/// As for [`package`].
pub fn package_of_release(release: &str, name: &str) -> Result<Package> {
    let key = format!("release {release}\n{name}");
    let root = cache::folder("debian", &key, |root| {
        let (state, _lock) = state(&format!("apt-{release}"))?;
        let sources = state.join("sources.list");
        let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let archive = archive_address().context("this machine's Debian archive is not known")?;
        fs::write(&sources, format!("deb [signed-by={keys}] {archive} {release} main\n"))?;
        let apt = |deed: &str| {
            let mut command = apt(&state);
            command.args(["-o", &format!("Dir::Etc::SourceList={}", sources.display())]);
            command.args(["-o", "Dir::Etc::SourceParts=/dev/null", deed]).current_dir(root);
            command
        };
        cache::run(&mut apt("update")).context("apt-get update")?;
        cache::run(apt("download").arg(name)).with_context(|| format!("download of {name}"))?;
        for package in packages_in(root)? {
            cache::run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(root))?;
            fs::remove_file(package)?;
        }
        Ok(())
    })?;
    Ok(Package { root })
}

/// The archive that this machine's own packages come from.
fn archive_address() -> Option<String> {
    let deb822 = fs::read_to_string("/etc/apt/sources.list.d/debian.sources").unwrap_or_default();
    let classic = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    let of_deb822 = deb822.lines().find_map(|line| line.strip_prefix("URIs:"));
    let of_classic = classic.lines().find_map(|line| {
        line.strip_prefix("deb ")?.split_whitespace().find(|word| word.contains("://"))
    });
    Some(of_deb822.or(of_classic)?.split_whitespace().next()?.to_owned())
}

/// The folder of apt's state of this name, and the lock that keeps it to one apt at a time: the
/// lists and the downloads are shared.
fn state(name: &str) -> Result<(PathBuf, fs::File)> {
    let state = cache::root()?.join(name);
    let lock = cache::lock(&state.with_extension("lock"))?;
    for folder in ["lists/partial", "archives/partial"] {
        fs::create_dir_all(state.join(folder))?;
    }
    Ok((state, lock))
}

fn fill(name: &str, root: &Path) -> Result<()> {
    let (state, _lock) = state("apt")?;
    let archives = state.join("archives");
    clear(&archives)?;
    cache::run(apt(&state).arg("update")).context("apt-get update")?;
    let mut install = apt(&state);
    install.args(["install", "--download-only", "--reinstall", "--no-install-recommends", "-y"]);
    cache::run(install.arg(name)).with_context(|| format!("apt-get download of {name}"))?;
    let downloaded = packages_in(&archives)?;
    if downloaded.is_empty() {
        bail!("apt-get downloaded nothing for {name}");
    }
    for package in &downloaded {
        cache::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(root))?;
    }
    clear(&archives)
}

fn apt(state: &Path) -> Command {
    let mut command = Command::new("apt-get");
    let mut set = |key: &str, value: &str| {
        command.args(["-o", &format!("{key}={value}")]);
    };
    let path = |below: &str| state.join(below).display().to_string();
    set("Dir::State::lists", &path("lists"));
    set("Dir::Cache", &path(""));
    set("Dir::Cache::archives", &path("archives"));
    set("Debug::NoLocking", "true");
    set("APT::Sandbox::User", "");
    set("Acquire::Retries", "2");
    set("Acquire::http::Timeout", "30");
    command.args(["-q", "-q"]).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
    command
}

fn packages_in(archives: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(archives)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "deb") {
            found.push(path);
        }
    }
    Ok(found)
}

fn clear(archives: &Path) -> Result<()> {
    for package in packages_in(archives)? {
        fs::remove_file(package)?;
    }
    Ok(())
}

impl Package {
    /// The folder that stands for `/` of the package.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A program of the package or its dependencies, with their libraries in reach.
    ///
    /// # Errors
    /// There is no such program in the usual folders of programs.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut folders: Vec<_> =
            ["usr/bin", "usr/sbin", "bin", "sbin"].map(|folder| self.root.join(folder)).into();
        // PostgreSQL keeps its programs apart, by version.
        if let Ok(versions) = fs::read_dir(self.root.join("usr/lib/postgresql")) {
            folders.extend(versions.flatten().map(|version| version.path().join("bin")));
        }
        let found = folders.iter().map(|folder| folder.join(program)).find(|path| path.exists());
        let Some(path) = found else { bail!("no {program} below {}", self.root.display()) };
        let mut command = Command::new(path);
        command.env("LD_LIBRARY_PATH", self.libraries());
        Ok(command)
    }

    fn libraries(&self) -> String {
        let mut folders = Vec::new();
        for base in ["usr/lib", "lib"].map(|base| self.root.join(base)) {
            let Ok(below) = fs::read_dir(&base) else { continue };
            let triplets = below.flatten().map(|entry| entry.path());
            folders.extend(triplets.filter(|path| path.to_string_lossy().ends_with("-linux-gnu")));
            folders.push(base);
        }
        let folders: Vec<_> = folders.iter().map(|path| path.display().to_string()).collect();
        folders.join(":")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_debian_runs_with_its_libraries() {
        let Some(package) = crate::or_skip(package("redis-server")) else { return };
        // The server's own program lies in a dependency, redis-tools, and needs further libraries.
        let said = cache::run(package.command("redis-server").unwrap().arg("--version")).unwrap();
        assert!(said.starts_with("Redis server v="), "{said}");
        assert!(package.command("no-such-program").is_err());
    }
}
