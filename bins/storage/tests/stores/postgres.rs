//! PostgreSQL: the rows are as they were sent, once, however they were sent.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::Path,
};

use forebay_link::Seq;
use forebay_ops::Duration;
use forebay_storage::{
    config,
    postgres::PostgresSink,
    sink::{DeadLetters, Outcome, SinkState, Token, TokenPiece},
};
use forebay_testkit::{Child, Filesystem, LoopMount, or_skip, postgres::Postgres};

use crate::{
    common::{
        DEADLINE, Log, eventually,
        rows::{OwnedCell, OwnedRow, all_rows, messages, simple},
    },
    fixture::{
        QUEUE, misconfigured, poison, rows, runtime, send, send_as, send_on, start, transient,
    },
    storm::Store,
};

pub(crate) fn settings(server: &Postgres) -> config::Postgres {
    config::Postgres { enabled: true, url: server.url(), ..config::Postgres::default() }
}

/// The lines of an answer, columns apart by `|`.
pub(crate) fn ask(server: &Postgres, sql: &str) -> Vec<String> {
    let mut psql = server.client("psql").unwrap();
    psql.args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-c", sql]).env("PGTZ", "UTC");
    let output = psql.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{sql}: {said}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// All rows, and how many different ones, by identity.
pub(crate) fn counts(server: &Postgres) -> (u64, u64) {
    let all = ask(server, "SELECT count(*) FROM forebay.readings");
    let sql = "SELECT count(*) FROM (SELECT DISTINCT tenant, device, session, seq, index
               FROM forebay.readings) AS identities";
    (all[0].parse().unwrap(), ask(server, sql)[0].parse().unwrap())
}

fn shown(row: &OwnedRow) -> String {
    let (kind, value) = match &row.value {
        OwnedCell::Float(number) => ("float", number.to_string()),
        OwnedCell::Int(number) => ("int", number.to_string()),
        OwnedCell::Bool(on) => ("bool", u8::from(*on).to_string()),
        OwnedCell::Text(text) if text.contains('\0') => ("text", hex(text.as_bytes())),
        OwnedCell::Text(text) => ("text", text.clone()),
        OwnedCell::Opaque(_, payload) => ("opaque", hex(payload)),
    };
    let (key, unit) = (row.key.as_deref().unwrap_or("-"), row.unit.as_deref().unwrap_or("-"));
    let location = if row.device == "device-0" { "cellar" } else { "-" };
    format!(
        "{}|{}|{}|{}|{}|{key}|{kind}|{value}|{unit}|{}|{}|{}|{location}",
        row.tenant,
        row.device,
        row.session,
        row.seq,
        row.index,
        row.at_us(),
        if row.time_us.is_some() { "t" } else { "f" },
        row.received_us,
    )
}

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\\x{digits}")
}

const ALL: &str = r"SELECT tenant, device, session, seq, index, coalesce(key, '-'), type,
    coalesce(value_text, payload::text, value_int::text, value::text), coalesce(unit, '-'),
    (extract(epoch from time) * 1000000)::bigint, timed,
    (extract(epoch from received) * 1000000)::bigint, coalesce(location, '-')
    FROM forebay.readings";

