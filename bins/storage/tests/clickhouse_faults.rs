//! A ClickHouse that refuses, hangs, lies broken or is full is waited for, and nothing is lost.
//!
//! Method: a real server, and for an answer of 503 a proxy in front of it. In each case the sink
//! must say what is wrong, keep its cursor, go on by itself when it is mended, and set no healthy
//! row aside. Seen on ClickHouse 26.7.
#![cfg(feature = "clickhouse")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::{
    Log,
    clickhouse::{self, Cut, drain, settings},
    eventually,
    rows::{all_rows, messages, simple},
};
use forebay_ops::Duration as Setting;
use forebay_storage::{
    config::Clickhouse,
    sink::{SinkState, SinkTask},
};
use forebay_testkit::{
    Filesystem, LoopMount,
    clickhouse::{ClickHouse, PASSWORD},
    or_skip,
};

fn count(server: &ClickHouse, database: &str) -> u64 {
    server.query(&format!("SELECT count() FROM {database}.readings")).unwrap().parse().unwrap()
}

/// Waits until the sink is in this state, for this reason, with its cursor where it was.
fn stands(task: &SinkTask, log: &Log, state: SinkState, reason: &str) {
    eventually(&format!("it is {state:?}: {reason}"), || {
        let (now, why) = task.status().state();
        now == state && why.contains(reason)
    });
    assert!(log.state("clickhouse").committed < log.head());
}

/// Everything is stored without a restart of the sink.
fn mended(task: SinkTask, log: &Log, server: &ClickHouse, database: &str, rows: usize) {
    eventually("it goes on by itself", || log.state("clickhouse").committed == log.head());
    assert_eq!(task.status().state().0, SinkState::Running);
    assert_eq!(
        task.status().dead_letters.load(Ordering::Relaxed),
        0,
        "no healthy row is set aside"
    );
    drain(task);
    assert_eq!(count(server, database), rows as u64);
}

#[test]
fn a_wrong_password_alarms_until_the_file_has_the_right_one() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(ClickHouse::start(folder.path())) else { return };
    let password = folder.path().join("password");
    fs::write(&password, "wrong\n").unwrap();
    let settings = Clickhouse {
        user: "forebay".to_owned(),
        password_file: Some(password.clone()),
        ..settings(&server, "locked")
    };
    let log = Log::new(1);
    let sent = messages(1, 300);
    log.append_all(&sent);
    let task = clickhouse::start(&log, "clickhouse", &settings, Cut::rows(100));
    stands(&task, &log, SinkState::Alarmed, "Authentication failed");
    assert!(!task.status().state().1.contains("wrong"), "no password in a log");
    fs::write(&password, PASSWORD).unwrap();
    mended(task, &log, &server, "locked", all_rows(&sent).len());
}

#[test]
fn a_lost_table_alarms_and_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(ClickHouse::start(folder.path())) else { return };
    let settings = settings(&server, "lost");
    let log = Log::new(1);
    log.append_all(&messages(1, 100));
    let task = clickhouse::start(&log, "clickhouse", &settings, Cut::rows(1000));
    eventually("it has stored", || log.state("clickhouse").committed == log.head());
    server.query("DROP TABLE lost.readings SYNC").unwrap();
    let more = messages(2, 100);
    log.append_all(&more);
    eventually("it was told", || task.status().retries.load(Ordering::Relaxed) > 0);
    mended(task, &log, &server, "lost", all_rows(&more).len());
    let rolled = server.query("SELECT sum(count) > 0 FROM lost.readings_minute").unwrap();
    assert_eq!(rolled, "1");
}

#[test]
fn a_server_that_hangs_or_is_away_is_tried_again_with_the_same_block() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut server) = or_skip(ClickHouse::start(folder.path())) else { return };
    let settings = Clickhouse {
        send_timeout: Setting::from_millis(500),
        answer_timeout: Setting::from_millis(500),
        ..settings(&server, "hung")
    };
    let log = Log::new(1);
    let (first, second) = (messages(1, 300), simple("late", 1, 1.0));
    let task = clickhouse::start(&log, "clickhouse", &settings, Cut::rows(100));
    log.append(&second);
    eventually("it has stored", || log.state("clickhouse").committed == log.head());
    server.pause().unwrap();
    log.append_all(&first);
    stands(&task, &log, SinkState::Retrying, "timeout");
    server.resume().unwrap();
    eventually("it goes on", || log.state("clickhouse").committed == log.head());
    server.kill().unwrap();
    log.append(&simple("later", 1, 1.0));
    stands(&task, &log, SinkState::Retrying, "onnect");
    server.restart().unwrap();
    mended(task, &log, &server, "hung", all_rows(&first).len() + 2);
}

