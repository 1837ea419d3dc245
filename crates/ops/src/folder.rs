//! Folders that a power cut does not take away.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

/// Makes `folder` and what is missing above it, and puts their names on the medium.
///
/// Syncing a file keeps its bytes, and syncing its folder keeps its name; the folder's own name is
/// in the folder above it. Every one up to the root of the file system is synced, not only those
/// made now: a process that was killed here may have made some and not come to this.
///
/// # Errors
/// What the system said. The folder may exist, but nothing in it is safe yet: call it again.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let device = |folder: &Path| fs::metadata(folder).map(|found| found.dev());
    let own_device = device(folder)?;
    for above in folder.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        if device(above)? != own_device {
            break;
        }
        match File::open(above) {
            // One that may not even be listed was not made by us.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            opened => opened?.sync_all()?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_made_and_what_is_there_stays() {
        let place = tempfile::tempdir().expect("temp dir");
        let folder = place.path().join("a/b/c");
        make_folder(&folder).expect("made");
        fs::write(folder.join("kept"), "7").expect("written");
        make_folder(&folder).expect("there already");
        assert_eq!(fs::read(folder.join("kept")).expect("read"), b"7");
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let place = tempfile::tempdir().expect("temp dir");
        fs::write(place.path().join("file"), "").expect("written");
        assert!(make_folder(&place.path().join("file/below")).is_err());
    }
}
