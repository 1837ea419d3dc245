//! The device registry from a table of PostgreSQL, read again now and then.
//!
//! What is copied out of the table is CSV with the names of its columns in the first line, and that
//! is what a registry's files may be: one form, one parser, the same words for what is wrong. A
//! second table may hold the keys of types. Both are read in one transaction.
//!
//! The last good version stays while the database is away or holds nonsense, and is kept in a file
//! beside, so that a start without the database knows the devices too.
//!
//! Not here: what a registry is (`forebay_model::registry`).

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    thread::JoinHandle,
};

use forebay_model::registry::Registry;
use forebay_ops::{Metrics, Shutdown, thread};
use futures_util::TryStreamExt as _;
use prometheus::{IntCounter, IntGauge};
use tokio_postgres::Client;

use super::dial::{DialError, dial, parse, set_password, tls_refusal};
use crate::{config::RegistryTable, registry::Current, tier::StartError};

/// Most bytes of a table: a registry of some million devices.
const TABLE_BYTES_MAX: usize = 256 << 20;

/// The texts of the tables, by a name that ends in `.csv`.
type Tables = Vec<(String, Vec<u8>)>;

/// Follows the table while it is held.
#[derive(Debug)]
pub(crate) struct RegistryFollower {
    end: Shutdown,
    thread: Option<JoinHandle<()>>,
}

struct Work {
    settings: RegistryTable,
    current: Current,
    end: Shutdown,
    last: Option<Tables>,
    /// What was said last: it is said once for as long as it lasts.
    said: String,
    taken: IntCounter,
    refused: IntCounter,
    good: IntGauge,
    devices: IntGauge,
}

impl RegistryFollower {
    /// Reads the table into `current`, or what is kept of it, and follows it from now on.
    ///
    /// # Errors
    /// There is no thread, or the metrics are registered already. A database that is away is none.
    pub(crate) fn start(
        settings: &RegistryTable,
        current: &Current,
        metrics: &Metrics,
    ) -> Result<Self, StartError> {
        let mut work = Work {
            settings: settings.clone(),
            current: current.clone(),
            end: Shutdown::new(),
            last: None,
            said: String::new(),
            taken: metrics.counter(
                "forebay_storage_registry_table_taken_total",
                "New versions of the device registry's table that were taken over.",
            )?,
            refused: metrics.counter(
                "forebay_storage_registry_table_refused_total",
                "Times the device registry's table could not be read or used; the last good \
                 version stays.",
            )?,
            good: metrics.gauge(
                "forebay_storage_registry_table_good",
                "1 if the device registry's table holds what is in use, 0 if it could not be read \
                 or used.",
            )?,
            devices: metrics.gauge(
                "forebay_storage_registry_devices",
                "Devices that the device registry lists.",
            )?,
        };
        let end = work.end.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(StartError::Thread)?;
        // Before anything is stored: rows are described from the first on.
        if !runtime.block_on(work.look()) {
            work.restore();
        }
        let thread = thread::spawn("registry-table", move || {
            while !work.end.clone().wait_timeout(work.settings.look_every.into()) {
                runtime.block_on(work.look());
            }
        });
        let thread = thread.map_err(StartError::Thread)?;
        Ok(Self { end, thread: Some(thread) })
    }
}

