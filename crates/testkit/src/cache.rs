//! Folders that are costly to fill and are filled once, whichever test process comes first.
//!
//! Each lies under `$XDG_CACHE_HOME/forebay-testkit`, is named by what it holds, is guarded by a
//! file lock while it is filled, and counts only once its mark says that it is complete.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The folder of this kind and key, filled by `fill` if it is not there yet.
///
/// `fill` gets the empty folder under its final name, as some contents cannot be moved.
pub(crate) fn folder(
    kind: &str,
    key: &str,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let root = root()?;
    let name = format!("{kind}-{:016x}", fnv1a(key.as_bytes()));
    let (folder, mark) = (root.join(&name), root.join(format!("{name}.complete")));
    let lock = lock(&root.join(format!("{name}.lock")))?;
    if fs::read_to_string(&mark).is_ok_and(|found| found == key) {
        return Ok(folder);
    }
    // Left over by a process that was killed, or of another key with the same hash.
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    fill(&folder)?;
    fs::write(&mark, key).with_context(|| format!("write {}", mark.display()))?;
    drop(lock);
    Ok(folder)
}

/// The root of all folders.
pub(crate) fn root() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let root = cache.or_else(home).context("neither XDG_CACHE_HOME nor HOME is set")?;
    let root = root.join("forebay-testkit");
    fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    Ok(root)
}

/// Waits for the lock of this file; it is held until the result is dropped or the process dies.
pub(crate) fn lock(path: &Path) -> Result<File> {
    let file = open(path)?;
    file.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

/// The lock of this file, or `None` if somebody has it.
pub(crate) fn try_lock(path: &Path) -> Result<Option<File>> {
    let file = open(path)?;
    Ok(file.try_lock().is_ok().then_some(file))
}

fn open(path: &Path) -> Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}

/// Runs a command to its end; the error shows the end of what it said.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    let tail = lines[lines.len().saturating_sub(8)..].join("; ");
    bail!("{command:?}: {}: {tail}", output.status)
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_folder_is_filled_once_whoever_comes_and_again_after_a_failure() {
        let key = format!("test of process {}", std::process::id());
        assert!(folder("test", &key, |_| bail!("planted")).is_err());
        let filled = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let folder = folder("test", &key, |folder| {
                        filled.fetch_add(1, Ordering::SeqCst);
                        Ok(fs::write(folder.join("content"), "x")?)
                    });
                    assert!(folder.unwrap().join("content").exists());
                });
            }
        });
        assert_eq!(filled.load(Ordering::SeqCst), 1);
        let folder = folder("test", &key, |_| bail!("it is there")).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        for end in ["complete", "lock"] {
            fs::remove_file(folder.with_extension(end)).unwrap();
        }
    }

    #[test]
    fn a_failed_command_shows_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo no such thing; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("no such thing"), "{error}");
    }
}
