//! JavaScript peers with packages from npm.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cache;

/// A folder with packages from npm.
#[derive(Debug, Clone)]
pub struct Packages {
    folder: PathBuf,
}

/// The folder that holds these packages (`"ws@8.18.3"`), filled on first use.
///
/// The packages' install scripts are not run.
///
/// # Errors
/// There is no `node` or `npm`, or a package cannot be had; see [`crate::or_skip`].
pub fn packages(packages: &[&str]) -> Result<Packages> {
    let version = cache::run(Command::new("node").arg("--version")).context("no node")?;
    let key = format!("{}\n{}", version.trim(), packages.join("\n"));
    let folder = cache::folder("node", &key, |folder| {
        let mut npm = Command::new("npm");
        npm.args([
            "install",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--silent",
            "--prefix",
        ]);
        cache::run(npm.arg(folder).args(packages)).context("npm")?;
        Ok(())
    })?;
    Ok(Packages { folder })
}

impl Packages {
    /// `node` with these packages in reach of `require`, ready for arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new("node");
        command.env("NODE_PATH", self.modules());
        command
    }

    /// The folder `node_modules`; what is imported from a file must lie beside it.
    pub fn modules(&self) -> PathBuf {
        self.folder.join("node_modules")
    }

    /// The folder of one package, for those that carry a program or a library.
    pub fn package(&self, name: &str) -> PathBuf {
        self.modules().join(Path::new(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_from_npm_can_be_required() {
        let Some(packages) = crate::or_skip(packages(&["ws@8.18.3"])) else { return };
        let mut node = packages.command();
        node.args(["-e", "console.log(require('ws/package.json').version)"]);
        assert_eq!(cache::run(&mut node).unwrap().trim(), "8.18.3");
        assert!(packages.package("ws").join("index.js").exists());
    }
}
