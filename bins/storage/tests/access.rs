//! Who may read what: REST, the live WebSocket and server-sent events yield only the bearer's
//! tenant, and an open feed ends with its credential.
//!
//! Method: a storage tier as it runs in a process, two tenants' messages in the middle's log, keys
//! in a file, real sockets. Not shown: JWTs claim by claim (`forebay-access`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
};

use common::{DEADLINE, Log, Served, eventually, rows::messages};
use forebay_access::keys::{KeysFile, Owner};
use forebay_model::{DeviceId, TenantId};
use forebay_ops::{Shutdown, tls::ServerTls};
use forebay_storage::{Config, Running, start};
use forebay_testkit::certificates::{Authority, Validity};
use forebay_wire::live::{ClientFrame, SUBPROTOCOL, ServerFrame, Subscription};
use futures_util::{SinkExt as _, StreamExt as _};
use prometheus::Registry;
use serde_json::Value;
use tokio_tungstenite::{
    client_async,
    tungstenite::{self, Message, client::IntoClientRequest as _},
};

struct Tier {
    running: Option<Running>,
    address: SocketAddr,
    registry: Registry,
    shutdown: Shutdown,
    _served: Served,
}

impl Drop for Tier {
    fn drop(&mut self) {
        self.shutdown.begin("the test ends");
        drop(self.running.take().map(|running| running.drain(DEADLINE)));
    }
}

/// A storage tier that has seen messages of two tenants, `acme` the greater part.
fn tier(dir: &Path, change: impl FnOnce(&mut Config)) -> Tier {
    let log = Log::new(1);
    let served = Served::start(&log);
    let mut sent = messages(7, 300);
    for (number, message) in sent.iter_mut().enumerate() {
        message.tenant = if number % 3 == 0 { "zeta" } else { "acme" }.into();
    }
    let mut config = served.settings(dir);
    change(&mut config);
    let (registry, shutdown) = (Registry::new(), Shutdown::new());
    let running = start(config, &registry, shutdown.clone()).unwrap();
    let address = running.addresses().http;
    let tier = Tier { running: Some(running), address, registry, shutdown, _served: served };
    log.append_all(&sent);
    eventually("all is seen", || {
        let families = tier.registry.gather();
        let seen = |name| families.iter().find(|family| family.name() == name);
        seen("forebay_storage_live_entries_total")
            .is_some_and(|seen| seen.get_metric()[0].get_counter().get_value() >= 300.0)
    });
    tier
}

struct Keys(PathBuf);

impl Keys {
    fn new(dir: &Path) -> Self {
        Self(dir.join("keys.jsonl"))
    }

    fn add(&self, tenant: &str, owner: &Owner) -> String {
        let mut file = KeysFile::open(&self.0).unwrap();
        let key = file.add(&TenantId::new(tenant).unwrap(), owner, None, 1).unwrap();
        file.save().unwrap();
        key.expose().to_owned()
    }

    fn reader(&self, tenant: &str) -> String {
        self.add(tenant, &Owner::Reader(DeviceId::new("page").unwrap()))
    }

    fn revoke(&self, key: &str) {
        let mut file = KeysFile::open(&self.0).unwrap();
        file.revoke(key.split_once('.').unwrap().0, 2).unwrap();
        file.save().unwrap();
    }
}

