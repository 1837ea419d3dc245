//! Who is let in, as whom, and for how long: every rung of the ladder but certificates (`tls.rs`).
//!
//! Method: a real front with a file of keys, and requests with one thing right or wrong. JWTs are
//! covered claim by claim in `forebay-access`; here that the front asks for them.

mod support;

use std::time::Duration;

use forebay_access::unix_now_s;
use forebay_model::{MessageId, SessionId};
use forebay_ops::Shutdown;
use forebay_wire::device::{ClientFrame, Token};
use support::{
    Device, Event, Front,
    credentials::{Keys, bearer, request},
    until,
};

/// A front that knows the keys of `keys`.
fn front_with(keys: &Keys, change: impl FnOnce(&mut forebay_front::Config)) -> Front {
    let path = keys.path.clone();
    Front::with(|config| {
        config.auth.keys = Some(path);
        change(config);
    })
}

/// Says hello with a token.
async fn hello(device: &mut Device, token: &str) -> Event {
    let token = Some(Token::new(token.to_owned()));
    let session = SessionId::new(1).expect("valid");
    device.send(&ClientFrame::Hello { session, next_seq: MessageId::FIRST, token }).await;
    device.next().await
}

#[tokio::test]
async fn a_device_writes_as_itself_and_as_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Keys::new(folder.path());
    let (pump, other) = (keys.add("acme", "pump", None), keys.add("zeta", "pump", None));
    let front = front_with(&keys, |_| {});
    assert_eq!(request(&front, "pump", &[]).await.err(), Some(401));
    assert_eq!(bearer(&front, "pump", "fbk00.wrong").await.err(), Some(401));
    assert_eq!(bearer(&front, "pump", &format!("{pump}x")).await.err(), Some(401));
    assert_eq!(bearer(&front, "fan", &pump).await.err(), Some(403));
    for (key, seq) in [(&pump, 1), (&other, 1)] {
        let mut device = bearer(&front, "pump", key).await.expect("let in");
        device.hello(1, seq).await;
        device.data(seq..=seq + 2).await;
        device.acked(seq + 2).await;
    }
    let stored = front.end();
    let of = |tenant: &str| stored.iter().filter(|entry| entry.tenant == tenant).count();
    assert_eq!((of("acme"), of("zeta"), stored.len()), (3, 3, 6));
}

#[tokio::test]
async fn keys_are_rotated_and_revoked_while_devices_are_connected() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Keys::new(folder.path());
    let first = keys.add("acme", "pump", None);
    let front = front_with(&keys, |_| {});
    let mut device = bearer(&front, "pump", &first).await.expect("let in");
    device.hello(1, 1).await;
    let second = keys.add("acme", "pump", None);
    let mut taken = None;
    for _ in 0..100 {
        taken = bearer(&front, "pump", &second).await.ok();
        if taken.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(taken.expect("the new key is taken over within seconds"));
    assert!(device.is_quiet().await, "the first key is still good");
    keys.revoke(&first);
    // Its connection ends by itself, and it cannot come back.
    assert_eq!(device.closed().await, 4401);
    assert_eq!(bearer(&front, "pump", &first).await.err(), Some(401));
    assert!(bearer(&front, "pump", &second).await.is_ok());
    assert!(front.metric("forebay_front_closes_total", &[("code", "4401")]) >= 1.0);
}

#[tokio::test]
async fn a_connection_ends_with_its_credential() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Keys::new(folder.path());
    let key = keys.add("acme", "pump", Some(unix_now_s() + 2));
    let front = front_with(&keys, |_| {});
    let mut device = bearer(&front, "pump", &key).await.expect("let in");
    device.hello(1, 1).await;
    device.data(1..=5).await;
    device.acked(5).await;
    assert_eq!(device.closed().await, 4401);
    assert_eq!(bearer(&front, "pump", &key).await.err(), Some(401));
    assert_eq!(front.end().len(), 5);
}

#[tokio::test]
async fn a_browser_shows_its_token_in_the_subprotocol_list() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Keys::new(folder.path());
    let key = keys.add("acme", "pump", None);
    let front = front_with(&keys, |_| {});
    for (rest, chosen) in
        [("forebay.v1.json", Some("forebay.v1.json")), ("forebay.v1.raw", Some("forebay.v1.raw"))]
    {
        let offer = format!("{rest}, forebay.token.{key}");
        let opened = request(&front, "pump", &[("sec-websocket-protocol", &offer)]).await;
        assert_eq!(opened.expect("let in").1.as_deref(), chosen);
    }
    let offer = format!("forebay.v1.json, forebay.token.{key}");
    let two = [("sec-websocket-protocol", offer.as_str()), ("authorization", "Bearer a.b")];
    assert_eq!(request(&front, "pump", &two).await.err(), Some(400));
}

