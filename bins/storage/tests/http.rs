//! The port for readers, and the whole tier behind it, over real sockets on both sides.
//!
//! Method: a middle in memory behind the link's own sockets, a storage tier as it runs in a
//! process, plain HTTP written by hand, a real WebSocket client.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use common::{
    DEADLINE, Log, Served, eventually,
    rows::{START_US, all_rows, lake_rows, messages, simple},
};
use forebay_ops::Shutdown;
use forebay_storage::{Config, Running, start};
use forebay_wire::live::{ClientFrame, ServerFrame, Subscription};
use futures_util::{SinkExt as _, StreamExt as _};
use prometheus::Registry;
use serde_json::Value;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};

struct Tier {
    running: Running,
    registry: Registry,
    shutdown: Shutdown,
}

impl Tier {
    fn start(config: Config) -> Self {
        let (registry, shutdown) = (Registry::new(), Shutdown::new());
        let running = start(config, &registry, shutdown.clone()).unwrap();
        Self { running, registry, shutdown }
    }

    fn http(&self) -> SocketAddr {
        self.running.addresses().http
    }

    fn get(&self, path: &str) -> (u16, Value) {
        let (code, _, body) = get(self.http(), path, "");
        (code, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metric = &family.unwrap_or_else(|| panic!("no metric {name}")).get_metric()[0];
        metric.get_gauge().get_value() + metric.get_counter().get_value()
    }

    fn stop(self) {
        self.shutdown.begin("the test ends");
        let drained = self.running.drain(DEADLINE);
        assert!(drained.is_complete(), "{drained:?}");
    }
}

/// Code, head and body of an answer.
fn get(address: SocketAddr, path: &str, headers: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, head.to_owned(), body.to_owned())
}

fn count(value: &Value, list: &str) -> usize {
    value[list].as_array().map_or(0, Vec::len)
}

#[test]
fn what_comes_over_the_feed_is_stored_shown_and_committed() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    let served = Served::start(&log);
    let sent = messages(21, 3000);
    log.append_all(&sent[..1000]);
    let tier = Tier::start(served.settings(dir.path()));
    log.append_all(&sent[1000..]);
    eventually("last values are there", || {
        tier.metric("forebay_storage_live_entries_total") >= sent.len() as f64
    });
    // Nothing is flushed yet: queries see what is in memory.
    let device: Vec<_> =
        all_rows(&sent).into_iter().filter(|row| row.device == "device-0").collect();
    eventually("the sink has read all", || {
        tier.metric("forebay_storage_sink_held_entries") >= sent.len() as f64
    });
    let (code, history) = tier.get("/v1/history?device=device-0&limit=100000");
    assert_eq!((code, count(&history, "points")), (200, device.len()));
    let (code, last) = tier.get("/v1/last?prefix=device-&limit=10000");
    assert_eq!(code, 200);
    assert_eq!(count(&last, "at"), 1);
    assert!(count(&last, "values") >= 8 * 4, "{}", count(&last, "values"));
    let (code, status) = tier.get("/v1/status");
    assert_eq!((code, status["tiers"]["storage"]["up"].as_bool()), (200, Some(true)));

    let http = tier.http();
    tier.stop();
    assert!(TcpStream::connect(http).is_err(), "the port is closed");
    assert_eq!(log.state("lake").committed, log.head());
    assert_eq!(lake_rows(&dir.path().join("lake")), all_rows(&sent));

    // The next life answers from the files, the snapshot, and what comes.
    let tier = Tier::start(served.settings(dir.path()));
    log.append(&simple("later", 1, 1.0));
    eventually("it has caught up", || count(&tier.get("/v1/last?device=later").1, "values") == 1);
    let (_, again) = tier.get("/v1/history?device=device-0&limit=100000");
    assert_eq!(again, history);
    let (_, again) = tier.get("/v1/last?prefix=device-&limit=10000");
    assert_eq!(again["values"], last["values"]);
    tier.stop();
    assert_eq!(lake_rows(&dir.path().join("lake")).len(), all_rows(&sent).len() + 1);
}

