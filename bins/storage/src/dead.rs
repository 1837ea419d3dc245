//! Where the sinks of a configuration keep their dead letters, and how a sink is opened to take
//! them again.
//!
//! All sinks share one folder: a letter names its sink, and so does its file.

use std::{path::Path, sync::Arc};

use forebay_model::registry::Registry;

use crate::{config::Config, sink::Sink};

/// The folder of the dead letters of all sinks, also of those that are not enabled any more.
#[must_use]
pub fn folder(config: &Config) -> &Path {
    &config.lake.dead_letters
}

/// The sink that a letter names, to send it to: `postgres`, or `postgres-west` where that is the
/// sink of the middle `west` among several.
///
/// # Errors
/// A sentence: there is no such sink, it is not enabled, or it cannot be opened.
pub fn open_sink(config: &Config, name: &str) -> Result<Box<dyn Sink>, String> {
    let is = |store: &str| {
        let rest = name.strip_prefix(store);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    #[cfg(feature = "clickhouse")]
    if is("clickhouse") {
        enabled(config.clickhouse.enabled, "clickhouse")?;
        return Ok(Box::new(crate::clickhouse::ClickhouseSink::alone(&config.clickhouse)));
    }
    #[cfg(feature = "postgres")]
    if is("postgres") {
        enabled(config.postgres.enabled, "postgres")?;
        return Ok(Box::new(crate::postgres::PostgresSink::new(&config.postgres)));
    }
    #[cfg(feature = "remote-write")]
    if is("remote-write") {
        enabled(config.remote_write.enabled, "remote_write")?;
        let sink = crate::remote_write::RemoteWriteSink::new(&config.remote_write);
        return Ok(Box::new(sink.map_err(|reason| format!("remote_write.url: {reason}"))?));
    }
    #[cfg(feature = "redis")]
    if is("redis") {
        enabled(config.redis.enabled, "redis")?;
        return Ok(Box::new(crate::redis::RedisSink::new(&config.redis)));
    }
    if is("lake") {
        // What the lake cannot write it will take later: it sets aside only entries that are none.
        return Err("the lake refuses no row".to_owned());
    }
    Err(format!("this build has no sink {name}"))
}

fn enabled(is_enabled: bool, section: &str) -> Result<(), String> {
    if is_enabled { Ok(()) } else { Err(format!("{section}.enabled is not set in --config")) }
}

/// What is known of devices by the files or the table of a configuration, to describe rows that are
/// sent again. While the database is away it is what the storage tier kept of its table.
///
/// # Errors
/// A sentence: a file cannot be read, or holds no registry; nor can the table, and nothing is kept
/// of it. Rows must not be sent: they would be stored without what is known of their devices.
pub fn registry(config: &Config) -> Result<Arc<Registry>, String> {
    if config.registry.table.enabled {
        #[cfg(feature = "postgres")]
        return crate::postgres::registry_once(&config.registry.table).map(Arc::new);
        #[cfg(not(feature = "postgres"))]
        return Err("this build has no PostgreSQL to read registry.table from".to_owned());
    }
    let mut texts = Vec::new();
    for path in &config.registry.files {
        let bytes = std::fs::read(path);
        let bytes = bytes.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        texts.push((path.display().to_string(), bytes));
    }
    let texts = texts.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    Ok(Arc::new(Registry::load(texts).map_err(|error| error.to_string())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "postgres")]
    #[test]
    fn without_its_database_the_registry_is_what_was_kept_and_never_empty() {
        let folder = tempfile::tempdir().expect("temp dir");
        let mut config = Config::default();
        config.registry.table.enabled = true;
        // Nobody listens there.
        config.registry.table.url = "host=127.0.0.1 port=1 user=nobody".to_owned();
        config.registry.table.kept = folder.path().join("registry.kept");
        let kept = config.registry.table.kept.clone();
        let refused = registry(&config).expect_err("neither table nor file");
        assert!(refused.contains("registry.kept"), "{refused}");
        std::fs::write(&kept, "31 devices.csv\ndevice,location\npress-1,Hall 3\n")
            .expect("written");
        let found = registry(&config).expect("the file");
        let press = found.get("default", "press-1").expect("listed");
        assert_eq!(press.location.as_deref(), Some("Hall 3"));
        std::fs::write(&kept, "damaged").expect("written");
        assert!(registry(&config).is_err());
    }

    #[test]
    fn a_letter_finds_its_sink_by_its_name_with_and_without_a_middle() {
        let mut config = Config::default();
        let open = |config: &Config, name: &str| open_sink(config, name).err();
        for (name, section) in [
            ("clickhouse", "clickhouse"),
            ("postgres-west", "postgres"),
            ("remote-write-east", "remote_write"),
            ("redis", "redis"),
        ] {
            let reason = open(&config, name).expect("not enabled");
            assert!(reason.starts_with(&format!("{section}.enabled")), "{name}: {reason}");
        }
        config.clickhouse.enabled = true;
        config.postgres.enabled = true;
        config.remote_write.enabled = true;
        config.redis.enabled = true;
        for store in ["clickhouse", "postgres", "remote-write", "redis"] {
            assert_eq!(open(&config, store), None);
            assert_eq!(open(&config, &format!("{store}-a-middle")), None);
        }
        assert_eq!(open(&config, "lake").as_deref(), Some("the lake refuses no row"));
        for other in ["postgresql", "kafka", ""] {
            assert!(open(&config, other).expect("none").contains("no sink"), "{other}");
        }
    }
}
