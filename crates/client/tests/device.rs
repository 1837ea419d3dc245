//! A device keeps every message until a front has acked it, whatever the front and the network do
//! in between. The front is a script in the test, speaking with the frames of `forebay-wire` over
//! loopback; every wait has a deadline.
//!
//! Not shown: a real front (the pipeline's tests).

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use forebay_client::{Backoff, Device, Error, Observer, Options, Rejection, SpoolOptions};
use forebay_model::{Body, MessageId, Reading, SessionId, Value};
use forebay_wire::device::{Format, NackCode, ServerFrame, Token};

mod server;

use server::{Server, id, within};

fn body(number: i64) -> Body<'static> {
    let value = Value::Int(number);
    Body::Readings(vec![Reading { key: "n".into(), value, unit: None, time: None }])
}

fn options() -> Options {
    let (first, longest) = (Duration::from_millis(1), Duration::from_millis(20));
    Options { backoff: Backoff { first, longest }, ..Options::default() }
}

/// Connects a device while the server welcomes it with these.
async fn open(server: &Server, options: Options, credit: u32) -> (Device, server::Peer) {
    let next = options.next_seq.get();
    let device = Device::connect(&server.url, "pump-7", options);
    let (device, peer) =
        tokio::join!(within("connect", device), server.welcome(next, None, credit));
    (device.expect("connected"), peer)
}

async fn send(device: &Device, numbers: std::ops::RangeInclusive<i64>) {
    for number in numbers {
        within("send", device.send(body(number))).await.expect("taken");
    }
}

#[tokio::test]
async fn messages_are_numbered_and_released_by_cumulative_acks() {
    for format in Format::ALL {
        let server = Server::bind().await;
        let token = Some(Token::new("k1.secret"));
        let (device, mut peer) = open(&server, Options { format, token, ..options() }, 64).await;
        assert_eq!((peer.path.as_str(), peer.format), ("/v1/ingest/pump-7", format));
        assert_eq!(peer.bearer.as_deref(), Some("Bearer k1.secret"));
        send(&device, 1..=3).await;
        for number in 1..=3 {
            assert_eq!(peer.data().await, (number, format!("Int({number})")));
        }
        assert_eq!((device.acked(), device.next_seq()), (0, 4));
        peer.ack(2).await;
        peer.ack(3).await;
        within("flush", device.flush()).await.expect("all acked");
        assert_eq!(device.acked(), 3);
        let statistics = device.statistics();
        assert_eq!((statistics.sent, statistics.resent, statistics.acked), (3, 0, 3));
        assert_eq!(within("close", device.close()).await, 0);
    }
}