#[test]
fn requests_at_fault_are_told_what_to_change() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    let served = Served::start(&log);
    let tier = Tier::start(served.settings(dir.path()));
    for (path, code, part) in [
        ("/v1/history", 400, "device is missing"),
        ("/v1/history?device=a&device=b", 400, "device is given 2 times"),
        ("/v1/history?device=a&from=noon", 400, "from is"),
        ("/v1/history?device=a&from=5&to=5", 400, "from must be before to"),
        ("/v1/history?device=a&limit=0", 400, "from 1 to 100000"),
        ("/v1/history?device=a&order=up", 400, "asc, desc"),
        ("/v1/history?devise=a&device=a", 400, "devise"),
        ("/v1/trend?device=a&key=t&from=0&to=10", 400, "interval is missing"),
        ("/v1/trend?device=a&from=0&to=10&interval=1s", 400, "key is missing"),
        ("/v1/trend?device=a&key=t&from=0&to=1700000000000000&interval=1s", 400, "10000"),
        ("/v1/trend?device=a&key=t&from=0&to=10&interval=0s", 400, "longer than zero"),
        ("/v1/last?limit=x", 400, "whole number"),
        ("/v1/events?mode=all", 400, "every, latest"),
        ("/v1/events?from=1", 400, "not a position"),
        ("/v1/live", 400, "WebSocket"),
        ("/v2/last", 404, "no such route"),
    ] {
        let (found, answer) = tier.get(path);
        let reason = answer["error"]["reason"].as_str().unwrap_or_default();
        assert_eq!(found, code, "{path}: {answer}");
        assert!(reason.contains(part), "{path}: {reason}");
    }
    let (code, head, page) = get(tier.http(), "/", "");
    assert!(code == 200 && head.contains("text/html"), "{head}");
    // Offline: nothing in it is fetched from elsewhere.
    assert!(!page.contains("http://") && !page.contains("https://"), "the page names an address");
    tier.stop();
}

#[test]
fn answers_about_the_lake_are_not_read_again_until_something_came() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    let served = Served::start(&log);
    for seq in 1..=50 {
        log.append(&simple("a", seq, seq as f64));
    }
    let mut config = served.settings(dir.path());
    config.lake.flush.age = Duration::from_millis(20).into();
    let tier = Tier::start(config);
    eventually("it is stored", || log.state("lake").committed == log.head());
    let to = START_US + 40_000_000;
    let path = format!("/v1/trend?device=a&key=value&from={START_US}&to={to}&interval=10s");
    let (code, head, body) = get(tier.http(), &path, "");
    assert_eq!(code, 200, "{body}");
    let trend: Value = serde_json::from_str(&body).unwrap();
    let counts: Vec<_> = trend["buckets"].as_array().unwrap().iter().map(|b| &b["count"]).collect();
    assert_eq!(counts, [9, 10, 10, 10]);
    assert_eq!(trend["buckets"][1]["avg"], 14.5);
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
    let ask = || get(tier.http(), &path, &format!("if-none-match: {tag}\r\n"));
    let (code, _, body) = ask();
    assert_eq!((code, body.as_str()), (304, ""));
    // Another device's rows in other files change nothing but the tag; late ones of this do both.
    let mut late = simple("a", 51, 1000.0);
    if let forebay_model::Body::Readings(readings) = &mut late.body {
        readings[0].time = forebay_model::Timestamp::from_micros(START_US + 5).ok();
    }
    log.append(&late);
    eventually("a late reading changes the answer", || ask().0 == 200);
    assert!(ask().2.contains("\"max\":1000.0"));
    tier.stop();
}

type Client = tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>;