impl Drop for RegistryFollower {
    fn drop(&mut self) {
        self.end.begin("the registry's table is followed no more");
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Work {
    /// Reads the tables, and puts them in force if they are new and good; whether they are good.
    async fn look(&mut self) -> bool {
        let done = read_in_time(&self.settings).await.and_then(|tables| {
            if self.last.as_ref() == Some(&tables) {
                return Ok(());
            }
            self.put(&tables)?;
            self.taken.inc();
            if let Err(error) = keep(&self.settings.kept, &tables) {
                // Only a start without the database misses it.
                let path = self.settings.kept.display();
                tracing::warn!(%path, %error, "the device registry is not kept on disk");
            }
            self.last = Some(tables);
            Ok(())
        });
        self.good.set(i64::from(done.is_ok()));
        match done {
            Ok(()) => {
                if !std::mem::take(&mut self.said).is_empty() {
                    tracing::info!("the device registry's table can be read again");
                }
                true
            }
            Err(reason) => {
                self.refused.inc();
                if self.said != reason {
                    tracing::warn!(
                        reason,
                        "the device registry's table is not used, what was good stays"
                    );
                    self.said = reason;
                }
                false
            }
        }
    }

    fn put(&mut self, tables: &Tables) -> Result<(), String> {
        let registry = load(tables)?;
        self.devices.set(i64::try_from(registry.len()).unwrap_or(i64::MAX));
        tracing::info!(devices = registry.len(), "a device registry is in force");
        self.current.set(registry.into());
        Ok(())
    }

    /// Puts in force what was kept of an earlier look.
    fn restore(&mut self) {
        match kept(&self.settings.kept) {
            Ok(Some(tables)) => match self.put(&tables) {
                Ok(()) => self.last = Some(tables),
                Err(reason) => tracing::error!(reason, "what is kept of the registry is damaged"),
            },
            Ok(None) => tracing::error!(
                "no device registry is in force: devices are unknown until its table can be read"
            ),
            Err(error) => {
                let path = self.settings.kept.display();
                tracing::error!(%path, %error, "no device registry is in force");
            }
        }
    }
}

/// The registry as its table is now, or as it was kept when it was good last.
///
/// # Errors
/// What is wrong with the table, and with what is kept of it.
pub(crate) fn registry_once(settings: &RegistryTable) -> Result<Registry, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let refused = match runtime.block_on(read_in_time(settings)).and_then(|read| load(&read)) {
        Ok(registry) => return Ok(registry),
        Err(reason) => reason,
    };
    let kept = match kept(&settings.kept) {
        Ok(Some(tables)) => load(&tables),
        Ok(None) => Err("not there".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let path = settings.kept.display();
    kept.map_err(|reason| format!("registry.table: {refused}; {path}: {reason}"))
}

fn load(tables: &Tables) -> Result<Registry, String> {
    let files = tables.iter().map(|(name, text)| (name.as_str(), text.as_slice()));
    Registry::load(files).map_err(|error| error.to_string())
}

async fn read_in_time(settings: &RegistryTable) -> Result<Tables, String> {
    let read = tokio::time::timeout(settings.timeout.into(), read(settings)).await;
    read.unwrap_or_else(|_| Err(format!("no answer within {}", settings.timeout)))
}

/// The tables as they are at one moment.
async fn read(settings: &RegistryTable) -> Result<Tables, String> {
    let config = parse(&settings.url);
    let mut config = config.map_err(|reason| format!("registry.table.url {reason}"))?;
    set_password(&mut config, settings.password_file.as_deref())?;
    config.application_name("forebay registry");
    let dialed = dial(&mut config, &settings.tls).await;
    let (client, connection) = dialed.map_err(|error| match error {
        DialError::File(reason) => format!("registry.table.{reason}"),
        DialError::Server(error) => told(error),
    })?;
    // Driven here and in no task of its own: a look that is given up takes its connection along.
    tokio::select! {
        tables = copy_out(&client, settings) => tables,
        ended = connection => {
            Err(ended.map_or_else(told, |()| "the connection ended".to_owned()))
        }
    }
}

async fn copy_out(client: &Client, settings: &RegistryTable) -> Result<Tables, String> {
    // The server does not hear that nobody waits for it any more while it waits for a lock.
    let timeout_ms = settings.timeout.as_millis();
    let limit = format!("SET statement_timeout = {timeout_ms}");
    client.batch_execute(&limit).await.map_err(told)?;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    client.batch_execute(begin).await.map_err(told)?;
    let mut tables = Tables::new();
    for table in [&settings.devices, &settings.keys] {
        if table.is_empty() {
            continue;
        }
        // The order of rows says nothing, but must not look like a change.
        let sql = format!(
            "COPY (SELECT * FROM {table} AS listed ORDER BY listed::text) \
             TO STDOUT WITH (FORMAT csv, HEADER, ENCODING 'UTF8')"
        );
        let failed = |error| format!("table {table}: {}", told(error));
        let mut rows = Box::pin(client.copy_out(sql.as_str()).await.map_err(failed)?);
        let mut text = Vec::new();
        while let Some(part) = rows.try_next().await.map_err(failed)? {
            if text.len() + part.len() > TABLE_BYTES_MAX {
                return Err(format!("table {table} is longer than {TABLE_BYTES_MAX} bytes"));
            }
            text.extend_from_slice(&part);
        }
        tables.push((format!("{table}.csv"), text));
    }
    Ok(tables)
}

/// What the server said, rather than that it said something.
fn told(error: tokio_postgres::Error) -> String {
    match (error.as_db_error(), tls_refusal(&error)) {
        (Some(said), _) => said.to_string(),
        (None, Some(reason)) => reason,
        (None, None) => error.to_string(),
    }
}

/// Keeps the tables in a file: a line with name and length each, then its text.
fn keep(path: &Path, tables: &Tables) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let unfinished = path.with_extension("tmp");
    let mut file = fs::File::create(&unfinished)?;
    for (name, text) in tables {
        writeln!(file, "{} {name}", text.len())?;
        file.write_all(text)?;
    }
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

/// Reads what [`keep`] wrote.
fn kept(path: &Path) -> io::Result<Option<Tables>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    let damaged = || io::Error::other("not what was written");
    let (mut rest, mut tables) = (bytes.as_slice(), Tables::new());
    while !rest.is_empty() {
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or_else(damaged)?;
        let head = std::str::from_utf8(&rest[..end]).map_err(|_| damaged())?;
        let (length, name) = head.split_once(' ').ok_or_else(damaged)?;
        let length: usize = length.parse().map_err(|_| damaged())?;
        let text = rest.get(end + 1..end + 1 + length).ok_or_else(damaged)?;
        tables.push((name.to_owned(), text.to_vec()));
        rest = &rest[end + 1 + length..];
    }
    Ok(Some(tables))
}
