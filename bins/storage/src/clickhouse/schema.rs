//! The tables in the store, as text: what is made, step by step, and what an insert names.
//!
//! Every step can be run again after it was cut off at any point. A step that is released is never
//! changed: what comes later is a new one.

use crate::config::{Clickhouse, Partition};

/// Version of the tables this release writes; one line of history each:
/// - 1: readings and the ledger of announced ranges.
/// - 2: a rollup for each minute.
/// - 3: a rollup for each hour.
pub const VERSION: u32 = 3;

/// Columns of an insert, in the order of the encoder.
pub(super) const COLUMNS: &str = "tenant, device, name, type, location, known, received, session, \
     seq, index, suspect, timed, time, key, unit, kind, float, int, bool, text, content_type, \
     payload";

/// A number out of whatever kind holds one; only where `kind` says that it does.
const NUMBER: &str = "assumeNotNull(coalesce(float, toFloat64(int), toFloat64(bool)))";

/// The tables of one configuration.
#[derive(Debug, Clone)]
pub struct Schema {
    database: String,
    prefix: String,
    cluster: Option<String>,
    partition: Partition,
    window: u32,
    fsync: bool,
    storage_policy: Option<String>,
}

impl Schema {
    /// The tables that these settings ask for.
    #[must_use]
    pub fn new(settings: &Clickhouse) -> Self {
        Self {
            database: settings.database.clone(),
            prefix: settings.prefix.clone(),
            cluster: settings.cluster.clone(),
            partition: settings.partition,
            window: settings.dedup_window,
            fsync: settings.fsync,
            storage_policy: settings.retention.storage_policy.clone(),
        }
    }

    /// A table by the name that queries use.
    #[must_use]
    pub fn table(&self, name: &str) -> String {
        format!("{}.{}{name}", self.database, self.prefix)
    }

    /// The table that holds the rows: on a cluster, each node has its share of them.
    fn local(&self, name: &str) -> String {
        let end = if self.cluster.is_some() { "_local" } else { "" };
        format!("{}{end}", self.table(name))
    }

    fn on_cluster(&self) -> String {
        self.cluster.as_ref().map_or_else(String::new, |cluster| format!(" ON CLUSTER {cluster}"))
    }

    /// Makes the database.
    #[must_use]
    pub fn create_database(&self) -> String {
        format!("CREATE DATABASE IF NOT EXISTS {}{}", self.database, self.on_cluster())
    }

    /// Makes the table that keeps which steps were taken.
    #[must_use]
    pub fn create_versions(&self) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {}{}\n(version UInt32, retention String, \
             applied DateTime64(3, 'UTC') DEFAULT now64(3))\nENGINE = {}\nORDER BY applied",
            self.table("schema_versions"),
            self.on_cluster(),
            self.engine("MergeTree", "", "schema_versions", false),
        )
    }

    /// The statements that take the tables to a version from the one before.
    #[must_use]
    pub fn step(&self, version: u32) -> Vec<String> {
        match version {
            1 => {
                let mut made = vec![self.create_readings(), self.create_ranges()];
                made.extend(self.distributed("readings"));
                made
            }
            2 => self.rollup("minute", 60),
            3 => self.rollup("hour", 3600),
            _ => Vec::new(),
        }
    }

    fn create_readings(&self) -> String {
        let partition = match self.partition {
            Partition::Month => "toYYYYMM(received)",
            Partition::Day => "toYYYYMMDD(received)",
        };
        let policy = self
            .storage_policy
            .as_ref()
            .map_or_else(String::new, |policy| format!(", storage_policy = '{policy}'"));
        format!(
            "CREATE TABLE IF NOT EXISTS {table}{cluster}
(
    tenant LowCardinality(String),
    device String CODEC(ZSTD(1)),
    name String COMMENT 'of the device; empty if not known' CODEC(ZSTD(1)),
    type LowCardinality(String) COMMENT 'of the device; empty if not known',
    location LowCardinality(String) COMMENT 'of the device; empty if not known',
    known Bool COMMENT 'whether the registry lists the device',
    key LowCardinality(String) COMMENT 'what was measured; empty for a payload',
    unit LowCardinality(String),
    kind Enum8('float' = 0, 'int' = 1, 'bool' = 2, 'text' = 3, 'opaque' = 4),
    float Nullable(Float64) CODEC(Delta, ZSTD(1)),
    int Nullable(Int64) CODEC(Delta, ZSTD(1)),
    bool Nullable(Bool) CODEC(ZSTD(1)),
    text Nullable(String) CODEC(ZSTD(1)),
    content_type LowCardinality(String) COMMENT 'of a payload',
    payload String CODEC(ZSTD(1)),
    suspect Bool COMMENT 'against what the registry says of the key',
    time DateTime64(6, 'UTC') COMMENT 'measured, else received' CODEC(Delta, ZSTD(1)),
    timed Bool COMMENT 'whether the device gave the time',
    received DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    session UInt64 CODEC(ZSTD(1)),
    seq UInt64 CODEC(Delta, ZSTD(1)),
    `index` UInt16 CODEC(ZSTD(1)),
    number Nullable(Float64) ALIAS coalesce(float, toFloat64(int), toFloat64(bool))
)
ENGINE = {engine}
PARTITION BY {partition}
ORDER BY (tenant, device, key, time)
SETTINGS ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1{policy}{durability}",
            table = self.local("readings"),
            cluster = self.on_cluster(),
            engine = self.engine("MergeTree", "", "readings", true),
            durability = self.durability(true),
        )
    }

    /// The ledger: the last range of each queue that was announced to this store.
    fn create_ranges(&self) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {table}{cluster}