#[test]
fn a_proxy_that_answers_503_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(ClickHouse::start(folder.path())) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let refuses = Arc::new(AtomicBool::new(true));
    let (refusing, target) = (refuses.clone(), server.address());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut inward, refusing) = (stream.unwrap(), refusing.load(Ordering::SeqCst));
            std::thread::spawn(move || {
                if refusing {
                    let page = "<html>503 Service Temporarily Unavailable</html>";
                    let _ = inward.read(&mut [0; 65536]);
                    let _ = write!(
                        inward,
                        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\
                         Content-Length: {}\r\n\r\n{page}",
                        page.len()
                    );
                    return;
                }
                let mut outward = std::net::TcpStream::connect(target).unwrap();
                let (mut from, mut to) =
                    (inward.try_clone().unwrap(), outward.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                let _ = std::io::copy(&mut outward, &mut inward);
                let _ = inward.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    let settings = Clickhouse { url, ..settings(&server, "proxied") };
    let log = Log::new(1);
    let sent = messages(1, 200);
    log.append_all(&sent);
    let task = clickhouse::start(&log, "clickhouse", &settings, Cut::rows(1000));
    stands(&task, &log, SinkState::Retrying, "503");
    refuses.store(false, Ordering::SeqCst);
    mended(task, &log, &server, "proxied", all_rows(&sent).len());
}

#[test]
fn a_full_disk_of_the_store_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = or_skip(LoopMount::new(Filesystem::Ext4, 256 << 20)) else { return };
    let started = ClickHouse::start_with_data(folder.path(), &disk.path().join("data"));
    let Some(server) = or_skip(started) else { return };
    let settings = settings(&server, "full");
    let log = Log::new(1);
    log.append(&simple("first", 1, 1.0));
    let task = clickhouse::start(&log, "clickhouse", &settings, Cut::rows(2000));
    eventually("it has stored", || log.state("clickhouse").committed == log.head());
    let ballast = disk.path().join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    let zeros = vec![0; 1 << 20];
    while file.write_all(&zeros).is_ok() {}
    let _ = file.sync_all();
    let sent = messages(1, 2000);
    log.append_all(&sent);
    stands(&task, &log, SinkState::Retrying, "ClickHouse");
    std::thread::sleep(Duration::from_millis(500));
    assert!(log.state("clickhouse").committed < log.head());
    drop(file);
    fs::remove_file(&ballast).unwrap();
    mended(task, &log, &server, "full", all_rows(&sent).len() + 1);
    drop(server);
}

#[test]
fn rows_that_break_a_rule_of_the_table_are_set_aside_and_the_rest_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(ClickHouse::start(folder.path())) else { return };
    let settings = settings(&server, "ruled");
    let log = Log::new(1);
    log.append(&simple("first", 1, 1.0));
    let cut = Cut { dead_letters: folder.path().join("dead"), ..Cut::rows(2000) };
    let task = clickhouse::start(&log, "clickhouse", &settings, cut);
    eventually("it has stored", || log.state("clickhouse").committed == log.head());
    server.query("ALTER TABLE ruled.readings ADD CONSTRAINT low CHECK float < 1000").unwrap();
    for seq in 1..=300 {
        log.append(&simple("press", seq, if seq % 100 == 50 { 5000.0 } else { 5.0 }));
    }
    eventually("all is dealt with", || log.state("clickhouse").committed == log.head());
    assert_eq!(task.status().dead_letters.load(Ordering::Relaxed), 3);
    drain(task);
    assert_eq!(count(&server, "ruled"), 1 + 297);
    let rolled = server.query("SELECT sum(count) FROM ruled.readings_minute").unwrap();
    assert_eq!(rolled, "298");
}
