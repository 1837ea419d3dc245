//! Stores that are spoken to over TLS: rows arrive, and a store that cannot be trusted gets none.
//!
//! Method: each server has a certificate of an authority of the test's own. The sink is first told
//! to trust another authority: it must alarm, say why, and keep its cursor; then the file is
//! replaced under its running task, which must go on by itself. PostgreSQL and Redis speak TLS
//! themselves; in front of ClickHouse, which has no HTTPS in the form that is had from npm, and of
//! VictoriaMetrics stands a proxy that does. What this cannot show: certificates of public
//! authorities.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use forebay_ops::{
    Metrics,
    tls::{ServerTls, StoreTls, StoreTlsMode, TlsServer},
};
use forebay_storage::{
    config,
    postgres::PostgresSink,
    redis::RedisSink,
    sink::{Outcome, SinkState, SinkTask},
};
use forebay_testkit::{
    Port, Redis, Victoria,
    certificates::{Authority, Files, Validity},
    clickhouse::ClickHouse,
    or_skip,
    postgres::Postgres,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{
    common::{
        DEADLINE, Log, Served,
        clickhouse::{self, Cut},
        eventually,
        rows::{all_rows, messages, simple},
    },
    fixture::{rows, runtime, send_on, start},
    postgres, process, redis, remote_write,
};

/// What a server shows, and the file of the authorities that the sink trusts.
struct Papers {
    authority: Authority,
    server: Files,
    trusted: PathBuf,
}

impl Papers {
    /// A server's certificate for 127.0.0.1 only, and a sink that trusts somebody else.
    fn new(folder: &Path) -> Self {
        let authority = Authority::new("stores").unwrap();
        let server = authority.issue("store", &["127.0.0.1"], Validity::Now).unwrap();
        let server = server.write(folder, "store").unwrap();
        // PostgreSQL takes no key that others can read.
        fs::set_permissions(&server.key, fs::Permissions::from_mode(0o600)).unwrap();
        let trusted = Authority::new("other").unwrap().write(folder, "trusted").unwrap();
        Self { authority, server, trusted }
    }

    fn tls(&self) -> StoreTls {
        StoreTls { ca: self.trusted.clone(), ..StoreTls::default() }
    }

    /// Replaces the file of trusted authorities by one that has the server's.
    fn mend(&self) {
        self.authority.write(self.trusted.parent().unwrap(), "trusted").unwrap();
    }
}

/// Waits until the task alarms for this reason; nothing was stored by then.
fn alarmed(task: &SinkTask, log: &Log, name: &str, reason: &str) {
    let status = task.status();
    eventually(&format!("{name} alarms: {reason}"), || {
        let (state, why) = status.state();
        state == SinkState::Alarmed && why.contains(reason)
    });
    assert_eq!(log.state(name).committed, forebay_link::Seq::ZERO, "{name} keeps its cursor");
}

/// Waits until all is stored, by the same task, with no row set aside.
fn mended(task: SinkTask, log: &Log, name: &str) {
    eventually(&format!("{name} goes on by itself"), || log.state(name).committed == log.head());
    let status = task.status();
    assert_eq!(status.state().0, SinkState::Running);
    assert_eq!(status.dead_letters.load(Ordering::Relaxed), 0);
    task.drain(std::time::Instant::now());
}

/// The address of an end that takes whatever comes for a bad request.
fn speaks_no_tls() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut some = [0; 512];
            let _ = stream.read(&mut some);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            let _ = stream.shutdown(std::net::Shutdown::Write);
            // Until the other end has read it and goes.
            while matches!(stream.read(&mut some), Ok(1..)) {}
        }
    });
    address
}

/// A proxy that speaks TLS, in front of a server that does not; it ends with the runtime.
struct Proxy {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Proxy {
    fn start(papers: &Papers, server: SocketAddr) -> Self {
        let Files { certificate, key } = papers.server.clone();
        let tls = ServerTls { certificate, key, ..ServerTls::default() };
        let metrics = Metrics::new(&prometheus::Registry::new());
        let tls = TlsServer::open("proxy", &tls, &metrics).unwrap();
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let runtime = threads.worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((inward, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(tls.config());
                tokio::spawn(async move {
                    let mut inward = acceptor.accept(inward).await?;
                    let mut outward = TcpStream::connect(server).await?;
                    tokio::io::copy_bidirectional(&mut inward, &mut outward).await?;
                    io::Result::Ok(())
                });
            }
        });
        Self { address, _runtime: runtime }
    }
}

