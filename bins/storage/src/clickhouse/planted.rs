//! A fault on purpose: tokens that count instead of naming their range. A storm that misses it is
//! no storm: after a restart the count begins again, and the store forgets new blocks as old ones.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

/// Set to `counted-token`, blocks are named by how many this process has sent.
const VARIABLE: &str = "FOREBAY_PLANTED_FAULT";

static COUNTS: LazyLock<bool> =
    LazyLock::new(|| std::env::var(VARIABLE).is_ok_and(|fault| fault == "counted-token"));
static SENT: AtomicU64 = AtomicU64::new(0);

/// The token to send in place of `name`.
pub(super) fn token(name: String) -> String {
    if *COUNTS { SENT.fetch_add(1, Ordering::Relaxed).to_string() } else { name }
}
