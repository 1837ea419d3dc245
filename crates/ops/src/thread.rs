//! Named threads whose panic ends the process.
//!
//! A thread that dies alone leaves a process that looks healthy and does nothing. Release builds
//! abort on any panic; this gives the same in builds that unwind, tests included.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};

/// Starts a thread under `name`, of which Linux shows the first 15 bytes in `top` and `gdb`.
///
/// If `work` panics, the process says so and aborts.
///
/// # Errors
/// The system gave no thread (a limit on processes or memory); nothing was started.
pub fn spawn<T, F>(name: impl Into<String>, work: F) -> io::Result<JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let name = name.into();
    let shown = name.clone();
    Builder::new().name(name).spawn(move || match catch_unwind(AssertUnwindSafe(work)) {
        Ok(value) => value,
        Err(_) => {
            // The panic hook has printed the message and the place already.
            tracing::error!(thread = shown, "a thread panicked, the process ends");
            std::process::abort()
        }
    })
}

/// Starts a thread under `name` that runs one future on a current-thread runtime of its own.
///
/// `work` is called on the new thread, so that what it makes need not be `Send`. A panic in the
/// future ends the process; tasks that the future spawns are guarded only by [`abort_on_panic`].
///
/// # Errors
/// The system gave no thread or no event queue; nothing was started.
pub fn spawn_async<T, F, W>(name: impl Into<String>, work: W) -> io::Result<JoinHandle<T>>
where
    W: FnOnce() -> F + Send + 'static,
    F: Future<Output = T>,
    T: Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    spawn(name, move || runtime.block_on(async move { work().await }))
}

/// Makes every panic of this process end it, those in runtime tasks included.
///
/// For a `main` only: it replaces the panic hook of the whole process.
pub fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        tracing::error!(%panic, "a panic ends the process");
        std::process::abort()
    }));
}
