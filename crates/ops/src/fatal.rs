//! The end of a process that must not go on: a sync that failed, a store that cannot be trusted.

use std::fmt::Display;
use std::io::Write as _;

/// Ends the process with exit code 1, after saying why in the log and on stderr.
///
/// For faults after which going on would break the promise, first of all a failed sync: the kernel
/// has marked the pages clean, so a second try would lie. The process ends, and the recovery at the
/// next start decides what is there. Nothing is unwound and no destructor runs, so nobody can
/// acknowledge anything on the way out.
pub fn fatal(error: impl Display) -> ! {
    tracing::error!(%error, "fatal: this process ends now, recovery decides at the next start");
    crate::logs::flush();
    // The log may be filtered or not set up; a dead process without a last word is a riddle.
    let _ = writeln!(std::io::stderr(), "fatal: {error}");
    std::process::exit(i32::from(crate::EXIT_FAILED))
}
