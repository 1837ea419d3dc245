//! The thread that keeps the last values on disk, every so often and at the end.

use std::{io, path::PathBuf, sync::Arc, thread::JoinHandle, time::Duration};

use forebay_ops::{Shutdown, thread};

use super::{LastValues, Snapshot, SnapshotError};

/// Takes snapshots until it is ended. It ends soon after this is dropped; [`Self::stop`] waits for it.
#[derive(Debug)]
pub struct Keeper {
    end: Shutdown,
    thread: Option<JoinHandle<()>>,
}

/// Fills last values from a snapshot, if there is one that is of use.
///
/// # Errors
/// [`SnapshotError::Io`]: it is there and cannot be read.
pub fn restore(last: &LastValues, path: &std::path::Path) -> Result<(), SnapshotError> {
    match Snapshot::read(path) {
        Ok(None) => Ok(()),
        Ok(Some(snapshot)) => {
            tracing::info!(path = %path.display(), values = snapshot.values.len(), "last values restored");
            last.restore(&snapshot);
            Ok(())
        }
        Err(error @ SnapshotError::Damaged { .. }) => {
            // They are made again from the lake and the feed.
            tracing::warn!(%error, "starting without the snapshot of last values");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gave none.
    pub fn start(last: Arc<LastValues>, path: PathBuf, every: Duration) -> io::Result<Self> {
        let end = Shutdown::new();
        let ended = end.clone();
        let thread = thread::spawn("last-snapshot", move || {
            let mut kept = Snapshot::default().positions;
            loop {
                let ending = ended.wait_timeout(every);
                let snapshot = last.snapshot();
                // Nothing came since: what is kept is still right.
                if snapshot.positions != kept {
                    match snapshot.write(&path) {
                        Ok(()) => kept = snapshot.positions,
                        Err(error) => tracing::warn!(%error, "last values are not kept on disk"),
                    }
                }
                if ending {
                    return;
                }
            }
        })?;
        Ok(Self { end, thread: Some(thread) })
    }

    /// Takes a last snapshot and ends the thread.
    pub fn stop(mut self) {
        self.begin_stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn begin_stop(&self) {
        self.end.begin("the keeper of last values ends");
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.begin_stop();
    }
}