(
    queue String COMMENT 'of the middle',
    first UInt64,
    last UInt64
)
ENGINE = {engine}
ORDER BY queue
SETTINGS index_granularity = 256{durability}",
            table = self.table("ranges"),
            cluster = self.on_cluster(),
            // Ranges are announced in order: the latest of a queue stays, and only it.
            engine = self.engine("ReplacingMergeTree", "first", "ranges", false),
            durability = self.durability(false),
        )
    }

    /// A rollup and the view that fills it from each block of readings.
    ///
    /// Partitions follow the receive time: one absurd time of a device must not make a partition
    /// each. A bucket that spans two partitions is two rows, so queries always aggregate.
    fn rollup(&self, bucket: &str, seconds: u32) -> Vec<String> {
        let name = format!("readings_{bucket}");
        let table = format!(
            "CREATE TABLE IF NOT EXISTS {table}{cluster}
(
    tenant LowCardinality(String),
    device String CODEC(ZSTD(1)),
    key LowCardinality(String),
    {bucket} DateTime64(0, 'UTC') CODEC(Delta, ZSTD(1)),
    type LowCardinality(String),
    location LowCardinality(String),
    month Date COMMENT 'of receipt',
    count SimpleAggregateFunction(sum, UInt64),
    sum SimpleAggregateFunction(sum, Float64),
    min SimpleAggregateFunction(min, Float64),
    max SimpleAggregateFunction(max, Float64),
    first AggregateFunction(argMin, Float64, \
Tuple(DateTime64(6, 'UTC'), UInt64, UInt64, UInt16)),
    last AggregateFunction(argMax, Float64, \
Tuple(DateTime64(6, 'UTC'), UInt64, UInt64, UInt16))
)
ENGINE = {engine}
PARTITION BY month
ORDER BY (tenant, device, key, {bucket}, type, location)
SETTINGS ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1{durability}",
            table = self.local(&name),
            cluster = self.on_cluster(),
            engine = self.engine("AggregatingMergeTree", "", &name, true),
            durability = self.durability(true),
        );
        let view = format!(
            "CREATE MATERIALIZED VIEW IF NOT EXISTS {view}{cluster} TO {table} AS
SELECT
    tenant, device, key,
    toDateTime64(intDiv(toUnixTimestamp64Micro(time), {micros}) * {seconds}, 0, 'UTC') AS {bucket},
    type, location,
    toDate(toStartOfMonth(received)) AS month,
    count() AS count,
    sum({NUMBER}) AS sum,
    min({NUMBER}) AS min,
    max({NUMBER}) AS max,
    argMinState({NUMBER}, (time, session, seq, index)) AS first,
    argMaxState({NUMBER}, (time, session, seq, index)) AS last
FROM {readings}
WHERE kind IN ('float', 'int', 'bool')
GROUP BY tenant, device, key, {bucket}, type, location, month",
            view = self.table(&format!("{name}_view")),
            cluster = self.on_cluster(),
            table = self.local(&name),
            micros = u64::from(seconds) * 1_000_000,
            readings = self.local("readings"),
        );
        let mut made = vec![table];
        made.extend(self.distributed(&name));
        made.push(view);
        made
    }

    /// On a cluster: the table over the shares of all nodes.
    ///
    /// A row's node is a function of its device, so that a block sent again is cut as before.
    fn distributed(&self, name: &str) -> Option<String> {
        let cluster = self.cluster.as_ref()?;
        Some(format!(
            "CREATE TABLE IF NOT EXISTS {table} ON CLUSTER {cluster} AS {local}\n\
             ENGINE = Distributed({cluster}, {database}, {prefix}{name}_local, \
             cityHash64(tenant, device))",
            table = self.table(name),
            local = self.local(name),
            database = self.database,
            prefix = self.prefix,
        ))
    }

    /// An engine; on a cluster its replicated form, sharded or the same on all nodes.
    fn engine(&self, engine: &str, parameter: &str, name: &str, sharded: bool) -> String {
        if self.cluster.is_none() {
            return format!("{engine}({parameter})");
        }
        let shard = if sharded { "{shard}" } else { "all" };
        let separator = if parameter.is_empty() { "" } else { ", " };
        format!(
            "Replicated{engine}('/clickhouse/tables/{shard}/{}/{}{name}', '{{replica}}'\
             {separator}{parameter})",
            self.database, self.prefix
        )
    }

    /// How long tokens are remembered, and what a block has gone through before it is acked.
    fn durability(&self, tokens: bool) -> String {
        let mut settings = String::new();
        if tokens {
            let window = self.window;
            settings.push_str(&match self.cluster {
                None => format!(", non_replicated_deduplication_window = {window}"),
                Some(_) => format!(
                    ", replicated_deduplication_window = {window}, \
                     replicated_deduplication_window_seconds = 604800"
                ),
            });
        }
        if self.fsync {
            settings.push_str(", fsync_after_insert = 1, fsync_part_directory = 1");
        }
        settings
    }

    /// The insert of one block.
    #[must_use]
    pub fn insert(&self) -> String {
        format!("INSERT INTO {} ({COLUMNS}) FORMAT RowBinary", self.table("readings"))
    }

    /// What becomes of old rows, as the `TTL` of each table; empty where nothing does.
    #[must_use]
    pub fn ttls(&self, settings: &Clickhouse) -> [(String, String); 3] {
        let retention = &settings.retention;
        let mut rules = Vec::new();
        let mut rule = |after: std::time::Duration, deed: String| {
            if !after.is_zero() {
                let seconds = after.as_secs().max(1);
                rules.push(format!("toDateTime(received) + toIntervalSecond({seconds}){deed}"));
            }
        };
        rule(retention.move_after.into(), format!(" TO VOLUME '{}'", retention.move_to));
        rule(retention.drop_after.into(), String::new());
        let seconds = retention.drop_rollups_after.as_secs();
        let rollups = match seconds {
            0 => String::new(),
            _ => format!("toDateTime(month) + toIntervalMonth(1) + toIntervalSecond({seconds})"),
        };
        [
            (self.local("readings"), rules.join(", ")),
            (self.local("readings_minute"), rollups.clone()),
            (self.local("readings_hour"), rollups),
        ]
    }

    /// Gives a table this `TTL`, or takes it away. Rows that are there are seen to by merges.
    #[must_use]
    pub fn alter_ttl(&self, table: &str, ttl: &str) -> String {
        let cluster = self.on_cluster();
        match ttl {
            "" => format!("ALTER TABLE {table}{cluster} REMOVE TTL"),
            _ => format!("ALTER TABLE {table}{cluster} MODIFY TTL {ttl}"),
        }
    }
}
