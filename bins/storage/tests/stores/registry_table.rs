//! The device registry from a table: taken over when it changes, kept while the database is away.

use std::{fs, path::Path, process::Command};

use forebay_testkit::{Child, or_skip, postgres::Postgres};

use crate::{
    common::{
        Log, Served, eventually,
        rows::{lake_rows, simple},
    },
    postgres::ask,
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

fn storage(folder: &Path, served: &Served, url: &str) -> Child {
    let config = format!(
        "[[middles]]\nfeed = \"{}\"\nfetch = \"{}\"\n\
         [http]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [live]\nenabled = false\n\
         [lake]\ndir = \"{}\"\ndead_letters = \"{}\"\n[lake.flush]\nage = \"20ms\"\n\
         [registry.table]\nenabled = true\nurl = \"{url}\"\ndevices = \"plant.devices\"\n\
         keys = \"plant.keys\"\nlook_every = \"50ms\"\ntimeout = \"2s\"\nkept = \"{}\"\n",
        served.publisher.endpoint(),
        served.replay.endpoint(),
        folder.join("lake").display(),
        folder.join("dead").display(),
        folder.join("registry.kept").display(),
    );
    let path = folder.join("storage.toml");
    fs::write(&path, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-storage"));
    Child::spawn("storage", command.arg("--config").arg(path), folder).unwrap()
}

#[test]
fn a_table_is_taken_over_when_it_changes_and_stays_while_the_database_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut server) = or_skip(Postgres::start(folder.path(), &["fsync=off"])) else { return };
    ask(
        &server,
        "CREATE SCHEMA plant;
         CREATE TABLE plant.devices (device text PRIMARY KEY, type text, location text, name text);
         CREATE TABLE plant.keys (type text, key text, data_type text, unit text);
         INSERT INTO plant.keys VALUES ('pump', 'value', 'float', 'Cel');
         INSERT INTO plant.devices VALUES ('pump-1', 'pump', 'Hall \"3\", left', 'Feed pump');",
    );
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
    let process = storage(folder.path(), &served, &server.url());
    until("pump-1", (Some("Feed pump"), Some("Cel"), true));
    until("pump-2", (None, None, false));
    let insert = "INSERT INTO plant.devices VALUES ('pump-2', 'pump', '', 'Another')";
    ask(&server, insert);
    until("pump-2", (Some("Another"), Some("Cel"), true));

    // Nonsense changes nothing.
    ask(&server, "INSERT INTO plant.keys VALUES ('pump', 'speed', 'nonsense', '')");
    ask(&server, "UPDATE plant.devices SET name = 'Renamed' WHERE device = 'pump-2'");
    std::thread::sleep(std::time::Duration::from_millis(300));
    until("pump-2", (Some("Another"), Some("Cel"), true));
    ask(&server, "DELETE FROM plant.keys WHERE key = 'speed'");
    until("pump-2", (Some("Renamed"), Some("Cel"), true));

    // Away, the last good one stays; over a restart of ours too.
    server.kill().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    until("pump-2", (Some("Renamed"), Some("Cel"), true));
    drop(process);
    let process = storage(folder.path(), &served, &server.url());
    until("pump-1", (Some("Feed pump"), Some("Cel"), true));
    server.restart().unwrap();
    ask(&server, "DELETE FROM plant.devices WHERE device = 'pump-1'");
    until("pump-1", (None, None, false));
    drop(process);
    assert!(lake_rows(&lake).len() > 5);
}
