//! A file system of a test's own: an image in a file, mounted through a loop device. Root only.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::{cache, sys};

/// Which file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filesystem {
    /// ext4, from 8 MiB on.
    Ext4,
    /// XFS, from 300 MiB on.
    Xfs,
}

/// A mounted image; unmounted and removed when dropped.
#[derive(Debug)]
pub struct LoopMount {
    mounted: bool,
    image: PathBuf,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl LoopMount {
    /// Makes and mounts a file system of `bytes`.
    ///
    /// # Errors
    /// Not root, no loop devices, or no `mkfs` for it; see [`crate::or_skip`].
    pub fn new(filesystem: Filesystem, bytes: u64) -> Result<LoopMount> {
        ensure!(rustix::process::geteuid().is_root(), "only root can mount");
        let folder = tempfile::tempdir()?;
        let (image, path) = (folder.path().join("image"), folder.path().join("mount"));
        File::create(&image)?.set_len(bytes)?;
        std::fs::create_dir(&path)?;
        let mut make = match filesystem {
            Filesystem::Ext4 => Command::new("mkfs.ext4"),
            Filesystem::Xfs => Command::new("mkfs.xfs"),
        };
        cache::run(make.arg("-q").arg(&image))?;
        let mut mount = LoopMount { mounted: false, image, path, _folder: folder };
        mount.mount()?;
        Ok(mount)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Mounts it again after [`LoopMount::unmount`]; the journal is replayed.
    ///
    /// # Errors
    /// `mount` failed.
    pub fn mount(&mut self) -> Result<()> {
        cache::run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.path))?;
        self.mounted = true;
        Ok(())
    }

    /// Unmounts it; every file on it must be closed.
    ///
    /// # Errors
    /// `umount` failed, and for five seconds: a process that another thread starts holds a copy of
    /// our open files until it executes its program, so that "busy" may pass.
    pub fn unmount(&mut self) -> Result<()> {
        let started = Instant::now();
        while self.mounted {
            match cache::run(Command::new("umount").arg(&self.path)) {
                Ok(_) => self.mounted = false,
                Err(error) if started.elapsed() > Duration::from_secs(5) => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        Ok(())
    }

    /// Cuts it off as a power cut would: nothing that was not synced survives.
    ///
    /// All later calls on its files fail until it is unmounted and mounted again.
    ///
    /// # Errors
    /// The file system refused.
    pub fn cut(&self) -> Result<()> {
        let folder = File::open(&self.path).context("open the mount")?;
        sys::shut_down_filesystem(&folder).context("FS_IOC_SHUTDOWN")
    }
}

impl Drop for LoopMount {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily, so that a file left open by a failed test does not keep the mount.
            let _ = Command::new("umount").arg("-l").arg(&self.path).status();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    fn survives_a_cut_only_if_synced(filesystem: Filesystem, bytes: u64) {
        let Some(mut mount) = crate::or_skip(LoopMount::new(filesystem, bytes)) else { return };
        let (synced, unsynced) = (mount.path().join("synced"), mount.path().join("unsynced"));
        let mut file = File::create(&synced).unwrap();
        file.write_all(b"safe").unwrap();
        file.sync_all().unwrap();
        File::open(mount.path()).unwrap().sync_all().unwrap();
        fs::write(&unsynced, b"not safe").unwrap();
        mount.cut().unwrap();
        assert!(file.write_all(b"late").and_then(|()| file.sync_all()).is_err());
        drop(file);
        mount.unmount().unwrap();
        mount.mount().unwrap();
        assert_eq!(fs::read(&synced).unwrap(), b"safe");
        assert_ne!(fs::read(&unsynced).unwrap_or_default(), b"not safe");
    }

    #[test]
    fn on_ext4_only_what_was_synced_survives_a_cut() {
        survives_a_cut_only_if_synced(Filesystem::Ext4, 32 << 20);
    }

    #[test]
    fn on_xfs_only_what_was_synced_survives_a_cut() {
        survives_a_cut_only_if_synced(Filesystem::Xfs, 320 << 20);
    }

    #[test]
    fn a_dropped_mount_is_gone() {
        let Some(mount) = crate::or_skip(LoopMount::new(Filesystem::Ext4, 16 << 20)) else {
            return;
        };
        let path = mount.path().display().to_string();
        let mounted = || fs::read_to_string("/proc/mounts").unwrap().contains(&path);
        assert!(mounted());
        drop(mount);
        assert!(!mounted());
    }
}
