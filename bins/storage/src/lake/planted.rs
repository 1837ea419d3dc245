//! A fault on purpose: rows that never reach the lake. A checker that misses it is no checker.

use std::sync::LazyLock;

use crate::rows::Rows;

/// Set to `drop-row`, it drops one message's rows of a thousand.
const VARIABLE: &str = "FOREBAY_PLANTED_FAULT";
const DROPPED_OF: u64 = 1000;

static DROPS: LazyLock<bool> =
    LazyLock::new(|| std::env::var(VARIABLE).is_ok_and(|fault| fault == "drop-row"));

/// Whether a row is to be lost.
pub(super) fn loses(rows: &Rows, row: usize) -> bool {
    *DROPS && rows.entry(rows.message(row)).counter() % DROPPED_OF == DROPPED_OF / 2
}