#[test]
fn postgres_holds_every_row_as_sent_once_however_ranges_are_cut_and_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(Postgres::start(folder.path(), &[])) else { return };
    let mut sent = messages(1, 3000);
    sent.push(text("nul", "a\0b"));
    // The second message from the end was received a day later: a block of two days.
    let mut late = simple("late", 1, 2.5);
    late.received = forebay_model::Timestamp::from_micros(1_795_450_000_000_000).unwrap();
    sent.insert(sent.len() - 1, late);
    let (all, runtime) = (sent.len(), runtime());
    let mut sink = PostgresSink::new(&settings(&server));
    // Overlaps, repeats, a process that begins anew from the start with other cuts.
    for range in [0..700, 700..701, 0..700, 300..1500, 0..all, 2000..all] {
        assert_eq!(send_on(&runtime, &mut sink, &rows(&sent, range)), Outcome::Ack);
    }
    let mut again = PostgresSink::new(&settings(&server));
    for start in (0..all).step_by(1100) {
        let range = start..all.min(start + 1100);
        assert_eq!(send(&mut again, &rows(&sent, range)), Outcome::Ack);
    }
    let mut expected: Vec<_> = all_rows(&sent).iter().map(shown).collect();
    let mut found = ask(&server, ALL);
    expected.sort();
    found.sort();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    let days = ask(&server, "SELECT count(*) FROM pg_inherits");
    // Two tables, and their indexes below the parent's: readings_time and readings_series.
    assert_eq!(days, ["6"]);
}

fn text(device: &str, value: &str) -> forebay_model::Message<'static> {
    let mut message = simple(device, 1, 0.0);
    if let forebay_model::Body::Readings(readings) = &mut message.body {
        readings[0].value = forebay_model::Value::Text(value.to_owned().into());
    }
    message
}

#[test]
fn two_processes_that_send_the_same_to_postgres_at_once_store_it_once() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(Postgres::start(folder.path(), &[])) else { return };
    let sent = messages(2, 2000);
    std::thread::scope(|scope| {
        for cut in [90, 170] {
            let (settings, sent) = (settings(&server), &sent);
            scope.spawn(move || {
                let (mut sink, runtime) = (PostgresSink::new(&settings), runtime());
                for start in (0..sent.len()).step_by(cut) {
                    let rows = rows(sent, start..sent.len().min(start + cut));
                    while send_on(&runtime, &mut sink, &rows) != Outcome::Ack {}
                }
            });
        }
    });
    let expected = all_rows(&sent).len() as u64;
    assert_eq!(counts(&server), (expected, expected));
}

#[test]
fn what_is_wrong_with_postgres_is_told_apart_and_mends_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut server) = or_skip(Postgres::start(folder.path(), &[])) else { return };
    let (sent, runtime) = (messages(3, 60), runtime());
    let mut cut = (0..60).step_by(5).map(|start| rows(&sent, start..start + 5));
    let password = folder.path().join("password");
    fs::write(&password, "wrong\n").unwrap();
    let config = config::Postgres {
        password_file: Some(password.clone()),
        timeout: Duration::from_secs(1),
        ..settings(&server)
    };
    let sink = &mut PostgresSink::new(&config);
    let mut next = || cut.next().unwrap();

    let block = next();
    misconfigured(send_on(&runtime, sink, &block));
    fs::remove_file(&password).unwrap();
    misconfigured(send_on(&runtime, sink, &block));
    fs::write(&password, forebay_testkit::postgres::PASSWORD).unwrap();
    assert_eq!(send_on(&runtime, sink, &block), Outcome::Ack);

    let block = next();
    ask(&server, "ALTER TABLE forebay.readings RENAME TO gone");
    ask(&server, "ALTER TABLE forebay.readings_20261122 RENAME TO gone_20261122");
    misconfigured(send_on(&runtime, sink, &block));
    misconfigured(send_on(&runtime, sink, &block));
    ask(&server, "ALTER TABLE forebay.gone RENAME TO readings");
    ask(&server, "ALTER TABLE forebay.gone_20261122 RENAME TO readings_20261122");
    assert_eq!(send_on(&runtime, sink, &block), Outcome::Ack);

    let block = next();
    let refuse = "ALTER TABLE forebay.readings ADD CONSTRAINT mine CHECK (seq < 0) NOT VALID";
    ask(&server, refuse);
    poison(send_on(&runtime, sink, &block));
    ask(&server, "ALTER TABLE forebay.readings DROP CONSTRAINT mine");
    assert_eq!(send_on(&runtime, sink, &block), Outcome::Ack);

    let block = next();
    ask(&server, "UPDATE forebay.versions SET version = 99");
    let mut later = PostgresSink::new(&config);
    misconfigured(send_on(&runtime, &mut later, &block));
    ask(&server, "UPDATE forebay.versions SET version = 1");

    server.pause().unwrap();
    transient(send_on(&runtime, sink, &block));
    transient(send_on(&runtime, sink, &block));
    server.resume().unwrap();
    assert_eq!(send_on(&runtime, sink, &block), Outcome::Ack);

    // Killed while idle and back: the dead connection is not worth a try that counts.
    let block = next();
    server.kill().unwrap();
    server.restart().unwrap();
    assert_eq!(send_on(&runtime, sink, &block), Outcome::Ack);
    let block = next();
    server.kill().unwrap();
    transient(send_on(&runtime, sink, &block));
    server.restart().unwrap();
    assert_eq!(send_on(&runtime, sink, &block), Outcome::Ack);

    let expected = all_rows(&sent[..30]).len() as u64;
    assert_eq!(counts(&server), (expected, expected));
}