#[track_caller]
fn refused(outcome: Outcome, reason: &str) {
    let Outcome::Misconfigured(said) = outcome else { panic!("{outcome:?}") };
    assert!(said.contains(reason), "{said}");
}

#[test]
fn postgres_over_tls_gets_rows_once_it_can_be_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(Postgres::start(folder.path(), &[])) else { return };
    let papers = Papers::new(folder.path());
    let log = Log::new(1);
    let sent = messages(31, 200);
    log.append_all(&sent);
    let settings = config::Postgres { tls: papers.tls(), ..postgres::settings(&server) };
    let dead = folder.path().join("dead");
    let task = start(&log, "postgres", &dead, PostgresSink::new(&settings));
    alarmed(&task, &log, "postgres", "the server speaks none");

    let own = format!(
        "ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\n",
        papers.server.certificate.display(),
        papers.server.key.display()
    );
    let file = server.data().join("postgresql.conf");
    fs::write(&file, fs::read_to_string(&file).unwrap() + &own).unwrap();
    postgres::ask(&server, "SELECT pg_reload_conf()");
    alarmed(&task, &log, "postgres", "no authority of tls.ca");
    papers.mend();
    eventually("it is in over TLS", || {
        let sql = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                   WHERE ssl AND application_name = 'forebay'";
        postgres::ask(&server, sql) == ["1"]
    });
    mended(task, &log, "postgres");
    let expected = all_rows(&sent).len() as u64;
    assert_eq!(postgres::counts(&server), (expected, expected));

    // The same server by a name that is not in its certificate, by authorities of the system, and
    // by whoever asks for no name at all.
    let (block, runtime) = (rows(&sent, 0..10), runtime());
    let try_once = |url: &str, tls: StoreTls| {
        let settings = config::Postgres { url: url.to_owned(), tls, ..settings.clone() };
        send_on(&runtime, &mut PostgresSink::new(&settings), &block)
    };
    let named = server.url().replace("host=127.0.0.1", "host=localhost hostaddr=127.0.0.1");
    refused(try_once(&named, papers.tls()), "another name");
    let require = format!("{} sslmode=require", server.url());
    refused(try_once(&require, StoreTls::default()), "no authority of tls.ca");
    let anybody = StoreTls { mode: Some(StoreTlsMode::Require), ..StoreTls::default() };
    assert_eq!(try_once(&named, anybody), Outcome::Ack);
}

#[test]
fn clickhouse_over_tls_gets_rows_once_it_can_be_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(ClickHouse::start(folder.path())) else { return };
    let papers = Papers::new(folder.path());
    let proxy = Proxy::start(&papers, server.address());
    let log = Log::new(1);
    let sent = messages(32, 200);
    log.append_all(&sent);
    let settings = config::Clickhouse {
        url: format!("https://{}", proxy.address),
        tls: papers.tls(),
        ..clickhouse::settings(&server, "private")
    };
    let task = clickhouse::start(&log, "clickhouse", &settings, Cut::rows(1000));
    alarmed(&task, &log, "clickhouse", "no authority of tls.ca");
    fs::remove_file(&papers.trusted).unwrap();
    alarmed(&task, &log, "clickhouse", "trusted.pem: No such file");
    papers.mend();
    mended(task, &log, "clickhouse");
    let count = server.query("SELECT count() FROM private.readings").unwrap();
    assert_eq!(count, all_rows(&sent).len().to_string());

    // One that speaks no TLS; ClickHouse's own port answers so too, and its answer may be lost, as it
    // closes with what it did not read.
    let plain = speaks_no_tls();
    let settings = config::Clickhouse { url: format!("https://{plain}"), ..settings };
    let log = Log::new(2);
    log.append_all(&sent);
    let task = clickhouse::start(&log, "clickhouse", &settings, Cut::rows(1000));
    alarmed(&task, &log, "clickhouse", "speaks no TLS");
}

