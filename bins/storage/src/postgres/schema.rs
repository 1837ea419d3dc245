//! Our tables in PostgreSQL: made and migrated by us, one partition a day.
//!
//! Rows are partitioned by the time at which they were received: that comes from our own clocks, so
//! no device can make a partition of the year 9999, and old days go by dropping a table. A BRIN
//! index finds the blocks of a span of time and costs next to nothing, as rows come about in order;
//! the index of series finds a device's last value or history at once, and can be switched off.
//! No unique index: see the module's head. Where the extension TimescaleDB is installed in the
//! database, the table becomes a hypertable, which keeps its own partitions; **that branch has not
//! been seen at work**, for want of a package.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio_postgres::{Client, Transaction};

use super::{classify::Failure, encode};
use crate::config;

/// Version of the tables; one line of history each:
/// - 1: `readings`, `cursors`.
const VERSION: i32 = 1;
/// The lock under which tables are made, the same for all processes of ours.
const LOCK: i64 = 0x666f_7265_6261_7900;
const DAY_SECONDS: u64 = 86_400;

/// What there is in the database.
#[derive(Debug)]
pub(super) struct Schema {
    name: String,
    keep: Option<Duration>,
    hypertable: bool,
    /// Days whose partitions are known to be there.
    days: HashSet<String>,
    /// The day on which old days were last dropped.
    swept: Option<u64>,
}

impl Schema {
    /// Makes the tables, or brings them to our version.
    pub(super) async fn open(
        client: &mut Client,
        settings: &config::Postgres,
    ) -> Result<Self, Failure> {
        let name = settings.schema.clone();
        let work = client.transaction().await?;
        work.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
        // Asked first: whoever may not create schemas may still use one that an admin made.
        let there = work.query_one("SELECT to_regnamespace($1) IS NOT NULL", &[&name]).await?;
        if !there.get::<_, bool>(0) {
            work.batch_execute(&format!("CREATE SCHEMA {name}")).await?;
        }
        let versions = format!("{name}.versions");
        let there = work.query_one("SELECT to_regclass($1) IS NOT NULL", &[&versions]).await?;
        if !there.get::<_, bool>(0) {
            let sql = format!(
                "CREATE TABLE {versions} (version int PRIMARY KEY, \
                 applied timestamptz NOT NULL DEFAULT now())"
            );
            work.batch_execute(&sql).await?;
        }
        let sql = format!("SELECT coalesce(max(version), 0) FROM {versions}");
        let version: i32 = work.query_one(&sql, &[]).await?.get(0);
        if version > VERSION {
            return Err(Failure::misconfigured(format!(
                "the tables in schema {name} are of version {version}, this release knows \
                 {VERSION}: run the later release"
            )));
        }
        let timescale = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')";
        let timescale: bool = work.query_one(timescale, &[]).await?.get(0);
        if version < 1 {
            work.batch_execute(&first(&name, settings.series_index, timescale)).await?;
        }
        if version < VERSION {
            let sql = format!("INSERT INTO {versions} (version) VALUES ($1)");
            work.execute(&sql, &[&VERSION]).await?;
            tracing::info!(schema = name, version = VERSION, "made tables in PostgreSQL");
        }
        // What kind of table it is, not what the server has: the extension may have come later.
        let sql = "SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass($1)";
        let found = work.query_opt(sql, &[&format!("{name}.readings")]).await?;
        let Some(found) = found else {
            return Err(Failure::misconfigured(format!(
                "table {name}.readings is missing, though {versions} says that it was made: \
                 restore it, or drop {versions} to begin anew"
            )));
        };
        let hypertable = !found.get::<_, bool>(0);
        work.commit().await?;
        let keep = settings.keep.map(Into::into);
        Ok(Self { name, keep, hypertable, days: HashSet::new(), swept: None })
    }

    /// The table that rows of a day are copied into.
    pub(super) fn table(&self, day: &str) -> String {
        let Self { name, .. } = self;
        // Straight into the partition: the way through the parent looks each row's up.
        if self.hypertable { format!("{name}.readings") } else { format!("{name}.readings_{day}") }
    }

    /// The table of all rows.
    pub(super) fn readings(&self) -> String {
        format!("{}.readings", self.name)
    }

    /// The table of cursors.
    pub(super) fn cursors(&self) -> String {
        format!("{}.cursors", self.name)
    }

