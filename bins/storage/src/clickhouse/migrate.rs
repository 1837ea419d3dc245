//! Brings the tables of a store to this release's version, and its rules for old rows to the
//! settings'.

use clickhouse::error::Error;

use super::{
    VERSION,
    client::{Store, outcome},
};
use crate::sink::Outcome;

/// Tables and views without which nothing can be stored.
const NEEDED: [&str; 6] = [
    "readings",
    "ranges",
    "readings_minute",
    "readings_minute_view",
    "readings_hour",
    "readings_hour_view",
];

/// Makes, migrates or checks the tables; all is as the settings ask on return.
///
/// # Errors
/// As for a block: a store that is away, or a human's turn.
pub(super) async fn ensure(store: &Store) -> Result<(), Outcome> {
    let manage = store.settings.manage_schema;
    if manage && !has_database(store).await.map_err(outcome)? {
        store.run(&store.schema.create_database()).await.map_err(outcome)?;
    }
    let tables = tables(store).await.map_err(outcome)?;
    let has = |name: &str| tables.contains(&format!("{}{name}", store.settings.prefix));
    let (mut version, mut retention) = (0, String::new());
    if has("schema_versions") {
        (version, retention) = newest(store).await.map_err(outcome)?;
    }
    if version > VERSION {
        return Err(Outcome::Misconfigured(format!(
            "ClickHouse: the tables in {} are of version {version}, this release knows {VERSION}: \
             a later release has migrated them",
            store.settings.database
        )));
    }
    let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !has(name)).collect();
    if !manage {
        if version == VERSION && missing.is_empty() {
            return Ok(());
        }
        return Err(Outcome::Misconfigured(format!(
            "ClickHouse: the tables in {} are of version {version} and lack {missing:?}, this \
             release needs {VERSION}, and manage_schema is off",
            store.settings.database
        )));
    }
    if version > 0 && !missing.is_empty() && version == VERSION {
        tracing::warn!(database = store.settings.database, ?missing, "makes lost tables anew");
    }
    if version < VERSION || !missing.is_empty() {
        migrate(store, if missing.is_empty() { version + 1 } else { 1 }, &retention).await?;
    }
    apply_retention(store, &retention).await
}

async fn migrate(store: &Store, from: u32, retention: &str) -> Result<(), Outcome> {
    store.run(&store.schema.create_versions()).await.map_err(outcome)?;
    for version in from..=VERSION {
        for statement in store.schema.step(version) {
            store.run(&statement).await.map_err(outcome)?;
        }
        note(store, version, retention).await.map_err(outcome)?;
    }
    tracing::info!(database = store.settings.database, version = VERSION, "tables are ready");
    Ok(())
}

/// Changes the rules only where they differ from those applied last: a change touches every part.
async fn apply_retention(store: &Store, applied: &str) -> Result<(), Outcome> {
    let wanted = store.schema.ttls(&store.settings);
    let text = wanted.iter().map(|(_, ttl)| ttl.as_str()).collect::<Vec<_>>().join("\n");
    if text == applied || (applied.is_empty() && wanted.iter().all(|(_, ttl)| ttl.is_empty())) {
        return Ok(());
    }
    if let Some(policy) = &store.settings.retention.storage_policy {
        let table = &wanted[0].0;
        let set = format!("ALTER TABLE {table} MODIFY SETTING storage_policy = '{policy}'");
        store.run(&set).await.map_err(outcome)?;
    }
    let mut before = applied.split('\n');
    for (table, ttl) in &wanted {
        if before.next().unwrap_or_default() != ttl {
            store.run(&store.schema.alter_ttl(table, ttl)).await.map_err(outcome)?;
        }
    }
    tracing::info!(database = store.settings.database, "rules for old rows are in force");
    note(store, VERSION, &text).await.map_err(outcome)
}

async fn note(store: &Store, version: u32, retention: &str) -> Result<(), Error> {
    let retention = retention.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n");
    let table = store.schema.table("schema_versions");
    let insert = format!(
        "INSERT INTO {table} (version, retention) SETTINGS async_insert = 0 \
         VALUES ({version}, '{retention}')"
    );
    store.run(&insert).await
}

async fn has_database(store: &Store) -> Result<bool, Error> {
    let database = &store.settings.database;
    let sql = format!("SELECT count() FROM system.databases WHERE name = '{database}'");
    Ok(store.lines(&sql).await?.first().is_some_and(|count| count != "0"))
}

async fn tables(store: &Store) -> Result<Vec<String>, Error> {
    let database = &store.settings.database;
    store.lines(&format!("SELECT name FROM system.tables WHERE database = '{database}'")).await
}

/// The version reached, and the rules that were applied last.
async fn newest(store: &Store) -> Result<(u32, String), Error> {
    let table = store.schema.table("schema_versions");
    let sql =
        format!("SELECT max(version), hex(argMax(retention, (applied, version))) FROM {table}");
    let lines = store.lines(&sql).await?;
    let (version, retention) =
        lines.first().and_then(|line| line.split_once('\t')).unwrap_or(("0", ""));
    let byte = |at: usize| u8::from_str_radix(retention.get(at..at + 2).unwrap_or("3f"), 16);
    let bytes: Vec<u8> = (0..retention.len()).step_by(2).filter_map(|at| byte(at).ok()).collect();
    Ok((version.parse().unwrap_or(0), String::from_utf8_lossy(&bytes).into_owned()))
}
