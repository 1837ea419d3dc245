//! The admin server over a real socket, asked as a probe would ask.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;

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
