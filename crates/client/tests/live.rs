//! A live reader goes on where it was: the test is the server, closes when it likes, and checks what
//! the reader asks for next and what its caller gets.
//!
//! Not shown: that a real server fills the gap it is asked for (storage's own tests).

use std::{future::Future, time::Duration};

use forebay_client::{Backoff, Error, Live, LiveItem, LiveOptions};
use forebay_model::{MessageId, SessionId, Timestamp};
use forebay_wire::{
    QueueId, Seq,
    live::{
        ClientFrame, Event, Missed, Mode, Position, ServerFrame, Snapshot, Subscribed, Subscription,
    },
};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};

const DEADLINE: Duration = Duration::from_secs(10);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

fn options() -> LiveOptions {
    let (first, longest) = (Duration::from_millis(1), Duration::from_millis(20));
    LiveOptions { backoff: Backoff { first, longest }, ..LiveOptions::default() }
}

fn at(counter: u64) -> Position {
    Position { queue: QueueId::new(7), seq: Seq::from_parts(2, counter) }
}

fn event(counter: u64) -> ServerFrame<'static> {
    ServerFrame::Event(Event {
        at: at(counter),
        tenant: "default".into(),
        device: "pump-7".into(),
        name: None,
        device_type: None,
        location: None,
        known: None,
        session: SessionId::new(1).expect("small"),
        seq: MessageId::new(counter).expect("small"),
        received: Timestamp::from_micros(1).expect("in bounds"),
        readings: vec![],
        opaque: None,
    })
}

struct Server {
    listener: TcpListener,
    url: String,
}

struct Peer(WebSocketStream<TcpStream>);

impl Server {
    async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("ws://{}", listener.local_addr().expect("bound"));
        Self { listener, url }
    }

    /// Takes a connection and returns what it subscribes to.
    async fn accept(&self) -> (Peer, Subscription) {
        let (stream, _) = within("a connection", self.listener.accept()).await.expect("accepted");
        let mut socket = within("a handshake", accept_async(stream)).await.expect("done");
        let message = within("subscribe", socket.next()).await.expect("open").expect("a message");
        let text = message.into_text().expect("text");
        let ClientFrame::Subscribe(subscription) = ClientFrame::decode(&text).expect("a frame");
        (Peer(socket), subscription)
    }

    async fn subscribed(&self, from: u64) -> (Peer, Subscription) {
        let (mut peer, subscription) = self.accept().await;
        let subscribed = Subscribed { mode: subscription.mode, from: vec![at(from)] };
        peer.say(ServerFrame::Subscribed(subscribed)).await;
        (peer, subscription)
    }
}

impl Peer {
    async fn say(&mut self, frame: ServerFrame<'_>) {
        let mut text = Vec::new();
        frame.encode(&mut text);
        let message = Message::text(String::from_utf8(text).expect("JSON is UTF-8"));
        within("room to say something", self.0.send(message)).await.expect("open");
    }
}

async fn open(server: &Server, subscription: Subscription, from: u64) -> (Live, Peer) {
    let live = Live::connect(&server.url, subscription, options());
    let (live, (peer, _)) = tokio::join!(within("connect", live), server.subscribed(from));
    (live.expect("subscribed"), peer)
}

async fn next(live: &mut Live) -> LiveItem {
    within("an item", live.next()).await.expect("open").expect("an item")
}

async fn next_event(live: &mut Live) -> u64 {
    match next(live).await {
        LiveItem::Event(event) => event.at.seq.counter(),
        other => panic!("expected an event: {other:?}"),
    }
}

#[tokio::test]
async fn a_lost_feed_goes_on_behind_the_last_event() {
    let server = Server::bind().await;
    let (mut live, mut peer) = open(&server, Subscription::default(), 3).await;
    peer.say(event(4)).await;
    peer.say(event(5)).await;
    assert_eq!((next_event(&mut live).await, next_event(&mut live).await), (4, 5));
    drop(peer);
    let (mut peer, again) = server.subscribed(5).await;
    assert_eq!((again.from, again.snapshot), (vec![at(5)], false));
    let missed = Missed { count: Some(3), from: Some(at(6)), to: Some(at(8)) };
    peer.say(ServerFrame::Missed(missed)).await;
    assert_eq!(next(&mut live).await, LiveItem::Missed(missed));
    drop(peer);
    let (mut peer, again) = server.subscribed(8).await;
    assert_eq!(again.from, [at(8)], "what was missed is not asked for again");
    peer.say(event(9)).await;
    assert_eq!(next_event(&mut live).await, 9);
}

#[tokio::test]
async fn a_feed_lost_before_its_first_event_goes_on_where_it_began() {
    let server = Server::bind().await;
    let (_live, peer) = open(&server, Subscription::default(), 3).await;
    drop(peer);
    let (_peer, again) = server.subscribed(3).await;
    assert_eq!(again.from, [at(3)]);
}

#[tokio::test]
async fn a_snapshot_is_asked_for_until_it_was_complete() {
    let server = Server::bind().await;
    let subscription = Subscription { snapshot: true, ..Subscription::default() };
    let (mut live, mut peer) = open(&server, subscription, 3).await;
    let part = |done| Snapshot { values: vec![], at: vec![at(3)], done };
    peer.say(ServerFrame::Snapshot(part(false))).await;
    assert_eq!(next(&mut live).await, LiveItem::Snapshot(part(false)));
    drop(peer);
    let (mut peer, again) = server.subscribed(3).await;
    assert_eq!((again.snapshot, again.from), (true, vec![]));
    peer.say(ServerFrame::Snapshot(part(true))).await;
    assert_eq!(next(&mut live).await, LiveItem::Snapshot(part(true)));
    drop(peer);
    let (_peer, again) = server.subscribed(3).await;
    assert_eq!((again.snapshot, again.from), (false, vec![at(3)]));
}

#[tokio::test]
async fn a_conflated_feed_comes_back_with_the_last_values() {
    let server = Server::bind().await;
    let subscription = Subscription { mode: Mode::Latest, ..Subscription::default() };
    let (mut live, mut peer) = open(&server, subscription, 3).await;
    peer.say(event(4)).await;
    assert_eq!(next_event(&mut live).await, 4);
    drop(peer);
    let (_peer, again) = server.subscribed(9).await;
    assert_eq!((again.mode, again.snapshot, again.from), (Mode::Latest, true, vec![]));
}

#[tokio::test]
async fn a_bad_subscription_is_told_and_not_tried_again() {
    let server = Server::bind().await;
    let live = Live::connect(&server.url, Subscription::default(), options());
    let refusal = async {
        let (mut peer, _) = server.accept().await;
        // Busy first: that is tried again.
        let frame = ServerFrame::Error { code: "unavailable".into(), reason: "later".into() };
        peer.say(frame).await;
        let (mut peer, _) = server.accept().await;
        let frame = ServerFrame::Error { code: "bad_subscription".into(), reason: "no".into() };
        peer.say(frame).await;
    };
    let (live, ()) = tokio::join!(within("connect", live), refusal);
    let error = live.expect_err("refused");
    assert!(matches!(&error, Error::Subscription { code, .. } if code == "bad_subscription"));
}

#[tokio::test]
async fn an_absent_server_is_told_after_the_time_given() {
    let server = Server::bind().await;
    let options = LiveOptions { connect_time_max: Duration::from_millis(200), ..options() };
    let live = Live::connect(&server.url, Subscription::default(), options);
    let error = within("connect", live).await.expect_err("nobody there");
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}
