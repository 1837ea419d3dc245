//! Settings of the device registry.

use std::path::PathBuf;

use forebay_ops::{Duration, Faults, Validate, tls::StoreTls};
use serde::{Deserialize, Serialize};

use super::POSITIVE;

/// The device registry: files, or a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// Its files, TOML or CSV by the end of their names; together they are one registry. Read again
    /// when they change; none: nothing is known of devices.
    pub files: Vec<PathBuf>,
    /// A table of PostgreSQL instead of files.
    pub table: RegistryTable,
    /// A listed device of which no reading has come for longer is counted as silent.
    pub silent_after: Duration,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            table: RegistryTable::default(),
            // Most devices report at least every few minutes; a night's outage is no surprise then.
            silent_after: Duration::from_secs(15 * 60),
        }
    }
}

/// A table of PostgreSQL instead of files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryTable {
    /// Whether there is one.
    pub enabled: bool,
    /// How to connect, in the form of libpq: `host=.. port=.. user=.. dbname=..`, or a URL. TLS is
    /// spoken with `sslmode=require`, or where anything is set below `tls`.
    pub url: String,
    /// TLS to the server.
    pub tls: StoreTls,
    /// A file that holds the password; read at each look.
    pub password_file: Option<PathBuf>,
    /// Table or view of devices; its columns are those of the CSV file of devices.
    pub devices: String,
    /// Table or view of the keys of types, as the CSV file of them; none if empty.
    pub keys: String,
    /// How often it is read; only what has changed is put in force.
    pub look_every: Duration,
    /// Longest time for one look.
    pub timeout: Duration,
    /// Where the last good version is kept, for a start while the database is away.
    pub kept: PathBuf,
}

impl Default for RegistryTable {
    fn default() -> Self {
        Self {
            enabled: false,
            url: "host=127.0.0.1 user=forebay dbname=forebay".to_owned(),
            tls: StoreTls::default(),
            password_file: None,
            devices: "devices".to_owned(),
            keys: String::new(),
            // A new device is known before somebody has walked back from it.
            look_every: Duration::from_secs(30),
            timeout: Duration::from_secs(10),
            kept: "forebay-data/storage/registry.kept".into(),
        }
    }
}

impl Validate for Registry {
    fn validate(&self, faults: &mut Faults) {
        let table = &self.table;
        if !table.enabled {
            return;
        }
        let one = self.files.is_empty();
        faults.check(one, "files", "are set beside registry.table: one of them");
        faults.within("table", |faults| {
            let built = cfg!(feature = "postgres");
            faults.check(built, "enabled", "this build has no PostgreSQL: feature postgres");
            faults.check(!table.url.is_empty(), "url", "must say where the server is");
            #[cfg(feature = "postgres")]
            super::tls::postgres::validate(faults, &table.url, &table.tls);
            const TABLE: &str = "must be a name of a-z 0-9 _, with a schema before it or without";
            faults.check(is_table(&table.devices), "devices", TABLE);
            faults.check(table.keys.is_empty() || is_table(&table.keys), "keys", TABLE);
            faults.check(!table.look_every.is_zero(), "look_every", POSITIVE);
            faults.check(!table.timeout.is_zero(), "timeout", POSITIVE);
        });
    }
}

/// `table` or `schema.table`, without anything that needs quotes in SQL.
fn is_table(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let word = |word: &str| {
        (1..=63).contains(&word.len())
            && word.bytes().all(plain)
            && !word.starts_with(|first: char| first.is_ascii_digit())
    };
    name.split('.').count() <= 2 && name.split('.').all(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_would_be_syntax_is_refused_and_so_are_files_beside_it() {
        let table = RegistryTable {
            enabled: true,
            devices: "devices; DROP TABLE readings".to_owned(),
            keys: "a.b.c".to_owned(),
            look_every: Duration::from_secs(0),
            ..RegistryTable::default()
        };
        let mut faults = Faults::default();
        Registry { files: vec!["devices.csv".into()], table, ..Registry::default() }
            .validate(&mut faults);
        let paths: Vec<&str> = faults.found().iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(paths, ["files", "table.devices", "table.keys", "table.look_every"]);
        for name in ["devices", "plant.devices", "_a1"] {
            assert!(is_table(name), "{name}");
        }
        for name in ["", ".", "a.", "1a", "Devices", "a b"] {
            assert!(!is_table(name), "{name}");
        }
    }
}
