//! [`Queue`]: the handle of producers, from open to close.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::sync::Parker;

use crate::faults::Faults;
use crate::ring::{Ring, lock};
use crate::{
    Error, Making, Options, QueueId, Reader, Recovery, Result, Seq, SeqSpan, Tail, creation,
    directory, open,
};

/// A crash-safe ring queue; a clone is another producer of the same queue.
///
/// The queue, and the lock on its directory, lives until the last handle, reader and tail is
/// dropped; the drop makes everything durable, as [`close`](Self::close) does, but cannot say
/// whether it succeeded.
///
/// ```
/// use std::time::Duration;
/// use forebay_queue::{Options, Queue};
/// # let dir = tempfile::tempdir().unwrap();
/// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
/// let queue = Queue::create(dir.path(), &options)?;
/// let seq = queue.append(1_700_000_000_000_000, b"21.5 C")?;
/// queue.wait_durable(seq, Duration::from_secs(5))?;
///
/// let mut reader = queue.reader("database")?;
/// let batch = reader.peek(100, 1 << 20)?;
/// for entry in batch.iter() {
///     println!("{}: {} bytes", entry.seq, entry.payload.len());
/// }
/// batch.advance();
/// reader.commit(seq)?;
/// # Ok::<(), forebay_queue::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Queue {
    pub(crate) handle: Arc<Handle>,
}

/// What the last user drops: the ring and its thread.
pub(crate) struct Handle {
    pub(crate) ring: Arc<Ring>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Queue {
    /// Makes a queue in `dir`, and the directory if it is missing.
    ///
    /// All space is allocated now; nothing later fails for want of it. Takes as long as writing
    /// the capacity takes.
    ///
    /// # Errors
    /// - [`Error::Exists`], [`Error::Locked`]: there is one, or somebody is making one.
    /// - [`Error::Filesystem`]: `dir` cannot keep the promise of [`Durability::Disk`].
    /// - [`Error::Options`], [`Error::Io`]: mend the options, or the volume (full, read-only).
    ///
    /// [`Durability::Disk`]: crate::Durability::Disk
    ///
    /// ```
    /// use forebay_queue::{Error, Options, Queue};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// let queue = Queue::create(dir.path(), &options)?;
    /// assert!(matches!(Queue::create(dir.path(), &options), Err(Error::Exists { .. })));
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    pub fn create(dir: impl AsRef<Path>, options: &Options) -> Result<Queue> {
        Self::create_with(dir.as_ref(), options, &mut |_| ControlFlow::Continue(()))
    }

    fn create_with(
        dir: &Path,
        options: &Options,
        watch: &mut dyn FnMut(Making) -> ControlFlow<()>,
    ) -> Result<Queue> {
        options.check()?;
        creation::create(dir, options, watch)?;
        Self::open(dir, options)
    }

    /// Opens the queue in `dir` and recovers what its last user left; see [`Queue::recovery`].
    ///
    /// Begins a new epoch. The capacity is the file's, whatever the options say.
    ///
    /// # Errors
    /// - [`Error::Missing`]: there is none.
    /// - [`Error::Locked`]: it is in use.
    /// - [`Error::Unsupported`]: not a queue, or of another version; untouched.
    /// - [`Error::Corrupt`]: both checkpoints are damaged; see `repair` in [`tools`](crate::tools).
    /// - [`Error::Filesystem`], [`Error::Options`], [`Error::Io`]: as for [`Queue::create`].
    ///
    /// ```
    /// use forebay_queue::{Options, Queue};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// let first = Queue::create(dir.path(), &options)?.append(0, b"kept")?;
    /// let queue = Queue::open(dir.path(), &options)?;
    /// assert_eq!(queue.recovery().entries, 1);
    /// assert!(queue.append(0, b"next")?.follows(first));
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    pub fn open(dir: impl AsRef<Path>, options: &Options) -> Result<Queue> {
        options.check()?;
        let (memory, block) = directory::open(dir.as_ref(), options)?;
        let ring = open::open_ring(memory, &block, options, Faults::default())?;
        Self::start(ring)
    }

    /// Opens the queue in `dir`, or creates it if there is none.
    ///
    /// # Errors
    /// As for [`Queue::create`] and [`Queue::open`].
    ///
    /// ```
    /// use forebay_queue::{Options, Queue};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// let id = Queue::open_or_create(dir.path(), &options)?.id();
    /// assert_eq!(Queue::open_or_create(dir.path(), &options)?.id(), id);
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    pub fn open_or_create(dir: impl AsRef<Path>, options: &Options) -> Result<Queue> {
        Self::open_or_create_with(dir, options, |_| ControlFlow::Continue(()))
    }

    /// As [`Queue::open_or_create`], and while the queue is being made, `watch` is told how far that
    /// has come and may call it off.
    ///
    /// It is asked on this thread, before the first byte, for each 256 MiB that are allocated, then
    /// whenever another 16 MiB are on the medium, and last when all are. With `Break` nothing of the new queue is left.
    ///
    /// # Errors
    /// - [`Error::CalledOff`]: `watch` said so.
    /// - Others as for [`Queue::create`] and [`Queue::open`].
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// use forebay_queue::{Error, Options, Queue};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// static ENDS: AtomicBool = AtomicBool::new(false); // set by a signal handler
    /// let open = || {
    ///     Queue::open_or_create_with(dir.path(), &options, |making| {
    ///         println!("{} of {} bytes", making.made_bytes, making.total_bytes);
    ///         match ENDS.load(Ordering::Relaxed) {
    ///             true => ControlFlow::Break(()),
    ///             false => ControlFlow::Continue(()),
    ///         }
    ///     })
    /// };
    /// ENDS.store(true, Ordering::Relaxed);
    /// assert!(matches!(open(), Err(Error::CalledOff { .. })));
    /// ENDS.store(false, Ordering::Relaxed);
    /// open()?;
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    pub fn open_or_create_with(
        dir: impl AsRef<Path>,
        options: &Options,
        mut watch: impl FnMut(Making) -> ControlFlow<()>,
    ) -> Result<Queue> {
        match Self::open(dir.as_ref(), options) {
            Err(Error::Missing { .. }) => Self::create_with(dir.as_ref(), options, &mut watch),
            other => other,
        }
    }

    /// Starts the sync thread of a recovered ring.
    pub(crate) fn start(ring: Ring) -> Result<Queue> {
        let ring = Arc::new(ring);
        let parker = Parker::new();
        let _ = ring.unparker.set(parker.unparker().clone());
        let shared = Arc::clone(&ring);
        let thread = std::thread::Builder::new()
            .name("queue-sync".into())
            .spawn(move || shared.run(&parker))
            .map_err(|error| Error::io("start the sync thread of", ring.memory.path(), error))?;
        Ok(Queue { handle: Arc::new(Handle { ring, thread: Mutex::new(Some(thread)) }) })
    }

    /// A queue without a thread: tests step it themselves.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn without_thread(ring: Ring) -> Queue {
        Queue { handle: Arc::new(Handle { ring: Arc::new(ring), thread: Mutex::new(None) }) }
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.handle.ring
    }