/// Status and body.
fn get(address: SocketAddr, path: &str, token: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let bearer =
        if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n{bearer}\r\n").unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

fn tenants(value: &Value) -> Vec<&str> {
    let mut all: Vec<_> =
        value["values"].as_array().unwrap().iter().map(|v| v["tenant"].as_str().unwrap()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn rest_answers_only_about_the_bearers_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::new(dir.path());
    let (acme, zeta) = (keys.reader("acme"), keys.reader("zeta"));
    let device = keys.add("acme", &Owner::Device(DeviceId::new("pump").unwrap()));
    let tier = tier(dir.path(), |config| config.auth.keys = Some(keys.0.clone()));
    let get = |path: &str, token: &str| get(tier.address, path, token);
    for path in ["/v1/status", "/v1/last", "/v1/history?device=x", "/v1/events", "/v1/live"] {
        assert_eq!(get(path, "").0, 401, "{path}");
        assert_eq!(get(path, "fbk0.wrong").0, 401, "{path}");
        assert_eq!(get(path, &device).0, 403, "a device's key does not read: {path}");
    }
    let (code, last) = get("/v1/last?limit=10000", &acme);
    assert_eq!((code, tenants(&last)), (200, vec!["acme"]));
    assert_eq!(tenants(&get("/v1/last?limit=10000&tenant=zeta", &zeta).1), ["zeta"]);
    for path in
        ["/v1/last?tenant=zeta", "/v1/history?device=x&tenant=zeta", "/v1/events?tenant=zeta"]
    {
        assert_eq!(get(path, &acme).0, 403, "{path}");
    }
    // The same device id is somebody else's in another tenant.
    let shared = last["values"][0]["device"].as_str().unwrap().to_owned();
    let history = |token: &str| get(&format!("/v1/history?device={shared}&limit=1000"), token).1;
    let points = |value: &Value| value["points"].as_array().map_or(0, Vec::len);
    let (of_acme, of_zeta) = (history(&acme), history(&zeta));
    assert!(points(&of_acme) > 0, "{of_acme}");
    assert_ne!(of_acme, of_zeta);
    // Off by default, and the page itself holds no data.
    assert_eq!(get(&format!("/v1/last?token={acme}"), "").0, 401);
}

#[test]
fn without_credentials_only_loopback_reads_unless_it_is_said() {
    let refused = |change: fn(&mut Config)| {
        let mut config = Config::default();
        config.http.address = "0.0.0.0:0".parse().unwrap();
        change(&mut config);
        let mut faults = forebay_ops::Faults::default();
        forebay_ops::Validate::validate(&config, &mut faults);
        faults.found().iter().map(|fault| fault.path.clone()).collect::<Vec<_>>()
    };
    let none = Vec::<String>::new();
    assert_eq!(refused(|_| {}), ["http.allow_anonymous"]);
    assert_eq!(refused(|config| config.http.allow_anonymous = true), none);
    assert_eq!(refused(|config| config.auth.keys = Some("keys".into())), none);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_feed_yields_only_the_bearers_tenant_and_ends_with_the_credential() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::new(dir.path());
    let acme = keys.reader("acme");
    let tier = tier(dir.path(), |config| config.auth.keys = Some(keys.0.clone()));
    let connect = async |offer: String| {
        let mut request = format!("ws://{}/v1/live", tier.address).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", offer.parse().unwrap());
        let stream = tokio::net::TcpStream::connect(tier.address).await.unwrap();
        client_async(request, stream).await
    };
    let strange = connect(SUBPROTOCOL.to_owned()).await;
    assert!(matches!(strange, Err(tungstenite::Error::Http(ref answer)) if answer.status() == 401));
    let offer = format!("{SUBPROTOCOL}, forebay.token.{acme}");
    let (mut socket, answer) = connect(offer.clone()).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], SUBPROTOCOL);
    let subscribe = |tenants: &[&str]| {
        let tenants = tenants.iter().map(|tenant| (*tenant).to_owned()).collect();
        let wanted = Subscription { tenants, snapshot: true, ..Subscription::default() };
        Message::text(ClientFrame::Subscribe(wanted).encode())
    };
    socket.send(subscribe(&[])).await.unwrap();
    let mut shown = Vec::new();
    let done = loop {
        let message = tokio::time::timeout(DEADLINE, socket.next()).await.unwrap().unwrap();
        let Message::Text(text) = message.unwrap() else { continue };
        match ServerFrame::decode(&text).unwrap() {
            ServerFrame::Snapshot(part) => {
                shown.extend(part.values.into_iter().map(|value| value.tenant.into_owned()));
                if part.done {
                    break true;
                }
            }
            ServerFrame::Subscribed(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(done && !shown.is_empty() && shown.iter().all(|tenant| tenant == "acme"));
    keys.revoke(&acme);
    let code = loop {
        let message = tokio::time::timeout(DEADLINE, socket.next()).await.unwrap();
        match message {
            Some(Ok(Message::Close(Some(close)))) => break u16::from(close.code),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 4401);
    // Another's data is refused by word and code.
    let zeta = keys.reader("zeta");
    let offer = format!("{SUBPROTOCOL}, forebay.token.{zeta}");
    let mut socket = loop {
        // The new key is taken over within seconds.
        if let Ok((socket, _)) = connect(offer.clone()).await {
            break socket;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    socket.send(subscribe(&["acme"])).await.unwrap();
    let mut text = String::new();
    while let Some(Ok(message)) = tokio::time::timeout(DEADLINE, socket.next()).await.unwrap() {
        text.push_str(&format!("{message:?}"));
    }
    assert!(text.contains("forbidden") && text.contains("4403"), "{text}");
}

#[test]
fn server_sent_events_are_of_the_bearers_tenant_and_end_with_the_credential() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::new(dir.path());
    let acme = keys.reader("acme");
    let tier = tier(dir.path(), |config| {
        config.auth.keys = Some(keys.0.clone());
        config.auth.token_in_query = true;
    });
    let mut stream = TcpStream::connect(tier.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let path = format!("/v1/events?snapshot=true&token={acme}");
    write!(stream, "GET {path} HTTP/1.0\r\nhost: x\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains(" 200 "));
    let snapshot = lines.find(|line| line.contains("snapshot")).unwrap();
    assert!(snapshot.contains("\"acme\"") && !snapshot.contains("\"zeta\""));
    keys.revoke(&acme);
    // Ends by itself; what still comes is not another's.
    assert!(lines.all(|line| !line.contains("\"zeta\"")));
}

#[test]
fn readers_are_served_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new("readers").unwrap();
    let files = ca.issue("storage", &["localhost"], Validity::Now).unwrap();
    let files = files.write(dir.path(), "storage").unwrap();
    let tier = tier(dir.path(), |config| {
        config.http.tls = ServerTls {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            ..ServerTls::default()
        };
    });
    let ca_file = ca.write(dir.path(), "ca").unwrap();
    let url = format!("https://localhost:{}/v1/last?limit=1", tier.address.port());
    let curl = std::process::Command::new("curl")
        .args(["-sS", "--cacert", ca_file.to_str().unwrap(), "--resolve"])
        .arg(format!("localhost:{}:127.0.0.1", tier.address.port()))
        .arg(&url)
        .output();
    let answer = String::from_utf8(curl.unwrap().stdout).unwrap();
    assert!(answer.contains("\"values\""), "{answer}");
}
