//! The admin server over a real socket, asked as a probe would ask.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;

use serde_json::json;

use super::*;
use crate::Metrics;

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Status line and body of one request.
fn ask(address: SocketAddr, path: &str) -> (String, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[test]
fn readiness_is_503_with_every_reason_and_200_without() {
    let shutdown = Shutdown::new();
    let mut admin = Admin::new(&Registry::new(), &shutdown);
    let full = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&full);
    admin.ready("queue", move || match seen.load(Ordering::SeqCst) {
        true => Err("no room".into()),
        false => Ok(()),
    });
    let server = admin.serve(any_port()).unwrap();
    let (status, body) = ask(server.address(), "/readyz");
    assert!(status.contains("503"), "{status}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body, json!({"ok": false, "checks": {"queue": "no room", "running": "ok"}}));

    full.store(false, Ordering::SeqCst);
    assert!(ask(server.address(), "/readyz").0.contains("200"));

    shutdown.begin("SIGTERM");
    let (status, body) = ask(server.address(), "/readyz");
    assert!(status.contains("503") && body.contains("draining after SIGTERM"), "{body}");
    assert!(ask(server.address(), "/healthz").0.contains("200"), "a drain is not an illness");
}

#[test]
fn a_loop_that_stops_moving_makes_the_process_unhealthy_until_it_moves() {
    let mut admin = Admin::new(&Registry::new(), &Shutdown::new());
    let limit = Duration::from_millis(1_000);
    let pulse = admin.pulse("forwarder", limit);
    let server = admin.serve(any_port()).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let (status, body) = ask(server.address(), "/healthz");
        if status.contains("503") {
            assert!(body.contains("forwarder") && body.contains("the limit is 1s"), "{body}");
            break;
        }
        assert!(Instant::now() < end, "silence is noticed");
        std::thread::yield_now();
    }
    pulse.beat();
    assert!(ask(server.address(), "/healthz").0.contains("200"));
}

#[test]
fn metrics_and_status_are_served_and_other_paths_are_not() {
    let registry = Registry::new();
    Metrics::new(&registry).counter("forebay_tests_total", "Tests.").unwrap().inc();
    let mut admin = Admin::new(&registry, &Shutdown::new());
    admin.status("/status", || json!({"depth": 3}));
    let server = admin.serve(any_port()).unwrap();
    let (status, body) = ask(server.address(), "/metrics");
    assert!(status.contains("200") && body.contains("\nforebay_tests_total 1\n"), "{body}");
    assert_eq!(ask(server.address(), "/status").1, r#"{"depth":3}"#);
    assert!(ask(server.address(), "/else").0.contains("404"));
}

#[test]
fn a_dropped_server_frees_its_port_and_a_taken_port_is_refused_by_name() {
    let admin = || Admin::new(&Registry::new(), &Shutdown::new());
    let server = admin().serve(any_port()).unwrap();
    let address = server.address();
    let error = admin().serve(address).unwrap_err().to_string();
    assert!(error.contains(&address.to_string()), "{error}");
    drop(server);
    let end = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < end, "the port is freed");
        std::thread::yield_now();
    }
}

/// Status line and body of one request with a method and, perhaps, a token.
fn send(address: SocketAddr, method: &str, path: &str, token: Option<&str>) -> (String, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{token}");
    write!(socket, "{head}content-length: 0\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[test]
fn a_tier_that_starts_is_healthy_and_says_what_it_is_busy_with() {
    let (registry, shutdown) = (Registry::new(), Shutdown::new());
    let server = AdminServer::starting(any_port(), &registry, &shutdown).unwrap();
    let address = server.address();
    assert!(ask(address, "/healthz").0.contains("200"));
    assert!(ask(address, "/readyz").1.contains("starting"));
    server.busy("making the ring of partition 0");
    let (status, body) = ask(address, "/readyz");
    assert!(status.contains("503") && body.contains("making the ring"), "{body}");
    server.progress(3 << 30, 8 << 30);
    let (_, body) = ask(address, "/readyz");
    assert!(body.contains("making the ring of partition 0: 37 %, for "), "{body}");
    assert!(ask(address, "/status").0.contains("404"));
    let mut admin = Admin::new(&registry, &shutdown);
    admin.status("/status", || json!({"here": true}));
    server.answer(admin);
    assert!(ask(address, "/readyz").0.contains("200"), "at the same address");
    assert_eq!(ask(address, "/status").1, r#"{"here":true}"#);
}

#[test]
fn a_question_is_answered_by_its_parameters() {
    let mut admin = Admin::new(&Registry::new(), &Shutdown::new());
    admin.question("/v1/where", |parameters| match parameters.get("device") {
        Some(device) => Ok(json!({ "device": device })),
        None => Err("device is missing".to_owned()),
    });
    let server = admin.serve(any_port()).unwrap();
    let (status, body) = ask(server.address(), "/v1/where?device=pump%2F7");
    assert!(status.contains("200") && body == r#"{"device":"pump/7"}"#, "{status} {body}");
    let (status, body) = ask(server.address(), "/v1/where");
    assert!(status.contains("400") && body.contains("device is missing"), "{body}");
    assert!(send(server.address(), "POST", "/v1/where", None).0.contains("405"));
}

#[test]
fn a_drain_takes_the_token_and_nothing_else() {
    const TOKEN: &str = "a token of a test, long enough";
    struct Idle;
    impl crate::drain::Tier for Idle {
        fn close(&self) {}
        fn open(&self) {}
        fn remains(&self) -> crate::drain::Remains {
            crate::drain::Remains { connections: 1, entries: 0, bytes: 0 }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let (registry, shutdown) = (Registry::new(), Shutdown::new());
    let settings = crate::drain::ShutdownSettings {
        settle: Some(crate::Duration::from_secs(0)),
        ..crate::drain::ShutdownSettings::default()
    };
    let drain = Drain::new("test", &settings, &shutdown);
    drain.attach(Arc::new(Idle));
    let mut admin = Admin::new(&registry, &shutdown);
    admin.drain(&drain, TokenSource::new(Some(&file)));
    let server = admin.serve(any_port()).unwrap();
    let ask =
        |method: &str, token: Option<&str>| send(server.address(), method, "/v1/drain", token);
    for method in ["GET", "POST", "DELETE"] {
        for wrong in [None, Some("another token, of the same sort")] {
            let (status, body) = ask(method, wrong);
            assert!(status.contains("403"), "{status} {body}");
            assert!(!body.contains(TOKEN), "{body}");
        }
    }
    assert_eq!(drain.phase(), Phase::Serving, "nobody has begun it");
    assert!(ask("GET", Some(TOKEN)).1.contains("\"phase\":\"serving\""));
    assert!(ask("POST", Some(TOKEN)).0.contains("200"));
    let (status, body) = send(server.address(), "GET", "/readyz", None);
    assert!(status.contains("503") && body.contains("draining"), "{body}");
    let (_, body) = ask("GET", Some(TOKEN));
    assert!(body.contains("\"connections\":1"), "{body}");
    assert!(ask("DELETE", Some(TOKEN)).1.contains("serving"));
    assert!(send(server.address(), "GET", "/readyz", None).0.contains("200"));
    assert!(ask("PUT", Some(TOKEN)).0.contains("405"));
    let _ = drain.end(Duration::from_millis(1));
    assert!(ask("DELETE", Some(TOKEN)).0.contains("409"), "an ending process stays that way");
    std::fs::remove_file(&file).unwrap();
    assert!(ask("GET", Some(TOKEN)).0.contains("403"), "without a token nobody is let in");
}