#[tokio::test]
async fn pages_connect_only_from_the_origins_that_are_named() {
    let strict = Front::start();
    let open = Front::with(|config| config.listen.origins = vec!["https://a.example".to_owned()]);
    let any = Front::with(|config| config.listen.origins = vec!["*".to_owned()]);
    for (origin, expected) in [
        (None, [None, None, None]),
        (Some("https://a.example"), [Some(403), None, None]),
        (Some("https://a.example.evil"), [Some(403), Some(403), None]),
        (Some("null"), [Some(403), Some(403), None]),
    ] {
        let headers: Vec<_> = origin.iter().map(|origin| ("origin", *origin)).collect();
        for (front, expected) in [&strict, &open, &any].into_iter().zip(expected) {
            let status = request(front, "pump", &headers).await.err();
            assert_eq!(status, expected, "{origin:?}");
        }
    }
}

#[tokio::test]
async fn a_token_in_the_query_is_taken_only_where_that_is_allowed() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Keys::new(folder.path());
    let key = keys.add("acme", "pump", None);
    let path = format!("pump?token={key}");
    let off = front_with(&keys, |_| {});
    assert_eq!(request(&off, &path, &[]).await.err(), Some(401));
    let on = front_with(&keys, |config| config.auth.token_in_query = true);
    assert!(request(&on, &path, &[]).await.is_ok());
}

#[tokio::test]
async fn a_hello_brings_the_credential_where_that_is_allowed() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Keys::new(folder.path());
    let key = keys.add("acme", "pump", None);
    let json = [("sec-websocket-protocol", "forebay.v1.json")];
    let off = front_with(&keys, |_| {});
    assert_eq!(request(&off, "pump", &json).await.err(), Some(401));

    let on = front_with(&keys, |config| {
        config.handshake.first_message = true;
        config.handshake.first_message_max = 2;
    });
    let open = async || request(&on, "pump", &json).await.map(|(device, _)| device);
    let mut device = open().await.expect("waits for its hello");
    let welcome = hello(&mut device, &key).await;
    assert!(matches!(welcome, Event::Frame(_)), "{welcome:?}");
    device.data(1..=3).await;
    device.acked(3).await;
    // Nobody writes before, nor without, nor as somebody else.
    let mut early = open().await.expect("waits");
    early.data([1]).await;
    assert_eq!(early.closed().await, 4400);
    for (path, token, code) in
        [("pump", "fbk00.x", 4401), ("fan", key.as_str(), 4403), ("pump", "", 4401)]
    {
        let (mut device, _) = request(&on, path, &json).await.expect("waits");
        let Event::Close(found, _) = hello(&mut device, token).await else { panic!("{token}") };
        assert_eq!(found, code, "{path}");
    }
    // Raw mode has no hello.
    assert_eq!(request(&on, "pump", &[]).await.err(), Some(401));
    // Those that wait are few.
    until("the earlier ones are gone", || on.running.connections() <= 1).await;
    let _waiting = (open().await.expect("waits"), open().await.expect("waits"));
    assert_eq!(open().await.err(), Some(503));
    let stored = on.end();
    assert_eq!(stored.len(), 3);
    assert!(stored.iter().all(|entry| entry.tenant == "acme"));
}

#[tokio::test]
async fn strangers_are_let_in_only_where_nobody_else_reaches_the_port_or_it_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Keys::new(folder.path());
    let key = keys.add("acme", "pump", None);
    // Loopback without credentials: whoever the path names; a token says nothing.
    let open = Front::start();
    assert!(request(&open, "pump", &[]).await.is_ok());
    assert!(bearer(&open, "fan", &key).await.is_ok());
    // Both kinds side by side, if it is said. A wrong credential is not no credential.
    let both = front_with(&keys, |config| config.listen.allow_anonymous = true);
    assert!(request(&both, "fan", &[]).await.is_ok());
    assert!(bearer(&both, "pump", &key).await.is_ok());
    assert_eq!(bearer(&both, "fan", &key).await.err(), Some(403));
    assert_eq!(bearer(&both, "pump", "fbk0.x").await.err(), Some(401));
    // Beyond loopback nobody starts by accident.
    let config = |change: &dyn Fn(&mut forebay_front::Config)| {
        let mut config = both.config.clone();
        config.listen.allow_anonymous = false;
        config.listen.address = "0.0.0.0:0".parse().expect("an address");
        config.queue.dir = folder.path().join("elsewhere");
        change(&mut config);
        forebay_front::start(config, &prometheus::Registry::new(), &Shutdown::new())
    };
    let refused = config(&|config| config.auth.keys = None).err().expect("refused").to_string();
    assert!(refused.contains("allow_anonymous"), "{refused}");
    let missing = config(&|config| config.auth.keys = Some("none.jsonl".into()));
    let missing = missing.err().expect("refused").to_string();
    assert!(missing.contains("auth.keys") && missing.contains("none.jsonl"), "{missing}");
    config(&|_| {}).expect("with keys it starts").stop();
}
