//! Mending a damaged ring in place, after a copy of it was made.
//!
//! Intact entries keep their bytes, places and seqs. Over each damaged range goes a head that says
//! up to which seq entries are gone, so that later opens pass over it without an alarm; both
//! checkpoint slots are written again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::directory;
use crate::error::{Error, Result};
use crate::format::{self, HEAD_BYTES, Head};
use crate::tools::{Image, Verdict};

/// What a [`repair`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repaired {
    /// What was damaged.
    pub before: Verdict,
    /// What is damaged still: nothing, unless the medium fails.
    pub after: Verdict,
    /// The copy of the file as it was; `None` if nothing had to be done.
    pub copy: Option<PathBuf>,
}

/// Mends the queue in `dir`; every intact entry is kept, and a copy of the file beside it.
///
/// A torn tail needs no repair: the next open cuts it. What was lost stays lost: it is in the
/// copy, and in the `.bad` files of the opens before.
///
/// # Errors
/// - [`Error::Locked`]: somebody has it open; stop them first.
/// - [`Error::Corrupt`]: both checkpoints are damaged: there is no telling where the ring begins.
/// - [`Error::Io`]: no room for the copy, for one; nothing was changed before the copy is durable.
///
/// ```
/// # use forebay_queue::{Options, Queue, tools};
/// # let dir = tempfile::tempdir().unwrap();
/// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
/// Queue::create(dir.path(), &options)?.close()?;
/// let repaired = tools::repair(dir.path())?;
/// assert!(repaired.before.is_clean() && repaired.copy.is_none());
/// # Ok::<(), forebay_queue::Error>(())
/// ```
pub fn repair(dir: impl AsRef<Path>) -> Result<Repaired> {
    let path = dir.as_ref().join(format::FILE_NAME);
    let file =
        File::options().read(true).write(true).open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::Missing { path: path.clone() },
            _ => Error::io("open", &path, error),
        })?;
    directory::lock(&file, &path)?;
    let wrap = |error| Error::io("repair", &path, error);
    let look = || Image::read(&file, &path, false);
    let image = look()?;
    let before = image.verdict();
    if before.is_clean() {
        return Ok(Repaired { after: before.clone(), before, copy: None });
    }
    let copy = copy_beside(&file, &path).map_err(wrap)?;
    mend(&image, &file).map_err(wrap)?;
    let after = look()?.verdict();
    Ok(Repaired { before, after, copy: Some(copy) })
}

/// Copies the ring file to the first free `ring.damaged-N`, durable on return.
fn copy_beside(file: &File, path: &Path) -> io::Result<PathBuf> {
    for number in 1.. {
        let target = path.with_file_name(format!("{}.damaged-{number}", format::FILE_NAME));
        let made = File::options().write(true).create_new(true).open(&target);
        let copy = match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other?,
        };
        copy.set_permissions(file.metadata()?.permissions())?;
        let len = file.metadata()?.len();
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while at < len {
            let piece = buffer.len().min((len - at) as usize);
            file.read_exact_at(&mut buffer[..piece], at)?;
            copy.write_all_at(&buffer[..piece], at)?;
            at += piece as u64;
        }
        copy.sync_all()?;
        if let Some(dir) = path.parent() {
            File::open(dir)?.sync_all()?;
        }
        return Ok(target);
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn mend(image: &Image, file: &File) -> io::Result<()> {
    let geometry = &image.geometry;
    for damage in &image.scan.damage {
        let mut position = damage.from;
        while position < damage.to {
            let piece = geometry.rest(position).min(damage.to - position);
            if piece >= HEAD_BYTES {
                let head = Head::gap(piece, damage.last).encode(geometry, position);
                file.write_all_at(&head, geometry.offset(position) as u64)?;
            }
            position += piece;
        }
    }
    file.sync_all()?;
    // The damaged or older slot first: at every moment one of the two is whole.
    let mut slot = image.slots.newest.clone();
    for place in [1 - image.slots.place, image.slots.place] {
        slot.generation += 1;
        file.write_all_at(&slot.encode(), geometry.slot_offset(place) as u64)?;
        file.sync_all()?;
    }
    Ok(())
}