#[tokio::test]
async fn unacked_messages_are_sent_again_after_a_lost_connection() {
    let server = Server::bind().await;
    let (device, mut peer) = open(&server, options(), 64).await;
    send(&device, 1..=5).await;
    assert_eq!(peer.numbers(5).await, [1, 2, 3, 4, 5]);
    peer.ack(2).await;
    within("ack 2", async {
        while device.acked() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(peer);
    // While it is away messages are taken all the same.
    send(&device, 6..=6).await;
    // The front had acked 3, but that ack was lost on the way.
    let mut peer = server.welcome(3, Some(3), 64).await;
    assert_eq!(peer.numbers(3).await, [4, 5, 6]);
    peer.ack(6).await;
    within("flush", device.flush()).await.expect("all acked");
    let statistics = device.statistics();
    assert_eq!((statistics.connections, statistics.acked), (2, 6));
    // 6 too, if it was put on the lost connection before that was noticed.
    assert!((2..=3).contains(&statistics.resent), "{statistics:?}");
}

#[tokio::test]
async fn a_nack_sends_again_from_there_after_the_wait() {
    let server = Server::bind().await;
    let (device, mut peer) = open(&server, options(), 64).await;
    send(&device, 1..=4).await;
    assert_eq!(peer.numbers(4).await, [1, 2, 3, 4]);
    peer.ack(1).await;
    let asked = Instant::now();
    peer.nack(2, NackCode::Full, 200, None).await;
    assert_eq!(peer.numbers(3).await, [2, 3, 4]);
    assert!(asked.elapsed() >= Duration::from_millis(195), "waited {:?}", asked.elapsed());
    peer.ack(4).await;
    within("flush", device.flush()).await.expect("all acked");
    assert_eq!((device.statistics().nacked, device.statistics().resent), (1, 3));
}

#[tokio::test]
async fn a_gap_goes_back_to_the_expected_number_once() {
    let server = Server::bind().await;
    let (device, mut peer) = open(&server, options(), 64).await;
    send(&device, 1..=5).await;
    assert_eq!(peer.numbers(5).await, [1, 2, 3, 4, 5]);
    for late in [3, 4, 5] {
        peer.nack(late, NackCode::Gap, 0, Some(2)).await;
    }
    assert_eq!(peer.numbers(4).await, [2, 3, 4, 5]);
    peer.silence().await;
    peer.ack(5).await;
    within("flush", device.flush()).await.expect("all acked");
}

/// Counts what it hears.
#[derive(Default)]
struct Listener {
    acked: Mutex<Vec<u64>>,
    rejected: AtomicUsize,
    connected: AtomicUsize,
    disconnected: AtomicUsize,
}

impl Observer for Listener {
    fn acked(&self, seq: MessageId, latency: Duration) {
        assert!(latency < Duration::from_secs(60));
        self.acked.lock().expect("not poisoned").push(seq.get());
    }

    fn rejected(&self, _: &Rejection) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    fn connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
    }

    fn disconnected(&self, _: &forebay_client::ConnectionError) {
        self.disconnected.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_rejected_message_is_reported_once_and_the_ack_passes_it() {
    let server = Server::bind().await;
    let listener = Arc::new(Listener::default());
    let observer: Arc<dyn Observer> = listener.clone();
    let (device, mut peer) =
        open(&server, Options { observer: Some(observer), ..options() }, 64).await;
    send(&device, 1..=3).await;
    assert_eq!(peer.numbers(3).await, [1, 2, 3]);
    let reject = || ServerFrame::Reject {
        seq: id(2),
        code: "not_finite".into(),
        reason: "value is not a finite number".into(),
    };
    peer.say(reject()).await;
    drop(peer);
    // It is not acked yet, so it comes again, is rejected again, and stays in its place.
    let mut peer = server.welcome(1, None, 64).await;
    assert_eq!(peer.numbers(3).await, [1, 2, 3]);
    peer.say(reject()).await;
    peer.ack(3).await;
    within("flush", device.flush()).await.expect("all done");
    let rejections = device.rejections();
    assert_eq!(rejections.len(), 1, "{rejections:?}");
    assert_eq!((rejections[0].seq.get(), rejections[0].code.as_str()), (2, "not_finite"));
    assert_eq!(device.rejections(), []);
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    assert_eq!(count(&listener.rejected), 1);
    assert_eq!((count(&listener.connected), count(&listener.disconnected)), (2, 1));
    assert_eq!(*listener.acked.lock().expect("not poisoned"), [1, 2, 3]);
}

#[tokio::test]
async fn credit_and_window_hold_the_sender_back() {
    let server = Server::bind().await;
    let (device, mut peer) = open(&server, Options { window: 4, ..options() }, 2).await;
    send(&device, 1..=4).await;
    assert_eq!(peer.numbers(2).await, [1, 2]);
    peer.silence().await;
    let fifth = tokio::time::timeout(Duration::from_millis(50), device.send(body(5))).await;
    assert!(fifth.is_err(), "the window of 4 was full: {fifth:?}");
    peer.say(ServerFrame::Ack { ack: id(1), credit: Some(3) }).await;
    assert_eq!(peer.numbers(2).await, [3, 4]);
    send(&device, 5..=5).await;
    peer.ack(4).await;
    assert_eq!(peer.numbers(1).await, [5]);
    peer.ack(5).await;
    within("flush", device.flush()).await.expect("all acked");
}

#[tokio::test]
async fn close_codes_say_whether_and_when_to_come_back() {
    let server = Server::bind().await;
    let (device, mut peer) = open(&server, options(), 64).await;
    send(&device, 1..=1).await;
    assert_eq!(peer.numbers(1).await, [1]);
    let closed = Instant::now();
    peer.close(1012, "retry_ms=300").await;
    let mut peer = server.welcome(1, None, 64).await;
    assert!(closed.elapsed() >= Duration::from_millis(295), "came after {:?}", closed.elapsed());
    assert_eq!(peer.numbers(1).await, [1]);
    peer.close(4409, "replaced").await;
    let error = within("the end", device.flush()).await.expect_err("not acked");
    assert!(matches!(error, Error::Refused(_)) && error.to_string().contains("4409"), "{error}");
    assert!(matches!(device.send(body(2)).await, Err(Error::Refused(_))));
    assert_eq!(within("close", device.close()).await, 1);
}

#[tokio::test]
async fn a_counter_that_was_set_back_is_refused_and_not_taken_for_duplicates() {
    let server = Server::bind().await;
    let session = SessionId::new(42).ok();
    let options = Options { session, next_seq: id(5), ..options() };
    let device = Device::connect(&server.url, "pump-7", options);
    let (device, _peer) = tokio::join!(within("connect", device), server.welcome(5, Some(9), 64));
    let error = device.expect_err("refused");
    assert!(matches!(error, Error::SessionReused { acked: 9, next_seq: 5 }), "{error}");
}

#[tokio::test]
async fn messages_out_of_bounds_get_no_number() {
    let server = Server::bind().await;
    let (device, mut peer) = open(&server, options(), 64).await;
    let nan = Reading { key: "n".into(), value: Value::Float(f64::NAN), unit: None, time: None };
    let error = device.send(Body::Readings(vec![nan])).await.expect_err("refused");
    assert!(matches!(error, Error::Invalid(_)), "{error}");
    let long = Body::Opaque { content_type: "a/b".into(), payload: vec![0; 2000].into() };
    let error = device.send(long).await.expect_err("refused");
    assert!(matches!(error, Error::TooLarge { bytes_max: 1000, .. }), "{error}");
    send(&device, 1..=1).await;
    assert_eq!(peer.numbers(1).await, [1]);
}

#[tokio::test]
async fn an_ack_of_what_was_never_sent_is_not_believed() {
    let server = Server::bind().await;
    let (device, mut peer) = open(&server, options(), 64).await;
    send(&device, 1..=2).await;
    assert_eq!(peer.numbers(2).await, [1, 2]);
    peer.ack(7).await;
    let mut peer = server.welcome(1, None, 64).await;
    assert_eq!(peer.numbers(2).await, [1, 2]);
    assert_eq!(device.acked(), 0);
}

#[tokio::test]
async fn a_silent_front_is_pinged_and_then_left() {
    let server = Server::bind().await;
    let device = Device::connect(&server.url, "pump-7", options());
    let hello = async {
        let mut peer = server.accept().await;
        peer.hello().await;
        peer.welcome(None, 64, 1).await;
        peer
    };
    let (device, mut peer) = tokio::join!(within("connect", device), hello);
    let device = device.expect("connected");
    // Reading the ping answers it: the connection lasts.
    assert!(peer.message().await.is_ping());
    assert!(peer.message().await.is_ping());
    // Not reading any more does not answer.
    send(&device, 1..=1).await;
    let mut again = server.welcome(1, None, 64).await;
    assert_eq!(again.numbers(1).await, [1]);
}

#[tokio::test]
async fn an_absent_front_is_told_after_the_time_given() {
    let server = Server::bind().await;
    let connect_time_max = Duration::from_millis(200);
    // Takes the connection and says nothing.
    let connecting =
        Device::connect(&server.url, "pump-7", Options { connect_time_max, ..options() });
    let error = within("connect", connecting).await.expect_err("nobody there");
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    for (url, device) in [("http://x", "pump-7"), ("ws://127.0.0.1:1", "pump/7")] {
        let error = within("connect", Device::connect(url, device, options())).await;
        assert!(matches!(error, Err(Error::Refused(_) | Error::Invalid(_))), "{error:?}");
    }
}

#[tokio::test]
async fn a_burst_through_a_small_window_arrives_whole_and_in_order() {
    const COUNT: i64 = 20_000;
    let server = Server::bind().await;
    let (device, mut peer) = open(&server, options(), 64).await;
    let front = tokio::spawn(async move {
        for number in 1..=COUNT as u64 {
            assert_eq!(peer.data().await.0, number);
            if number.is_multiple_of(16) {
                peer.ack(number).await;
            }
        }
        peer
    });
    send(&device, 1..=COUNT).await;
    within("flush", device.flush()).await.expect("all acked");
    within("the front", front).await.expect("in order");
    assert_eq!(device.statistics().resent, 0);
}

fn spooled(dir: &std::path::Path) -> Options {
    let queue = forebay_queue::Options {
        capacity_bytes: 1 << 20,
        // The tests' own directory may be on tmpfs or overlay.
        any_filesystem: true,
        ..forebay_queue::Options::default()
    };
    Options { spool: Some(SpoolOptions { dir: dir.to_owned(), queue }), ..options() }
}

#[tokio::test]
async fn a_spool_keeps_messages_session_and_counter_over_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::bind().await;
    let (device, mut peer) = open(&server, spooled(dir.path()), 64).await;
    let session = device.session();
    send(&device, 1..=5).await;
    assert_eq!(peer.numbers(5).await, [1, 2, 3, 4, 5]);
    peer.ack(3).await;
    within("ack 3", async {
        while device.acked() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(within("close", device.close()).await, 2);
    drop(peer);

    // Started without a front: messages are taken.
    let device = within("start", Device::start(&server.url, "pump-7", spooled(dir.path())));
    let device = device.await.expect("opened");
    assert_eq!((device.session(), device.next_seq()), (session, 6));
    send(&device, 6..=6).await;
    let mut peer = server.accept().await;
    let (again, next) = peer.hello().await;
    assert_eq!(again, session);
    assert!(next <= 4, "next_seq {next}, but 4 was not acked");
    peer.welcome(Some(3), 64, 30).await;
    assert_eq!(peer.numbers(3).await, [4, 5, 6]);
    peer.ack(6).await;
    within("flush", device.flush()).await.expect("all acked");
    assert_eq!(within("close", device.close()).await, 0);

    // Everything is acked, and still the counter is known.
    let device = within("start", Device::start(&server.url, "pump-7", spooled(dir.path())));
    let device = device.await.expect("opened");
    assert_eq!((device.session(), device.next_seq()), (session, 7));
}

#[tokio::test]
async fn a_full_spool_waits_for_acks_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::bind().await;
    let mut options = spooled(dir.path());
    if let Some(spool) = &mut options.spool {
        spool.queue.capacity_bytes = 64 << 10;
        spool.queue.entry_bytes_max = 1 << 10;
    }
    let (device, mut peer) = open(&server, options, 64).await;
    let front = tokio::spawn(async move {
        for number in 1..=2000 {
            assert_eq!(peer.data().await.0, number);
            if number.is_multiple_of(8) {
                peer.ack(number).await;
            }
        }
        peer
    });
    for number in 1..=2000 {
        within("send", device.send(body(number))).await.expect("taken");
    }
    within("flush", device.flush()).await.expect("all acked");
    within("the front", front).await.expect("in order");
}
