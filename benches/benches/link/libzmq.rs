//! The same frames over libzmq: DEALER to ROUTER, PUB to SUB.

use forebay_link::{EntrySource, EntryStore};
use forebay_wire::feed::TOPIC;
use zmq::{Context, DONTWAIT, SNDMORE, Socket, SocketType};

use crate::ends::Feed;
use crate::{Cost, cost, peer, raw};

/// Frames taken before they are acked, as the link's receiver does.
const FRAMES_AT_ONCE: usize = 64;
/// Tells the receiver that nothing more comes.
const END: &str = "";

/// One for each end, as in processes of their own: each has its I/O thread.
fn contexts() -> [Context; 2] {
    [Context::new(), Context::new()]
}

fn socket(context: &Context, kind: SocketType) -> Socket {
    let socket = context.socket(kind).expect("socket");
    socket.set_linger(0).expect("linger");
    socket.set_sndhwm(0).expect("send queue");
    socket.set_rcvhwm(0).expect("receive queue");
    socket
}

fn bind(socket: &Socket) -> String {
    socket.bind("tcp://127.0.0.1:*").expect("bind");
    socket.get_last_endpoint().expect("endpoint").expect("text")
}

/// Moves all entries from source to store.
pub(crate) fn uplink(mut source: impl EntrySource, mut store: impl EntryStore) {
    let [front, middle] = contexts();
    let router = socket(&middle, zmq::ROUTER);
    let endpoint = bind(&router);
    let dealer = socket(&front, zmq::DEALER);
    dealer.connect(&endpoint).expect("connect");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            loop {
                let peer = router.recv_bytes(0).expect("peer");
                let frame = router.recv_msg(0).expect("frame");
                if frame.is_empty() {
                    return;
                }
                let (mut queue, mut last, mut local) = peer::take(&mut store, &frame);
                for _ in 1..FRAMES_AT_ONCE {
                    if router.recv_bytes(DONTWAIT).is_err() {
                        break;
                    }
                    let frame = router.recv_msg(0).expect("frame");
                    (queue, last, local) = peer::take(&mut store, &frame);
                }
                peer::wait_durable(&mut store, local);
                router.send(peer, SNDMORE).expect("peer");
                router.send(&peer::ack(queue, last)[..], 0).expect("ack");
            }
        });
        peer::send_all(
            &mut source,
            |frame| dealer.send(Vec::from(frame), 0).expect("send"),
            |wait| {
                let flags = if wait { 0 } else { DONTWAIT };
                dealer.recv_msg(flags).ok().map(|frame| peer::acked(&frame))
            },
        );
        dealer.send(END, 0).expect("send");
    });
}

/// Reads the whole feed.
pub(crate) fn feed(log: &Feed) -> Cost {
    let [middle, storage] = contexts();
    let publisher = socket(&middle, zmq::PUB);
    let endpoint = bind(&publisher);
    let subscriber = socket(&storage, zmq::SUB);
    subscriber.set_subscribe(TOPIC.as_bytes()).expect("subscribe");
    subscriber.connect(&endpoint).expect("connect");
    // Until the subscription has arrived, what is published goes nowhere.
    while subscriber.recv_multipart(DONTWAIT).is_err() {
        publisher.send_multipart([TOPIC.as_bytes(), b"hello"], 0).expect("publish");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    cost(log.entries(), || {
        log.received(0);
        std::thread::scope(|scope| {
            let publishing = scope.spawn(move || {
                raw::publish(log, |frame| {
                    publisher.send(TOPIC, SNDMORE).expect("publish");
                    publisher.send(Vec::from(frame), 0).expect("publish");
                });
                publisher
            });
            let mut received = 0;
            while received < log.entries() {
                subscriber.recv_msg(0).expect("topic");
                let frame = subscriber.recv_msg(0).expect("frame");
                if frame.len() > b"hello".len() {
                    received = raw::read(&frame);
                    log.received(received);
                }
            }
            // Closed only now: a socket that is dropped drops what it has not sent yet.
            drop(publishing.join().expect("published"));
        });
    })
}
