//! Where a demo keeps its queues and its lake, and what that place can promise.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use forebay_queue::{Error, Queue};

use super::options::Durability;

/// The folder of a demo.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// Made for this run, so that a clean end removes it.
    ours: bool,
}

impl Place {
    /// Takes the given folder, or makes a new one below the current folder, or else below the
    /// system's folder for temporary files.
    pub(super) fn new(given: Option<&Path>) -> Result<Self> {
        if let Some(path) = given {
            std::fs::create_dir_all(path)
                .with_context(|| format!("cannot make {}", path.display()))?;
            return Ok(Self { path: absolute(path)?, ours: false });
        }
        let name = format!("demo-{}", std::process::id());
        let here = Path::new("forebay-data").join(&name);
        let elsewhere = std::env::temp_dir().join(format!("forebay-{name}"));
        let path = match std::fs::create_dir_all(&here) {
            Ok(()) => here,
            Err(_) => {
                std::fs::create_dir_all(&elsewhere)
                    .with_context(|| format!("cannot make {}", elsewhere.display()))?;
                elsewhere
            }
        };
        Ok(Self { path: absolute(&path)?, ours: true })
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes a folder made for this run; a given one stays.
    pub(super) fn remove(self) {
        if self.ours {
            let _ = std::fs::remove_dir_all(&self.path);
            // And the folder above, if that was made for this run and nothing else is in it.
            if let Some(above) = self.path.parent().filter(|above| above.ends_with("forebay-data"))
            {
                let _ = std::fs::remove_dir(above);
            }
        }
    }

    /// Why acks of level `disk` are impossible here, if they are: asked of the queue itself.
    pub(super) fn refuses_disk(&self) -> Result<Option<String>> {
        let probe = self.path.join("durability-probe");
        let options = forebay_queue::Options {
            capacity_bytes: 256 << 10,
            durability: forebay_queue::Durability::Disk,
            ..forebay_queue::Options::default()
        };
        let tried = Queue::open_or_create(&probe, &options).and_then(Queue::close);
        let _ = std::fs::remove_dir_all(&probe);
        match tried {
            Ok(()) => Ok(None),
            Err(error @ Error::Filesystem { .. }) => Ok(Some(error.to_string())),
            Err(error) => Err(error).context("cannot make a queue"),
        }
    }

    /// The level this place can keep: the wanted one, or `process` with a loud word about why.
    pub(super) fn durability(&self, wanted: Durability) -> Result<(Durability, Option<String>)> {
        if wanted == Durability::Process {
            return Ok((wanted, None));
        }
        Ok(match self.refuses_disk()? {
            None => (Durability::Disk, None),
            Some(why) => (
                Durability::Process,
                Some(format!(
                    "WARNING: durability `disk` is impossible here: {why}\n\
                     WARNING: running with durability `process`: acknowledged messages survive \
                     kill -9, but not a power cut. Choose a folder on ext4 or XFS with --dir."
                )),
            ),
        })
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().with_context(|| format!("cannot find {}", path.display()))
}