#[test]
fn a_row_that_postgres_refuses_is_set_aside_alone_and_can_be_sent_again_later() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(Postgres::start(folder.path(), &[])) else { return };
    let sent: Vec<_> = (1..=100).map(|seq| simple("d", seq, seq as f64)).collect();
    let mut sink = PostgresSink::new(&settings(&server));
    let log = Log::new(1);
    log.append_all(&sent[..10]);
    let inner = PostgresSink::new(&settings(&server));
    let task = start(&log, "postgres", &folder.path().join("dead"), inner);
    eventually("the first are in", || log.state("postgres").committed == log.head());
    ask(&server, "ALTER TABLE forebay.readings ADD CONSTRAINT mine CHECK (value <> 13)");
    log.append_all(&sent[10..]);
    eventually("all are in or set aside", || log.state("postgres").committed == log.head());
    let status = task.status();
    assert_eq!(status.dead_letters.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!(status.state().0, SinkState::Running);
    assert_eq!(counts(&server), (99, 99));
    task.drain(std::time::Instant::now());

    // The letter is sent alone, as often as somebody likes, though the cursor is beyond it.
    let piece = TokenPiece { start: 12, end: 13, letter: true };
    let entry = Seq::from_parts(1, 13);
    let token = Token { queue: QUEUE, first: entry, last: entry, piece: Some(piece) };
    let (letter, runtime) = (rows(&sent, 12..13), runtime());
    poison(send_as(&runtime, &mut sink, &letter, &token));
    ask(&server, "ALTER TABLE forebay.readings DROP CONSTRAINT mine");
    for _ in 0..3 {
        assert_eq!(send_as(&runtime, &mut sink, &letter, &token), Outcome::Ack);
    }
    assert_eq!(counts(&server), (100, 100));
    assert_eq!(ask(&server, "SELECT count(*) FROM forebay.readings WHERE value = 13"), ["1"]);
}

