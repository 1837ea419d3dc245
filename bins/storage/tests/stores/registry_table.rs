//! The device registry from a table: taken over when it changes, kept while the database is away.

use std::path::Path;

use forebay_storage::config::{Config, RegistryTable};
use forebay_testkit::{Child, or_skip, postgres::Postgres};

use crate::{
    common::{
        Log, Served, eventually,
        rows::{lake_rows, simple},
    },
    postgres::{ask, connected, lock, unlock},
    process,
};

/// What the lake says of a device: name, unit and whether it is known, of its latest row.
fn described(lake: &Path, device: &str) -> Vec<(Option<String>, Option<String>, bool)> {
    use forebay_storage::read::{Filter, scan_lake};
    let filter = Filter { device: Some(device.to_owned()), ..Filter::default() };
    let mut rows = Vec::new();
    scan_lake(lake, &filter, &mut |row| {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        rows.push((row.seq, owned(row.name), owned(row.unit), row.known));
    })
    .unwrap();
    rows.sort_unstable();
    rows.into_iter().map(|(_, name, unit, known)| (name, unit, known)).collect()
}

fn storage(folder: &Path, served: &Served, url: &str, timeout: &str) -> Child {
    let sections = format!(
        "[lake]\ndir = \"{}\"\ndead_letters = \"{}\"\n[lake.flush]\nage = \"20ms\"\n\
         [registry.table]\nenabled = true\nurl = \"{url}\"\ndevices = \"plant.devices\"\n\
         keys = \"plant.keys\"\nlook_every = \"50ms\"\ntimeout = \"{timeout}\"\nkept = \"{}\"\n",
        folder.join("lake").display(),
        folder.join("dead").display(),
        folder.join("registry.kept").display(),
    );
    process::start("storage", folder, served, &sections, None)
}

/// Waits for a look at the table that began from now on and was in vain.
fn refused_from_now_on(process: &mut Child) {
    let mut refused = || process::metric(process, "forebay_storage_registry_table_refused_total");
    // One may be under way.
    let enough = refused() + 2;
    eventually("the table is refused", || refused() >= enough);
}

/// Puts a table of devices and one of keys into the server.
fn plant(server: &Postgres) {
    ask(
        server,
        "CREATE SCHEMA plant;
         CREATE TABLE plant.devices (device text PRIMARY KEY, type text, location text, name text);
         CREATE TABLE plant.keys (type text, key text, data_type text, unit text);
         INSERT INTO plant.keys VALUES ('pump', 'value', 'float', 'Cel');
         INSERT INTO plant.devices VALUES ('pump-1', 'pump', 'Hall \"3\", left', 'Feed pump');",
    );
}

#[test]
fn a_table_is_taken_over_when_it_changes_and_stays_while_the_database_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut server) = or_skip(Postgres::start(folder.path(), &["fsync=off"])) else { return };
    plant(&server);
    let log = Log::new(1);
    let served = Served::start(&log);
    let lake = folder.path().join("lake");
    let mut sent = std::collections::BTreeMap::<&str, u64>::new();
    // A row at a time, until one is described as wanted: what is stored stays as it was.
    let mut until = |device: &'static str, wanted: (Option<&str>, Option<&str>, bool)| {
        let wanted = (wanted.0.map(str::to_owned), wanted.1.map(str::to_owned), wanted.2);
        eventually(&format!("{device} is {wanted:?}"), || {
            let seq = sent.entry(device).or_default();
            *seq += 1;
            log.append(&simple(device, *seq, 1.0));
            let count = *seq as usize;
            eventually("it is stored", || lake.exists() && described(&lake, device).len() == count);
            described(&lake, device).last() == Some(&wanted)
        });
    };
    let mut process = storage(folder.path(), &served, &server.url(), "2s");
    until("pump-1", (Some("Feed pump"), Some("Cel"), true));
    until("pump-2", (None, None, false));
    let insert = "INSERT INTO plant.devices VALUES ('pump-2', 'pump', '', 'Another')";
    ask(&server, insert);
    until("pump-2", (Some("Another"), Some("Cel"), true));

    // Nonsense changes nothing.
    ask(&server, "INSERT INTO plant.keys VALUES ('pump', 'speed', 'nonsense', '')");
    ask(&server, "UPDATE plant.devices SET name = 'Renamed' WHERE device = 'pump-2'");
    refused_from_now_on(&mut process);
    until("pump-2", (Some("Another"), Some("Cel"), true));
    ask(&server, "DELETE FROM plant.keys WHERE key = 'speed'");
    until("pump-2", (Some("Renamed"), Some("Cel"), true));

    // Dead letters are described by the table, and by what is kept of it while it is away.
    let mut config = Config::default();
    config.registry.table = RegistryTable {
        enabled: true,
        url: server.url(),
        devices: "plant.devices".to_owned(),
        keys: "plant.keys".to_owned(),
        kept: folder.path().join("no registry.kept"),
        ..RegistryTable::default()
    };
    let named = |config: &Config| {
        let registry = forebay_storage::dead::registry(config)?;
        Ok::<_, String>(registry.get("default", "pump-2").unwrap().name.clone())
    };
    assert_eq!(named(&config), Ok(Some("Renamed".into())));

    // Away, the last good one stays; over a restart of ours too.
    server.kill().unwrap();
    assert!(named(&config).is_err());
    config.registry.table.kept = folder.path().join("registry.kept");
    assert_eq!(named(&config), Ok(Some("Renamed".into())));
    refused_from_now_on(&mut process);
    until("pump-2", (Some("Renamed"), Some("Cel"), true));
    drop(process);
    let process = storage(folder.path(), &served, &server.url(), "2s");
    until("pump-1", (Some("Feed pump"), Some("Cel"), true));
    server.restart().unwrap();
    ask(&server, "DELETE FROM plant.devices WHERE device = 'pump-1'");
    until("pump-1", (None, None, false));
    drop(process);
    assert!(lake_rows(&lake).len() > 5);
}

/// A look at a locked table is given up after its time; neither end may keep anything of it, or an
/// hour of a long migration takes all connections that the server has.
#[test]
fn looks_at_a_locked_table_leave_no_connection_behind() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(Postgres::start(folder.path(), &["fsync=off"])) else { return };
    plant(&server);
    let locker = lock(&server, folder.path(), "plant.devices");
    let log = Log::new(1);
    let served = Served::start(&log);
    let mut process = storage(folder.path(), &served, &server.url(), "100ms");
    eventually("ten looks were given up", || {
        process::metric(&mut process, "forebay_storage_registry_table_refused_total") >= 10
    });
    // The one of the moment, and one whose end the server has not seen yet.
    eventually("only the last looks are there", || connected(&server, "forebay registry") <= 2);
    unlock(&server, locker);
    let good = "forebay_storage_registry_table_good";
    eventually("it is read again", || process::metric(&mut process, good) == 1);
}