async fn connect(address: SocketAddr, subscription: &Subscription) -> Client {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let url = format!("ws://{address}/v1/live");
    let (mut client, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    let frame = ClientFrame::Subscribe(subscription.clone()).encode();
    client.send(Message::text(frame)).await.unwrap();
    client
}

async fn frame(client: &mut Client) -> Result<ServerFrame<'static>, u16> {
    loop {
        let message = tokio::time::timeout(DEADLINE, client.next()).await.expect("in time");
        match message {
            Some(Ok(Message::Text(text))) => return Ok(ServerFrame::decode(&text).unwrap()),
            Some(Ok(Message::Close(Some(close)))) => return Err(close.code.into()),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_live_socket_shows_only_what_is_stored_and_ends_with_a_reason() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    let served = Served::start(&log);
    let tier = Tier::start(served.settings(dir.path()));
    let address = tier.http();
    log.append(&simple("a", 1, 1.0));
    eventually("there is a last value", || count(&tier.get("/v1/last").1, "values") == 1);
    let shown = runtime.block_on(async {
        let snapshot = Subscription { snapshot: true, ..Subscription::default() };
        let mut client = connect(address, &snapshot).await;
        assert!(matches!(frame(&mut client).await, Ok(ServerFrame::Subscribed(_))));
        let Ok(ServerFrame::Snapshot(snapshot)) = frame(&mut client).await else { panic!() };
        assert_eq!((snapshot.values.len(), snapshot.done), (1, true));
        let writer = log.clone();
        tokio::task::spawn_blocking(move || {
            for seq in 2..=500 {
                writer.append(&simple("a", seq, seq as f64));
            }
        });
        let mut shown = vec![1];
        while shown.last() != Some(&500) {
            match frame(&mut client).await {
                Ok(ServerFrame::Event(event)) => shown.push(event.seq.get()),
                other => panic!("{other:?}"),
            }
        }
        // A later subscription replaces the first.
        let other = Subscription { devices: vec!["b".to_owned()], ..Subscription::default() };
        client.send(Message::text(ClientFrame::Subscribe(other).encode())).await.unwrap();
        assert!(matches!(frame(&mut client).await, Ok(ServerFrame::Subscribed(_))));
        log.append(&simple("a", 501, 0.0));
        log.append(&simple("b", 1, 0.0));
        let Ok(ServerFrame::Event(event)) = frame(&mut client).await else { panic!() };
        assert_eq!(event.device, "b");
        client.send(Message::text("nonsense")).await.unwrap();
        assert!(matches!(frame(&mut client).await, Ok(ServerFrame::Error { .. })));
        assert_eq!(frame(&mut client).await.unwrap_err(), 4400);

        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut request = format!("ws://{address}/v1/live").into_client_request().unwrap();
        request.headers_mut().insert("origin", "http://elsewhere.example".parse().unwrap());
        assert!(tokio_tungstenite::client_async(request, stream).await.is_err());
        shown
    });
    let mut last = runtime.block_on(connect(address, &Subscription::default()));
    eventually("it is counted", || tier.metric("forebay_storage_live_clients") >= 1.0);
    tier.stop();
    let end = runtime.block_on(async {
        loop {
            match frame(&mut last).await {
                Ok(_) => {}
                Err(code) => return code,
            }
        }
    });
    assert_eq!(end, 1001);
    let stored: Vec<u64> = lake_rows(&dir.path().join("lake"))
        .iter()
        .filter(|row| row.device == "a")
        .map(|row| row.seq)
        .collect();
    assert!(shown.iter().all(|seq| stored.contains(seq)));
    assert_eq!(shown, (1..=500).collect::<Vec<_>>());
}

#[test]
fn server_sent_events_resume_by_their_last_id() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    let served = Served::start(&log);
    let tier = Tier::start(served.settings(dir.path()));
    for seq in 1..=100 {
        log.append(&simple("a", seq, 0.0));
    }
    eventually("all is shown", || tier.metric("forebay_storage_live_entries_total") >= 100.0);
    let id = format!("{}/1:40", log.queue());
    let mut stream = TcpStream::connect(tier.http()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let address = tier.http();
    write!(
        stream,
        "GET /v1/events?prefix=a HTTP/1.1\r\nhost: {address}\r\nlast-event-id: {id}\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains("\"seq\":100,") {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "ended early: {text}");
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    let expected: Vec<String> = (41..=100).map(|seq| format!("{}/1:{seq}", log.queue())).collect();
    assert_eq!(ids, expected);
    drop(stream);
    tier.stop();
}

#[test]
fn a_slow_head_is_cut_off_and_others_notice_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    let served = Served::start(&log);
    let mut config = served.settings(dir.path());
    config.http.header_timeout = Duration::from_millis(300).into();
    config.lake.enabled = false;
    let tier = Tier::start(config);
    let mut slow = TcpStream::connect(tier.http()).unwrap();
    slow.set_read_timeout(Some(DEADLINE)).unwrap();
    slow.write_all(b"GET / HT").unwrap();
    assert_eq!(tier.get("/v1/last").0, 200);
    let (code, answer) = tier.get("/v1/history?device=a");
    assert_eq!((code, answer["error"]["code"].as_str()), (404, Some("disabled")));
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(100_000));
    let mut large = TcpStream::connect(tier.http()).unwrap();
    let _ = large.write_all(long.as_bytes());
    assert_eq!(tier.get("/v1/last").0, 200);
    tier.stop();
}
