//! The pump in front of the sockets: what a bad or slow peer may cost, and that the good ones
//! beside it notice nothing.
//!
//! A stopped subscriber is played by a connection that handshakes and then reads nothing: what
//! SIGSTOP does to a process, seen from here. Not shown: the memory of a whole process, which
//! needs one of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod memory;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use forebay_link::{
    FeedEvent, FeedPublisher, PublisherConfig, ReceiverConfig, ReplayConfig, ReplayServer,
    SenderConfig, Seq, Subscriber, SubscriberConfig, UplinkReceiver, UplinkSender,
};
use memory::{Memory, eventually, no_failure};

const STOP: Duration = Duration::from_secs(5);

fn greeting() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    (bytes[0], bytes[9], bytes[10]) = (0xff, 0x7f, 3);
    bytes[12..16].copy_from_slice(b"NULL");
    bytes
}

fn ready(socket_type: &[u8]) -> Vec<u8> {
    let mut body = b"\x05READY\x0bSocket-Type".to_vec();
    body.extend_from_slice(&(socket_type.len() as u32).to_be_bytes());
    body.extend_from_slice(socket_type);
    [&[4, body.len() as u8], &body[..]].concat()
}

fn connect(endpoint: &str) -> TcpStream {
    let stream = TcpStream::connect(endpoint.strip_prefix("tcp://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Whether the other end closes, whatever it sends before.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4_096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn a_terabyte_header_closes_its_connection_and_nobody_elses() {
    let (source, store) = (Memory::new(1), Memory::new(2));
    let config = ReceiverConfig::new("receiver", "tcp://127.0.0.1:0");
    let receiver = UplinkReceiver::start(config, store, no_failure()).unwrap();
    let config = SenderConfig::new("sender", receiver.endpoint());
    let sender = UplinkSender::start(config, source.clone(), no_failure()).unwrap();
    let last = source.append(b"before");
    eventually("committed", || source.lock().committed == last);

    let terabyte = [&[2][..], &(1_u64 << 40).to_be_bytes()].concat();
    for before in [greeting(), [greeting(), ready(b"DEALER")].concat()] {
        let mut stranger = connect(receiver.endpoint());
        stranger.write_all(&[before, terabyte.clone()].concat()).unwrap();
        assert!(is_closed(&mut stranger));
    }
    let mut stranger = connect(receiver.endpoint());
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(is_closed(&mut stranger));
    eventually("three violations", || receiver.pump().unwrap().violations.get() == 3);

    let last = source.append(b"after");
    eventually("committed", || source.lock().committed == last);
    assert_eq!(sender.stats().sessions.get(), 1, "the good peer kept its connection");
    sender.stop(STOP).unwrap();
    receiver.stop(STOP).unwrap();
}

#[test]
fn silent_connections_are_few_and_do_not_stay() {
    let (source, store) = (Memory::new(1), Memory::new(2));
    let config = ReceiverConfig::new("receiver", "tcp://127.0.0.1:0");
    let receiver = UplinkReceiver::start(config, store, no_failure()).unwrap();
    let silent: Vec<_> = (0..400).map(|_| connect(receiver.endpoint())).collect();
    let pump = receiver.pump().unwrap();
    eventually("most are refused", || pump.refused.get() >= 144);
    eventually("the others are closed in time", || pump.late.get() >= 200);
    drop(silent);
    let config = SenderConfig::new("sender", receiver.endpoint());
    let sender = UplinkSender::start(config, source.clone(), no_failure()).unwrap();
    let last = source.append(b"entry");
    eventually("committed", || source.lock().committed == last);
    sender.stop(STOP).unwrap();
    receiver.stop(STOP).unwrap();
}

#[test]
fn a_subscriber_that_reads_nothing_is_closed_and_the_others_go_on() {
    let log = Memory::new(9);
    let config = PublisherConfig::new("publisher", "tcp://127.0.0.1:0");
    let publisher = FeedPublisher::start(config, log.clone(), no_failure()).unwrap();
    let config = ReplayConfig::new("replay", "tcp://127.0.0.1:0");
    let replay = ReplayServer::start(config, log.clone(), no_failure()).unwrap();
    let mut config = SubscriberConfig::new("subscriber", publisher.endpoint(), replay.endpoint());
    config.consumer = Some("lake".to_owned());
    let good = Subscriber::start(config).unwrap();
    assert!(matches!(good.next(STOP).unwrap(), Some(FeedEvent::Opened(_))));

    let mut stopped = connect(publisher.endpoint());
    stopped.write_all(&[greeting(), ready(b"SUB"), b"\0\x01\x01".to_vec()].concat()).unwrap();
    eventually("it is subscribed", || publisher.pump().unwrap().open.get() == 2);
    let payload = vec![7; 16 * 1024];
    let (mut position, mut closed) = (Seq::ZERO, false);
    for _ in 0..12_000 {
        let last = log.append(&payload);
        while position < last {
            match good.next(STOP).unwrap() {
                Some(FeedEvent::Batch(batch)) => position = batch.last(),
                other => panic!("{other:?}"),
            }
        }
        // What the log holds is not what is measured: the last one is enough to go on from.
        let mut contents = log.lock();
        let before = contents.entries.len() - 1;
        contents.entries.drain(..before);
        drop(contents);
        closed = publisher.pump().unwrap().behind.get() == 1;
        if closed {
            break;
        }
    }
    assert!(closed, "it was never closed: {:?}", publisher.pump());
    good.stop(STOP).unwrap();
    publisher.stop(STOP).unwrap();
    replay.stop(STOP).unwrap();
}

#[test]
fn a_terabyte_header_behind_large_frames_closes_its_connection() {
    let config = ReceiverConfig::new("receiver", "tcp://127.0.0.1:0");
    let receiver = UplinkReceiver::start(config, Memory::new(2), no_failure()).unwrap();
    let mut peer = connect(receiver.endpoint());
    peer.write_all(&[greeting(), ready(b"DEALER")].concat()).unwrap();
    // Frames whose bodies pass unseen, and a small one between two of them.
    for length in [100_000_u64, 200_000, 10, 64_000, 16_384] {
        peer.write_all(&[&[2][..], &length.to_be_bytes(), &vec![7; length as usize]].concat())
            .unwrap();
    }
    eventually("all have passed", || receiver.stats().malformed.get() == 5);
    assert_eq!(receiver.pump().unwrap().violations.get(), 0);
    peer.write_all(&[&[2][..], &(1_u64 << 40).to_be_bytes(), &[7; 100]].concat()).unwrap();
    assert!(is_closed(&mut peer));
    eventually("it is counted", || receiver.pump().unwrap().violations.get() == 1);
    receiver.stop(STOP).unwrap();
}

#[test]
fn entries_of_every_length_pass_unchanged() {
    let (source, store) = (Memory::new(1), Memory::new(2));
    let config = ReceiverConfig::new("receiver", "tcp://127.0.0.1:0");
    let receiver = UplinkReceiver::start(config, store.clone(), no_failure()).unwrap();
    let config = SenderConfig::new("sender", receiver.endpoint());
    let sender = UplinkSender::start(config, source.clone(), no_failure()).unwrap();
    // Alone in a frame, many to a frame, and everything between.
    let entry = |number: usize| {
        let length = number.pow(3) % 61_000;
        (0..length).map(|at| (at ^ number) as u8).collect::<Vec<u8>>()
    };
    let mut last = Seq::ZERO;
    for number in 1..=1_500 {
        last = source.append(&entry(number));
    }
    eventually("all are committed", || source.lock().committed == last);
    let stored = store.stored();
    assert!(stored.iter().zip(1..).all(|((_, _, payload), number)| *payload == entry(number)));
    assert_eq!(stored.len(), 1_500);
    sender.stop(STOP).unwrap();
    receiver.stop(STOP).unwrap();
}