    /// The queue's random name; it stays for as long as the directory does.
    ///
    /// See [`Queue::open_or_create`] for an example.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.ring().id
    }

    /// What this open found and mended. Log it, and alarm if `corrupt_ranges` is not zero.
    ///
    /// See [`Queue::open`] for an example.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.ring().recovery
    }

    /// Appends one entry and returns its seq.
    ///
    /// On return the entry survives the death of this process, not yet of the machine: wait until
    /// [`Queue::durable`] has passed the seq before promising more than that. `time_us` is stored
    /// with the entry and not interpreted. `payload` holds at most
    /// [`Options::entry_bytes_max`] bytes, and may be empty.
    ///
    /// # Errors
    /// - [`Error::Full`]: nothing was appended; room comes when the slowest reader commits. Push
    ///   back.
    /// - [`Error::TooLarge`]: nothing was appended, and never will be. Reject the entry.
    /// - [`Error::Io`]: the queue refuses all further work. End the process; recovery decides.
    /// - [`Error::Closed`]: somebody closed the queue.
    ///
    /// ```
    /// use forebay_queue::{Error, Options, Queue};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 16, entry_bytes_max: 1024, ..Options::default() };
    /// let queue = Queue::create(dir.path(), &options)?;
    /// let seq = queue.append(0, b"hello")?;
    /// assert_eq!(seq.to_string(), "1:1");
    /// let full = loop {
    ///     if let Err(error) = queue.append(0, &[0; 1000]) { break error }
    /// };
    /// assert!(matches!(full, Error::Full { limit_bytes: 65_536, .. }));
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    #[inline]
    pub fn append(&self, time_us: u64, payload: &[u8]) -> Result<Seq> {
        self.ring().append(time_us, &[payload])
    }

    /// Appends one entry whose payload is `parts` one after another, without joining them first.
    ///
    /// # Errors
    /// As for [`Queue::append`].
    ///
    /// ```
    /// use forebay_queue::{Options, Queue};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// let queue = Queue::create(dir.path(), &options)?;
    /// let seq = queue.append_parts(0, &[b"head ", b"and body"])?;
    /// queue.wait_durable(seq, std::time::Duration::from_secs(5))?;
    /// let mut reader = queue.reader("r")?;
    /// let batch = reader.peek(1, 100)?;
    /// assert_eq!(batch.iter().next().unwrap().payload, b"head and body");
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    #[inline]
    pub fn append_parts(&self, time_us: u64, parts: &[&[u8]]) -> Result<Seq> {
        self.ring().append(time_us, parts)
    }

    /// Appends all entries or none, published at once, and returns their seqs.
    ///
    /// The seqs are consecutive and of one epoch; nobody else's entries come between. A crash
    /// before the batch is durable may keep a part of it from the front.
    ///
    /// # Errors
    /// As for [`Queue::append`]; [`Error::TooLarge`] also if the whole batch can never fit the
    /// ring. An empty batch is an [`Error::Options`].
    ///
    /// ```
    /// use forebay_queue::{Options, Queue};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// let queue = Queue::create(dir.path(), &options)?;
    /// let span = queue.append_batch(0, &["one", "two", "three"])?;
    /// assert_eq!(span.count(), 3);
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    pub fn append_batch(&self, time_us: u64, payloads: &[impl AsRef<[u8]>]) -> Result<SeqSpan> {
        // Asked once each: what a stranger's as_ref answers the second time may be longer.
        let entries: Vec<[&[u8]; 1]> = payloads.iter().map(|payload| [payload.as_ref()]).collect();
        self.append_batch_parts(time_us, &entries)
    }

    /// Appends all entries or none; each payload is its parts one after another.
    ///
    /// # Errors
    /// As for [`Queue::append_batch`].
    ///
    /// ```
    /// use forebay_queue::{Options, Queue};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// let queue = Queue::create(dir.path(), &options)?;
    /// let prefix = [0; 24];
    /// let span = queue.append_batch_parts(0, &[[&prefix, b"one"], [&prefix, b"two"]])?;
    /// assert_eq!(span.count(), 2);
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    pub fn append_batch_parts<const PARTS: usize>(
        &self,
        time_us: u64,
        entries: &[[&[u8]; PARTS]],
    ) -> Result<SeqSpan> {
        if entries.is_empty() {
            let reason = "an empty batch has no seqs".to_owned();
            return Err(Error::Options { option: "entries", reason });
        }
        self.ring().append_batch(time_us, entries)
    }

    /// The last seq appended; before the first of this epoch, its epoch with counter 0.
    ///
    /// ```
    /// use forebay_queue::{Options, Queue, Seq};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// let queue = Queue::create(dir.path(), &options)?;
    /// assert_eq!(queue.appended(), Seq::new(1, 0));
    /// let seq = queue.append(0, b"x")?;
    /// assert!(queue.appended() == seq && queue.durable() <= seq);
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    #[must_use]
    pub fn appended(&self) -> Seq {
        self.ring().line.seq()
    }

    /// The last seq durable at the queue's level: everything up to it may be acknowledged.
    ///
    /// Never goes back. With [`Durability::Process`](crate::Durability::Process) it is
    /// [`Queue::appended`].
    ///
    /// See [`Queue::appended`] for an example.
    #[must_use]
    pub fn durable(&self) -> Seq {
        self.ring().durable_seq()
    }

    /// Waits until `seq` is durable. A lone waiter syncs by itself; several share a sync.
    ///
    /// # Errors
    /// - [`Error::Timeout`]: not yet; wait again. A sync under way by this thread is not cut short.
    /// - [`Error::Beyond`]: no such entry was appended.
    /// - [`Error::Io`]: a sync failed. Acknowledge nothing more, end the process.
    ///
    /// See [`Queue`] for an example.
    pub fn wait_durable(&self, seq: Seq, timeout: Duration) -> Result<()> {
        self.ring().wait_durable(seq, timeout)
    }

    /// Whether `seq` is durable; if not, `waker` is woken once it is, or the queue has ended.
    ///
    /// One registration a task is kept: of several, the lowest seq wakes it. A task that waits
    /// for many seqs registers for the lowest and compares the others with [`Queue::durable`].
    ///
    /// # Errors
    /// As for [`Queue::wait_durable`], without the timeout.
    ///
    /// ```
    /// use std::task::{Context, Poll};
    /// use forebay_queue::{Options, Queue, Seq};
    /// async fn durable(queue: &Queue, seq: Seq) -> forebay_queue::Result<()> {
    ///     std::future::poll_fn(|context: &mut Context<'_>| {
    ///         match queue.poll_durable(seq, context.waker()) {
    ///             Ok(true) => Poll::Ready(Ok(())),
    ///             Ok(false) => Poll::Pending,
    ///             Err(error) => Poll::Ready(Err(error)),
    ///         }
    ///     })
    ///     .await
    /// }
    /// ```
    pub fn poll_durable(&self, seq: Seq, waker: &Waker) -> Result<bool> {
        let ring = self.ring();
        if ring.durable_seq() >= seq {
            return Ok(true);
        }
        ring.check()?;
        let end = ring.line.seq();
        if seq > end {
            return Err(Error::Beyond { seq, end });
        }
        ring.on_durable.register(seq.get(), waker);
        ring.want_durable_soon(seq);
        if ring.durable_seq() >= seq {
            return Ok(true);
        }
        ring.check().map(|()| false)
    }

    /// Opens the durable reader of that name at its cursor; a new one starts at the oldest
    /// retained entry, and from then on holds space.
    ///
    /// # Errors
    /// [`Error::Reader`]: the name has 1 to 40 bytes; a queue has 24 readers at most, each in use
    /// once. [`Error::Io`], [`Error::Closed`]: the queue has ended.
    ///
    /// See [`Queue`] for an example.
    pub fn reader(&self, name: &str) -> Result<Reader> {
        Reader::open(&self.handle, name)
    }

    /// Forgets a reader, so that it holds no space any more; durable on return.
    ///
    /// # Errors
    /// [`Error::Reader`]: there is none of this name, or it is in use.
    ///
    /// ```
    /// use forebay_queue::{Options, Queue};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// let queue = Queue::create(dir.path(), &options)?;
    /// drop(queue.reader("old")?);
    /// queue.remove_reader("old")?;
    /// assert!(queue.readers().is_empty());
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    pub fn remove_reader(&self, name: &str) -> Result<()> {
        let ring = self.ring();
        let mut syncer = ring.lock_sync();
        ring.check()?;
        ring.cursors.remove(name)?;
        ring.cursor_version.fetch_add(1, Ordering::AcqRel);
        ring.checkpoint(&mut syncer)
    }

    /// A reader that holds no space and keeps no cursor.
    ///
    /// `None` starts at the present end: only later entries. `Some(after)` starts at the first
    /// retained entry above `after`; [`Seq::NONE`] is the oldest.
    ///
    /// See [`Tail`] for an example.
    #[must_use]
    pub fn tail(&self, after: Option<Seq>) -> Tail {
        Tail::open(&self.handle, after)
    }

    /// Syncs what was appended, writes a last checkpoint, and refuses everything further.
    ///
    /// The lock on the directory goes when the last clone, reader and tail is dropped.
    ///
    /// # Errors
    /// [`Error::Io`]: not everything is on the medium.
    ///
    /// ```
    /// use forebay_queue::{Error, Options, Queue};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = Options { any_filesystem: true, capacity_bytes: 1 << 18, ..Options::default() };
    /// let queue = Queue::create(dir.path(), &options)?;
    /// let clone = queue.clone();
    /// queue.append(0, b"x")?;
    /// queue.close()?;
    /// assert!(matches!(clone.append(0, b"y"), Err(Error::Closed)));
    /// # Ok::<(), forebay_queue::Error>(())
    /// ```
    pub fn close(self) -> Result<()> {
        self.handle.finish();
        match self.ring().check() {
            Err(Error::Closed) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Handle {
    /// Ends the sync thread, which makes everything durable first.
    fn finish(&self) {
        self.ring.closing.store(true, Ordering::SeqCst);
        self.ring.unpark();
        if let Some(thread) = lock(&self.thread).take() {
            // A panic there has been reported by the runtime; nothing was acknowledged for it.
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.finish();
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handle({}, {:?})", self.ring.id, self.ring.memory)
    }
}