#[test]
fn a_postgres_with_a_full_disk_alarms_and_takes_everything_once_there_is_room() {
    let Some(disk) = or_skip(LoopMount::new(Filesystem::Ext4, 128 << 20)) else { return };
    let Some(server) = or_skip(Postgres::start(disk.path(), &[])) else { return };
    let folder = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    let first = simple("first", 1, 1.0);
    log.append(&first);
    let sink = PostgresSink::new(&settings(&server));
    let task = start(&log, "postgres", &folder.path().join("dead"), sink);
    eventually("the first is in", || log.state("postgres").committed == log.head());
    // Its tables can grow no more; what is left of its log's file is enough to say so.
    let ballast = disk.path().join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    let zeros = vec![0; 1 << 20];
    let full = loop {
        match file.write(&zeros).and_then(|_| file.sync_data()) {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    let sent = messages(6, 2000);
    log.append_all(&sent);
    let status = task.status();
    eventually("it alarms", || {
        let (state, reason) = status.state();
        state == SinkState::Alarmed && reason.contains("[53100]")
    });
    assert!(log.state("postgres").committed < log.head());
    drop(file);
    fs::remove_file(&ballast).unwrap();
    eventually("it goes on by itself", || log.state("postgres").committed == log.head());
    assert_eq!(status.state().0, SinkState::Running);
    let letters = status.dead_letters.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(letters, 0, "no healthy row is set aside");
    task.drain(std::time::Instant::now());
    let expected = all_rows(&sent).len() as u64 + 1;
    assert_eq!(counts(&server), (expected, expected));
    drop(server);
}

/// The first row of a range is refused before anything else was taken, so it is only a suspect when
/// the next piece moves PostgreSQL's own cursor past it. A process that ended there used to leave
/// neither the row nor a letter: the next one was told that all was stored.
#[test]
fn the_first_row_of_a_range_that_postgres_refuses_has_its_letter_before_the_cursor_is_past_it() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(Postgres::start(folder.path(), &[])) else { return };
    let sent: Vec<_> = (1..=60).map(|seq| simple("d", seq, seq as f64)).collect();
    let (log, dead) = (Log::new(1), folder.path().join("dead"));
    let mut sink = PostgresSink::new(&settings(&server));
    assert_eq!(send(&mut sink, &rows(&sent, 59..60)), Outcome::Ack);
    ask(&server, "ALTER TABLE forebay.readings ADD CONSTRAINT mine CHECK (value <> 1)");
    log.append_all(&sent[..50]);
    // A file where the folder should be: no letter can be kept.
    fs::write(&dead, "in the way").unwrap();
    let task = start(&log, "postgres", &dead, PostgresSink::new(&settings(&server)));
    let status = task.status();
    eventually("it cannot keep the letter", || status.state().1.contains("dead letter"));
    task.drain(std::time::Instant::now());
    assert_eq!(counts(&server).0, 1, "nothing after the row is in before its letter is kept");

    fs::remove_file(&dead).unwrap();
    let task = start(&log, "postgres", &dead, PostgresSink::new(&settings(&server)));
    eventually("all are in or set aside", || log.state("postgres").committed == log.head());
    task.drain(std::time::Instant::now());
    let kept = DeadLetters::list(&dead).unwrap();
    let letters: Vec<_> = kept.iter().map(|kept| kept.letter().unwrap()).collect();
    assert_eq!(letters.iter().map(|letter| letter.seq).collect::<Vec<_>>(), [1]);
    assert_eq!(counts(&server), (50, 50));

    // A letter that was left though its row is in changes nothing when it is sent.
    let (letter, runtime) = (rows(&sent, 1..2), runtime());
    let token = Token { queue: log.queue(), ..letters[0].token() };
    assert_eq!(send_as(&runtime, &mut sink, &letter, &token), Outcome::Ack);
    assert_eq!(counts(&server), (50, 50));
}

/// Holds a table under a lock that lets nobody read it, until [`unlock`].
pub(crate) fn lock(server: &Postgres, folder: &Path, table: &str) -> Child {
    let mut psql = server.client("psql").unwrap();
    let lock = format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
    psql.args(["-X", "-c", "BEGIN", "-c", &lock, "-c", "SELECT pg_sleep(300)"]);
    let locker = Child::spawn("locker", &mut psql, folder).unwrap();
    let held = format!(
        "SELECT count(*) FROM pg_locks WHERE relation = '{table}'::regclass
         AND mode = 'AccessExclusiveLock' AND granted"
    );
    eventually("the table is locked", || ask(server, &held) == ["1"]);
    locker
}

pub(crate) fn unlock(server: &Postgres, mut locker: Child) {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE query LIKE 'SELECT pg_sleep%' AND pid <> pg_backend_pid()";
    ask(server, end);
    locker.wait(DEADLINE).unwrap();
}

/// Connections of an application that the server has.
pub(crate) fn connected(server: &Postgres, application: &str) -> u64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name";
    ask(server, &format!("{sql} = '{application}'"))[0].parse().unwrap()
}

