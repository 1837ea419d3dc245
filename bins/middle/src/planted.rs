//! A fault on purpose: entries that are acked and never appended. A check that misses it is none.

use std::sync::LazyLock;

use forebay_wire::records::Record;

/// Set to `skip-entry`, every hundredth entry of a front is passed over.
const VARIABLE: &str = "FOREBAY_PLANTED_FAULT";
const SKIPPED_OF: u64 = 100;

static SKIPS: LazyLock<bool> =
    LazyLock::new(|| std::env::var(VARIABLE).is_ok_and(|fault| fault == "skip-entry"));

/// Whether an entry is to be lost.
pub(crate) fn skips(record: &Record<'_>) -> bool {
    *SKIPS && record.seq.counter() % SKIPPED_OF == SKIPPED_OF / 2
}
