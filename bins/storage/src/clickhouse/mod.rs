//! ClickHouse: rows as pre-encoded RowBinary, each block under a token that names it for ever.
//!
//! What makes a block count once, whatever dies:
//!
//! 1. The middle keeps the range that was announced, so it is read again with the same rows.
//! 2. The bytes are encoded once and kept until acked; a retry sends the same bytes.
//! 3. `insert_deduplication_token` is `queue-first-last`; the server forgets the block if it has
//!    it, and the rollups forget theirs under the same token.
//! 4. The ledger, a small table beside the rows, has the last range announced to this store. A
//!    consumer that is set back, or starts anew under another name, passes over what lies before
//!    it and repeats that one range exactly, however its own limits would cut.
//!
//! Not here: when a range is closed and what happens to a bad row (`sink`).

#[cfg(feature = "clickhouse")]
mod client;
#[cfg(feature = "clickhouse")]
mod connector;
#[cfg(feature = "clickhouse")]
mod encode;
#[cfg(feature = "clickhouse")]
mod ledger;
#[cfg(feature = "clickhouse")]
mod migrate;
#[cfg(feature = "clickhouse")]
mod outcome;
#[cfg(all(feature = "clickhouse", feature = "planted-faults"))]
mod planted;
mod schema;
#[cfg(feature = "clickhouse")]
mod sink;

#[cfg(feature = "clickhouse")]
pub use encode::encode;
#[cfg(feature = "clickhouse")]
pub use ledger::LedgerConsumer;
pub use schema::{Schema, VERSION};
#[cfg(feature = "clickhouse")]
pub use sink::{ClickhouseSink, consumer_and_sink};