/// Without a setting below `tls` the authorities are the system's, which SSL_CERT_FILE names.
#[test]
fn remote_write_over_tls_trusts_the_system_and_goes_on_once_that_has_the_authority() {
    let folder = tempfile::tempdir().unwrap();
    let started = Victoria::start(folder.path(), &remote_write::FLAGS);
    let Some(server) = or_skip(started) else { return };
    let papers = Papers::new(folder.path());
    let proxy = Proxy::start(&papers, server.address().parse().unwrap());
    let log = Log::new(1);
    log.append_all(&(1..=50).map(|seq| simple("d", seq, 7.0)).collect::<Vec<_>>());
    let served = Served::start(&log);
    let section = format!(
        "[lake]\nenabled = false\ndead_letters = {:?}\n[remote_write]\nenabled = true\n\
         url = \"https://{}/api/v1/write\"\nhold_back = \"0s\"\nflush = {{ age = \"20ms\" }}\n",
        folder.path().join("dead"),
        proxy.address
    );
    let variables = [("SSL_CERT_FILE", papers.trusted.as_os_str())];
    let mut storage = process::start_with("storage", folder.path(), &served, &section, &variables);
    storage.wait_for("no authority of tls.ca", DEADLINE).unwrap();
    assert_eq!(log.state("remote-write").committed, forebay_link::Seq::ZERO);
    papers.mend();
    eventually("it goes on by itself", || log.state("remote-write").committed == log.head());
    eventually("the samples are there", || {
        let count =
            "/api/v1/query?nocache=1&time=4000000000&query=sum(count_over_time(value[100y]))";
        server.get(count).is_ok_and(|answer| answer.contains("\"50\""))
    });
}

#[test]
fn redis_over_tls_that_asks_for_a_certificate_gets_values_once_it_can_be_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let papers = Papers::new(folder.path());
    let asked = papers.authority.write(folder.path(), "asked").unwrap();
    let port = Port::free().unwrap();
    let number = port.number().to_string();
    let word = |path: &Path| path.to_str().unwrap().to_owned();
    let (certificate, key) = (word(&papers.server.certificate), word(&papers.server.key));
    let asked = word(&asked);
    let started = Redis::start(
        folder.path(),
        &[
            "--tls-port",
            &number,
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &asked,
            "--tls-auth-clients",
            "yes",
        ],
    );
    let Some(server) = or_skip(started) else { return };
    let shown = papers.authority.issue("forebay", &["forebay"], Validity::Now).unwrap();
    let shown = shown.write(folder.path(), "forebay").unwrap();
    let tls = StoreTls { certificate: shown.certificate, key: shown.key, ..papers.tls() };
    let settings = config::Redis {
        url: format!("rediss://127.0.0.1:{number}/0"),
        tls,
        hold_back: forebay_ops::Duration::from_secs(0),
        ..redis::settings(&server)
    };
    let log = Log::new(1);
    log.append_all(&(1..=50).map(|seq| simple("d", seq, seq as f64)).collect::<Vec<_>>());
    let task = start(&log, "redis", &folder.path().join("dead"), RedisSink::new(&settings));
    alarmed(&task, &log, "redis", "no authority of tls.ca");
    papers.mend();
    mended(task, &log, "redis");
    let value = || redis::ask(&server, &["HGET", "forebay:last:default/d", "value"]);
    assert!(value().contains("\"value\":50.0"), "{}", value());

    // Without a certificate it is sent away, which TLS 1.3 says after the handshake: the
    // connection may be gone before that is read.
    let bare = config::Redis { tls: papers.tls(), ..settings };
    let (block, runtime) = (rows(&[simple("d", 51, 51.0)], 0..1), runtime());
    eventually("it is told that it must show a certificate", || {
        let said = send_on(&runtime, &mut RedisSink::new(&bare), &block);
        assert_ne!(said, Outcome::Ack);
        matches!(said, Outcome::Misconfigured(reason) if reason.contains("tls.certificate"))
    });
    assert!(value().contains("\"value\":50.0"), "{}", value());
}