#[test]
fn blocks_for_a_locked_table_leave_no_connection_behind() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(Postgres::start(folder.path(), &["fsync=off"])) else { return };
    let (sent, runtime) = (messages(4, 20), runtime());
    let config = config::Postgres { timeout: Duration::from_millis(300), ..settings(&server) };
    let patient = &mut PostgresSink::new(&settings(&server));
    assert_eq!(send_on(&runtime, patient, &rows(&sent, 0..10)), Outcome::Ack);
    assert_eq!(connected(&server, "forebay"), 1);
    let block = rows(&sent, 10..20);
    // Read while a connection is made, and while a block is sent.
    for table in ["forebay.versions", "forebay.cursors"] {
        let locker = lock(&server, folder.path(), table);
        let sink = &mut PostgresSink::new(&config);
        for _ in 0..5 {
            transient(send_on(&runtime, sink, &block));
        }
        eventually("only the first is left", || connected(&server, "forebay") == 1);
        unlock(&server, locker);
    }
    assert_eq!(send_on(&runtime, patient, &block), Outcome::Ack);
}

#[test]
fn days_that_are_no_longer_kept_are_dropped_from_postgres() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(Postgres::start(folder.path(), &[])) else { return };
    let mut sent: Vec<_> = (1..=4).map(|seq| simple("d", seq, 1.0)).collect();
    for (message, days_ago) in sent.iter_mut().zip([9, 4, 2, 0]) {
        let now = forebay_model::Timestamp::now().micros();
        let received = forebay_model::Timestamp::from_micros(now - days_ago * 86_400_000_000);
        message.received = received.unwrap();
    }
    let keep = |days: u64| config::Postgres {
        keep: Some(Duration::from_secs(days * 86_400)),
        ..settings(&server)
    };
    let all = rows(&sent, 0..4);
    assert_eq!(send(&mut PostgresSink::new(&settings(&server)), &all), Outcome::Ack);
    assert_eq!(counts(&server).0, 4);
    // A replay writes nothing, and sweeps all the same.
    assert_eq!(send(&mut PostgresSink::new(&keep(5)), &all), Outcome::Ack);
    assert_eq!(counts(&server).0, 3);
    assert_eq!(send(&mut PostgresSink::new(&keep(1)), &all), Outcome::Ack);
    assert_eq!(counts(&server).0, 1);
}

/// The section of the configuration for the real binary.
pub(crate) fn section(server: &Postgres, folder: &Path) -> String {
    let password = folder.join("the.password");
    fs::write(&password, forebay_testkit::postgres::PASSWORD).unwrap();
    format!(
        "[postgres]\nenabled = true\n\
         url = \"host=127.0.0.1 port={} user={} dbname=postgres\"\n\
         password_file = \"{}\"\ntimeout = \"5s\"\nflush = {{ rows = 2000, age = \"50ms\" }}\n",
        server.port(),
        forebay_testkit::postgres::USER,
        password.display(),
    )
}

impl Store for Postgres {
    const NAME: &'static str = "postgres";

    fn section(&self, folder: &Path) -> String {
        section(self, folder)
    }

    fn kill(&mut self) {
        Postgres::kill(self).unwrap();
    }

    fn restart(&mut self) {
        Postgres::restart(self).unwrap();
    }

    fn count(&self) -> u64 {
        counts(self).0
    }

    fn distinct(&self) -> u64 {
        counts(self).1
    }

    fn identities(&self) -> Vec<String> {
        let identity = "concat_ws(' ', tenant, device, session, seq, index)";
        ask(self, &format!("SELECT {identity} FROM forebay.readings"))
    }

    fn locations(&self) -> u64 {
        ask(self, "SELECT count(DISTINCT location) FROM forebay.readings")[0].parse().unwrap()
    }

    fn faults(&self) -> Vec<String> {
        Vec::new()
    }
}
