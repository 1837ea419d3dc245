//! Emptying a queue through one of its readers.

use std::path::Path;

use crate::error::Result;
use crate::{Entry, Options, Queue};

/// Gives every entry that the reader `name` has not committed to `take`, oldest first, and commits
/// after each batch that `take` accepted; returns how many entries that were.
///
/// For an orphaned queue: it opens the queue, so nobody else may have it open. With
/// `take` returning false it stops and commits what was accepted before. A reader of a new name
/// gets everything retained.
///
/// # Errors
/// As for [`Queue::open`].
///
/// ```
/// # use forebay_queue::{Options, Queue, tools};
/// # let dir = tempfile::tempdir().unwrap();
/// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
/// let queue = Queue::create(dir.path(), &options)?;
/// queue.append_batch(0, &["a", "b"])?;
/// queue.close()?;
/// let mut texts = Vec::new();
/// let count = tools::drain(dir.path(), &options, "lake", |entry| {
///     texts.push(entry.payload.to_vec());
///     true
/// })?;
/// assert_eq!((count, texts), (2, vec![b"a".to_vec(), b"b".to_vec()]));
/// # Ok::<(), forebay_queue::Error>(())
/// ```
pub fn drain(
    dir: impl AsRef<Path>,
    options: &Options,
    name: &str,
    mut take: impl FnMut(Entry<'_>) -> bool,
) -> Result<u64> {
    let queue = Queue::open(dir, options)?;
    let mut reader = queue.reader(name)?;
    let mut count = 0;
    loop {
        let batch = reader.peek(1024, 4 << 20)?;
        let mut last = None;
        let mut taken = 0;
        for entry in batch.iter() {
            if !take(entry) {
                break;
            }
            last = Some(entry.seq);
            taken += 1;
        }
        let is_done = batch.is_empty() || taken < batch.len();
        if let Some(last) = last {
            reader.commit(last)?;
            count += taken as u64;
        }
        if is_done {
            let upto = reader.cursor();
            reader.commit_durable(upto, None)?;
            drop(reader);
            queue.close()?;
            return Ok(count);
        }
    }
}