    /// Makes a day's partition if it is not there.
    pub(super) async fn ensure_day(
        &mut self,
        client: &mut Client,
        day: &str,
    ) -> Result<(), Failure> {
        if !self.hypertable && !self.days.contains(day) {
            let work = client.transaction().await?;
            self.make_day(&work, day).await?;
            work.commit().await?;
            self.days.insert(day.to_owned());
        }
        Ok(())
    }

    async fn make_day(&self, work: &Transaction<'_>, day: &str) -> Result<(), Failure> {
        let (name, table) = (&self.name, self.table(day));
        work.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
        let there = work.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table]).await?;
        if there.get::<_, bool>(0) {
            return Ok(());
        }
        // Attached rather than created as a partition: that would wait for, and hold up, every
        // query of the parent. Indexes come with LIKE and are joined to the parent's.
        let sql = format!(
            "CREATE TABLE {table} (LIKE {name}.readings INCLUDING ALL);
             ALTER TABLE {name}.readings ATTACH PARTITION {table}
             FOR VALUES FROM ('{day} 00:00:00+00')
             TO (timestamptz '{day} 00:00:00+00' + interval '24 hours')"
        );
        work.batch_execute(&sql).await?;
        Ok(())
    }

    /// Once a day, drops partitions that are older than what is kept.
    ///
    /// After a block is in, never before: rows may be older than what is kept, and need a table to
    /// be stored in before they can be dropped.
    pub(super) async fn sweep(&mut self, client: &mut Client) -> Result<(), Failure> {
        let Some(keep) = self.keep else { return Ok(()) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let today = now.as_secs() / DAY_SECONDS;
        if self.swept == Some(today) {
            return Ok(());
        }
        let kept_days = keep.as_secs() / DAY_SECONDS;
        let name = &self.name;
        if self.hypertable {
            let sql = format!(
                "SELECT drop_chunks('{name}.readings', now() - interval '{kept_days} days')"
            );
            client.batch_execute(&sql).await?;
            self.swept = Some(today);
            return Ok(());
        }
        let oldest = encode::date(today as i64 - kept_days as i64);
        let sql = "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
                   WHERE inhparent = to_regclass($1) AND relname ~ '^readings_[0-9]{8}$'
                   AND relname < $2 ORDER BY relname";
        let (parent, first_kept) = (format!("{name}.readings"), format!("readings_{oldest}"));
        for row in client.query(sql, &[&parent, &first_kept]).await? {
            let table: String = row.get(0);
            client.batch_execute(&format!("DROP TABLE IF EXISTS {name}.{table}")).await?;
            self.days.remove(table.trim_start_matches("readings_"));
            tracing::info!(schema = name, table, "dropped a day that is no longer kept");
        }
        self.swept = Some(today);
        Ok(())
    }
}

/// The tables of version 1.
fn first(name: &str, series_index: bool, timescale: bool) -> String {
    let partitioned = if timescale { "" } else { "PARTITION BY RANGE (received)" };
    let mut sql = format!(
        "CREATE TABLE {name}.readings (
            entry        bigint NOT NULL,
            index        int NOT NULL,
            tenant       text NOT NULL,
            device       text NOT NULL,
            key          text,
            time         timestamptz NOT NULL,
            timed        boolean NOT NULL,
            received     timestamptz NOT NULL,
            type         text NOT NULL,
            value        double precision,
            value_int    bigint,
            value_text   text,
            unit         text,
            session      bigint NOT NULL,
            seq          bigint NOT NULL,
            name         text,
            device_type  text,
            location     text,
            known        boolean NOT NULL,
            suspect      boolean NOT NULL,
            content_type text,
            payload      bytea
        ) {partitioned};
        CREATE INDEX readings_time ON {name}.readings USING brin (time);
        CREATE TABLE {name}.cursors (
            queue    uuid NOT NULL,
            consumer text NOT NULL,
            entry    bigint NOT NULL,
            index    int NOT NULL,
            moved    timestamptz NOT NULL,
            PRIMARY KEY (queue, consumer)
        );"
    );
    if series_index {
        sql.push_str(&format!(
            "CREATE INDEX readings_series ON {name}.readings (device, key, time DESC);"
        ));
    }
    if timescale {
        sql.push_str(&format!(
            "SELECT create_hypertable('{name}.readings', 'received',
                chunk_time_interval => interval '1 day', create_default_indexes => false);"
        ));
    }
    sql
}
